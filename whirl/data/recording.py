"""One recording of vibration, whatever file it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Recording:
    """A stretch of vibration signal with what is known about it.

    Attributes:
        signal: samples, `[C, N]`, float32, in `unit`.
        sampling_rate_hz: samples per second and channel, > 0.
        channels: name of each of the C channels, all different, e.g. `("DE", "FE")`.
        unit: unit of the samples (`"g"`, `"V"`, `"m/s^2"`); empty when unknown.
        label: name of the fault class; None for a recording to be diagnosed.
        rpm: shaft speed in revolutions per minute, > 0; None when unknown.
        load: load on the machine, in `load_unit`; None when unknown.
        load_unit: unit of `load`, e.g. `"N"` or `"hp"`.
        specimen: name of the physical bearing or machine. Recordings of one specimen never stand on
            both sides of a split. None when unknown.
        source: where the samples came from, e.g. a file's path.
        start_sample: index of the first sample within `source`, so that cut recordings can be
            checked for overlap.
        metadata: whatever else is known, by name.

    Raises:
        TypeError: the samples are not real numbers.
        ValueError: the shape is not `[C, N]`, or a name, rate or speed makes no sense.

    Example:
        >>> recording = Recording(np.zeros((1, 2048)), sampling_rate_hz=12_000, label="healthy", rpm=1797)
        >>> recording.n_channels, recording.n_samples, round(recording.n_revolutions, 1)
        (1, 2048, 5.1)
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

    def __post_init__(self) -> None:
        signal = np.asarray(self.signal)
        if signal.dtype.kind not in "fiu":
            raise TypeError(f"{self.name}: samples are {signal.dtype}, expected real numbers")
        if signal.ndim == 1:
            signal = signal[None]
        if signal.ndim != 2 or 0 in signal.shape:
            raise ValueError(f"{self.name}: signal has shape {signal.shape}, expected [channels, samples]")
        if not (np.isfinite(self.sampling_rate_hz) and self.sampling_rate_hz > 0):
            raise ValueError(f"{self.name}: sampling rate is {self.sampling_rate_hz} Hz, expected > 0")
        if self.rpm is not None and not (np.isfinite(self.rpm) and self.rpm > 0):
            raise ValueError(f"{self.name}: rpm is {self.rpm}, expected > 0 or None")
        channels = tuple(self.channels) or tuple(f"ch{i}" for i in range(len(signal)))
        if len(channels) != len(signal):
            raise ValueError(f"{self.name}: {len(signal)} channels of samples but the names {list(channels)}")
        if repeated := sorted({name for name in channels if channels.count(name) > 1}):
            raise ValueError(f"{self.name}: several channels are named {repeated}, expected different names")
        object.__setattr__(self, "signal", np.asarray(signal, dtype=np.float32))
        object.__setattr__(self, "channels", channels)
        object.__setattr__(self, "sampling_rate_hz", float(self.sampling_rate_hz))

    @property
    def name(self) -> str:
        """What to call this recording in a message."""
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
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.sampling_rate_hz

    @property
    def n_revolutions(self) -> float | None:
        """Turns of the shaft within the recording; None when the speed is unknown."""
        return None if self.rpm is None else self.duration_s * self.rpm / 60

    def cut(self, start: int, stop: int) -> Recording:
        """The samples `start:stop` as a recording of their own; nothing is copied."""
        if not 0 <= start < stop <= self.n_samples:
            raise ValueError(f"{self.name}: cannot cut samples {start}:{stop} out of {self.n_samples}")
        return replace(self, signal=self.signal[:, start:stop], start_sample=self.start_sample + start)

    def select_channels(self, names: Sequence[str]) -> Recording:
        """Only the named channels, in the order given."""
        missing = [name for name in names if name not in self.channels]
        if missing:
            raise ValueError(f"{self.name}: no channel {missing[0]!r}; it has {list(self.channels)}")
        rows = [self.channels.index(name) for name in names]
        return replace(self, signal=self.signal[rows], channels=tuple(names))
