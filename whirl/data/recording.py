"""One vibration recording, independent of the file format it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from whirl._display import Displayed
from whirl.physics.bearings import Bearing, normalize_bearing, parse_bearings
from whirl.physics.rolling_bearing import ROTATING_RACES, RotatingRace
from whirl.validation import check_name

PHYSICAL_RANGES = {"sampling_rate_hz": (1e-3, 1e12), "rpm": (1e-3, 1e7), "load": (-1e12, 1e12)}
"""Lowest and highest value of a machine and its recorder; others are errors of units or of files."""


@dataclass(frozen=True, eq=False, repr=False)
class Recording(Displayed):
    """A vibration signal with the information needed to interpret it.

    Attributes:
        signal: samples, `[C, N]`, float32, in `unit`.
        sampling_rate_hz: samples per second and channel, > 0.
        channels: name of each of the C channels, all different, e.g. `("DE", "FE")`.
        unit: unit of the samples (`"g"`, `"V"`, `"m/s^2"`); empty if unknown.
        label: name of the fault class; None for an unlabeled recording.
        rpm: shaft speed in revolutions per minute, > 0; None if unknown.
        load: load on the machine, in `load_unit`; None if unknown.
        load_unit: unit of `load`, e.g. `"N"` or `"hp"`.
        specimen: name of the physical bearing or machine. Recordings of one specimen are never on both sides of a
            split. None if unknown.
        source: where the samples came from, e.g. the path of a file.
        start_sample: index of the first sample within `source`, used to check cut recordings for overlap.
        metadata: all other information, by name.
        bearing: the rolling bearings near the sensors, separated by ";": designations, geometries or fault orders as
            described in `whirl.physics.parse_bearings`. Stored in normalized form ("6205" for "SKF 6205-2RS"). A
            designation that is not in the table is kept, see `bearings`. None if unknown or if there is none.
        rotating_race: the race that rotates with the shaft, `"inner"` or `"outer"`.
        channel_units: unit of each channel where they differ, with `unit` empty; otherwise empty. See `units`.

    Raises:
        TypeError: the samples are not real numbers.
        ValueError: the shape is not `[C, N]`, or a name, sampling rate, speed or bearing is invalid.

    Example:
        >>> recording = Recording(np.zeros((1, 2048)), sampling_rate_hz=12_000, label="healthy", rpm=1797)
        >>> recording.n_channels, recording.n_samples, round(recording.n_revolutions, 1)
        (1, 2048, 5.1)
        >>> Recording(np.zeros(8), 12_000, bearing="SKF 6205-2RS; 6203").bearing
        '6205; 6203'
        >>> recording.cut(0, 1200)
        Recording(signal=float32[1, 1200], sampling_rate_hz=12000, duration_s=0.1, channels=('ch0',), label='healthy',
                  rpm=1797)
    """

    signal: np.ndarray
    sampling_rate_hz: float
    channels: tuple[str, ...] = ()
    unit: str = ""
    label: str | None = None
    rpm: float | None = None
    load: float | None = None
    load_unit: str = ""
    specimen: str | None = None
    source: str = ""
    start_sample: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)
    bearing: str | None = None
    rotating_race: RotatingRace = "inner"
    channel_units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        signal = np.asarray(self.signal)
        if signal.dtype.kind not in "fiu":
            raise TypeError(f"{self.name}: samples are {signal.dtype}, expected real numbers")
        if signal.ndim == 1:
            signal = signal[None]
        if signal.ndim != 2 or 0 in signal.shape:
            raise ValueError(f"{self.name}: signal has shape {signal.shape}, expected [channels, samples]")
        for name, (lowest, highest) in PHYSICAL_RANGES.items():
            value = getattr(self, name)
            if value is not None and not lowest <= value <= highest:
                raise ValueError(f"{self.name}: {name} is {value:g}, expected {lowest:g} to {highest:g}")
        channels = tuple(self.channels) or tuple(f"ch{i}" for i in range(len(signal)))
        if len(channels) != len(signal):
            raise ValueError(f"{self.name}: {len(signal)} channels of samples but the names {list(channels)}")
        if repeated := sorted({name for name in channels if channels.count(name) > 1}):
            raise ValueError(f"{self.name}: several channels are named {repeated}, expected different names")
        object.__setattr__(self, "signal", np.asarray(signal, dtype=np.float32))
        object.__setattr__(self, "channels", channels)
        object.__setattr__(self, "sampling_rate_hz", float(self.sampling_rate_hz))
        self._set_units()
        self._set_bearing()

    def _set_units(self) -> None:
        units = tuple(self.channel_units)
        if units and len(units) != len(self.signal):
            raise ValueError(f"{self.name}: {len(self.signal)} channels of samples but the units {list(units)}")
        if len(set(units)) == 1:
            object.__setattr__(self, "unit", units[0])
        elif units:
            object.__setattr__(self, "unit", "")
        object.__setattr__(self, "channel_units", units if len(set(units)) > 1 else ())

    def _set_bearing(self) -> None:
        try:
            check_name("rotating_race", self.rotating_race, ROTATING_RACES)
            text = "" if self.bearing is None else str(self.bearing)
            object.__setattr__(self, "bearing", normalize_bearing(text) or None)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None

    @property
    def name(self) -> str:
        """Name of this recording for messages."""
        return self.source or "recording"

    @property
    def n_channels(self) -> int:
        """Number of channels C."""
        return len(self.signal)

    @property
    def n_samples(self) -> int:
        """Number of samples N per channel."""
        return self.signal.shape[1]

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each channel; empty texts if unknown.

        Example:
            >>> both = Recording(np.zeros((2, 8)), 12_000, channel_units=("g", "V"))
            >>> both.units, both.unit, both.select_channels(["ch1"]).unit
            (('g', 'V'), '', 'V')
        """
        return self.channel_units or (self.unit,) * self.n_channels

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.sampling_rate_hz

    @property
    def n_revolutions(self) -> float | None:
        """Shaft revolutions in the recording; None if the speed is unknown."""
        return None if self.rpm is None else self.duration_s * self.rpm / 60

    @property
    def bearings(self) -> tuple[Bearing, ...]:
        """The bearings with their fault orders; empty if `bearing` is None.

        Raises:
            UnknownBearingError: a designation is not in the table of bearings; the message names those of its size.

        Example:
            >>> [round(bearing.orders.bpfo, 2) for bearing in Recording(np.zeros(8), 1, bearing="6205; 6203").bearings]
            [3.58, 3.05]
        """
        return () if self.bearing is None else parse_bearings(self.bearing, self.rotating_race)

    def _display_facts(self) -> dict[str, Any]:
        return {
            "signal": self.signal,
            "sampling_rate_hz": self.sampling_rate_hz,
            "duration_s": self.duration_s,
            "channels": self.channels,
            "unit": self.unit or ("; ".join(self.channel_units) or ""),
            "label": self.label,
            "rpm": self.rpm,
            "load": self.load,
            "load_unit": self.load_unit,
            "bearing": self.bearing,
            "rotating_race": None if self.rotating_race == "inner" else self.rotating_race,
            "specimen": self.specimen,
            "source": self.source,
            "start_sample": self.start_sample or None,
            "metadata": list(self.metadata),
        }

    def cut(self, start: int, stop: int) -> Recording:
        """Return the samples `start:stop` as a recording of their own; nothing is copied."""
        if not 0 <= start < stop <= self.n_samples:
            raise ValueError(f"{self.name}: cannot cut samples {start}:{stop} out of {self.n_samples}")
        return replace(self, signal=self.signal[:, start:stop], start_sample=self.start_sample + start)

    def select_channels(self, names: Sequence[str]) -> Recording:
        """Return the named channels, in the given order."""
        missing = [name for name in names if name not in self.channels]
        if missing:
            raise ValueError(f"{self.name}: no channel {missing[0]!r}; it has {list(self.channels)}")
        rows = [self.channels.index(name) for name in names]
        units = tuple(self.units[row] for row in rows)
        return replace(self, signal=self.signal[rows], channels=tuple(names), channel_units=units)
