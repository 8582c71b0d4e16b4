"""Wrapped networks behave like the plain one, and their checkpoints load into each other."""

import pytest
import torch
from torch import nn

from tests.engine.helpers import Passthrough
from whirl.engine.batch import Batch, call_model
from whirl.engine.checkpoint import load_weights
from whirl.engine.wrappers import load_weights_into, takes_metadata, unwrap, weights_of
from whirl.training.trainer import Trainer


class SpeedAware(nn.Module):
    """The class is the sign of the speed's deviation from 3, which only the metadata hold."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 2)

    def forward(self, signals, metadata=None):
        speed = torch.zeros(len(signals)) if metadata is None else metadata["rpm"]
        return self.head(speed[:, None] - 3)


class WithModule(nn.Module):
    """A network that merely has a submodule called `module`."""

    def __init__(self):
        super().__init__()
        self.module, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, signals, metadata=None):
        return self.head(self.module(signals.flatten(1))) + (0 if metadata is None else metadata["rpm"][:, None])


def compiled(model):
    return torch.compile(model, backend="eager")


def compiled_inside(model):
    model.head = compiled(model.head)
    return model


WRAPPERS = {
    "plain": lambda model: model,
    "compiled": compiled,
    "compiled_inside": compiled_inside,
    "data_parallel": nn.DataParallel,
    "averaged": torch.optim.swa_utils.AveragedModel,
    "compiled_parallel": lambda model: compiled(nn.DataParallel(model)),
    "passthrough": Passthrough,
}


def batch(n=64):
    rpm = torch.linspace(1, 5, n)
    return torch.zeros(n, 1, 4), (rpm > 3).long(), {"rpm": rpm}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapped_network_is_trained_with_the_metadata(wrap):
    torch.manual_seed(0)
    model = wrap(SpeedAware())
    trainer = Trainer(model, [batch()], [batch()], torch.optim.SGD(model.parameters(), lr=1.0), device="cpu")
    assert trainer.fit(20)["val_accuracy"][-1] > 0.95


TRANSPARENT = [name for name in WRAPPERS if name != "passthrough"]


@pytest.mark.parametrize("saved", TRANSPARENT)
@pytest.mark.parametrize("loaded", TRANSPARENT)
def test_checkpoints_of_wrapped_networks_load_into_each_other(tmp_path, saved, loaded):
    source, target = WRAPPERS[saved](SpeedAware()), WRAPPERS[loaded](SpeedAware())
    Trainer(source, [batch()], device="cpu", checkpoint_dir=tmp_path).fit(1)
    load_weights(target, tmp_path / "last.pt")
    assert set(weights_of(target)) == {"head.weight", "head.bias"}
    assert all(torch.equal(weights_of(target)[name], value) for name, value in weights_of(source).items())


def test_a_submodule_called_module_is_no_wrapper():
    model = WithModule()
    assert unwrap(model) is model
    signals, targets, metadata = batch(4)
    plain = model(signals)
    assert torch.equal(call_model(model, Batch(signals, targets, metadata)), plain + metadata["rpm"][:, None])
    assert set(weights_of(model)) == {"module.weight", "module.bias", "head.weight", "head.bias"}


def test_kwargs_alone_do_not_ask_for_metadata():
    assert not takes_metadata(Passthrough(nn.Linear(4, 2)))
    assert takes_metadata(Passthrough(Passthrough(SpeedAware())))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_weights_saved_from_a_wrapper_load(prefix):
    source, target = SpeedAware(), SpeedAware()
    load_weights_into(target, {prefix + name: value for name, value in source.state_dict().items()})
    assert torch.equal(source.head.weight, target.head.weight)


def test_rejects_the_weights_of_another_network():
    with pytest.raises(RuntimeError, match=r"head\.weight"):
        load_weights_into(SpeedAware(), nn.Linear(1, 2).state_dict())
