"""Levels of vibration, compared with sine waves of known amplitude."""

import numpy as np
import pytest

from whirl.data.levels import iso_20816_zone, vibration_levels
from whirl.data.recording import Recording

RATE_HZ = 20_000
TIME_S = np.arange(40_000) / RATE_HZ
OMEGA = 2 * np.pi * 60.0


@pytest.mark.parametrize(
    ("amplitude", "unit"),
    [
        (10.0 * OMEGA, "mm/s^2"),
        (10e-3 * OMEGA, "m/s^2"),
        (10e-3 * OMEGA / 9.80665, "g"),
        (10.0, "mm/s"),
        (10 / 25.4, "in/s"),
        (10e3 / OMEGA, "um"),
        (10 / OMEGA / 0.0254, "mil"),
    ],
)
def test_velocity_of_a_sine_of_10_mm_s_is_the_same_in_any_unit(amplitude, unit):
    wave = amplitude * np.sin(OMEGA * TIME_S) + 3.0
    levels = vibration_levels(Recording(wave, RATE_HZ, unit=unit))
    assert levels.velocity_rms_mm_s == pytest.approx(10 / np.sqrt(2), rel=1e-3)
    assert levels.crest_factor == pytest.approx(np.sqrt(2), rel=1e-3)
    assert levels.kurtosis == pytest.approx(1.5, rel=1e-3)


def test_acceleration_of_a_sine():
    levels = vibration_levels(Recording(2.0 * np.sin(OMEGA * TIME_S), RATE_HZ, unit="g"))
    assert levels.acceleration_rms_m_s2 == pytest.approx(2 * 9.80665 / np.sqrt(2), rel=1e-4)
    assert levels.peak_m_s2 == pytest.approx(2 * 9.80665, rel=1e-3)


def test_frequencies_outside_of_the_band_do_not_count():
    inside, outside = (
        np.sin(2 * np.pi * 100 * TIME_S),
        np.sin(2 * np.pi * 2000 * TIME_S) + np.sin(2 * np.pi * 4 * TIME_S),
    )
    one, both = (vibration_levels(Recording(wave, RATE_HZ, unit="mm/s")) for wave in (inside, inside + 5 * outside))
    assert both.velocity_rms_mm_s == pytest.approx(one.velocity_rms_mm_s, rel=1e-3)
    assert both.acceleration_rms_m_s2 is None


def test_highest_channel_counts_and_tachometers_are_left_out():
    signal = np.stack([np.sin(OMEGA * TIME_S), 3 * np.sin(OMEGA * TIME_S), 100 * np.sign(np.sin(OMEGA * TIME_S))])
    recording = Recording(signal, RATE_HZ, channel_units=("mm/s", "mm/s", "V"))
    assert vibration_levels(recording).velocity_rms_mm_s == pytest.approx(3 / np.sqrt(2), rel=1e-3)


def test_slow_or_short_recordings_have_no_velocity():
    slow = vibration_levels(Recording(np.sin(TIME_S), 1000, unit="m/s^2"))
    short = vibration_levels(Recording(np.sin(np.arange(1000.0)), RATE_HZ, unit="m/s^2"))
    assert slow.velocity_rms_mm_s is short.velocity_rms_mm_s is None


@pytest.mark.parametrize("unit", ["", "V", "furlong"])
def test_rejects_unknown_units(unit):
    with pytest.raises(ValueError, match="expected a unit of vibration"):
        vibration_levels(Recording(np.ones(100), 1000, unit=unit))


@pytest.mark.parametrize(
    ("group", "support", "boundaries"),
    [
        ("group1", "rigid", (2.3, 4.5, 7.1)),
        ("group1", "flexible", (3.5, 7.1, 11.0)),
        ("group2", "rigid", (1.4, 2.8, 4.5)),
        ("group2", "flexible", (2.3, 4.5, 7.1)),
    ],
)
def test_zones_of_iso_20816_3(group, support, boundaries):
    found = [iso_20816_zone(boundary + step, group, support) for boundary in boundaries for step in (0, 0.01)]
    assert found == ["A", "B", "B", "C", "C", "D"]


@pytest.mark.parametrize("unit", ["m/s²", "m/s2", "m/s^2"])
def test_spelling_of_a_unit_does_not_matter(unit):
    signal = np.sin(np.arange(12_000))
    assert vibration_levels(Recording(signal, 12_000, unit=unit)).acceleration_rms_m_s2 == pytest.approx(
        0.707, abs=1e-3
    )


@pytest.mark.parametrize("velocity", [float("nan"), float("inf"), -1.0])
def test_velocities_that_are_no_level_have_no_zone(velocity):
    with pytest.raises(ValueError, match="velocity_rms_mm_s"):
        iso_20816_zone(velocity)


def test_rejects_unknown_groups():
    with pytest.raises(ValueError, match="group"):
        iso_20816_zone(1.0, "group3")
