"""Fixed-length windows cut from recordings, one batch per operation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from whirl._display import Displayed
from whirl.data.memmap import MappedFile, mapped_block, mapping_of, read_ahead, samples_of
from whirl.data.quality import MIN_REVOLUTIONS
from whirl.data.recording import Recording
from whirl.validation import check_count, check_number, unknown_name

MIN_WINDOW = 2048
"""Shortest window that `choose_window` proposes, in samples, if the recordings are long enough."""

FALLBACK_RPM = 1500.0
"""Speed assumed for recordings of unknown speed: a four-pole motor on 50 Hz mains, slower than most machines."""

Sample = tuple[Tensor, Tensor, dict[str, Tensor]]
"""Signals, targets and metadata of one window or of a batch."""

_NEWTONS = {"N": 1.0, "kN": 1000.0, "lbf": 4.4482216}
# A load in another unit, such as hp, is not a force on the bearing.
_QUANTITIES: dict[str, Callable[[Recording], Any]] = {
    "sommerfeld": lambda recording: recording.metadata.get("sommerfeld"),
    "load": lambda recording: (
        None if recording.load is None else recording.load * _NEWTONS.get(recording.load_unit, math.nan)
    ),
    "temperature": lambda recording: recording.metadata.get("temperature", recording.metadata.get("temperature_c")),
    "sample_weight": lambda recording: recording.metadata.get("sample_weight"),
}


class Windows(Protocol):
    """A data set of windows, or of data computed from them, indexed by complete batches like `WindowDataset`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: Tensor, /) -> Any: ...


class WindowDataset(Displayed, Dataset[Sample]):
    """Data set of fixed-length windows of recordings, as tensors for a network.

    All recordings are stored consecutively in one block of memory, or of a memory-mapped file (`whirl.data.to_mmap`),
    and the windows are a strided view of it: nothing is copied until a batch is cut, and a batch is cut by one
    `index_select`. A window never spans two recordings; samples at the end of a recording that do not fill a window are
    dropped.

    `dataset[indices]` with a tensor, list or slice of B indices returns

    - signals, float32 `[B, C, T]`;
    - targets, int64 `[B]`: index of the label in `classes`, -1 for unlabeled recordings;
    - metadata: `"recording"`, int64 `[B]`, index in the list of recordings; `"start"`, int64 `[B]`, first sample of the
      window within its recording; `"rpm"`, float32 `[B]`, NaN where unknown; and those of the following that at least
      one recording provides, float32 `[B]`, NaN where unknown: `"sommerfeld"`, the Sommerfeld number of the bearing,
      `"load"` on the bearing in N, `"temperature"` of the oil in deg C, and `"sample_weight"`, the weight in the loss,
      taken from `load` and `metadata` of the recordings.

    `dataset[int]` returns the same for one window without the batch axis, so a plain
    `DataLoader(dataset, batch_size=32)` works; `loaders.make_loader` is several times faster.

    Args:
        recordings: at least one recording; all with the same sampling rate and number of channels.
        classes: names of the classes, in the order of the network's outputs. With None all targets are -1.
        window: window length T in samples, >= 2.
        hop: distance of the starts of successive windows in samples, >= 1. Default: `window`, so that windows do not
            overlap and all samples have equal weight.
        standardize: whether to scale each window and channel to mean 0 and (population) standard deviation 1. This
            removes sensor offset and recorder gain, which often leak the label. Constant windows become zeros.
        quantities: which of `"sommerfeld"`, `"load"`, `"temperature"` and `"sample_weight"` to include in the metadata,
            e.g. the same for training and test sets. Default: `known_quantities(recordings)`.

    Attributes:
        classes: as given.
        window: as given.
        hop: as given, or its default.
        standardize: as given.
        sampling_rate_hz: sampling rate of all recordings.
        sources: origin of each recording, e.g. its file; "" if unknown.

    Raises:
        TypeError: an index is not an integer.
        ValueError: there are no recordings, they differ in sampling rate or number of channels, one is shorter than the
            window, a label is not in `classes`, a sample is not finite, or `window` or `hop` is out of range.

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
        self.window = check_count("window", window, 2)
        self.hop = window if hop is None else check_count("hop", hop)
        self.standardize = standardize
        _check_compatible(recordings)
        for recording in recordings:
            _check_recording(recording, self.window, self.classes)
        self.sampling_rate_hz = recordings[0].sampling_rate_hz
        self.sources = tuple(recording.source for recording in recordings)
        self._windows, offsets, self._mapping = _window_view(recordings, self.window)
        # one row per window, so that a batch needs a single lookup
        self._table = _window_table(recordings, offsets, self.window, self.hop, self.classes or ())
        names = known_quantities(recordings) if quantities is None else quantities
        self._names = ("rpm", *names)
        speeds = [recording.rpm or math.nan for recording in recordings]
        self._quantities = torch.tensor(
            [speeds, *(_quantity_values(recordings, name) for name in names)], dtype=torch.float32
        )

    @property
    def targets(self) -> Tensor:
        """Class of each window, int64 `[W]`."""
        return self._table[:, 1]

    @property
    def recording_index(self) -> Tensor:
        """Index of the recording of each window in the list of recordings, int64 `[W]`."""
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
        """Number of windows of each class, int64 `[K]`."""
        return torch.bincount(self.targets[self.targets >= 0], minlength=len(self.classes or ()))

    def _display_facts(self) -> dict[str, Any]:
        return {
            "n_windows": len(self),
            "window": self.window,
            "hop": self.hop,
            "n_channels": self.n_channels,
            "sampling_rate_hz": self.sampling_rate_hz,
            "n_recordings": len(self.sources),
            "classes": self.classes,
            "standardize": self.standardize,
            "memory_mapped": self._mapping is not None,
            "metadata": self._names,
        }

    def __getstate__(self) -> dict[str, Any]:
        # A worker process maps the file itself; pickling the tensor would copy all samples.
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
        selected = range(len(self))[index] if isinstance(index, slice) else index
        if isinstance(selected, Iterable):
            return self._cut(self._index_tensor(selected))
        signals, targets, metadata = self._cut(self._index_tensor([selected]))
        return signals[0], targets[0], {name: values[0] for name, values in metadata.items()}

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Return the windows of a batch as a list, for a plain `DataLoader`; they are cut in one operation."""
        signals, targets, metadata = self._cut(self._index_tensor(indices))
        columns = [values.unbind() for values in metadata.values()]
        rows = [dict(zip(metadata, row, strict=True)) for row in zip(*columns, strict=True)]
        return list(zip(signals.unbind(), targets.unbind(), rows, strict=True))

    def _index_tensor(self, indices: Iterable[int]) -> Tensor:
        """Convert indices to a tensor; raise like a list if one is not an integer or out of range."""
        valid = range(len(self))
        return torch.tensor([valid[index] for index in indices], dtype=torch.int64)

    def _cut(self, indices: Tensor) -> Sample:
        """Cut a batch with a constant number of tensor operations."""
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
    """Return which of the quantities of `WindowDataset` at least one recording provides as a number.

    Example:
        >>> recording = Recording(np.zeros(8), 12_000, load=2, load_unit="kN", metadata={"temperature_c": "warm"})
        >>> known_quantities([recording])
        ('load',)
    """
    recordings = list(recordings)
    return tuple(name for name in _QUANTITIES if not all(map(math.isnan, _quantity_values(recordings, name))))


