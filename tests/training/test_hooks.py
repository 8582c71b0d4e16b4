"""Trainers override the documented hooks of `Trainer` and nothing else."""

import inspect
import re

import pytest

from whirl.training.cnn_trainer import CNNTrainer
from whirl.training.knowledge_distillation import DistillationTrainer
from whirl.training.mixed_precision import MixedPrecisionTrainer
from whirl.training.per_call import PerCallTrainer
from whirl.training.pinn_trainer import PINNTrainer
from whirl.training.progressive_resizing import ProgressiveResizingTrainer
from whirl.training.spectrogram_trainer import MultiTFRTrainer, SpectrogramTrainer
from whirl.training.trainer import Trainer

HOOKS = {
    "new_state", "batches", "prepare_batch", "forward", "compute_loss", "epoch_context", "summarize", "state_dict",
    "load_state_dict",
}  # fmt: skip
TRAINERS = [
    CNNTrainer, DistillationTrainer, MixedPrecisionTrainer, MultiTFRTrainer, PerCallTrainer, PINNTrainer,
    ProgressiveResizingTrainer, SpectrogramTrainer,
]  # fmt: skip


def overridden(kind):
    """Methods of `Trainer` that a class redefines."""
    return {name for name, member in vars(kind).items() if hasattr(Trainer, name) and inspect.isfunction(member)}


def test_docstring_lists_the_hooks():
    listed = Trainer.__doc__.split("overrides these hooks, and nothing else:")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == HOOKS
    assert all(inspect.getdoc(getattr(Trainer, hook)) for hook in HOOKS)


@pytest.mark.parametrize("kind", TRAINERS, ids=lambda kind: kind.__name__)
def test_trainer_overrides_documented_hooks_only(kind):
    # The API reference gives `train_epoch` of these two the arguments `train_loader` and `epoch`.
    documented = HOOKS | ({"train_epoch"} if issubclass(kind, PerCallTrainer) else set())
    assert overridden(kind) - {"__init__"} <= documented
