"""Windows cut from recordings, a whole batch at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from whirl.data.memmap import MappedFile, mapped_block, mapping_of, read_ahead, samples_of
from whirl.data.recording import Recording

MIN_REVOLUTIONS = 16
"""Turns of the shaft in a window: fewer cannot tell a whirl at 0.45 X from a rub at 0.5 X."""

MIN_WINDOW = 2048
"""Samples in the shortest window that `choose_window` proposes of its own accord."""

FALLBACK_RPM = 1500.0
"""Speed assumed where none is known: a four-pole motor on 50 Hz mains, slower than most."""

Sample = tuple[Tensor, Tensor, dict[str, Tensor]]
"""Signals, targets, metadata: of one window, or of a batch of them."""

_NEWTONS = {"N": 1.0, "kN": 1000.0, "lbf": 4.4482216}
# A load in another unit, such as hp, is no force on the bearing.
_QUANTITIES: dict[str, Callable[[Recording], Any]] = {
    "sommerfeld": lambda recording: recording.metadata.get("sommerfeld"),
    "load": lambda recording: (recording.load or math.nan) * _NEWTONS.get(recording.load_unit, math.nan),
    "temperature": lambda recording: recording.metadata.get("temperature", recording.metadata.get("temperature_c")),
}


class Windows(Protocol):
    """Windows, or what was made of them, that are cut whole batches at a time, as of `WindowDataset`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: Tensor, /) -> Any: ...


