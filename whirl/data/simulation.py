"""Simulated vibration of rotating machines, with the ground truth that no measured data set has.

A specimen is one machine: its structural modes, residual unbalance and misalignment, bearing clearance and mains
supply depend on (seed, machine) alone, and every machine is recorded in every class. Each recording has a random
generator of its own, keyed by (seed, machine, class, repetition), so it does not depend on what else is asked for.

Orders follow the shaft (`order = f / (rpm / 60)`); structural modes scale with the Nyquist frequency, so that any
sampling rate sees the same picture. No tone above the Nyquist frequency is written: a recorder filters it out.

Where faults show (orders, bands, modulation) is physics; how strong they are at a given severity is an engineering
choice, made so that faults of low severity hide among healthy machines and that no class can be told by level, crest
factor or kurtosis: recorder gain, neighbouring machinery, noise and hum are scaled to the vibration of each recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from whirl.data.recording import Recording
from whirl.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES
from whirl.physics.journal_bearing import (
    WHIRL_RATIO_RANGE,
    eccentricity_ratio,
    film_thickness_ratio,
    minimum_film_thickness,
    sommerfeld_number,
    walther_viscosity_pa_s,
    whirl_frequency_hz,
)
from whirl.physics.rolling_bearing import BEARINGS, BearingGeometry, FaultOrders, fault_orders

JOURNAL_DIAMETER_M = 0.10
BEARING_LENGTH_M = 0.06
JOURNAL_LOAD_N, ROLLING_LOAD_N = 12_000.0, 3_000.0  # full load

_MACHINE, _JOURNAL, _ROLLING = range(3)  # first word of a generator's key
_ROUGHNESS_M = (0.6e-6, 0.8e-6)  # journal, bush: composite 1 um
_REFERENCE_HZ = 40.0  # shaft rate at which the amplitudes below hold
_TURN = np.float32(2 * np.pi)

Signal = NDArray[np.float32]


def simulate(
    n_machines: int = 24,
    recordings_per_class: int = 2,
    classes: Sequence[str] = JOURNAL_CLASSES,
    seed: int = 0,
    sampling_rate_hz: float = 20_480,
    n_samples: int = 102_400,
    rpm_range: tuple[float, float] = (1200, 3600),
    severity_range: tuple[float, float] = (0.2, 1.0),
    bearing: BearingGeometry = BEARINGS["6205"],
    snr_db_range: tuple[float, float] = (5.0, 20.0),
) -> list[Recording]:
    """Recordings of `n_machines` machines, each in every class; arguments as of `iter_simulated`.

    Example:
        >>> recordings = simulate(n_machines=2, recordings_per_class=1, n_samples=4096)
        >>> len(recordings), recordings[0].signal.shape, recordings[0].specimen, recordings[-1].label
        (22, (1, 4096), 'machine00', 'cavitation_clearance')
    """
    return list(
        iter_simulated(
            n_machines,
            recordings_per_class,
            classes,
            seed,
            sampling_rate_hz,
            n_samples,
            rpm_range,
            severity_range,
            bearing,
            snr_db_range,
        )
    )


def iter_simulated(
    n_machines: int = 24,
    recordings_per_class: int = 2,
    classes: Sequence[str] = JOURNAL_CLASSES,
    seed: int = 0,
    sampling_rate_hz: float = 20_480,
    n_samples: int = 102_400,
    rpm_range: tuple[float, float] = (1200, 3600),
    severity_range: tuple[float, float] = (0.2, 1.0),
    bearing: BearingGeometry = BEARINGS["6205"],
    snr_db_range: tuple[float, float] = (5.0, 20.0),
) -> Iterator[Recording]:
    """Simulate recordings one by one: machine by machine, class by class, repetition by repetition.

    `source` is a unique name such as `machine03_wear_1`, fit to be a file's name.

    Args:
        n_machines: number of specimens, >= 1.
        recordings_per_class: recordings of each machine in each class, >= 1; rpm, load, oil temperature and
            severity are drawn anew for each.
        classes: some of `JOURNAL_CLASSES`, or some of `ROLLING_CLASSES`; `("healthy",)` alone is a journal machine.
        seed: same seed, same bits, with any number of threads; >= 0.
        sampling_rate_hz: > 0.
        n_samples: length of each recording, >= 16.
        rpm_range: shaft speed is uniform between the two, 0 < low <= high.
        severity_range: severity of faults is uniform between the two, 0 <= low <= high <= 1; healthy is 0.
        bearing: the rolling bearing; journal classes do not use it.
        snr_db_range: the vibration's power over that of the sensor's noise is uniform between the two, in dB.

    Raises:
        ValueError: an argument lies outside its range, or a class is unknown.

    Example:
        >>> recording = next(iter_simulated(classes=["oil_whirl"], seed=3, n_samples=2048))
        >>> recording.source, recording.unit, 0.42 <= recording.metadata["whirl_ratio"] <= 0.48
        ('machine00_oil_whirl_0', 'g', True)
    """
    if isinstance(classes, str):
        raise ValueError(f"classes is {classes!r}, expected a list of class names")
    setting = _Setting(
        n_machines,
        recordings_per_class,
        tuple(classes),
        seed,
        float(sampling_rate_hz),
        n_samples,
        rpm_range,
        severity_range,
        fault_orders(bearing),
        snr_db_range,
    )

    def recordings() -> Iterator[Recording]:
        for index in range(n_machines):
            machine = _draw_machine(seed, index)
            for label in setting.classes:
                for repetition in range(recordings_per_class):
                    yield _record(setting, machine, label, repetition)

    return recordings()


@dataclass(frozen=True)
class _Setting:
    """What all recordings of a run have in common."""

    n_machines: int
    recordings_per_class: int
    classes: tuple[str, ...]
    seed: int
    sampling_rate_hz: float
    n_samples: int
    rpm_range: tuple[float, float]
    severity_range: tuple[float, float]
    orders: FaultOrders
    snr_db_range: tuple[float, float]

    def __post_init__(self) -> None:
        for name, least in (("n_machines", 1), ("recordings_per_class", 1), ("seed", 0), ("n_samples", 16)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected >= {least}")
        if not (np.isfinite(self.sampling_rate_hz) and self.sampling_rate_hz > 0):
            raise ValueError(f"sampling_rate_hz is {self.sampling_rate_hz}, expected > 0")
        if not 0 < self.rpm_range[0] <= self.rpm_range[1] < np.inf:
            raise ValueError(f"rpm_range is {self.rpm_range}, expected 0 < low <= high")
        if not 0 <= self.severity_range[0] <= self.severity_range[1] <= 1:
            raise ValueError(f"severity_range is {self.severity_range}, expected 0 <= low <= high <= 1")
        if not -np.inf < self.snr_db_range[0] <= self.snr_db_range[1] < np.inf:
            raise ValueError(f"snr_db_range is {self.snr_db_range}, expected finite numbers, low <= high")
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes is {self.classes}, expected a list of different class names")
        if not (set(self.classes) <= set(JOURNAL_CLASSES) or set(self.classes) <= set(ROLLING_CLASSES)):
            raise ValueError(
                f"classes {self.classes} are neither all of {JOURNAL_CLASSES} nor all of {ROLLING_CLASSES}"
            )

    @property
    def is_journal(self) -> bool:
        return set(self.classes) <= set(JOURNAL_CLASSES)


@dataclass(frozen=True)
class _Machine:
    """One specimen."""

    index: int
    mode_fractions: NDArray[np.float64]  # [3] natural frequencies over the Nyquist frequency
    mode_dampings: NDArray[np.float64]  # [3] damping ratios
    mode_gains: NDArray[np.float64]  # [3]
    residual_levels: NDArray[np.float64]  # [3] residual 1X, 2X, 3X
    clearance_ratio: float  # radial clearance over journal radius
    first_critical_hz: float
    mains_hz: float

    @property
    def name(self) -> str:
        return f"machine{self.index:02d}"


def _draw_machine(seed: int, index: int) -> _Machine:
    rng = _generator(seed, _MACHINE, index)
    return _Machine(
        index=index,
        mode_fractions=rng.uniform((0.18, 0.42, 0.68), (0.30, 0.58, 0.88)),
        mode_dampings=rng.uniform(0.02, 0.06, 3),
        mode_gains=rng.uniform(0.5, 1.5, 3),
        residual_levels=rng.lognormal(0, 0.3, 3),
        clearance_ratio=rng.uniform(1.2e-3, 2.6e-3),
        first_critical_hz=rng.uniform(70, 80),
        mains_hz=float(rng.choice((50.0, 60.0))),
    )


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


class _RecordingSynthesizer:
    """One recording in the making: machine, operating point, and the sources of vibration that faults draw on."""

    def __init__(self, setting: _Setting, machine: _Machine, label: str, rng: np.random.Generator) -> None:
        self.machine, self.rng, self.orders = machine, rng, setting.orders
        self.sampling_rate_hz, self.n_samples = setting.sampling_rate_hz, setting.n_samples
        self.snr_db_range = setting.snr_db_range
        self.rate_hz = rng.uniform(*setting.rpm_range) / 60
        # a loaded plain bearing (e > 0.8) does not whirl
        load_share = rng.uniform(0.25, 0.45 if label == "oil_whirl" else 1)
        self.load_n = load_share * (JOURNAL_LOAD_N if setting.is_journal else ROLLING_LOAD_N)
        self.temperature_c = rng.uniform(40, 80)
        self.severity = rng.uniform(*setting.severity_range) if label != "healthy" else 0.0
        self.mode_hz = machine.mode_fractions * rng.normal(1, 0.02, 3) * self.sampling_rate_hz / 2
        self.truth: dict[str, float] = {}
        self.time_s = np.arange(self.n_samples) / self.sampling_rate_hz
        self.cycles = self.rate_hz * (self.time_s + self.speed_drift(0.004)) + rng.uniform()

    @property
    def speed(self) -> float:
        """Shaft rate over the one at which the amplitudes are given."""
        return self.rate_hz / _REFERENCE_HZ

    @cached_property
    def modes(self) -> NDArray[np.complex64]:
        """[3, F] frequency responses, velocity over force, peak 1."""
        frequency = np.fft.rfftfreq(self.n_samples, 1 / self.sampling_rate_hz).astype(np.float32)
        ratio = frequency / self.mode_hz[:, None].astype(np.float32)
        damping = (2j * self.machine.mode_dampings[:, None]).astype(np.complex64) * ratio
        return (damping / (1 - ratio**2 + damping)).astype(np.complex64, copy=False)

    @cached_property
    def path(self) -> NDArray[np.complex64]:
        """[F] transmission path from bearing to sensor, unit rms gain for white noise."""
        response = np.float32(0.15) + self._mix(self.machine.mode_gains)
        return response / np.sqrt(np.mean(np.abs(response) ** 2))

    def _mix(self, shares: NDArray[np.float64]) -> NDArray[np.complex64]:
        """[F] sum of the modes weighted by shares [3]."""
        # not `@`: how BLAS rounds depends on the number of its threads
        return (shares.astype(np.float32)[:, None] * self.modes).sum(axis=0)

    def jitter(self, spread: float = 0.25) -> float:
        """A lognormal factor about 1."""
        return float(self.rng.lognormal(0, spread))

    def tone(self, order: float, amplitude: float, cycles: NDArray[np.float64] | None = None) -> Signal:
        """A sine at an order of the shaft (or of other `cycles`), at random phase."""
        phase = order * (self.cycles if cycles is None else cycles) + self.rng.uniform()
        if phase[-1] - phase[0] >= (self.n_samples - 1) / 2:
            return np.zeros(self.n_samples, np.float32)
        return np.float32(amplitude) * np.sin(_TURN * (phase - np.floor(phase)).astype(np.float32))

    def tones(self, amplitudes: dict[float, float]) -> Signal:
        """The sum of sines at several orders, each amplitude varied."""
        return sum(
            (self.tone(order, amplitude * self.jitter()) for order, amplitude in amplitudes.items()),
            start=np.zeros(self.n_samples, np.float32),
        )

    def noise(self, shape: NDArray[np.complex64] | NDArray[np.float32]) -> Signal:
        """Gaussian noise with a spectrum of the shape [F], unit rms."""
        white = self.rng.standard_normal(2 * len(shape), dtype=np.float32).view(np.complex64)
        return _unit_rms(_irfft(white * shape, self.n_samples))

    def impacts(
        self, times_s: NDArray[np.float64], forces: NDArray[np.float64], mode_shares: Sequence[float]
    ) -> Signal:
        """Ring-downs of the modes after impacts, each decaying from force x share."""
        position = times_s * self.sampling_rate_hz
        inside = (position >= 0) & (position < self.n_samples - 1)
        position, force = position[inside], forces[inside]
        first = position.astype(np.int64)
        pulses = np.zeros(self.n_samples, np.float32)
        np.add.at(pulses, first, force * (1 - position + first))
        np.add.at(pulses, first + 1, force * (position - first))
        # an impulse of 1 sample through jw / (w0^2 - w^2 + 2 j z w0 w) rings as cos(w0 t) / sampling rate
        unit = self.sampling_rate_hz / (4 * np.pi * self.machine.mode_dampings * self.mode_hz)
        response = self._mix(np.asarray(mode_shares) * unit)
        return _irfft(np.fft.rfft(pulses) * response, self.n_samples)  # wraps round, but rings for 10 ms only

    def random_times(self, rate_hz: float) -> NDArray[np.float64]:
        """Times of a Poisson process over the recording."""
        duration_s = self.n_samples / self.sampling_rate_hz
        return self.rng.uniform(0, duration_s, self.rng.poisson(rate_hz * duration_s))

    def speed_drift(self, relative_rms: float) -> NDArray[np.float64]:
        """[N] integral in seconds of a slow (< 3 Hz) relative speed fluctuation; the mean speed stays."""
        frequency, phase = self.rng.uniform(0.05, 3, 12), self.rng.uniform(0, 2 * np.pi, 12)
        knots = np.linspace(0, self.time_s[-1], 2 + int(64 * self.time_s[-1]))  # 64 Hz: 1 mrad off a straight line
        angle = 2 * np.pi * frequency * knots[:, None] + phase
        integral = np.sqrt(2 / 12) * relative_rms * (np.sin(angle) / (2 * np.pi * frequency)).sum(axis=1)
        integral -= np.linspace(integral[0], integral[-1], len(knots))
        return np.interp(self.time_s, knots, integral)


def _record(setting: _Setting, machine: _Machine, label: str, repetition: int) -> Recording:
    if setting.is_journal:
        key, vibrate = (_JOURNAL, machine.index, JOURNAL_CLASSES.index(label), repetition), _journal_machine
    else:
        key, vibrate = (_ROLLING, machine.index, ROLLING_CLASSES.index(label), repetition), _rolling_machine
    synth = _RecordingSynthesizer(setting, machine, label, _generator(setting.seed, *key))
    vibration = vibrate(synth, label)
    vibration *= 1 + synth.tone(1, 0.05, cycles=synth.rng.uniform(0.3, 1.5) * synth.time_s)
    signal = _measure(synth, vibration)
    metadata: dict[str, float | str] = {
        "machine": machine.name,
        "severity": synth.severity,
        "temperature_c": synth.temperature_c,
        "seed": float(setting.seed),
    }
    return Recording(
        signal,
        setting.sampling_rate_hz,
        unit="g",
        label=label,
        rpm=60 * synth.rate_hz,
        load=synth.load_n,
        load_unit="N",
        specimen=machine.name,
        source=f"{machine.name}_{label}_{repetition}",
        metadata=metadata | synth.truth,
    )


# ---------------------------------------------------------------------------------------------- journal bearings


def _journal_machine(synth: _RecordingSynthesizer, label: str) -> Signal:
    parts = _PARTS[label]
    _set_film(synth, parts)
    v, levels = synth.speed, synth.machine.residual_levels
    vibration = synth.tone(1, 0.05 * levels[0] * v**2) + synth.tone(2, 0.03 * levels[1] * v)
    vibration += synth.tone(3, 0.015 * levels[2]) + synth.tone(4, 0.008 * levels[0])
    vibration += np.float32(0.05 * synth.jitter(0.3)) * synth.noise(synth.path)
    for add in parts:
        vibration += add(synth)
    return vibration


def _set_film(synth: _RecordingSynthesizer, parts: Sequence[_Fault]) -> None:
    """Operating point of the oil film, into the ground truth; wear and looseness open the clearance."""
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


def _misalignment(synth: _RecordingSynthesizer) -> Signal:
    a = synth.severity
    return synth.tones({1: 0.04 * a, 2: 0.45 * a, 3: 0.20 * a, 4: 0.05 * a})


def _imbalance(synth: _RecordingSynthesizer) -> Signal:
    """A force growing as speed squared, amplified towards the first critical speed."""
    r = synth.rate_hz / synth.machine.first_critical_hz
    amplification = 1 / np.hypot(1 - r**2, 0.24 * r)
    return synth.tones({1: 0.5 * synth.severity * synth.speed**2 * amplification})


def _clearance(synth: _RecordingSynthesizer) -> Signal:
    a = synth.severity
    q = 1 / 2 if synth.rng.uniform() < 0.7 else 1 / 3
    synth.truth["sub_harmonic_order"] = q
    locked = {q: 0.22 * a, 1 + q: 0.10 * a, 2 + q: 0.06 * a}
    return synth.tones(locked | {n: 0.20 * a / n**0.6 for n in range(1, 9)})


def _wear(synth: _RecordingSynthesizer) -> Signal:
    a, slow_hz = synth.severity, synth.rng.uniform(0.5, 2)
    wavering = 1 + synth.tone(1, 0.35, cycles=slow_hz * synth.time_s)
    floor = np.float32(0.24 * a * synth.jitter()) * wavering * synth.noise(synth.modes[1])
    return floor + synth.tones({1: 0.07 * a, 2: 0.05 * a, 3: 0.03 * a})


def _oil_whirl(synth: _RecordingSynthesizer) -> Signal:
    """Sub-synchronous orbit, livelier the lighter the load (the higher S)."""
    ratio, critical_hz = synth.rng.uniform(*WHIRL_RATIO_RANGE), synth.machine.first_critical_hz
    whirl_hz = float(whirl_frequency_hz(60 * synth.rate_hz, ratio, critical_hz))
    synth.truth["whirl_ratio"] = whirl_hz / synth.rate_hz
    # whirl follows the shaft, whip stays at the critical speed
    turns = ratio * synth.cycles if whirl_hz < critical_hz else critical_hz * synth.time_s
    liveliness = np.clip(np.sqrt(synth.truth["sommerfeld"] / 0.3), 0.5, 2)
    amplitude = 0.32 * synth.severity * liveliness * synth.jitter()
    return synth.tone(1, amplitude, cycles=turns + whirl_hz * synth.speed_drift(0.01))


def _lubrication(synth: _RecordingSynthesizer) -> Signal:
    """Friction noise that swells once per turn, touching asperities and slow stick-slip; worse the thinner the film."""
    synth.truth["film_ratio"] *= 1 - 0.95 * synth.severity
    a = synth.severity * float(np.clip(1.5 - 0.2 * np.log2(synth.truth["film_ratio"]), 0.4, 1.6))
    swell = np.float32(0.25) + np.float32(1.5) * np.clip(synth.tone(1, 1), 0, None) ** 2
    friction = np.float32(0.36 * a * synth.jitter()) * swell * synth.noise(synth.modes[2])
    times_s = synth.random_times(15 * synth.severity)
    contacts = synth.impacts(times_s, 0.4 * a * synth.rng.lognormal(0, 0.4, len(times_s)), (0, 1, 0))
    stick_slip = synth.tone(1, 0.05 * a, cycles=synth.rng.uniform(2, 6) * synth.time_s)
    return friction + contacts + stick_slip


def _cavitation(synth: _RecordingSynthesizer) -> Signal:
    """Bubbles collapsing at random times, with heavy-tailed strength."""
    times_s = synth.random_times(40 + 160 * synth.severity)
    bursts = synth.impacts(times_s, 1 + synth.rng.pareto(2.5, len(times_s)), (0, 0.4, 1))
    return np.float32(0.16 * synth.severity * synth.jitter()) * _unit_rms(bursts)


_Fault = Callable[[_RecordingSynthesizer], Signal]

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


# ---------------------------------------------------------------------------------------------- rolling bearings


def _rolling_machine(synth: _RecordingSynthesizer, label: str) -> Signal:
    v, levels = synth.speed, synth.machine.residual_levels
    vibration = synth.tone(1, 0.06 * levels[0] * v**2) + synth.tone(2, 0.03 * levels[1] * v)
    vibration += synth.tone(3, 0.015 * levels[2]) + synth.tone(4, 0.008 * levels[0])
    vibration += np.float32(0.03 * synth.jitter(0.3)) * synth.noise(synth.path)
    orders = synth.orders
    synth.truth |= {"ftf": orders.ftf, "bpfo": orders.bpfo, "bpfi": orders.bpfi, "bsf": orders.bsf}
    return vibration if label == "healthy" else vibration + _bearing_impacts(synth, label)


def _bearing_impacts(synth: _RecordingSynthesizer, label: str) -> Signal:
    """Impacts of a local defect: nearly periodic, weighted by the load where the defect is."""
    order = {
        "inner_race": synth.orders.bpfi,
        "outer_race": synth.orders.bpfo,
        "ball": 2 * synth.orders.bsf,
    }[label]
    slip = float(synth.rng.uniform(-0.003, 0.015))
    synth.truth["slip"] = slip
    spacing = 1 / (order * (1 - slip))  # turns between impacts
    first, last = synth.cycles[0], synth.cycles[-1]
    n = int((last - first) / spacing) + 1
    jitter = 0.01 * synth.rng.standard_normal(n) + 0.003 * np.cumsum(synth.rng.standard_normal(n))
    turns = first + spacing * (np.arange(n) + synth.rng.uniform() + jitter)
    inside = (turns > first) & (turns < last)
    turns, hit = turns[inside], np.arange(n)[inside]
    times_s = np.interp(turns, synth.cycles, synth.time_s)
    if label == "inner_race":
        load = np.maximum(0, 1 + 1.2 * np.cos(2 * np.pi * turns))
    elif label == "ball":
        load = np.maximum(0, 1 + 0.9 * np.cos(2 * np.pi * synth.orders.ftf * turns)) * np.where(hit % 2, 0.7, 1)
    else:
        load = np.ones(len(turns))
    strength = (0.02 + 0.22 * synth.severity) * synth.jitter() * (0.8 if label == "ball" else 1)
    return synth.impacts(times_s, strength * load, (0.5, 1, 0))


# ---------------------------------------------------------------------------------------------- the measuring chain


def _measure(synth: _RecordingSynthesizer, vibration: Signal) -> Signal:
    """What a recorder makes of the vibration: noise, mains hum, offset and drift, gain, 12 bits."""
    rng, level = synth.rng, float(np.sqrt(np.mean(vibration**2)))
    snr_db = float(rng.uniform(*synth.snr_db_range))
    gain = float(rng.lognormal(0, 0.8))
    synth.truth |= {"snr_db": snr_db, "sensor_gain": gain}
    bins = np.arange(1, synth.n_samples // 2 + 2, dtype=np.float32)
    pink_share = 0.5**2 / (0.85**2 + 0.5**2)
    pink = 1 / (bins * np.float32(np.mean(1 / bins)))
    colour = np.sqrt(1 - pink_share + pink_share * pink)
    signal = vibration + _neighbours(synth, level)
    signal += np.float32(level * 10 ** (-snr_db / 20)) * synth.noise(colour)
    mains = synth.machine.mains_hz * rng.normal(1, 1e-4) * synth.time_s
    hum = level * rng.uniform(0, 0.08) * np.sqrt(2)
    for harmonic, share in ((1, 1), (2, 0.5), (3, 0.25)):
        signal += synth.tone(harmonic, share * hum, cycles=mains)
    signal += synth.tone(1, 0.2 * level, cycles=rng.uniform(0.05, 0.4) * synth.time_s)
    signal += np.float32(0.3 * level * rng.standard_normal())
    return _quantise(np.float32(gain) * signal, headroom=rng.uniform(1.2, 8))


def _neighbours(synth: _RecordingSynthesizer, level: float) -> Signal:
    """What other machinery adds: a tone of its own, and in every other recording some knocks."""
    tone = synth.tone(synth.rng.uniform(8.2, 9.8), level * synth.rng.uniform(0, 0.8))
    if synth.rng.uniform() < 0.5:
        return tone
    times_s = synth.random_times(synth.rng.uniform(0.5, 4))
    strength = level * synth.rng.uniform(1, 8) * synth.rng.lognormal(0, 0.5, len(times_s))
    return tone + synth.impacts(times_s, strength, (1, 0.6, 0.4))


def _quantise(signal: Signal, headroom: float, bits: int = 12) -> Signal:
    step = np.float32(2 * headroom * np.abs(signal).max() / 2**bits)
    return step * np.rint(signal / step)


def _irfft(spectrum: NDArray[np.complexfloating], n_samples: int) -> Signal:
    return np.fft.irfft(spectrum, n=n_samples).astype(np.float32, copy=False)


def _unit_rms(signal: Signal) -> Signal:
    rms = np.sqrt(np.mean(signal**2))
    return signal / rms if rms > 0 else signal
