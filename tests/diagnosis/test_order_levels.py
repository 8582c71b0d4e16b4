"""Order levels and evidence carry to other gains, speeds and sampling rates."""

import warnings

import numpy as np
import pytest

from whirl.data.recording import Recording
from whirl.data.simulation import simulate
from whirl.diagnosis.descriptor_sets import describe
from whirl.diagnosis.order_levels import level_names, order_evidence, order_levels


def rotor(rpm: float, rate_hz: float = 10_000, gain: float = 1.0, seed: int = 0, n_channels: int = 1) -> Recording:
    """A shaft with lines at 1X and 2X in white noise, 100 revolutions long."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(100 * 60 / rpm * rate_hz)) / rate_hz
    turns = 2 * np.pi * rpm / 60 * time_s
    signal = np.sin(turns) + 0.5 * np.sin(2 * turns) + 0.1 * rng.normal(size=(n_channels, len(time_s)))
    return Recording(gain * signal + 3, rate_hz, rpm=rpm)


def test_levels_do_not_depend_on_gain_and_offset() -> None:
    np.testing.assert_allclose(order_levels(rotor(1500)), order_levels(rotor(1500, gain=1000)), atol=0.05)


def test_shaft_lines_follow_the_speed() -> None:
    names = level_names(1)
    for rpm in (900, 1500, 3600):
        levels = dict(zip(names, order_levels(rotor(rpm)).mean(axis=0), strict=True))
        assert levels["1X"] == pytest.approx(-1, abs=0.3)  # 0.5 of 0.635
        assert levels["2X"] == pytest.approx(-7, abs=0.3)
        assert levels["3X"] < -20


def test_threads_share_no_filters_of_warnings() -> None:
    """Windows of 10 revolutions cannot resolve whirl, which is no reason to warn; filters stay as they were."""
    rng = np.random.default_rng(0)
    before = list(warnings.filters)
    recordings = [Recording(rng.normal(size=1000), 2560, rpm=1500) for _ in range(64)]
    assert describe(recordings, "evidence").usable.all()
    assert warnings.filters == before


def test_windows_overlap_by_half() -> None:
    assert len(order_levels(rotor(1500))) == 8  # of the 11 windows of 16 revolutions in 100
    assert len(order_evidence(rotor(1500))) == 1  # of 128
    assert len(order_levels(Recording(np.random.default_rng(0).normal(size=2000), 10_000, rpm=1800))) == 1


def test_channels_have_their_share_of_the_power() -> None:
    levels = order_levels(rotor(1500, n_channels=3))
    assert levels.shape[1] == len(level_names(3)) == 3 * 20 + 3
    assert levels[:, -3:] == pytest.approx(np.full((8, 3), -4.77), abs=0.1)


def test_zero_signal_gives_finite_levels() -> None:
    assert np.isfinite(order_levels(Recording(np.zeros(20_000), 10_000, rpm=1500))).all()
    assert np.isfinite(order_evidence(Recording(np.zeros(20_000), 10_000, rpm=1500))).all()


@pytest.mark.parametrize("describe", [order_levels, order_evidence])
def test_rejects_unknown_speed_and_short_recordings(describe) -> None:
    with pytest.raises(ValueError, match="the speed is unknown, expected a speed"):
        describe(Recording(np.zeros(1000), 1000))
    with pytest.raises(ValueError, match=r"2\.0 revolutions, expected .* at least 4"):
        describe(Recording(np.zeros(2000), 1000, rpm=60))


def test_evidence_of_simulated_faults() -> None:
    from whirl.physics.features import journal_features

    names = [feature.name for feature in journal_features()]
    for label, name in (("oil_whirl", "whirl"), ("misalignment", "2X"), ("clearance", "sub-harmonic")):
        found = [
            order_evidence(simulate(1, 1, [each], seed=4, severity_range=(1, 1))[0]).mean(axis=0)
            for each in (label, "healthy")
        ]
        assert found[0][names.index(name)] > found[1][names.index(name)] + 6
