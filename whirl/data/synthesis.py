"""Sources of vibration and the measuring chain from which simulated recordings are composed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_MACHINE = 0  # first word of the key of a machine's generator
_REFERENCE_HZ = 40.0  # shaft frequency for which amplitudes are given
_TURN = np.float32(2 * np.pi)

Signal = NDArray[np.float32]


@dataclass(frozen=True)
class Machine:
    """Properties of one specimen.

    Attributes:
        index: number of the machine.
        mode_fractions: natural frequencies over the Nyquist frequency, `[3]`.
        mode_dampings: damping ratios, `[3]`.
        mode_gains: gains of the modes, `[3]`.
        residual_levels: residual 1X, 2X and 3X, `[3]`.
        clearance_ratio: radial clearance over journal radius.
        first_critical_hz: first critical speed.
        mains_hz: frequency of the mains.
    """

    index: int
    mode_fractions: NDArray[np.float64]
    mode_dampings: NDArray[np.float64]
    mode_gains: NDArray[np.float64]
    residual_levels: NDArray[np.float64]
    clearance_ratio: float
    first_critical_hz: float
    mains_hz: float

    @property
    def name(self) -> str:
        """Name of the specimen."""
        return f"machine{self.index:02d}"


def draw_machine(seed: int, index: int) -> Machine:
    """Draw a machine, which depends on seed and index only."""
    rng = make_generator(seed, _MACHINE, index)
    return Machine(
        index=index,
        mode_fractions=rng.uniform((0.18, 0.42, 0.68), (0.30, 0.58, 0.88)),
        mode_dampings=rng.uniform(0.02, 0.06, 3),
        mode_gains=rng.uniform(0.5, 1.5, 3),
        residual_levels=rng.lognormal(0, 0.3, 3),
        clearance_ratio=rng.uniform(1.2e-3, 2.6e-3),
        first_critical_hz=rng.uniform(70, 80),
        mains_hz=float(rng.choice((50.0, 60.0))),
    )


def make_generator(seed: int, *key: int) -> np.random.Generator:
    """Make the random generator of a key; generators of different keys are independent."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


@dataclass(frozen=True)
class Conditions:
    """Ranges from which the operating point of a recording is drawn uniformly, and the sampling.

    Attributes:
        rpm_range: shaft speed in revolutions per minute.
        severity_range: severity of faults, 0 to 1.
        snr_db_range: vibration power over sensor noise power, in dB.
        sampling_rate_hz: sampling rate.
        n_samples: number of samples N.
    """

    rpm_range: tuple[float, float]
    severity_range: tuple[float, float]
    snr_db_range: tuple[float, float]
    sampling_rate_hz: float
    n_samples: int


class RecordingSynthesizer:
    """One recording under construction: machine, operating point and the sources of vibration that faults use.

    Args:
        machine: the specimen.
        conditions: ranges of the operating point, and the sampling.
        label: name of the class; the severity of `"healthy"` is 0.
        full_load_n: full load, in newtons.
        load_range: range of the load as a share of the full load.
        rng: the generator of this recording.

    Attributes:
        rate_hz: shaft frequency in Hz.
        load_n: load in newtons.
        temperature_c: oil temperature in degrees Celsius.
        severity: severity of the fault, 0 to 1.
        mode_hz: natural frequencies in Hz, `[3]`.
        truth: ground truth, by name.
        time_s: time in seconds, `[N]`.
        cycles: shaft revolutions, `[N]`.
    """

    def __init__(
        self,
        machine: Machine,
        conditions: Conditions,
        label: str,
        full_load_n: float,
        load_range: tuple[float, float],
        rng: np.random.Generator,
    ) -> None:
        self.machine, self.rng, self.snr_db_range = machine, rng, conditions.snr_db_range
        self.sampling_rate_hz, self.n_samples = conditions.sampling_rate_hz, conditions.n_samples
        self.rate_hz = rng.uniform(*conditions.rpm_range) / 60
        self.load_n = rng.uniform(*load_range) * full_load_n
        self.temperature_c = rng.uniform(40, 80)
        self.severity = rng.uniform(*conditions.severity_range) if label != "healthy" else 0.0
        self.mode_hz = machine.mode_fractions * rng.normal(1, 0.02, 3) * self.sampling_rate_hz / 2
        self.truth: dict[str, float] = {}
        self.time_s = np.arange(self.n_samples) / self.sampling_rate_hz
        self.cycles = self.rate_hz * (self.time_s + self.speed_drift(0.004)) + rng.uniform()

    @property
    def speed(self) -> float:
        """Shaft frequency relative to the one for which amplitudes are given."""
        return self.rate_hz / _REFERENCE_HZ

    @cached_property
    def modes(self) -> NDArray[np.complex64]:
        """Frequency responses, velocity over force, peak 1, `[3, F]`."""
        frequency = np.fft.rfftfreq(self.n_samples, 1 / self.sampling_rate_hz).astype(np.float32)
        ratio = frequency / self.mode_hz[:, None].astype(np.float32)
        damping = (2j * self.machine.mode_dampings[:, None]).astype(np.complex64) * ratio
        return (damping / (1 - ratio**2 + damping)).astype(np.complex64, copy=False)

    @cached_property
    def path(self) -> NDArray[np.complex64]:
        """Transmission path from bearing to sensor, unit RMS gain for white noise, `[F]`."""
        response = np.float32(0.15) + self._mix(self.machine.mode_gains)
        return response / np.sqrt(np.mean(np.abs(response) ** 2))

    def _mix(self, shares: NDArray[np.float64]) -> NDArray[np.complex64]:
        """Sum of the modes weighted by shares `[3]`, `[F]`."""
        # not `@`: rounding in BLAS depends on the number of threads
        return (shares.astype(np.float32)[:, None] * self.modes).sum(axis=0)

    def jitter(self, spread: float = 0.25) -> float:
        """Draw a lognormal factor with median 1."""
        return float(self.rng.lognormal(0, spread))

    def tone(self, order: float, amplitude: float, cycles: NDArray[np.float64] | None = None) -> Signal:
        """Synthesize a sine at an order of the shaft (or of other `cycles`), with random phase."""
        phase = order * (self.cycles if cycles is None else cycles)
        phase += self.rng.uniform()
        if phase[-1] - phase[0] >= (self.n_samples - 1) / 2:
            return np.zeros(self.n_samples, np.float32)
        phase -= np.floor(phase)
        wave = phase.astype(np.float32)
        wave *= _TURN
        np.sin(wave, out=wave)
        wave *= np.float32(amplitude)
        return wave

    def tones(self, amplitudes: dict[float, float]) -> Signal:
        """Synthesize the sum of sines at several orders, each with a jittered amplitude."""
        return sum(
            (self.tone(order, amplitude * self.jitter()) for order, amplitude in amplitudes.items()),
            start=np.zeros(self.n_samples, np.float32),
        )

    def noise(self, shape: NDArray[np.complex64] | NDArray[np.float32]) -> Signal:
        """Synthesize Gaussian noise with a spectrum of the shape `[F]` and unit RMS."""
        white = self.rng.standard_normal(2 * len(shape), dtype=np.float32).view(np.complex64)
        return unit_rms(irfft(white * shape, self.n_samples))

    def impacts(
        self, times_s: NDArray[np.float64], forces: NDArray[np.float64], mode_shares: Sequence[float]
    ) -> Signal:
        """Synthesize ring-downs of the modes after impacts, each decaying from force x share."""
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
        return irfft(np.fft.rfft(pulses) * response, self.n_samples)  # circular, but rings for 10 ms only

    def random_times(self, rate_hz: float) -> NDArray[np.float64]:
        """Draw the times of a Poisson process over the recording."""
        duration_s = self.n_samples / self.sampling_rate_hz
        return self.rng.uniform(0, duration_s, self.rng.poisson(rate_hz * duration_s))

    def speed_drift(self, relative_rms: float) -> NDArray[np.float64]:
        """Draw the integral in seconds of a slow (< 3 Hz) relative speed fluctuation with mean 0, `[N]`."""
        frequency, phase = self.rng.uniform(0.05, 3, 12), self.rng.uniform(0, 2 * np.pi, 12)
        knots = np.linspace(0, self.time_s[-1], 2 + int(64 * self.time_s[-1]))  # 64 Hz: off by 1 mrad
        angle = 2 * np.pi * frequency * knots[:, None] + phase
        integral = np.sqrt(2 / 12) * relative_rms * (np.sin(angle) / (2 * np.pi * frequency)).sum(axis=1)
        integral -= np.linspace(integral[0], integral[-1], len(knots))
        return np.interp(self.time_s, knots, integral)


