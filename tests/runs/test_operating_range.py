"""The operating range of the training recordings."""

import numpy as np
import pytest

from whirl.data.recording import Recording
from whirl.runs.operating_range import OperatingRange


def recording(load):
    return Recording(np.tile([1, -1], 8), 12_000, load=load, load_unit="Nm")


@pytest.mark.parametrize("loads", [(-10, -10), (-5, 5), (0, 0), (3, 8)])
def test_loads_of_any_sign_are_in_their_own_range(loads):
    operating_range = OperatingRange.of(map(recording, loads))
    assert not any(operating_range.out_of_range(recording(load)) for load in loads)


def test_the_tolerance_widens_a_range_of_negative_loads():
    operating_range = OperatingRange.of([recording(-10)])
    assert operating_range.out_of_range(recording(-10.4)) == operating_range.out_of_range(recording(-9.6)) == []
    assert operating_range.out_of_range(recording(-10.6)) == ["-10.6 Nm (trained on -10 to -10 Nm)"]
