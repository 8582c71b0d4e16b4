"""Random variables of a file with a known signal, for the writers of `written_layouts` and the test of readers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

RATES = (200.0, 512.0, 1000.0, 2048.0, 5120.0, 12_000.0, 25_600.0, 48_000.0, 51_200.0, 97_656.0, 200_000.0)
UNITS = ("", "g", "m/s^2", "mm/s", "V")
NAMES = ("DE", "FE", "acc_x", "acc z", "ch1", "sensor", "Bearing 1 Y", "Drive End", "A", "p", "Vertical", "motor")
SHARED_NAMES = ("signal", "vibration", "data", "samples")
RATE_NAMES = ("fs", "Fs", "sampling_rate", "Sampling Frequency", "sample rate", "sr", "SampleRate")
STEP_NAMES = ("dt", "wf_increment", "sample_interval", "Ts", "delta t")
TIME_NAMES = ("time", "t", "Time", "timestamp", "elapsed time")
GROUPS = ("run", "bearing", "measurement", "Test 1", "raw", "channel_A", "X7")


@dataclass
class Truth:
    """What was written."""

    channels: dict[str, np.ndarray]
    unit: str
    rate: float
    rpm: float | None = None
    is_rate_stated: bool = True
    companions: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Layout:
    """Variables of a file by path, in order."""

    variables: dict[str, Any]
    truth: Truth
    decoys: tuple[str, ...]


def make_layout(rng: np.random.Generator, *, nested: bool, with_decoys: bool = True) -> Layout:
    """Draw the variables of one file."""
    n = int(rng.integers(300, 4000))
    names = list(rng.permutation(NAMES)[: int(rng.integers(1, 4))])
    rate = float(rng.choice(RATES)) if rng.random() < 0.7 else float(np.round(rng.uniform(150, 2e5), 1))
    truth = Truth({name: noise(rng, n) for name in names}, str(rng.choice(UNITS)), rate)
    group = "/".join(rng.permutation(GROUPS)[: int(rng.integers(0, 4))]) if nested else ""
    prefix = f"{group}/" if group else ""
    variables = signal_variables(rng, truth, prefix, nested)
    variables |= rate_variables(rng, truth, prefix, n)
    if rng.random() < 0.4:
        truth.rpm = float(rng.integers(300, 6000))
        variables[prefix + str(rng.choice(["rpm", "shaft_rpm", "Motor RPM"]))] = truth.rpm
    decoys = []
    if with_decoys:
        for name, decoy in rng.permutation(np.array(list(DECOYS.items()), dtype=object))[: int(rng.integers(0, 4))]:
            found = decoy(rng, truth, prefix, n, nested)
            if found and not set(found) & set(variables):
                variables |= found
                decoys.append(name)
    order = rng.permutation(np.array(list(variables), dtype=object))
    return Layout({name: variables[name] for name in order}, truth, tuple(decoys))


def noise(rng: np.random.Generator, n: int) -> np.ndarray:
    samples = rng.normal(size=n)
    kind = rng.random()
    if kind < 0.2:
        return np.round(10.0 ** rng.integers(1, 4) * samples).astype(np.int32)
    samples = samples * 10.0 ** rng.integers(-3, 3) + rng.choice([0.0, 1.0])
    return samples if kind < 0.6 else samples.astype(np.float32)


def signal_variables(rng: np.random.Generator, truth: Truth, prefix: str, nested: bool) -> dict[str, Any]:
    """Return the channels as vectors or as one matrix, with their unit in the name, beside them, or for all."""
    unit = truth.unit
    if rng.random() < 0.6 or not nested:
        in_name = bool(unit) and rng.random() < 0.5
        variables = {f"{prefix}{name}{f' [{unit}]' if in_name else ''}": shaped(rng, samples)
                     for name, samples in truth.channels.items()}  # fmt: skip
        if unit and not in_name:
            variables |= {f"{prefix}unit": unit}
        return variables
    matrix = np.stack([samples.astype(np.float64) for samples in truth.channels.values()])
    truth.channels = dict(zip(truth.channels, matrix, strict=True))
    name = str(rng.choice(SHARED_NAMES))
    variables = {f"{prefix}{name}": matrix if rng.random() < 0.5 else matrix.T}
    return variables | ({f"{prefix}unit": unit} if unit else {})


def shaped(rng: np.random.Generator, samples: np.ndarray) -> np.ndarray:
    return samples[:, None] if rng.random() < 0.2 else samples[None] if rng.random() < 0.2 else samples


def rate_variables(rng: np.random.Generator, truth: Truth, prefix: str, n: int) -> dict[str, Any]:
    """Return how the sampling rate is stated; nothing if it is not."""
    place = prefix if rng.random() < 0.7 else f"{prefix}info/" if prefix else prefix
    rate = truth.rate
    rate_name, step_name, time_name = (str(rng.choice(each)) for each in (RATE_NAMES, STEP_NAMES, TIME_NAMES))
    ways: list[Callable[[], dict[str, Any]]] = [
        lambda: {place + rate_name: rate},
        lambda: {place + rate_name: f"{rate:g} Hz" if rate == float(f"{rate:g}") else f"{rate} Hz"},
        lambda: {place + rate_name: f"{rate / 1000:.10g} kHz"},
        lambda: {place + rate_name: f"{rate / 1000:.10g} kS/s"},
        lambda: {place + f"{rate_name} [kHz]": rate / 1000},
        lambda: {place + step_name: 1 / rate},
        lambda: {place + f"{step_name} [ms]": 1e3 / rate},
        lambda: {place + f"{step_name} (us)": 1e6 / rate},
        lambda: {place + rate_name: np.full(n, rate)},
        lambda: {prefix + f"{time_name} [s]": np.arange(n) / rate},
        lambda: {prefix + time_name: np.arange(n) / rate + rng.choice([0.0, 5.0])},
        lambda: {prefix + f"{time_name} [ms]": np.arange(n) / rate * 1e3},
        lambda: {prefix + f"{time_name} [µs]": np.arange(n) / rate * 1e6},
        lambda: {prefix + f"{time_name} [ns]": np.round(np.arange(n) / rate * 1e9)},
        lambda: {prefix + "timestamp": 1.7e9 + np.arange(n) / rate},
        lambda: {prefix + "timestamp": np.round(1.7e18 + 0 * np.arange(n)).astype(np.int64)
                 + np.round(np.arange(n) / rate * 1e9).astype(np.int64)},
    ]  # fmt: skip
    truth.is_rate_stated = bool(rng.random() < 0.9)
    return ways[int(rng.integers(len(ways)))]() if truth.is_rate_stated else {}


def other_group(prefix: str, nested: bool, name: str) -> str | None:
    """Return a group beside that of the signal."""
    if not nested or not prefix:
        return None
    parent = prefix.rstrip("/").rpartition("/")[0]
    return f"{parent}/{name}/" if parent else f"{name}/"


def slow_group(rng, truth, prefix, n, nested):
    place = other_group(prefix, nested, "slow")
    if place is None:
        return {}
    rate = float(rng.choice([0.1, 1.0, 10.0]))
    fact = {f"{place}fs": rate} if rng.random() < 0.5 else {f"{place}dt": 1 / rate}
    return {f"{place}temperature": 20 + np.abs(rng.normal(size=int(rng.choice([40, n // 3, n])))), **fact}


def fast_group(rng, truth, prefix, n, nested):
    place = other_group(prefix, nested, "other")
    if place is None:
        return {}
    return {f"{place}current": rng.normal(size=int(n * rng.choice([0.5, 1, 3]))), f"{place}fs": truth.rate * 2,
            f"{place}unit": "A", f"{place}rpm": 77.0}  # fmt: skip


def companion(rng, truth, prefix, n, nested):
    samples = rng.normal(size=n)
    truth.companions = {"extra [A]": samples}
    return {f"{prefix}extra [A]": samples}


DECOYS: dict[str, Callable[..., dict[str, Any]]] = {
    "counter": lambda rng, truth, prefix, n, nested: {prefix + str(rng.choice(["n", "index", "axis1", "counter"])):
                                                      np.arange(n) + int(rng.integers(2))},
    "labels": lambda rng, truth, prefix, n, nested: {prefix + str(rng.choice(["label", "y", "target", "class"])):
                                                     rng.integers(0, 4, n)},
    "few labels": lambda rng, truth, prefix, n, nested: {prefix + "labels": np.arange(70) % 4},
    "slow group": slow_group,
    "fast group": fast_group,
    "companion": companion,
    "longer": lambda rng, truth, prefix, n, nested: {prefix + "history": rng.normal(size=3 * n)},
    "shorter": lambda rng, truth, prefix, n, nested: {prefix + "trend": rng.normal(size=n // 2)},
    "parameters": lambda rng, truth, prefix, n, nested: {prefix + "orders": rng.normal(size=5)},
    "constant": lambda rng, truth, prefix, n, nested: {prefix + "setpoint": np.full(n, 3.5)},
    "monotone": lambda rng, truth, prefix, n, nested: {prefix + "total": np.cumsum(rng.random(n) + 0.01)},
    "frequencies": lambda rng, truth, prefix, n, nested: {prefix + str(rng.choice(["freq", "f"])):
                                                          np.linspace(0, truth.rate / 2, n)},
    "limits": lambda rng, truth, prefix, n, nested: {prefix + "max_rpm": 9999.0, prefix + "rated rpm": 8888.0},
    "notes": lambda rng, truth, prefix, n, nested: {prefix + "operator": "Ann", prefix + "gain_db": 3.0},
    "stack": lambda rng, truth, prefix, n, nested: {prefix + "stack": rng.normal(size=(7, 3, 300))},
    "other rate": lambda rng, truth, prefix, n, nested: {prefix + "display_rate": 25.0,
                                                         prefix + "nyquist": truth.rate / 2},
    "contradiction": lambda rng, truth, prefix, n, nested: (
        {prefix + "samplingrate": truth.rate * 3} if truth.is_rate_stated else {}),
    "spectrum": lambda rng, truth, prefix, n, nested: {prefix + "spectrum": np.fft.fft(rng.normal(size=n))},
}  # fmt: skip
