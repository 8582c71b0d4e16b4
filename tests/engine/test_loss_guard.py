"""Error messages of a non-finite loss: files of the recordings, and advice."""

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
    """Returns NaN for each window with a value above 3."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, signals):
        largest = signals.amax((1, 2))
        return torch.where(largest > 3, torch.nan, largest)[:, None] * self.weight


def windows(source="rig/b.csv"):
    sources = [(1, "rig/a.csv"), (5, source)]
    recordings = [Recording(np.linspace(0, largest, 8), 8000, label="x", source=name) for largest, name in sources]
    return WindowDataset(recordings, ["x"], window=4, standardize=False)


def error_of(data, **options):
    trainer = Trainer(Overflowing(), make_loader(data, 4), device="cpu", **options)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.fit(1)
    return str(caught.value)


@pytest.mark.parametrize("around", [lambda data: data, lambda data: ResizableSignalDataset(data, 4)])
def test_names_the_file(around):
    assert "; row 3; recording rig/b.csv from sample 4; " in error_of(around(windows()))


def test_several_loaders_name_files_if_they_agree():
    pairs = [(windows(), windows()), (windows(), windows("c"))]
    same, other = (InterleavedLoaders({"a": make_loader(a, 4), "b": make_loader(b, 4)}) for a, b in pairs)
    assert list(recording_sources(same)) == ["rig/a.csv", "rig/b.csv"]
    assert list(recording_sources(other)) == []


def test_names_the_index_of_a_recording_without_source():
    assert "; recording 1 from sample 4; " in error_of(windows(source=""))


@pytest.mark.parametrize(
    ("precision", "advice"),
    [
        (False, "; try a lower learning rate (--lr)"),
        ("bf16", "; try full precision (--precision 32, mixed_precision=False)"),
    ],
)
def test_advice_depends_on_the_precision(precision, advice):
    assert error_of(windows(), mixed_precision=precision).endswith(advice)
    bounded = error_of(windows(), mixed_precision=precision, on_nonfinite="skip", max_skipped=0)
    assert bounded.endswith(f"skipped already{advice}")


def test_no_advice_for_nonfinite_signals():
    batch = torch.full((2, 1, 4), torch.inf), torch.zeros(2).long()
    with pytest.raises(NonFiniteLossError) as caught:
        Trainer(Overflowing(), [batch], device="cpu").fit(1)
    assert "try" not in str(caught.value)
