"""Window arrays equal the data set and group windows by specimen."""

import numpy as np
import pytest
import torch

from whirl.data.arrays import window_arrays
from whirl.data.recording import Recording
from whirl.data.windows import WindowDataset

RNG = np.random.default_rng(0)
RECORDINGS = [
    Recording(RNG.standard_normal((2, n)), 1000, label=label, rpm=rpm, specimen=specimen, source=source)
    for n, label, rpm, specimen, source in [
        (700, "b", 600.0, "left", "one.mat"),
        (512, "a", None, "left", "two.mat"),
        (900, None, 900.0, None, "three.mat"),
        (300, "a", 900.0, None, ""),
    ]
]


@pytest.mark.parametrize("standardize", [True, False])
def test_rows_equal_the_data_set(standardize):
    windows = WindowDataset(RECORDINGS, ["a", "b"], 256, 128, standardize=standardize)
    arrays = window_arrays(windows, RECORDINGS)
    signals, targets, metadata = windows[torch.arange(len(windows))]
    np.testing.assert_array_equal(arrays.X, signals)
    np.testing.assert_array_equal(arrays.y, targets)
    np.testing.assert_array_equal(arrays.rpm, metadata["rpm"])
    assert arrays.y.tolist() == [1] * 4 + [0] * 3 + [-1] * 6 + [0]
    assert arrays.recordings.tolist() == [0] * 4 + [1] * 3 + [2] * 6 + [3]
    assert arrays.groups.tolist() == ["left"] * 7 + ["three.mat"] * 6 + ["recording 3"]
    assert arrays.X.dtype == np.float32


@pytest.mark.parametrize("others", [RECORDINGS[:3], RECORDINGS[::-1], []])
def test_rejects_other_recordings(others):
    windows = WindowDataset(RECORDINGS, ["a", "b"], 256)
    with pytest.raises(ValueError, match="the windows are 8 cuts of 4 recordings"):
        window_arrays(windows, others)
