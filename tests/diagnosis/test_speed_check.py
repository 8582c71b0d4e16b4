"""Given speeds that are not those of the signal."""

import re
from dataclasses import replace

import numpy as np
import pytest

from whirl.data.recording import Recording
from whirl.diagnosis.plots import plot_diagnosis
from whirl.diagnosis.spectral import diagnose
from whirl.diagnosis.speed_check import SpeedCheck, check_speed


@pytest.mark.parametrize("part", ["inner_race", "outer_race"])
@pytest.mark.parametrize("nominal", [1717, 1826])
def test_a_fault_is_found_at_the_speed_of_the_lines(simulate_fault, part, nominal):
    recording = simulate_fault(part, rpm=1770)
    found = diagnose(recording, rpm=nominal)
    assert (found.verdict, found.rpm) == (part, pytest.approx(1770, rel=1e-3))
    side = "above" if nominal < 1770 else "below"
    deviation = f"{100 * abs(1770 / nominal - 1):.1f} % {side} the given {nominal}"
    assert found.reasons[-1] == f"evaluated at 1770 rpm, where the lines of the shaft lie, {deviation}"
    right = diagnose(recording, rpm=1770)
    own = (each.families["BPFO"].significance_db for each in (found, right))
    assert next(own) == pytest.approx(next(own), abs=1)


def test_a_right_speed_is_used(simulate_fault):
    for part in (None, "outer_race"):
        recording = simulate_fault(part, rpm=1770)
        for rpm in (1770, 1770 * 1.005):  # less than fault lines may slip
            found = diagnose(recording, rpm=rpm)
            assert found.verdict == (part or "no_line_found")
            assert found.rpm == rpm
            assert not any("lines of the shaft" in reason for reason in found.reasons)


def test_lines_that_may_be_those_of_the_mains_are_named_only(simulate_fault):
    found = diagnose(simulate_fault(None, rpm=1500), rpm=1460)
    assert found.rpm == 1460
    assert found.reasons[-1].startswith("lines of the shaft or of the mains fit 1500 rpm, 2.")
    assert found.reasons[-1].endswith("above the given 1460; give the real speed")


def test_hum_of_the_mains_does_not_replace_a_right_speed(simulate_fault):
    """A motor of two poles: the harmonics of 50 Hz are stronger than those of the shaft at 49 Hz."""
    recording = simulate_fault("outer_race", rpm=2940)
    time_s = np.arange(recording.signal.shape[1]) / recording.sampling_rate_hz
    hum = sum(3 * np.sin(2 * np.pi * 50 * h * time_s) for h in range(1, 6))
    assert check_speed(replace(recording, signal=recording.signal + hum)).recording.rpm == 2940
    assert diagnose(replace(recording, signal=recording.signal + hum)).verdict == "outer_race"


def test_a_speed_in_hz_is_named(simulate_fault):
    short, long = (simulate_fault("outer_race", rpm=1770, turns=turns) for turns in (200, 900))
    assert diagnose(short, rpm=29.5).reasons == (
        "the recording holds 3.3 turns of the shaft at 29.5 rpm, expected at least 10 and better 20 or more; if "
        "29.5 is in Hz, give rpm 1770",
    )
    found = diagnose(long, rpm=29.5)
    assert (found.verdict, found.rpm) == ("no_line_found", 29.5)
    assert found.reasons[-1] == "the lines of the shaft fit 1770 rpm; if the given 29.5 is in Hz, give that"
    slow = simulate_fault("outer_race", rpm=150, turns=60)
    assert diagnose(slow).verdict == "outer_race"
    assert not any("Hz" in reason for reason in diagnose(slow).reasons)


def test_noise_and_silence_keep_the_given_speed():
    noise = np.random.default_rng(0).normal(size=(20, 30_000))
    for row in (*noise, np.zeros(30_000)):
        recording = Recording(row, 10_000, rpm=1770)
        assert check_speed(recording) == SpeedCheck(recording)


