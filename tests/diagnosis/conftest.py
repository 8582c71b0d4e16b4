"""Simulated signals of rolling bearings."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.fft import next_fast_len

from whirl.data.recording import Recording
from whirl.physics.rolling_bearing import BEARINGS, BearingGeometry, fault_orders

Simulate = Callable[..., Recording]


@pytest.fixture(scope="session")
def simulate_fault() -> Simulate:
    """Return a function that makes a recording of a bearing whose impacts make a resonance ring."""

    def simulate(
        part: str | None,
        *,
        bearing: str | BearingGeometry = "6205",
        sampling_rate_hz: float = 12_000,
        rpm: float = 1797,
        turns: float = 200,
        resonance_hz: float = 2700,
        ratio_db: float = 0,
        slip: float = 0.003,
        seed: int = 0,
    ) -> Recording:
        """The ratio is that of the impacts' RMS to the noise's within 5 kHz."""
        rng = np.random.default_rng(seed)
        n = next_fast_len(round(turns * 60 / rpm * sampling_rate_hz))
        angle = np.arange(n) * rpm / 60 / sampling_rate_hz
        noise = rng.normal(size=n) * np.sqrt(sampling_rate_hz / 10_000)
        orders = fault_orders(BEARINGS[bearing] if isinstance(bearing, str) else bearing)
        signal = noise
        if part is not None:
            order = {"inner_race": orders.bpfi, "outer_race": orders.bpfo, "ball": 2 * orders.bsf}[part]
            count = int(angle[-1] * order)
            turn = (np.arange(count) + 0.5 + 0.01 * rng.normal(size=count)) / (order * (1 - slip))
            strength = {
                "inner_race": np.maximum(0, 1 + 1.2 * np.cos(2 * np.pi * turn)),
                "outer_race": np.ones(count),
                "ball": np.maximum(0, 1 + 0.9 * np.cos(2 * np.pi * orders.ftf * turn)),
            }[part]
            time_s = np.arange(n) / sampling_rate_hz
            ring = np.exp(-0.04 * 2 * np.pi * resonance_hz * time_s) * np.sin(2 * np.pi * resonance_hz * time_s)
            at = np.round(turn * 60 / rpm * sampling_rate_hz).astype(int)
            impacts = np.zeros(n)
            np.add.at(impacts, at[at < n], strength[at < n])
            ringing = np.fft.irfft(np.fft.rfft(impacts, 2 * n) * np.fft.rfft(ring, 2 * n))[:n]
            signal = noise + 10 ** (ratio_db / 20) * ringing / ringing.std()
        shaft = sum(np.sin(2 * np.pi * h * angle + h) / h for h in range(1, 6))
        return Recording(
            signal + shaft,
            sampling_rate_hz,
            rpm=rpm,
            bearing=bearing if isinstance(bearing, str) else None,
            source=f"{part}.mat",
        )

    return simulate
