"""Given speeds that are not those of the signal."""

from dataclasses import replace

import numpy as np
import pytest

from whirl.data.recording import Recording
from whirl.diagnosis.spectral import diagnose
from whirl.diagnosis.speed_check import speed_remark


@pytest.mark.parametrize("nominal", [1745, 1855])
def test_a_nominal_speed_is_named_and_the_real_one_finds_the_fault(simulate_fault, nominal):
    recording = simulate_fault("outer_race", rpm=1800)
    found = diagnose(recording, rpm=nominal)
    assert found.verdict == "no_line_found"
    side = "above" if nominal < 1800 else "below"
    deviation = 100 * abs(1800 / nominal - 1)
    expected = f"the lines of the shaft lie at 1800 rpm, {deviation:.1f} % {side} the given {nominal}; if that is"
    assert found.reasons[-1].startswith(expected)
    assert diagnose(recording, rpm=1800).verdict == "outer_race"


def test_a_right_speed_and_a_fault_that_is_found_have_no_remark(simulate_fault):
    healthy = simulate_fault(None)
    for rpm in (1797, 1797 * 1.005):  # less than fault lines may slip
        assert not any("lines of the shaft" in reason for reason in diagnose(healthy, rpm=rpm).reasons)
    fault = diagnose(simulate_fault("outer_race", rpm=1800), rpm=1785)
    assert fault.verdict == "outer_race"
    assert not any("lines of the shaft" in reason for reason in fault.reasons)


def test_noise_and_silence_state_no_speed():
    noise = np.random.default_rng(0).normal(size=(20, 30_000))
    assert not [row for row in noise if speed_remark(Recording(row, 10_000, rpm=1800))]
    assert speed_remark(Recording(np.zeros(30_000), 10_000, rpm=1800)) is None


def test_unusable_channels_and_speeds_out_of_range_are_left_out(simulate_fault):
    recording = simulate_fault(None, rpm=1800)
    silent = np.zeros_like(recording.signal)
    both = replace(recording, signal=np.concatenate([silent, recording.signal]), channels=("a", "b"))
    assert speed_remark(replace(both, rpm=1850.0)) == speed_remark(replace(recording, rpm=1850.0)) is not None
    assert speed_remark(replace(recording, rpm=100_000.0)) is None  # five harmonics exceed the band
    assert speed_remark(replace(recording, rpm=None)) is None


def test_a_varying_speed_is_named(simulate_fault):
    recording = simulate_fault("outer_race", rpm=1800, turns=300)
    n = recording.signal.shape[1]
    place = np.cumsum(1 + 0.08 * (np.arange(n) / n - 0.5))  # the speed rises by 8 %
    place *= (n - 1) / place[-1]
    changed = replace(recording, signal=np.interp(place, np.arange(n), recording.signal[0])[None])
    found = diagnose(changed)
    assert found.verdict == "no_line_found"
    assert found.reasons[-1].startswith("the speed of the shaft varies between 17")
    assert speed_remark(recording) is None
