"""Signals that cannot be diagnosed."""

import numpy as np
import pytest

from whirl.diagnosis.signal_quality import why_unusable

NOISE = np.random.default_rng(0).normal(size=20_000).astype(np.float32)


def changed(**values):
    signal = NOISE.copy()
    for index, value in values.items():
        signal[int(index[1:]) :] = value
    return signal


@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        (0 * NOISE, "silent"),
        (0 * NOISE + 3.7, "constant"),
        (1e6 + 1e-3 * NOISE, "constant"),
        (changed(_19999=np.nan), "NaN or infinite"),
        (changed(_19998=np.inf), "2 of 20000"),
        (NOISE.clip(-1, 1), "clipped"),
        (NOISE.clip(-2.5, 2.5), "clipped"),
        (5 + NOISE.clip(-1, 1.5), "clipped"),
        (changed(_10000=0.3), "does not change for 50 %"),
    ],
)
def test_gives_the_reason(signal, reason):
    assert reason in why_unusable(signal)


@pytest.mark.parametrize(
    "signal",
    [
        NOISE,
        NOISE + 1000,
        1e-9 * NOISE,
        NOISE.clip(-3.5, 3.5),  # a few samples
        np.round(20 * NOISE).astype(np.float32),  # a converter of 8 bits
        np.sin(0.1 * np.arange(20_000)).astype(np.float32),
    ],
)
def test_accepts_usable_signals(signal):
    assert why_unusable(signal) is None


def test_highest_and_lowest_sample_of_a_short_signal_are_not_clipped():
    assert why_unusable(np.random.default_rng(0).normal(size=1000)) is None