def test_unusable_channels_and_speeds_out_of_range_are_left_out(simulate_fault):
    recording = simulate_fault(None, rpm=1770)
    silent = np.zeros_like(recording.signal)
    both = replace(recording, signal=np.concatenate([silent, recording.signal]), channels=("a", "b"))
    for each in (both, recording):
        assert check_speed(replace(each, rpm=1820.0)).recording.rpm == pytest.approx(1770, rel=1e-3)
    for rpm in (None, 100_000.0):  # of which five harmonics exceed the band
        assert check_speed(replace(recording, rpm=rpm)).remark is None


def sped_up(recording, share):
    """Play a recording ever faster: the speed rises by a share and has the same mean."""
    n = recording.signal.shape[1]
    place = np.cumsum(1 + share * (np.arange(n) / n - 0.5))
    place *= (n - 1) / place[-1]
    return replace(recording, signal=np.interp(place, np.arange(n), recording.signal[0])[None])


@pytest.mark.parametrize("part", ["inner_race", "outer_race"])
@pytest.mark.parametrize("share", [0.04, 0.1])
def test_a_fault_is_found_while_the_speed_varies(simulate_fault, part, share):
    recording = simulate_fault(part, rpm=1770, turns=300)
    steady, varying = diagnose(recording), diagnose(sped_up(recording, share))
    assert steady.verdict == varying.verdict == part
    assert varying.rpm == pytest.approx(1770, rel=2e-3)
    speeds = re.fullmatch(
        r"the speed varies between (\d+) and (\d+) rpm; evaluated over the angle of the shaft", varying.reasons[-1]
    )
    assert speeds is not None
    expected = (1770 * (1 - share / 2), 1770 * (1 + share / 2))
    assert [int(speed) for speed in speeds.groups()] == pytest.approx(expected, rel=0.01)


def test_healthy_stays_without_a_line_while_the_speed_varies(simulate_fault):
    found = diagnose(sped_up(simulate_fault(None, rpm=1770, turns=300), 0.1))
    assert found.verdict == "no_line_found"
    assert found.reasons[-1].startswith("the speed varies between")


def test_unusable_channels_stay_unusable_while_the_speed_varies(simulate_fault):
    recording = sped_up(simulate_fault("outer_race", rpm=1770, turns=300), 0.1)
    signal = recording.signal[0]
    clipped, gap = np.clip(signal, -1, 1), np.where(np.arange(len(signal)) == 5000, np.nan, signal)
    three = replace(recording, signal=np.stack([signal, clipped, gap]), channels=("a", "b", "c"))
    of_each = {each.channel: each for each in diagnose(three).results}
    assert of_each["a"].verdict == "outer_race"
    for channel, only in (("b", clipped), ("c", gap)):
        alone = diagnose(replace(recording, signal=only[None]))
        assert of_each[channel].verdict == alone.verdict == "not_judged"
        assert of_each[channel].reasons == alone.reasons


@pytest.mark.filterwarnings("error")
def test_read_only_signals_are_diagnosed_and_drawn(simulate_fault):
    varying = sped_up(simulate_fault("outer_race", rpm=1770, turns=300), 0.1)
    for recording in (simulate_fault("outer_race"), varying):
        recording.signal.flags.writeable = False
        assert diagnose(recording).verdict == "outer_race"
        assert plot_diagnosis(recording).axes


def test_a_varying_speed_is_drawn_over_the_angle(simulate_fault):
    recording = sped_up(simulate_fault("outer_race", rpm=1770, turns=300), 0.1)
    *_, envelope = plot_diagnosis(recording).axes
    spectrum = max((line.get_data() for line in envelope.lines), key=lambda data: np.size(data[0]))
    order, percent = (np.asarray(values, dtype=float) for values in spectrum)
    line = diagnose(recording).families["BPFO"].lines[0]
    assert order[np.argmax(percent)] == pytest.approx(line, abs=0.05)