class WindowDataset(Dataset[Sample]):
    """Equally long windows of recordings, as tensors ready for a network.

    All recordings lie one after the other in one block of memory, or of a mapped file
    (`whirl.data.to_mmap`), and the windows are a strided view of it: nothing is copied until a batch is cut, and a
    batch is cut by one `index_select`. A window never crosses from one recording to
    the next; what remains at the end of a recording and fills no window is left out.

    `dataset[indices]` with a tensor, list or slice of B indices gives

    - signals, float32 `[B, C, T]`;
    - targets, int64 `[B]`: position of the label in `classes`, -1 where there is none;
    - metadata: `"recording"`, int64 `[B]`, position in the list of recordings; `"start"`, int64 `[B]`, the window's
      first sample within that recording; `"rpm"`, float32 `[B]`, NaN where unknown; and, where a recording knows them,
      float32 `[B]`, NaN for the others: `"sommerfeld"`, the bearing's Sommerfeld number, `"load"` on it in N, and
      `"temperature"` of its oil in deg C, from the recordings' `load` and `metadata`.

    `dataset[int]` gives the same of one window without the batch axis, so a plain `DataLoader(dataset, batch_size=32)`
    works; `loaders.make_loader` is several times as fast.

    Args:
        recordings: at least one, all with the same sampling rate and number of channels.
        classes: names of the classes, in the order of the network's outputs; None when there is nothing to learn and
            all targets are -1.
        window: samples T in a window, >= 2.
        hop: samples from one window's start to the next one's, >= 1; default `window`, so windows do not overlap
            and no sample weighs more than another.
        standardize: each window and channel is brought to mean 0 and (population) standard deviation 1, so that sensor
            offset and recorder gain, which often give the class away, are gone. A constant window becomes zeros.
        quantities: which of `"sommerfeld"`, `"load"` and `"temperature"` to hand out, for data sets that go together;
            None is `known_quantities`.

    Attributes:
        classes: as given.
        window: as given.
        hop: as given, or its default.
        standardize: as given.
        sampling_rate_hz: of all recordings.
        sources: where each recording came from, e.g. its file; "" where that is not known.

    Raises:
        TypeError: an index is not an integer.
        ValueError: no recordings; differing rates or channel counts; a recording shorter than the window; a label that
            is not in `classes`; a sample that is not finite; a `window` or `hop` out of range.

    Example:
        >>> from whirl.data.recording import Recording
        >>> recording = Recording(np.arange(10_000), sampling_rate_hz=12_000, label="wear", rpm=1500)
        >>> dataset = WindowDataset([recording], classes=("healthy", "wear"), window=2048)
        >>> signals, targets, metadata = dataset[torch.tensor([3, 0])]
        >>> len(dataset), tuple(signals.shape), targets.tolist(), metadata["start"].tolist()
        (4, (2, 1, 2048), [1, 1], [6144, 0])
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        classes: Sequence[str] | None,
        window: int,
        hop: int | None = None,
        standardize: bool = True,
        quantities: Sequence[str] | None = None,
    ) -> None:
        self.classes = None if classes is None else tuple(classes)
        self.window = window
        self.hop = window if hop is None else hop
        self.standardize = standardize
        if self.window < 2 or self.hop < 1:
            raise ValueError(f"window is {self.window} samples and hop {self.hop}, expected at least 2 and 1")
        _check_alike(recordings)
        for recording in recordings:
            _check_one(recording, self.window, self.classes)
        self.sampling_rate_hz = recordings[0].sampling_rate_hz
        self.sources = tuple(recording.source for recording in recordings)
        self._windows, begins, self._mapping = _window_view(recordings, self.window)
        # one row per window, so that a batch looks everything up at once
        self._table = _window_table(recordings, begins, self.window, self.hop, self.classes or ())
        names = known_quantities(recordings) if quantities is None else quantities
        self._names = ("rpm", *names)
        speeds = [recording.rpm or math.nan for recording in recordings]
        self._quantities = torch.tensor([speeds, *(_quantity(recordings, name) for name in names)], dtype=torch.float32)

    @property
    def targets(self) -> Tensor:
        """Class of each window, int64 `[W]`."""
        return self._table[:, 1]

    @property
    def recording_index(self) -> Tensor:
        """Position in the list of recordings of each window's recording, int64 `[W]`."""
        return self._table[:, 2]

    @property
    def starts(self) -> Tensor:
        """First sample of each window within its recording, int64 `[W]`."""
        return self._table[:, 3]

    @property
    def n_channels(self) -> int:
        """Number of channels C."""
        return self._windows.shape[1]

    @property
    def class_counts(self) -> Tensor:
        """Windows of each class, int64 `[K]`."""
        return torch.bincount(self.targets[self.targets >= 0], minlength=len(self.classes or ()))

    def __getstate__(self) -> dict[str, Any]:
        # A worker maps the file for itself: a tensor over it would be copied whole.
        return self.__dict__ if self._mapping is None else self.__dict__ | {"_windows": self.n_channels}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._mapping is not None:
            self._windows = _windows_over(samples_of(self._mapping, state["_windows"]), self.window)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Sample:
        if isinstance(index, Tensor):
            return self._cut(index)
        chosen = range(len(self))[index] if isinstance(index, slice) else index
        if isinstance(chosen, Iterable):
            return self._cut(self._checked(chosen))
        signals, targets, metadata = self._cut(self._checked([chosen]))
        return signals[0], targets[0], {name: values[0] for name, values in metadata.items()}

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """The windows of a batch one by one, as a plain `DataLoader` wants them; cut together all the same."""
        signals, targets, metadata = self._cut(self._checked(indices))
        columns = [values.unbind() for values in metadata.values()]
        rows = [dict(zip(metadata, row, strict=True)) for row in zip(*columns, strict=True)]
        return list(zip(signals.unbind(), targets.unbind(), rows, strict=True))

    def _checked(self, indices: Iterable[int]) -> Tensor:
        """Indices as a tensor; raises like a list where they are not integers or out of range."""
        whole = range(len(self))
        return torch.tensor([whole[index] for index in indices], dtype=torch.int64)

    def _cut(self, indices: Tensor) -> Sample:
        """The whole batch in a handful of tensor operations."""
        position, target, recording, start = self._table.index_select(0, indices).T.contiguous()
        if self._mapping is not None:
            sample_bytes = 4 * self.n_channels
            read_ahead(self._mapping, (position * sample_bytes).tolist(), self.window * sample_bytes)
        signals = self._windows.index_select(0, position)
        if self.standardize:
            signals = standardize(signals)
        quantities = self._quantities.index_select(1, recording).unbind()
        known = dict(zip(self._names, quantities, strict=True))
        return signals, target, {"recording": recording, "start": start, **known}