def _quantity_values(recordings: Sequence[Recording], name: str) -> list[float]:
    """Return a quantity for each recording; NaN where it is unknown or not a finite number."""
    values = [_QUANTITIES[name](recording) for recording in recordings]
    is_number = [isinstance(value, Real) and math.isfinite(value) for value in values]
    return [float(value) if usable else math.nan for value, usable in zip(values, is_number, strict=True)]


def standardize(signals: Tensor) -> Tensor:
    """Scale signals to mean 0 and population standard deviation 1 along the last axis.

    Uses layer normalization, the fastest implementation on a CPU (a tenth of the time of `torch.std_mean`). Signals
    whose deviation is less than a millionth of their mean contain only rounding errors and become zeros.

    Args:
        signals: `[..., T]`, float32.

    Returns:
        A tensor of the same shape.

    Example:
        >>> standardize(torch.tensor([[1.0, 3.0, 1.0, 3.0], [0.1, 0.1, 0.1, 0.1]]))
        tensor([[-1.,  1., -1.,  1.],
                [ 0.,  0.,  0.,  0.]])
    """
    # negligible eps: signals in metres have a variance far below layer_norm's default of 1e-5
    normalized, mean, inverse_deviation = torch.native_layer_norm(signals, signals.shape[-1:], None, None, 1e-30)
    constant = mean.abs() * inverse_deviation > 1e6
    return normalized.masked_fill_(constant, 0.0) if constant.any() else normalized


