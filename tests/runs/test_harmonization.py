"""Recordings for a run that was trained on others."""

import numpy as np
import pytest

from whirl.data.recording import Recording
from whirl.runs.config import make_config
from whirl.runs.harmonization import check_convertible

CONFIG = make_config({"data": "folder", "sampling_rate_hz": 12_000, "window": 6000})


@pytest.mark.parametrize(("n", "rate_hz"), [(6000, 12_000), (24_000, 48_000), (6000, 11_900)])
def test_recordings_of_a_window_and_of_a_higher_rate_are_accepted(n, rate_hz):
    check_convertible(Recording(np.zeros(n), rate_hz), CONFIG)


@pytest.mark.parametrize(
    ("n", "rate_hz", "remedy"),
    [
        (6000, 10_000, "trained at 12000 Hz; record at this rate or a higher one, or train another run at 10000 Hz"),
        (5000, 12_000, "the windows of the run last 0.5 s; record at least as long, or train another run"),
        (12_000, 48_000, "the windows of the run last 0.5 s"),
    ],
)
def test_the_remedy_is_one_that_a_user_of_a_run_has(n, rate_hz, remedy):
    with pytest.raises(ValueError, match=f"a.npy: .*{remedy}"):
        check_convertible(Recording(np.zeros(n), rate_hz, source="a.npy"), CONFIG)