def known_quantities(recordings: Iterable[Recording]) -> tuple[str, ...]:
    """Which of `"sommerfeld"`, `"load"` and `"temperature"` at least one recording knows as a number.

    Example:
        >>> recording = Recording(np.zeros(8), 12_000, load=2, load_unit="kN", metadata={"temperature_c": "warm"})
        >>> known_quantities([recording])
        ('load',)
    """
    recordings = list(recordings)
    return tuple(name for name in _QUANTITIES if not all(map(math.isnan, _quantity(recordings, name))))


def _quantity(recordings: Sequence[Recording], name: str) -> list[float]:
    """Its value in each recording, NaN where it is not known or no number."""
    values = [_QUANTITIES[name](recording) for recording in recordings]
    usable = [isinstance(value, (int, float)) and math.isfinite(value) for value in values]
    return [float(value) if known else math.nan for value, known in zip(values, usable, strict=True)]


def standardize(signals: Tensor) -> Tensor:
    """Signals with mean 0 and population standard deviation 1 along the last axis.

    Runs as a layer normalisation, the fastest form there is on a CPU (a tenth of `torch.std_mean`). What varies by less
    than a millionth of its mean is rounding, not vibration, and becomes zeros.

    Args:
        signals: `[..., T]`, float32.

    Returns:
        A tensor of the same shape.

    Example:
        >>> standardize(torch.tensor([[1.0, 3.0, 1.0, 3.0], [0.1, 0.1, 0.1, 0.1]]))
        tensor([[-1.,  1., -1.,  1.],
                [ 0.,  0.,  0.,  0.]])
    """
    # eps must not count: signals in metres have a variance far below layer_norm's usual 1e-5
    normal, mean, inverse_deviation = torch.native_layer_norm(signals, signals.shape[-1:], None, None, 1e-30)
    constant = mean.abs() * inverse_deviation > 1e6
    return normal.masked_fill_(constant, 0.0) if constant.any() else normal


def choose_window(recordings: Sequence[Recording], sampling_rate_hz: float) -> tuple[int, str]:
    """A window length that lets a network see what faults look like, and the reason for it.

    At least 16 revolutions of the slowest recording and 2048 samples, rounded up to a power of two, or to a multiple of
    1024 where the power of two would exceed the shortest recording.

    Args:
        recordings: at least one; those of unknown speed count as turning at 1500 rpm.
        sampling_rate_hz: the rate at which the windows will be cut, > 0.

    Returns:
        The number of samples, never more than the shortest recording holds at that rate, and one sentence saying why;
        it begins with `"warning:"` where fewer than 16 revolutions fit.

    Raises:
        ValueError: no recordings, or a rate that is not positive.

    Example:
        >>> recording = Recording(np.zeros(120_000), sampling_rate_hz=12_000, rpm=1797)
        >>> n_samples, reason = choose_window([recording], 12_000)
        >>> n_samples
        8192
        >>> reason
        '8192 samples (0.683 s) hold 20.4 revolutions of the slowest recording (1797 rpm); 16 are wanted'
    """
    if not recordings:
        raise ValueError("no recordings to choose a window for")
    if not (math.isfinite(sampling_rate_hz) and sampling_rate_hz > 0):
        raise ValueError(f"sampling rate is {sampling_rate_hz} Hz, expected > 0")
    rpm = min(recording.rpm or FALLBACK_RPM for recording in recordings)
    wanted = max(MIN_WINDOW, math.ceil(MIN_REVOLUTIONS * 60 / rpm * sampling_rate_hz))
    available = min(int(recording.duration_s * sampling_rate_hz) for recording in recordings)
    n_samples = _round_up(wanted, available)
    revolutions = n_samples / sampling_rate_hz * rpm / 60
    reason = (
        f"{n_samples} samples ({n_samples / sampling_rate_hz:.3g} s) hold {revolutions:.1f} revolutions "
        f"of the slowest recording ({rpm:g} rpm); {MIN_REVOLUTIONS} are wanted"
    )
    if any(recording.rpm is None for recording in recordings):
        reason += f"; recordings of unknown speed are taken to turn at {FALLBACK_RPM:g} rpm"
    if n_samples < wanted:
        shortest = min(recordings, key=lambda recording: recording.duration_s)
        reason = f"warning: {reason}, but {shortest.name} lasts only {shortest.duration_s:.3g} s"
    return n_samples, reason


