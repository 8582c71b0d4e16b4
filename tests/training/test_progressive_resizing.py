"""Progressive resizing: the resized data set, training in stages against a plain loop, resume."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from whirl.data.loaders import BatchSampler
from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset
from whirl.dsp.resizing import resize
from whirl.engine.callbacks import Callback
from whirl.models.registry import create_model
from whirl.training import progressive_resizing
from whirl.training.progressive_resizing import (
    ProgressiveResizingTrainer,
    ResizableSignalDataset,
    check_schedule,
    parse_schedule,
)
from whirl.training.trainer import Trainer

N_SIGNALS, FULL = 50, 64


def small_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv1d(1, 8, 9, stride=2), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.AdaptiveAvgPool1d(4),
        nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip


def data(n=N_SIGNALS, seed=1):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 3, (n,), generator=generator)
    return TensorDataset(torch.randn(n, 1, FULL, generator=generator) * (1 + targets[:, None, None]), targets)


def windows(seconds=1.0, window=256):
    rng = np.random.default_rng(0)
    recordings = [
        Recording(rng.normal(size=(2, int(1000 * seconds))) * (1 + k % 3), 1000.0, label=str(k % 3), rpm=1500)
        for k in range(6)
    ]
    return WindowDataset(recordings, ["0", "1", "2"], window=window, hop=window // 2)


class OneByOne(Dataset):
    """A data set of a user: NumPy samples, one at a time, in one of the accepted forms."""

    def __init__(self, form="tuple", lengths=(FULL,)):
        self.form, self.lengths = form, lengths
        self.signals, self.targets = (tensor.numpy() for tensor in data().tensors)

    def __len__(self):
        return len(self.signals)

    def __getitem__(self, index):
        if index >= len(self):
            raise IndexError(index)
        signal, target = self.signals[index][:, : self.lengths[index % len(self.lengths)]], int(self.targets[index])
        if self.form == "mapping":
            return {"signal": signal, "label": target, "rpm": 1500.0}
        return (signal, target) if self.form == "tuple" else (signal, target, {"rpm": 1500.0})


def adamw(model, lr=0.01):
    return torch.optim.AdamW(model.parameters(), lr=lr)


def equal_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def staged(model, schedule=((24, 2), (FULL, 2)), **options):
    return ProgressiveResizingTrainer(model, adamw(model), nn.CrossEntropyLoss(), schedule=schedule, **options)


# -- the data set ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [False, True])
def test_windows_are_resized_in_batches_and_keep_their_metadata(cached):
    base, indices = windows(), torch.tensor([5, 0, 17])
    resized = ResizableSignalDataset(base, 100)
    if cached:
        resized.cache()
    signals, targets, metadata = resized[indices]
    expected_signals, expected_targets, expected_metadata = base[indices]
    torch.testing.assert_close(signals, resize(expected_signals, 100), atol=1e-6, rtol=1e-5)
    assert torch.equal(targets, expected_targets)
    assert all(torch.equal(metadata[name], expected_metadata[name]) for name in expected_metadata)
    assert resized.sampling_rate_hz == 1000.0 * 100 / 256
    assert len(resized) == len(base)
    torch.testing.assert_close(resized[5][0], signals[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(resized[[5, 0]][0], signals[:2])


@pytest.mark.parametrize("form", ["tuple", "triple", "mapping"])
def test_other_data_sets_keep_their_form(form):
    base = OneByOne(form)
    resized = ResizableSignalDataset(base, 48)
    batches = [resized[torch.arange(8)], next(iter(DataLoader(resized, batch_size=8)))]
    expected = resize(torch.from_numpy(base.signals[:8]), 48)
    for batch in batches:
        signals, targets = (batch["signal"], batch["label"]) if form == "mapping" else batch[:2]
        torch.testing.assert_close(signals, expected)
        assert targets.tolist() == base.targets[:8].tolist()
    assert type(resized[0]) is type(base[0])
    assert resized.sampling_rate_hz is None
    assert sum(1 for _ in resized) == len(base)


def test_signals_of_different_lengths():
    signals, _ = ResizableSignalDataset(OneByOne(lengths=(64, 40)), 32)[[0, 1]]
    torch.testing.assert_close(signals[1], resize(torch.from_numpy(OneByOne().signals[1][:, :40]), 32))


def test_truncate_and_pad():
    base = windows()
    full, _, _ = base[[3]]
    head = ResizableSignalDataset(base, 100, "truncate")
    assert torch.equal(head[[3]][0], full[..., :100])
    longer = ResizableSignalDataset(base, 300, "pad")
    assert torch.equal(longer[[3]][0][..., :256], full)
    assert not longer[3][0][..., 256:].any()
    assert head.sampling_rate_hz == longer.sampling_rate_hz == 1000.0
    assert torch.equal(ResizableSignalDataset(base, 256, "truncate")[[3]][0], full)


@pytest.mark.parametrize(("method", "length"), [("pad", 200), ("truncate", 300)])
@pytest.mark.parametrize("index", [0, [0, 1]])
def test_rejects_signals_of_unsuitable_length(method, length, index):
    resized = ResizableSignalDataset(windows(), length, method)
    with pytest.raises(ValueError, match=f"cannot {method} signals of 256 samples to {length}"):
        resized[index]


def test_rejects_invalid_lengths_and_methods():
    with pytest.raises(ValueError, match="target_length is 0"):
        ResizableSignalDataset(data(), 0)
    with pytest.raises(ValueError, match="did you mean 'truncate'"):
        ResizableSignalDataset(data(), 8, "truncated")
    with pytest.raises(TypeError, match="base_dataset is a OneByOne"):
        ResizableSignalDataset(OneByOne(), 8).cache()


def test_new_length_clears_the_cache():
    resized = ResizableSignalDataset(data(), 32)
    resized.cache()
    resized.target_length = 16
    assert resized[[0, 1]][0].shape == (2, 1, 16)


# -- training --------------------------------------------------------------------------------------------------------


class Batches:
    """Batches of any data set, sample by sample, in the order of a `BatchSampler`."""

    def __init__(self, dataset, shuffle):
        self.dataset, self.sampler = dataset, BatchSampler(len(dataset), 16, shuffle, seed=5)

    def __iter__(self):
        for indices in self.sampler:
            yield torch.utils.data.default_collate([self.dataset[index] for index in indices.tolist()])


@pytest.mark.parametrize("base", [data, windows, OneByOne], ids=["tensors", "windows", "one by one"])
@pytest.mark.parametrize("method", ["interpolate", "truncate", "pad"])
def test_one_stage_at_full_length_equals_trainer_exactly(base, method):
    dataset = base()
    signals = torch.as_tensor(dataset[0][0])

    def network():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv1d(len(signals), 4, 5), nn.BatchNorm1d(4), nn.Dropout(0.1), nn.AdaptiveAvgPool1d(3), nn.Flatten(),
            nn.Linear(12, 3),
        )  # fmt: skip

    plain, ours = network(), network()
    torch.manual_seed(7)
    loaders = Batches(dataset, True), Batches(dataset, False)
    expected = Trainer(plain, *loaders, adamw(plain), device="cpu").fit(3)
    torch.manual_seed(7)
    trainer = staged(ours, [(signals.shape[-1], 3)], resize_method=method)
    history = trainer.train_progressive(dataset, dataset, batch_size=16, seed=5)
    assert equal_weights(plain, ours)
    assert all(history[name] == expected[name] for name in expected if name != "epoch_time_s")


@pytest.mark.parametrize("method", ["interpolate", "truncate"])
def test_two_stages_equal_a_plain_loop_exactly(method):
    schedule, (signals, targets) = [(24, 2), (FULL, 2)], data().tensors
    plain, ours = small_network(), small_network()
    order, optimizer, epoch = BatchSampler(N_SIGNALS, 16, shuffle=True), adamw(plain), 0
    one_cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.03, total_steps=4 * 4)
    torch.manual_seed(7)
    for length, epochs in schedule:
        shorter = resize(signals, length) if method == "interpolate" else signals[..., :length]
        for _ in range(epochs):
            order.set_epoch(epoch)
            for indices in order:
                optimizer.zero_grad()
                nn.functional.cross_entropy(plain(shorter[indices]), targets[indices]).backward()
                nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
                optimizer.step()
                one_cycle.step() if one_cycle.last_epoch < 15 else None
            epoch += 1
    trainer = staged(ours, schedule, resize_method=method)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR(trainer.optimizer, max_lr=0.03, total_steps=4 * 4)
    torch.manual_seed(7)
    history = trainer.train_progressive(data(), None, 16, 0, one_cycle)
    assert equal_weights(plain, ours)
    assert (history["stage"], history["length"]) == ([0, 0, 1, 1], [24, 24, FULL, FULL])


def test_options_of_trainer():
    seen = []

    class Lengths(Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((logs["stage"], logs["length"], self.trainer.state.length))

    def louder(signals, targets):
        seen.append(signals.shape[-1])
        return 2 * signals, targets

    trainer = staged(
        small_network(), [(24, 1), (FULL, 1)], callbacks=[Lengths()], gradient_accumulation_steps=2,
        mixed_precision="bf16", augmentation=louder, max_grad_norm=0.5,
    )  # fmt: skip
    trainer.train_progressive(data(32), data(), batch_size=16)
    assert seen == [24, 24, (0, 24, 24), FULL, FULL, (1, FULL, FULL)]
    assert trainer.state.global_step == 2
    assert trainer.updater.grad_norm is not None


@pytest.mark.parametrize("cache_bytes", [0, 2**30], ids=["resized with each batch", "cached"])
@pytest.mark.parametrize(("epoch", "batch"), [(0, 0), (1, 2), (2, 1), (3, 3)])
def test_resume_matches_uninterrupted_run(tmp_path, monkeypatch, epoch, batch, cache_bytes):
    monkeypatch.setattr(progressive_resizing, "CACHE_BYTES", cache_bytes)

    class InterruptAt(Callback):
        def on_batch_end(self, index, logs=None):
            state = self.trainer.state
            if (state.epoch, index) == (epoch, batch):
                state.interrupted = True

    def run(callbacks=(), resume_from=None):
        model = small_network()
        trainer = staged(model, callbacks=list(callbacks), checkpoint_dir=tmp_path)
        schedule = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 1, gamma=0.7)
        torch.manual_seed(7)
        trainer.train_progressive(data(), data(20, seed=2), 16, 0, schedule, seed=4, resume_from=resume_from)
        return trainer

    uninterrupted = run()
    run([InterruptAt()])
    torch.manual_seed(99)
    resumed = run(resume_from=tmp_path / "last.pt")
    assert equal_weights(uninterrupted.model, resumed.model)
    names = set(uninterrupted.state.history) - {"epoch_time_s"}
    assert {name: resumed.state.history[name] for name in names} == {
        name: uninterrupted.state.history[name] for name in names
    }


def test_all_stages_use_the_same_workers():
    pids = []

    class Watch(Callback):
        def on_epoch_end(self, epoch, logs=None):
            pids.append([worker.pid for worker in self.trainer.train_loader._iterator._workers])

    alone, in_workers = small_network(), small_network()
    for model, n_workers in ((alone, 0), (in_workers, 2)):
        torch.manual_seed(7)
        trainer = staged(model, [(24, 1), (FULL, 1), (32, 1)], callbacks=[Watch()] if n_workers else [])
        trainer.train_progressive(OneByOne(), None, batch_size=16, num_workers=n_workers)
    assert equal_weights(alone, in_workers)
    assert pids[0] == pids[1] == pids[2]


def test_hand_written_loop_with_its_own_loaders():
    trainer = staged(small_network(), [(FULL, 1)])
    loader = DataLoader(ResizableSignalDataset(data(), 32), batch_size=16)
    losses = [trainer.train_epoch(loader, epoch)["loss"] for epoch in range(3)]
    assert losses[-1] < losses[0]
    assert set(trainer.evaluate(loader)) == {"loss", "accuracy"}
    trainer.train_progressive(data(), data())
    assert trainer.state.history["length"] == [FULL]


def test_best_epoch_belongs_to_the_last_stage(tmp_path):
    """The first stage reaches a lower loss than the second, because its short signals are less noisy."""
    signals, targets = data().tensors
    signals = targets[:, None, None] * torch.ones(FULL) + 20 * (-1) ** torch.arange(FULL)
    noisy = TensorDataset(signals + 5 * torch.randn(signals.shape, generator=torch.Generator().manual_seed(0)), targets)
    model = nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(2), nn.Linear(2, 3))
    model.insert(0, nn.AdaptiveMaxPool1d(8))
    trainer = staged(model, [(8, 8), (FULL, 2)], checkpoint_dir=tmp_path)
    history = trainer.train_progressive(noisy, noisy)
    assert min(history["val_loss"][:8]) < min(history["val_loss"][8:])
    assert trainer.state.best_val_loss == min(history["val_loss"][8:])
    assert torch.load(tmp_path / "best.pt", weights_only=True)["metadata"]["epoch"] == 9 + history["val_loss"][
        8:
    ].index(trainer.state.best_val_loss)


@pytest.mark.parametrize("name", ["cnn1d", "patch_transformer", "wdcnn"])  # resnet18_1d as well, but slow
def test_networks_of_the_registry_accept_every_length(name):
    model = create_model(name, 3, 2)
    trainer = staged(model, [(1024, 1), (1500, 1)])
    history = trainer.train_progressive(windows(seconds=2.2, window=2048), batch_size=8)
    assert history["length"] == [1024, 1500]


@pytest.mark.parametrize(
    ("model", "schedule", "reason"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(512, 3)), [(256, 1), (128, 1)], "Sequential .* of 128 samples"),
        (lambda: create_model("wdcnn", 3, 2), [(64, 2), (256, 1)], "WDCNN cannot take signals of 64 .* at least 1024"),
        (lambda: create_model("order_cnn", 3, 2), [(128, 1), (256, 1)], "OrderCNN depends on the sampling rate"),
        (lambda: create_model("hybrid_pinn", 3, 2), [(128, 1), (256, 1)], "HybridPINN depends on the sampling rate"),
    ],
    ids=["linear", "wdcnn", "order_cnn", "hybrid_pinn"],
)
def test_rejects_an_unsuitable_network_before_the_first_stage(model, schedule, reason):
    trainer = staged(model(), schedule)
    with pytest.raises(ValueError, match=reason):
        trainer.train_progressive(windows())
    assert trainer.state.epoch == trainer.state.global_step == 0


def test_truncate_suits_a_network_with_a_sampling_rate():
    torch.manual_seed(0)
    trainer = staged(create_model("order_cnn", 3, 2, sampling_rate_hz=1000.0), [(128, 1)], resize_method="truncate")
    assert trainer.train_progressive(windows())["length"] == [128]


def test_check_of_the_network_changes_nothing():
    model = small_network().train()
    before, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    staged(model).set_data(data())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert model.training


@pytest.mark.parametrize("schedule", [[], [(512,)], [512], [(0, 1)], [(512, 1.5)], "512:5", 5])
def test_rejects_an_invalid_schedule(schedule):
    with pytest.raises(ValueError, match="expected"):
        check_schedule(schedule)


@pytest.mark.parametrize("text", ["", "512", "512:5,", "512:5:1", "512:0", "a:b"])
def test_rejects_an_invalid_schedule_text(text):
    with pytest.raises(ValueError, match="expected"):
        parse_schedule(text)


def test_default_schedule():
    trainer = ProgressiveResizingTrainer(small_network(), None, None)
    assert trainer.schedule == ((25600, 20), (51200, 15), (76800, 10), (102400, 5))


def test_rejects_invalid_combinations(tmp_path):
    model = small_network()
    trainer = staged(model, [(FULL, 1)], checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="there are no training data"):
        trainer.fit(1)
    with pytest.raises(TypeError, match="a DataLoader, expected a data set"):
        trainer.train_progressive(torch.utils.data.DataLoader(data()))
    with pytest.raises(ValueError, match="a data set is empty"):
        trainer.train_progressive(torch.utils.data.Subset(data(), []))
    with pytest.raises(ValueError, match="batch_size is 0"):
        trainer.train_progressive(data(), batch_size=0)
    trainer.train_progressive(data())
    with pytest.raises(ValueError, match="finished"):
        trainer.train_progressive(data())
    other = staged(small_network(), [(32, 1), (FULL, 1)])
    with pytest.raises(ValueError, match="its stages are"):
        other.train_progressive(data(), resume_from=tmp_path / "last.pt")
    with pytest.raises(ValueError, match="cannot pad signals of 64 samples to 24"):
        staged(small_network(), resize_method="pad").train_progressive(data())
    scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 1)
    with pytest.raises(ValueError, match="has the lr_scheduler StepLR already"):
        staged(model, lr_scheduler=torch.optim.lr_scheduler.StepLR(trainer.optimizer, 2)).train_progressive(
            data(), scheduler=scheduler
        )


def test_warns_of_stages_longer_than_the_signals_and_drops_a_single_signal():
    trainer = staged(small_network(), [(2 * FULL, 1)])
    with pytest.warns(UserWarning, match="stages of 128 samples are longer than the signals, 64"):
        trainer.set_data(data(33), batch_size=16)
    assert len(trainer.train_loader) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        staged(small_network()).set_data(data(33), batch_size=16)
