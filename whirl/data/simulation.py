"""Simulated vibration of rotating machines, with the ground truth that measured data sets lack.

A specimen is one machine: its structural modes, residual unbalance and misalignment, bearing, other rotating parts and
mains supply depend on (seed, machine) alone, and every machine is recorded in every class. Each recording has a random
generator of its own, keyed by (seed, machine, class, repetition), so it does not depend on which others are requested.

Orders follow the shaft (`order = f / (rpm / 60)`); structural modes scale with the Nyquist frequency, so that the
picture is the same at any sampling rate. No tone above the Nyquist frequency is written: a recorder filters it out.

Where faults appear (orders, bands, modulation) is physics; their strength at a given severity is an engineering
choice, made so that faults of low severity are hidden among healthy machines and that no class can be recognized by
level, crest factor or kurtosis: recorder gain, other machinery, noise and hum are scaled to the vibration of each
recording.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from whirl._parallel import map_in_threads
from whirl.data.journal_simulation import BEARING_LENGTH_M as BEARING_LENGTH_M
from whirl.data.journal_simulation import FULL_LOAD_N as JOURNAL_LOAD_N
from whirl.data.journal_simulation import JOURNAL_DIAMETER_M as JOURNAL_DIAMETER_M
from whirl.data.journal_simulation import journal_vibration, load_range
from whirl.data.recording import Recording
from whirl.data.rolling_simulation import FULL_LOAD_N as ROLLING_LOAD_N
from whirl.data.rolling_simulation import LOAD_RANGE, RollingMachine, draw_rolling_machine, rolling_vibration
from whirl.data.synthesis import (
    Conditions,
    Machine,
    RecordingSynthesizer,
    draw_machine,
    make_generator,
    measure,
)
from whirl.physics.bearings import Bearing, bearing_from_geometry, parse_bearing
from whirl.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES
from whirl.physics.rolling_bearing import ROTATING_RACES, BearingGeometry, RotatingRace
from whirl.validation import check_name

RANDOM_BEARING = "random"
"""Value of `bearing` that gives every machine a different geometry."""

_DEFAULT_BEARING = "6205"
_JOURNAL, _ROLLING = 1, 2  # first word of a generator's key


def simulate(
    n_machines: int = 24,
    recordings_per_class: int = 2,
    classes: Sequence[str] = JOURNAL_CLASSES,
    seed: int = 0,
    sampling_rate_hz: float = 20_480,
    n_samples: int = 102_400,
    rpm_range: tuple[float, float] = (1200, 3600),
    severity_range: tuple[float, float] = (0.2, 1.0),
    bearing: BearingGeometry | str | None = None,
    snr_db_range: tuple[float, float] = (5.0, 20.0),
    rotating_race: RotatingRace = "inner",
) -> list[Recording]:
    """Simulate recordings of `n_machines` machines, each in every class; arguments as for `iter_simulated`.

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
            rotating_race,
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
    bearing: BearingGeometry | str | None = None,
    snr_db_range: tuple[float, float] = (5.0, 20.0),
    rotating_race: RotatingRace = "inner",
) -> Iterator[Recording]:
    """Simulate recordings one by one: machine by machine, class by class, repetition by repetition.

    `source` is a unique name such as `machine03_wear_1`, which can be used as a file name. The ground truth is in
    `metadata`; for faults of rolling bearings it has the slip and `fault_db`, the power of the impacts relative to all
    other vibration.

    Args:
        n_machines: number of specimens, >= 1.
        recordings_per_class: recordings of each machine in each class, >= 1; rpm, load, oil temperature and
            severity are drawn anew for each.
        classes: some of `JOURNAL_CLASSES`, or some of `ROLLING_CLASSES`. `("healthy",)` alone is a journal machine
            unless a bearing is given.
        seed: same seed, same bits, with any number of threads; >= 0.
        sampling_rate_hz: > 0.
        n_samples: length of each recording, >= 16.
        rpm_range: range of the shaft speed (uniform), 0 < low <= high.
        severity_range: range of the severity of faults (uniform), 0 <= low <= high <= 1; healthy is 0. Impacts of a
            rolling-bearing fault of severity 0 are so weak that no method finds them.
        bearing: rolling bearing of all machines, as a geometry or as text (see `whirl.physics.parse_bearing`), or
            `"random"` for a different geometry in every machine; None is a 6205. Not used by journal classes.
        snr_db_range: range of the power of the vibration over that of the sensor noise (uniform), in dB.
        rotating_race: the race that rotates with the shaft.

    Raises:
        ValueError: an argument is out of range, or a class or bearing is unknown.

    Example:
        >>> recording = next(iter_simulated(classes=["oil_whirl"], seed=3, n_samples=2048))
        >>> recording.source, recording.unit, 0.42 <= recording.metadata["whirl_ratio"] <= 0.48
        ('machine00_oil_whirl_0', 'g', True)
        >>> recording = next(iter_simulated(classes=["outer_race"], bearing="SKF 6203", n_samples=2048))
        >>> recording.bearing, round(recording.metadata["bpfo"], 3)
        ('6203', 3.053)
    """
    if isinstance(classes, str):
        raise ValueError(f"classes is {classes!r}, expected a list of class names")
    conditions = Conditions(rpm_range, severity_range, snr_db_range, float(sampling_rate_hz), n_samples)
    setting = _Setting(
        n_machines, recordings_per_class, tuple(classes), seed, conditions, bearing is not None, rotating_race
    )
    fixed = _parse(bearing, rotating_race)

    def tasks() -> Iterator[tuple[Machine, RollingMachine | None, str, int]]:
        for index in range(n_machines):
            machine = draw_machine(seed, index)
            rolling = None if setting.is_journal else draw_rolling_machine(seed, machine, fixed, rotating_race)
            for label in setting.classes:
                for repetition in range(recordings_per_class):
                    yield machine, rolling, label, repetition

    return map_in_threads(lambda task: _record(setting, *task), tasks())