def _round_up(wanted: int, available: int) -> int:
    power_of_two = 1 << (wanted - 1).bit_length()
    if power_of_two <= available:
        return power_of_two
    multiple = math.ceil(wanted / 1024) * 1024
    if multiple <= available:
        return multiple
    return available // 1024 * 1024 or available


def _check_alike(recordings: Sequence[Recording]) -> None:
    if not recordings:
        raise ValueError("no recordings to cut windows from")
    first = recordings[0]
    for other in recordings:
        if other.sampling_rate_hz != first.sampling_rate_hz:
            raise ValueError(
                f"{other.name} is sampled at {other.sampling_rate_hz:g} Hz, {first.name} at "
                f"{first.sampling_rate_hz:g} Hz: bring them to one rate with resample.to_common_rate"
            )
        if other.n_channels != first.n_channels:
            raise ValueError(
                f"{other.name} has channels {list(other.channels)}, {first.name} has {list(first.channels)}: "
                "choose channels that all recordings have"
            )


def _check_one(recording: Recording, window: int, classes: tuple[str, ...] | None) -> None:
    if recording.n_samples < window:
        raise ValueError(
            f"{recording.name} has {recording.n_samples} samples, fewer than the window of {window}: "
            "choose a shorter window or leave the recording out"
        )
    if classes is not None and recording.label is not None and recording.label not in classes:
        raise ValueError(f"{recording.name} is labelled {recording.label!r}, which is none of {list(classes)}")
    # a sum is finite only if every sample is; in double precision it cannot overflow
    if not np.isfinite(recording.signal.sum(dtype=np.float64)):
        channel, sample = np.argwhere(~np.isfinite(recording.signal))[0]
        value = recording.signal[channel, sample]
        raise ValueError(f"{recording.name}: sample {sample} of channel {recording.channels[channel]!r} is {value}")


def _window_view(recordings: Sequence[Recording], window: int) -> tuple[Tensor, np.ndarray, MappedFile | None]:
    """Every possible window `[P, C, T]` of all recordings, a view of one block, and where in it each recording begins.

    Spilled recordings lie in one block already, `[total, C]` on disk, whose mapping is the third; others are laid end
    to end, `[C, total]`.
    """
    mapped = mapped_block(recordings)
    if mapped is not None:
        return _windows_over(mapped[0], window), np.array(mapped[1]), mapping_of(recordings)
    block = torch.from_numpy(np.concatenate([recording.signal for recording in recordings], axis=1))
    n_channels, total = block.shape
    lengths = np.array([recording.n_samples for recording in recordings])
    windows = block.as_strided((total - window + 1, n_channels, window), (1, total, 1))
    return windows, np.cumsum(lengths) - lengths, None


def _windows_over(block: np.ndarray, window: int) -> Tensor:
    """Every possible window `[P, C, T]` of a mapped block `[N, C]`."""
    total, n_channels = block.shape
    size, strides = (total - window + 1, n_channels, window), (n_channels, 1, n_channels)
    return torch.from_numpy(block).as_strided(size, strides)


def _window_table(
    recordings: Sequence[Recording], begins: np.ndarray, window: int, hop: int, classes: Sequence[str]
) -> Tensor:
    """Row `[4]` of each window: first sample in the block, target, recording, first sample in the recording; int64."""
    lengths = np.array([recording.n_samples for recording in recordings])
    counts = (lengths - window) // hop + 1
    index = np.repeat(np.arange(len(recordings)), counts)
    start = (np.arange(len(index)) - (np.cumsum(counts) - counts)[index]) * hop
    position: dict[str | None, int] = {name: place for place, name in enumerate(classes)}
    target = np.array([position.get(recording.label, -1) for recording in recordings])[index]
    return torch.from_numpy(np.stack([begins[index] + start, target, index, start], axis=1))