def choose_window(recordings: Sequence[Recording], sampling_rate_hz: float) -> tuple[int, str]:
    """Choose a window length that is long enough to resolve fault frequencies.

    The window contains at least 16 revolutions of the slowest recording and 2048 samples, rounded up to a power of two,
    or to a multiple of 1024 if the power of two exceeds the shortest recording.

    Args:
        recordings: at least one recording; 1500 rpm is assumed for recordings of unknown speed.
        sampling_rate_hz: sampling rate at which the windows will be cut, > 0.

    Returns:
        The window length in samples, at most the length of the shortest recording at this rate, and one sentence with
        the reason. The sentence starts with `"warning:"` if fewer than 16 revolutions fit.

    Raises:
        ValueError: there are no recordings, or the sampling rate is not positive.

    Example:
        >>> recording = Recording(np.zeros(120_000), sampling_rate_hz=12_000, rpm=1797)
        >>> n_samples, reason = choose_window([recording], 12_000)
        >>> n_samples
        8192
        >>> reason
        '8192 samples (0.683 s) contain 20.4 revolutions of the slowest recording (1797 rpm); at least 16 are needed'
    """
    if not recordings:
        raise ValueError("no recordings to choose a window for")
    check_number("sampling_rate_hz", sampling_rate_hz, 0, open_ends=True)
    rpm = min(recording.rpm or FALLBACK_RPM for recording in recordings)
    required = max(MIN_WINDOW, math.ceil(MIN_REVOLUTIONS * 60 / rpm * sampling_rate_hz))
    available = min(_n_samples_at(sampling_rate_hz, recording) for recording in recordings)
    n_samples = _round_up(required, available)
    revolutions = n_samples / sampling_rate_hz * rpm / 60
    reason = (
        f"{n_samples} samples ({n_samples / sampling_rate_hz:.3g} s) contain {revolutions:.1f} revolutions "
        f"of the slowest recording ({rpm:g} rpm); at least {MIN_REVOLUTIONS} are needed"
    )
    if any(recording.rpm is None for recording in recordings):
        reason += f"; {FALLBACK_RPM:g} rpm is assumed for recordings of unknown speed"
    if n_samples < required:
        shortest = min(recordings, key=lambda recording: recording.duration_s)
        reason = f"warning: {reason}, but {shortest.name} is only {shortest.duration_s:.3g} s long"
    return n_samples, reason


def _n_samples_at(sampling_rate_hz: float, recording: Recording) -> int:
    """Return the complete samples of a recording at another sampling rate."""
    exact = recording.n_samples * sampling_rate_hz / recording.sampling_rate_hz
    return math.floor(round(exact, 6))  # a rounding error must not cost a sample


def _round_up(required: int, available: int) -> int:
    power_of_two = 1 << (required - 1).bit_length()
    if power_of_two <= available:
        return power_of_two
    multiple = math.ceil(required / 1024) * 1024
    if multiple <= available:
        return multiple
    return available // 1024 * 1024 or available


def _check_compatible(recordings: Sequence[Recording]) -> None:
    if not recordings:
        raise ValueError("no recordings to cut windows from")
    first = recordings[0]
    for other in recordings:
        if other.sampling_rate_hz != first.sampling_rate_hz:
            raise ValueError(
                f"{other.name} is sampled at {other.sampling_rate_hz:g} Hz, {first.name} at "
                f"{first.sampling_rate_hz:g} Hz: resample them with whirl.data.to_common_rate"
            )
        if other.n_channels != first.n_channels:
            raise ValueError(
                f"{other.name} has channels {list(other.channels)}, {first.name} has {list(first.channels)}: "
                "select channels that all recordings have"
            )


def _check_recording(recording: Recording, window: int, classes: tuple[str, ...] | None) -> None:
    if recording.n_samples < window:
        raise ValueError(
            f"{recording.name} has {recording.n_samples} samples, fewer than the window of {window}: "
            "choose a shorter window or exclude the recording"
        )
    if classes is not None and recording.label is not None and recording.label not in classes:
        raise ValueError(f"{recording.name}: {unknown_name('class', recording.label, classes)}")
    # the sum is finite only if every sample is; in float64 it cannot overflow
    if not np.isfinite(recording.signal.sum(dtype=np.float64)):
        channel, sample = np.argwhere(~np.isfinite(recording.signal))[0]
        value = recording.signal[channel, sample]
        raise ValueError(f"{recording.name}: sample {sample} of channel {recording.channels[channel]!r} is {value}")


def _window_view(recordings: Sequence[Recording], window: int) -> tuple[Tensor, np.ndarray, MappedFile | None]:
    """Return all possible windows of all recordings as a view of one block of samples.

    Memory-mapped recordings are in one block already, `[total, C]` on disk; others are concatenated, `[C, total]`.

    Returns:
        The windows `[P, C, T]` at all P positions, the first position of each recording, and the mapped file, or None.
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
    """Return all possible windows `[P, C, T]` of a mapped block `[N, C]`."""
    total, n_channels = block.shape
    size, strides = (total - window + 1, n_channels, window), (n_channels, 1, n_channels)
    return torch.from_numpy(block).as_strided(size, strides)


def _window_table(
    recordings: Sequence[Recording], offsets: np.ndarray, window: int, hop: int, classes: Sequence[str]
) -> Tensor:
    """Return a row per window, int64 `[W, 4]`: position in the block, target, recording, start in the recording."""
    lengths = np.array([recording.n_samples for recording in recordings])
    counts = (lengths - window) // hop + 1
    index = np.repeat(np.arange(len(recordings)), counts)
    start = (np.arange(len(index)) - (np.cumsum(counts) - counts)[index]) * hop
    class_index: dict[str | None, int] = {name: index for index, name in enumerate(classes)}
    target = np.array([class_index.get(recording.label, -1) for recording in recordings])[index]
    return torch.from_numpy(np.stack([offsets[index] + start, target, index, start], axis=1))