def measure(synth: RecordingSynthesizer, vibration: Signal) -> Signal:
    """Record the vibration: add sensor noise, mains hum, offset and drift, apply a gain and quantize to 12 bits."""
    rng, level = synth.rng, float(np.sqrt(np.mean(vibration**2)))
    snr_db = float(rng.uniform(*synth.snr_db_range))
    gain = float(rng.lognormal(0, 0.8))
    synth.truth |= {"snr_db": snr_db, "sensor_gain": gain}
    bins = np.arange(1, synth.n_samples // 2 + 2, dtype=np.float32)
    pink_share = 0.5**2 / (0.85**2 + 0.5**2)
    pink = 1 / (bins * np.float32(np.mean(1 / bins)))
    color = np.sqrt(1 - pink_share + pink_share * pink)
    signal = vibration + _neighbors(synth, level)
    signal += np.float32(level * 10 ** (-snr_db / 20)) * synth.noise(color)
    mains = synth.machine.mains_hz * rng.normal(1, 1e-4) * synth.time_s
    hum = level * rng.uniform(0, 0.08) * np.sqrt(2)
    for harmonic, share in ((1, 1), (2, 0.5), (3, 0.25)):
        signal += synth.tone(harmonic, share * hum, cycles=mains)
    signal += synth.tone(1, 0.2 * level, cycles=rng.uniform(0.05, 0.4) * synth.time_s)
    signal += np.float32(0.3 * level * rng.standard_normal())
    return _quantize(np.float32(gain) * signal, headroom=rng.uniform(1.2, 8))


def _neighbors(synth: RecordingSynthesizer, level: float) -> Signal:
    """Synthesize the contribution of other machinery: a tone, and in half of the recordings random impacts."""
    tone = synth.tone(synth.rng.uniform(8.2, 9.8), level * synth.rng.uniform(0, 0.8))
    if synth.rng.uniform() < 0.5:
        return tone
    times_s = synth.random_times(synth.rng.uniform(0.5, 4))
    strength = level * synth.rng.uniform(1, 8) * synth.rng.lognormal(0, 0.5, len(times_s))
    return tone + synth.impacts(times_s, strength, (1, 0.6, 0.4))


def _quantize(signal: Signal, headroom: float, bits: int = 12) -> Signal:
    step = np.float32(2 * headroom * np.abs(signal).max() / 2**bits)
    return step * np.rint(signal / step)


def irfft(spectrum: NDArray[np.complexfloating], n_samples: int) -> Signal:
    """Compute the inverse real FFT as float32."""
    return np.fft.irfft(spectrum, n=n_samples).astype(np.float32, copy=False)


def unit_rms(signal: Signal) -> Signal:
    """Scale a signal to unit RMS; zeros stay zeros."""
    rms = np.sqrt(np.mean(signal**2))
    return signal / rms if rms > 0 else signal
