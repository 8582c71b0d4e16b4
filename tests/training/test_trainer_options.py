"""Options of trainers: compiled networks, validation within epochs, recomputed activations, range test, profiler."""

import copy

import pytest
import torch
from torch import nn

from whirl.callbacks import EMA, SWA, Profiler
from whirl.engine.callbacks import Callback
from whirl.engine.checkpoint import load_weights
from whirl.training import CNNTrainer, DistillationTrainer, Trainer, find_learning_rate

N = 40


def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % 3
    signals = torch.randn(N, 1, 12, generator=generator) + labels.view(-1, 1, 1)
    return torch.utils.data.TensorDataset(signals, labels)


def network():
    torch.manual_seed(1)
    block = nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.3))
    return nn.Sequential(block, nn.Flatten(), nn.Linear(40, 3))


def trainer(model=None, *, kind=Trainer, lr=0.01, **options):
    model = network() if model is None else model
    torch.manual_seed(2)
    loader = torch.utils.data.DataLoader(data(), 8, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return kind(model, loader, torch.utils.data.DataLoader(data(), 16), optimizer, device="cpu", **options)


def fitted(epochs, **options):
    found = trainer(**options)
    torch.manual_seed(3)
    found.fit(epochs)
    return found


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(value.equal(b[name]) for name, value in a.items())


# -- compile ---------------------------------------------------------------------------------------------------


class WithSpeed(nn.Module):
    """Learns from the metadata alone."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 2)

    def forward(self, signals, metadata=None):
        return self.linear(metadata["rpm"][:, None]) + 0 * signals.mean()


EAGER = {"backend": "eager"}


def test_compiled_network_trains_saves_and_exports_like_the_plain_one(tmp_path):
    plain, compiled = fitted(2), fitted(2, compile=EAGER, checkpoint_dir=tmp_path)
    assert plain.history["train_loss"] == compiled.history["train_loss"]
    assert same(weights(plain.model), weights(compiled.model))
    load_weights(other := network(), tmp_path / "last.pt")
    assert same(weights(other), weights(plain.model))
    trainer().load_checkpoint(tmp_path / "last.pt")
    exported = torch.export.export(compiled.model.eval(), (torch.zeros(2, 1, 12),))
    assert torch.allclose(exported.module()(torch.ones(2, 1, 12)), plain.model.eval()(torch.ones(2, 1, 12)))
    assert type(compiled.model) is nn.Sequential


def test_compiled_network_gets_its_metadata():
    labels = torch.arange(16) % 2
    batch = (torch.zeros(16, 1, 4), labels, {"rpm": labels * 4.0 - 2})
    model = WithSpeed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    compiled = Trainer(model, [batch], [batch], optimizer, device="cpu", compile=EAGER)
    assert compiled.fit(10)["val_accuracy"][-1] == 1.0


def test_compiled_network_names_the_module_of_a_nan():
    signals = torch.full((4, 1, 12), torch.nan)
    compiled = Trainer(network(), [(signals, torch.arange(4) % 3)], device="cpu", compile=EAGER)
    with pytest.raises(Exception, match=r"first non-finite output in module '0.0'"):
        compiled.fit(1)


def test_replaced_network_is_compiled_too():
    changed = trainer(compile=EAGER)
    changed.model = network()
    assert changed.model._compiled_call_impl is not None
    assert copy.deepcopy(changed.model)._compiled_call_impl is None


def test_rejects_compiling_a_network_with_feature_hints():
    with pytest.raises(ValueError, match="compile ignores the hooks"):
        DistillationTrainer(network(), network(), None, None, feature_hints={"0": "0"}, compile=True)


# -- deterministic ---------------------------------------------------------------------------------------------


class Watch(Callback):
    def on_batch_end(self, batch, logs=None):
        self.seen = torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("deterministic", [False, True])
def test_deterministic_algorithms_are_used_in_training_only(deterministic):
    watch = Watch()
    trainer(deterministic=deterministic, callbacks=[watch]).fit(1)
    assert watch.seen is deterministic
    assert not torch.are_deterministic_algorithms_enabled()


# -- validation within epochs ----------------------------------------------------------------------------------


def test_validates_after_every_so_many_steps():
    often = fitted(2, validate_every=2)
    assert often.state.step_history["step"] == [2, 4, 6, 8, 10]
    assert len(often.history["val_loss"]) == 2
    assert often.state.step_history["val_loss"][-1] == often.history["val_loss"][-1]  # step 10 ends the second epoch


def test_best_weights_may_be_those_within_an_epoch(tmp_path):
    found = trainer(lr=3.0, validate_every=1, checkpoint_dir=tmp_path)
    found.fit(2)
    losses = found.state.step_history["val_loss"]
    assert min(losses) < min(found.history["val_loss"])
    best = trainer()
    load_weights(best.model, tmp_path / "best.pt")
    assert best.validate_epoch()["loss"] == pytest.approx(min(losses))


class Interrupt(Callback):
    def on_batch_end(self, batch, logs=None):
        if (self.trainer.state.epoch, batch) == (1, self.batch):
            self.trainer.state.interrupted = True


@pytest.mark.parametrize("batch", [0, 1, 4])
def test_validation_within_epochs_resumes_to_the_same_bits(tmp_path, batch):
    def new(**options):
        averages = [EMA(0.9), SWA(1)]
        return trainer(validate_every=2, gradient_accumulation_steps=2, callbacks=[*averages, interrupt], **options)

    interrupt = Interrupt()
    interrupt.batch = None
    expected = new()
    expected.fit(3)
    interrupt.batch = batch
    new(checkpoint_dir=tmp_path).fit(3)
    interrupt.batch = None
    resumed = new(checkpoint_dir=tmp_path)
    resumed.fit(3, tmp_path / "last.pt")
    assert same(weights(expected.model), weights(resumed.model))
    assert expected.state.step_history == resumed.state.step_history
    assert expected.callbacks.callbacks[1].n_averaged == resumed.callbacks.callbacks[1].n_averaged == 2


def test_validation_within_epochs_needs_validation_data():
    with pytest.raises(ValueError, match="validate_every is 2, but val_loader is None"):
        Trainer(network(), [data()[:8]], device="cpu", validate_every=2).fit(1)


# -- recomputed activations ------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [["0"], ["0.0", "0.1", "2"]])
def test_recomputed_activations_change_no_bit(parts):
    plain, recomputed = fitted(2), fitted(2, recompute=parts)
    assert plain.history["train_loss"] == recomputed.history["train_loss"]
    assert same(weights(plain.model), weights(recomputed.model))
    assert "forward" not in vars(recomputed.model[0])


def test_recomputed_activations_are_not_stored():
    def n_stored(parts):
        model, sizes = network(), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            Trainer(model, [data()[:8]], device="cpu", recompute=parts).train_epoch()
        return sum(sizes)

    assert n_stored(["0"]) < 0.7 * n_stored([])


def test_rejects_an_unknown_module_to_recompute():
    with pytest.raises(ValueError, match="unknown module 'layer'"):
        trainer(recompute=["layer"]).fit(1)


# -- range test and profiler -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Trainer, CNNTrainer])
def test_range_test_leaves_the_training_as_it_was(kind):
    def train(test_first):
        found = trainer(kind=kind)
        found.lr_scheduler = torch.optim.lr_scheduler.StepLR(found.optimizer, 1)
        result = find_learning_rate(found, n_steps=30, high=10) if test_first else None
        assert same(weights(found.model), weights(network()))
        found.fit(2)
        return found, result

    (plain, _), (tested, result) = train(False), train(True)
    assert tested.history["train_loss"] == plain.history["train_loss"]
    assert tested.history["lr"] == plain.history["lr"]
    assert same(weights(tested.model), weights(plain.model))
    assert 1e-4 < result.suggestion < 1
    assert len(result.learning_rates) == len(result.losses) <= 30


def test_range_test_stops_when_the_loss_diverges():
    result = find_learning_rate(trainer(), low=1e-4, high=1e8, n_steps=60)
    assert len(result.losses) < 60
    assert result.plot().get_xscale() == "log"


def test_range_test_refuses_data_that_it_cannot_repeat():
    found = trainer()
    found.train_loader = iter(list(found.train_loader)[:2])
    with pytest.raises(ValueError, match="iterator that can be used only once"):
        find_learning_rate(found, n_steps=30)
    assert same(weights(found.model), weights(network()))


def test_range_test_refuses_a_first_loss_that_is_not_finite():
    found = trainer(on_nonfinite=None)
    found.train_loader = [(torch.full_like(signals, torch.nan), *rest) for signals, *rest in found.train_loader]
    with pytest.raises(ValueError, match="loss of the first step is not finite"):
        find_learning_rate(found, n_steps=5)


def test_seeds_set_after_a_range_test_take_effect():
    def first_loss(seed):
        found = trainer()
        find_learning_rate(found, n_steps=5)
        torch.manual_seed(seed)
        return found.fit(1)["train_loss"]

    assert first_loss(0) == first_loss(0) != first_loss(1)


def test_profiler_writes_a_trace_of_the_chosen_batches(tmp_path):
    trainer(callbacks=[Profiler(tmp_path / "profile", skip=1, batches=2)]).fit(1)
    assert "aten::" in (tmp_path / "profile" / "operators.txt").read_text()
    assert (tmp_path / "profile" / "trace.json").stat().st_size > 1000
