"""Simulated vibration of machines on journal bearings, with the faults of `JOURNAL_CLASSES`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from whirl.data.synthesis import RecordingSynthesizer, Signal, unit_rms
from whirl.physics.journal_bearing import (
    WHIRL_RATIO_RANGE,
    eccentricity_ratio,
    film_thickness_ratio,
    minimum_film_thickness,
    sommerfeld_number,
    walther_viscosity_pa_s,
    whirl_frequency_hz,
)

JOURNAL_DIAMETER_M = 0.10
BEARING_LENGTH_M = 0.06
FULL_LOAD_N = 12_000.0

_ROUGHNESS_M = (0.6e-6, 0.8e-6)  # journal, bush: composite 1 um


def load_range(label: str) -> tuple[float, float]:
    """Return the range of the load as a share of full load: a loaded plain bearing (e > 0.8) does not whirl."""
    return (0.25, 0.45 if label == "oil_whirl" else 1)


def journal_vibration(synth: RecordingSynthesizer, label: str) -> Signal:
    """Synthesize the vibration of a machine on journal bearings; the oil film goes into the ground truth."""
    parts = _PARTS[label]
    _set_film(synth, parts)
    v, levels = synth.speed, synth.machine.residual_levels
    vibration = synth.tone(1, 0.05 * levels[0] * v**2) + synth.tone(2, 0.03 * levels[1] * v)
    vibration += synth.tone(3, 0.015 * levels[2]) + synth.tone(4, 0.008 * levels[0])
    vibration += np.float32(0.05 * synth.jitter(0.3)) * synth.noise(synth.path)
    for add in parts:
        vibration += add(synth)
    return vibration


def _set_film(synth: RecordingSynthesizer, parts: Sequence[_Fault]) -> None:
    """Store the operating point of the oil film in the ground truth; wear and looseness open the clearance."""
    opening = 1 + synth.severity * (0.8 * (_clearance in parts) + 0.3 * (_wear in parts))
    clearance_m = synth.machine.clearance_ratio * JOURNAL_DIAMETER_M / 2 * opening
    viscosity_pa_s = walther_viscosity_pa_s(synth.temperature_c)
    S = sommerfeld_number(
        viscosity_pa_s, 60 * synth.rate_hz, synth.load_n, JOURNAL_DIAMETER_M, BEARING_LENGTH_M, clearance_m
    )
    e = eccentricity_ratio(S, BEARING_LENGTH_M / JOURNAL_DIAMETER_M)
    film_ratio = film_thickness_ratio(minimum_film_thickness(clearance_m, e), *_ROUGHNESS_M)
    synth.truth |= {
        "viscosity_pa_s": float(viscosity_pa_s),
        "radial_clearance_m": float(clearance_m),
        "sommerfeld": float(S),
        "eccentricity": float(e),
        "film_ratio": float(film_ratio),
    }


def _misalignment(synth: RecordingSynthesizer) -> Signal:
    a = synth.severity
    return synth.tones({1: 0.04 * a, 2: 0.45 * a, 3: 0.20 * a, 4: 0.05 * a})


def _imbalance(synth: RecordingSynthesizer) -> Signal:
    """A force that grows with the square of the speed, amplified near the first critical speed."""
    r = synth.rate_hz / synth.machine.first_critical_hz
    amplification = 1 / np.hypot(1 - r**2, 0.24 * r)
    return synth.tones({1: 0.5 * synth.severity * synth.speed**2 * amplification})


def _clearance(synth: RecordingSynthesizer) -> Signal:
    a = synth.severity
    q = 1 / 2 if synth.rng.uniform() < 0.7 else 1 / 3
    synth.truth["sub_harmonic_order"] = q
    locked = {q: 0.22 * a, 1 + q: 0.10 * a, 2 + q: 0.06 * a}
    return synth.tones(locked | {n: 0.20 * a / n**0.6 for n in range(1, 9)})


def _wear(synth: RecordingSynthesizer) -> Signal:
    a, slow_hz = synth.severity, synth.rng.uniform(0.5, 2)
    modulation = 1 + synth.tone(1, 0.35, cycles=slow_hz * synth.time_s)
    floor = np.float32(0.24 * a * synth.jitter()) * modulation * synth.noise(synth.modes[1])
    return floor + synth.tones({1: 0.07 * a, 2: 0.05 * a, 3: 0.03 * a})


def _oil_whirl(synth: RecordingSynthesizer) -> Signal:
    """A sub-synchronous orbit, larger for lighter loads (higher S)."""
    ratio, critical_hz = synth.rng.uniform(*WHIRL_RATIO_RANGE), synth.machine.first_critical_hz
    whirl_hz = float(whirl_frequency_hz(60 * synth.rate_hz, ratio, critical_hz))
    synth.truth["whirl_ratio"] = whirl_hz / synth.rate_hz
    # whirl follows the shaft, whip stays at the critical speed
    turns = ratio * synth.cycles if whirl_hz < critical_hz else critical_hz * synth.time_s
    growth = np.clip(np.sqrt(synth.truth["sommerfeld"] / 0.3), 0.5, 2)
    amplitude = 0.32 * synth.severity * growth * synth.jitter()
    return synth.tone(1, amplitude, cycles=turns + whirl_hz * synth.speed_drift(0.01))


def _lubrication(synth: RecordingSynthesizer) -> Signal:
    """Friction noise modulated once per revolution, contacts and slow stick-slip; stronger for thinner films."""
    synth.truth["film_ratio"] *= 1 - 0.95 * synth.severity
    a = synth.severity * float(np.clip(1.5 - 0.2 * np.log2(synth.truth["film_ratio"]), 0.4, 1.6))
    modulation = np.float32(0.25) + np.float32(1.5) * np.clip(synth.tone(1, 1), 0, None) ** 2
    friction = np.float32(0.36 * a * synth.jitter()) * modulation * synth.noise(synth.modes[2])
    times_s = synth.random_times(15 * synth.severity)
    contacts = synth.impacts(times_s, 0.4 * a * synth.rng.lognormal(0, 0.4, len(times_s)), (0, 1, 0))
    stick_slip = synth.tone(1, 0.05 * a, cycles=synth.rng.uniform(2, 6) * synth.time_s)
    return friction + contacts + stick_slip


def _cavitation(synth: RecordingSynthesizer) -> Signal:
    """Bubbles that collapse at random times, with heavy-tailed strength."""
    times_s = synth.random_times(40 + 160 * synth.severity)
    bursts = synth.impacts(times_s, 1 + synth.rng.pareto(2.5, len(times_s)), (0, 0.4, 1))
    return np.float32(0.16 * synth.severity * synth.jitter()) * unit_rms(bursts)


_Fault = Callable[[RecordingSynthesizer], Signal]

_PARTS: dict[str, tuple[_Fault, ...]] = {
    "healthy": (),
    "misalignment": (_misalignment,),
    "imbalance": (_imbalance,),
    "clearance": (_clearance,),
    "lubrication": (_lubrication,),
    "cavitation": (_cavitation,),
    "wear": (_wear,),
    "oil_whirl": (_oil_whirl,),
    "misalignment_imbalance": (_misalignment, _imbalance),
    "wear_lubrication": (_wear, _lubrication),
    "cavitation_clearance": (_cavitation, _clearance),
}
