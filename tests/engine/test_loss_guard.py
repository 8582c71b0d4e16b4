"""What a loss that is no number is told with: the recordings' files, and what to try."""

import numpy as np
import pytest
import torch
from torch import nn

from whirl.data.loaders import make_loader
from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset
from whirl.engine.loss_guard import NonFiniteLossError, recording_sources
from whirl.training.progressive_resizing import ResizableSignalDataset
from whirl.training.spectrogram_trainer import InterleavedLoaders
from whirl.training.trainer import Trainer


class Overflowing(nn.Module):
    """No number for each window that is larger than 3 somewhere."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, signals):
        largest = signals.amax((1, 2))
        return torch.where(largest > 3, torch.nan, largest)[:, None] * self.weight


def windows(source="rig/b.csv"):
    made = [(1, "rig/a.csv"), (5, source)]
    recordings = [Recording(np.linspace(0, largest, 8), 8000, label="x", source=name) for largest, name in made]
    return WindowDataset(recordings, ["x"], window=4, standardize=False)


def told(data, **options):
    trainer = Trainer(Overflowing(), make_loader(data, 4), device="cpu", **options)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.fit(1)
    return str(caught.value)


@pytest.mark.parametrize("around", [lambda data: data, lambda data: ResizableSignalDataset(data, 4)])
def test_the_file_is_named(around):
    assert "; row 3; recording rig/b.csv from sample 4; " in told(around(windows()))


def test_loaders_together_name_the_files_that_they_agree_on():
    pairs = [(windows(), windows()), (windows(), windows("c"))]
    same, other = (InterleavedLoaders({"a": make_loader(a, 4), "b": make_loader(b, 4)}) for a, b in pairs)
    assert list(recording_sources(same)) == ["rig/a.csv", "rig/b.csv"]
    assert list(recording_sources(other)) == []


def test_a_recording_of_unknown_source_keeps_its_number():
    assert "; recording 1 from sample 4; " in told(windows(source=""))


@pytest.mark.parametrize(
    ("precision", "advice"),
    [
        (False, "; try a lower learning rate (--lr)"),
        ("bf16", "; try full precision (--precision 32, mixed_precision=False)"),
    ],
)
def test_the_advice_follows_the_precision(precision, advice):
    assert told(windows(), mixed_precision=precision).endswith(advice)
    bounded = told(windows(), mixed_precision=precision, on_nonfinite="skip", max_skipped=0)
    assert bounded.endswith(f"skipped already{advice}")


def test_signals_that_are_not_finite_are_no_matter_of_training():
    batch = torch.full((2, 1, 4), torch.inf), torch.zeros(2).long()
    with pytest.raises(NonFiniteLossError) as caught:
        Trainer(Overflowing(), [batch], device="cpu").fit(1)
    assert "try" not in str(caught.value)