def _parse(bearing: BearingGeometry | str | None, rotating_race: RotatingRace) -> Bearing | None:
    """The bearing of all machines; None if each has its own."""
    if isinstance(bearing, BearingGeometry):
        return bearing_from_geometry(bearing, rotating_race)
    return None if bearing == RANDOM_BEARING else parse_bearing(bearing or _DEFAULT_BEARING, rotating_race)


@dataclass(frozen=True)
class _Setting:
    """Arguments that all recordings share."""

    n_machines: int
    recordings_per_class: int
    classes: tuple[str, ...]
    seed: int
    conditions: Conditions
    has_bearing: bool
    rotating_race: RotatingRace

    def __post_init__(self) -> None:
        given = {**vars(self), **vars(self.conditions)}
        for name, least in (("n_machines", 1), ("recordings_per_class", 1), ("seed", 0), ("n_samples", 16)):
            if given[name] < least:
                raise ValueError(f"{name} is {given[name]}, expected >= {least}")
        c = self.conditions
        if not (np.isfinite(c.sampling_rate_hz) and c.sampling_rate_hz > 0):
            raise ValueError(f"sampling_rate_hz is {c.sampling_rate_hz}, expected > 0")
        if not 0 < c.rpm_range[0] <= c.rpm_range[1] < np.inf:
            raise ValueError(f"rpm_range is {c.rpm_range}, expected 0 < low <= high")
        if not 0 <= c.severity_range[0] <= c.severity_range[1] <= 1:
            raise ValueError(f"severity_range is {c.severity_range}, expected 0 <= low <= high <= 1")
        if not -np.inf < c.snr_db_range[0] <= c.snr_db_range[1] < np.inf:
            raise ValueError(f"snr_db_range is {c.snr_db_range}, expected finite numbers, low <= high")
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes is {self.classes}, expected a list of different class names")
        if not (set(self.classes) <= set(JOURNAL_CLASSES) or set(self.classes) <= set(ROLLING_CLASSES)):
            raise ValueError(
                f"classes {self.classes} are neither all of {JOURNAL_CLASSES} nor all of {ROLLING_CLASSES}"
            )
        check_name("rotating_race", self.rotating_race, ROTATING_RACES)

    @property
    def is_journal(self) -> bool:
        return set(self.classes) <= set(JOURNAL_CLASSES) and not (self.has_bearing and self.classes == ("healthy",))


def _record(
    setting: _Setting, machine: Machine, rolling: RollingMachine | None, label: str, repetition: int
) -> Recording:
    """Simulate one recording; `rolling` is None for a journal machine."""
    if rolling is None:
        key = (_JOURNAL, machine.index, JOURNAL_CLASSES.index(label), repetition)
        loads = (JOURNAL_LOAD_N, load_range(label))
    else:
        key = (_ROLLING, machine.index, ROLLING_CLASSES.index(label), repetition)
        loads = (ROLLING_LOAD_N, LOAD_RANGE)
    synth = RecordingSynthesizer(machine, setting.conditions, label, *loads, make_generator(setting.seed, *key))
    vibration = journal_vibration(synth, label) if rolling is None else rolling_vibration(synth, label, rolling)
    vibration *= 1 + synth.tone(1, 0.05, cycles=synth.rng.uniform(0.3, 1.5) * synth.time_s)
    signal = measure(synth, vibration)
    metadata: dict[str, float | str] = {
        "machine": machine.name,
        "severity": synth.severity,
        "temperature_c": synth.temperature_c,
        "seed": float(setting.seed),
    }
    return Recording(
        signal,
        setting.conditions.sampling_rate_hz,
        unit="g",
        label=label,
        rpm=60 * synth.rate_hz,
        load=synth.load_n,
        load_unit="N",
        specimen=machine.name,
        source=f"{machine.name}_{label}_{repetition}",
        metadata=metadata | synth.truth,
        bearing=None if rolling is None else rolling.bearing.text,
        rotating_race=setting.rotating_race,
    )
