"""Leakage detection: the same specimen, file, samples or signal in two parts of a split.

Specimen names, file names and positions are compared directly. Signals are compared by fingerprint, since a copy may
have a different name, gain, offset, sign, length, start or precision, or additional noise:

1. The spectrum is whitened in narrow bands and its lines are limited. This suppresses shaft orders and resonances,
   which all recordings of one machine share; the rest is mostly noise, which is unique to a recording.
2. Landmarks are samples whose magnitude is the maximum of their neighborhood. A copy has the same landmarks, regardless
   of its start.
3. The snippet around each landmark of one part is compared with those of the other part by one matrix product. The best
   match is a candidate: a pair of recordings and a lag.
4. A candidate is a copy if the signs of both whitened signals agree over the complete overlap far more often than by
   chance. Signs are sufficient, and limit the effect of single impacts (one-bit correlation: Bensen et al. 2007,
   *Geophysical Journal International* 169:1239-1260).

The sign correlation of real recordings of one bearing at different loads is below 0.03, that of copies with noise 30 dB
below the signal above 0.4.
"""

from __future__ import annotations

import logging
import math
import os.path
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from whirl._parallel import map_in_threads, one_torch_thread
from whirl.data.recording import Recording
from whirl.data.splits import Split

_logger = logging.getLogger(__name__)

LANDMARK_GRID = 128
"""Length of a grid cell in samples; each cell has at most one landmark."""

LANDMARK_REACH = 8
"""Grid cells on either side in which a landmark is the maximum; gives about one landmark in 2200 samples."""

MAX_LANDMARKS = 25_000
"""Above this number (54 million samples) the neighborhood grows, since matching costs the square of the number."""

SNIPPET = 128
"""Samples around a landmark that are compared."""

CANDIDATE_CORRELATION = 0.35
"""Correlation of two snippets above which a pair is a candidate: 4 standard deviations of chance."""

COPY_CORRELATION = 0.4
"""Sign correlation of two whitened signals above which they are copies."""

COPY_SIGMAS = 15.0
"""The same threshold in standard deviations of chance, `1 / sqrt(overlap)`; applies to short overlaps."""

MAX_BANDS = 1024
"""Number of bands in which a spectrum is whitened; fewer for short signals."""

LINE_LIMIT = 2.0
"""Largest magnitude of a whitened bin; exceeded by noise in one of 20 bins, and by all lines."""

PADDING = 1024
"""Signals are padded to a multiple of this, so that those of similar length share a transform."""

BATCH_SAMPLES = 2**20
"""Samples transformed at once; intermediate results fit in the CPU cache."""

TINY = 1e-30
"""Prevents division by zero in empty bands."""

CHUNK = 1024
"""Landmarks compared at once."""


class LeakageError(ValueError):
    """Raised if parts of a split share specimens, files, samples or signals."""


@dataclass(frozen=True)
class Leak:
    """Data shared by two parts of a split.

    Attributes:
        kind: `"specimen"`, `"file"`, `"overlap"` (same samples of one source), `"content"` (equal samples under another
            name) or `"near-duplicate"` (a modified copy).
        part_a: name of the first part, e.g. `"train"`.
        part_b: name of the second part.
        name_a: recording in the first part.
        name_b: recording in the second part.
        message: description in one sentence.
    """

    kind: str
    part_a: str
    part_b: str
    name_a: str
    name_b: str
    message: str


def check_leakage(split: Split, allow_leakage: bool = False) -> list[Leak]:
    """Raise if parts of a split share data, which would invalidate the test results.

    Args:
        split: the split to check.
        allow_leakage: whether to log a warning instead of raising an error.

    Returns:
        The leaks found; empty unless `allow_leakage` is set.

    Raises:
        LeakageError: there is a leak and `allow_leakage` is not set.

    Example:
        >>> first = Recording(np.zeros(4096), 12_000, specimen="pump 3", source="a.mat")
        >>> second = Recording(np.ones(4096), 12_000, specimen="pump 3", source="b.mat")
        >>> split = Split([first], [], [second], by="specimen", val_by="time")
        >>> try:
        ...     check_leakage(split)
        ... except LeakageError as error:
        ...     print(error)
        train and test share specimen 'pump 3' (a.mat, b.mat); use --allow-leakage to train anyway
    """
    leaks = find_leaks(split)
    if not leaks:
        return leaks
    shown = "; ".join(leak.message for leak in leaks[:3])
    more = f"; and {len(leaks) - 3} more" if len(leaks) > 3 else ""
    if not allow_leakage:
        raise LeakageError(f"{shown}{more}; use --allow-leakage to train anyway")
    _logger.warning("leakage allowed: %s%s", shown, more)
    return leaks


def find_leaks(split: Split) -> list[Leak]:
    """Find data shared by two parts of a split.

    The test part must not share specimens or files with the other parts, regardless of how it was split off: a bearing
    seen in training must not be in the test set. Validation is only used for model selection, so train and val may
    share the units that `val_by` permits: specimens with `"recording"`, specimens and files with `"time"`. Overlapping
    samples and copies are always leaks. Cuts of one source are compared only by position, since a signal of a machine
    in steady operation resembles itself.

    Copies with noise 30 dB below the signal are found reliably if they have at least 20 000 samples in common, and half
    of those with 4000 (proportionally more in sets of more than 54 million samples). Recordings must have the same
    sampling rate, see `whirl.data.to_common_rate`. Constant channels are not compared.

    Args:
        split: the split to check; parts may be empty.

    Returns:
        One leak per shared specimen and file, and per pair of recordings with common or similar samples.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=(2, 40_000))
        >>> a, b = (Recording(signal, 12_000, specimen=name, source=name) for signal, name in zip(noise, "ab"))
        >>> copy = Recording(1 - 3 * a.signal[:, 5000:], 12_000, specimen="c", source="c")
        >>> find_leaks(Split([a], [], [b], "specimen", "time"))
        []
        >>> [leak.message for leak in find_leaks(Split([a], [], [b, copy], "specimen", "time"))]
        ['train and test share a signal: c is a modified copy of a']
    """
    parts = {"train": split.train, "val": split.val, "test": split.test}
    with one_torch_thread():
        return _find_leaks(parts, split.val_by)


def _find_leaks(parts: dict[str, list[Recording]], val_by: str) -> list[Leak]:
    n_samples = sum(recording.signal.size for recordings in parts.values() for recording in recordings)
    reach = max(LANDMARK_REACH, n_samples // (2 * LANDMARK_GRID * MAX_LANDMARKS))
    fingerprints = {name: _fingerprint(recordings, reach) for name, recordings in parts.items()}
    leaks: list[Leak] = []
    for name_a, name_b, by in (("train", "test", "specimen"), ("val", "test", "specimen"), ("train", "val", val_by)):
        a, b = parts[name_a], parts[name_b]
        equal = list(_equal_content(a, b))
        copies = _copies(fingerprints[name_a], fingerprints[name_b]) - {(i, j) for _, i, j, _ in equal}
        modified = [
            ("near-duplicate", i, j, f"a signal: {b[j].name} is a modified copy of {a[i].name}")
            for i, j in sorted(copies)
            if not _have_same_source(a[i], b[j])
        ]
        leaks += [
            Leak(kind, name_a, name_b, a[i].name, b[j].name, f"{name_a} and {name_b} share {what}")
            for kind, i, j, what in (*_shared_names(a, b, by), *_overlaps(a, b), *equal, *modified)
        ]
    return leaks


_Found = tuple[str, int, int, str]
"""Kind, index in the first part, index in the second part, and description."""


# ----------------------------------------------------------------------------------------- names, positions, content


def _shared_names(a: Sequence[Recording], b: Sequence[Recording], by: str) -> Iterator[_Found]:
    """Yield the first pair of recordings for each shared specimen and source that a split `by` this unit forbids."""
    if by == "specimen":
        for i, j in _first_pairs([r.specimen or "" for r in a], [r.specimen or "" for r in b]):
            yield "specimen", i, j, f"specimen {a[i].specimen!r} ({a[i].name}, {b[j].name})"
    if by != "time":
        for i, j in _first_pairs([_normalized_path(r) for r in a], [_normalized_path(r) for r in b]):
            yield "file", i, j, f"the file {a[i].name}"


def _first_pairs(a: list[str], b: list[str]) -> Iterator[tuple[int, int]]:
    for name in sorted(set(a) & set(b) - {""}):
        yield a.index(name), b.index(name)


def _overlaps(a: Sequence[Recording], b: Sequence[Recording]) -> Iterator[_Found]:
    """Yield pairs of cuts of one source that have samples in common."""
    by_source = defaultdict(list)
    for i, recording in enumerate(a):
        by_source[_normalized_path(recording)].append(i)
    for j, recording in enumerate(b):
        for i in by_source[_normalized_path(recording)] if recording.source else ():
            start_s = max(_start_s(a[i]), _start_s(recording))
            stop_s = min(_start_s(a[i]) + a[i].duration_s, _start_s(recording) + recording.duration_s)
            # adjacent cuts may overlap by one sample due to rounding after resampling
            if (stop_s - start_s) * recording.sampling_rate_hz > 1.5:
                yield "overlap", i, j, f"samples of {recording.name}, from {start_s:.6g} s to {stop_s:.6g} s"


def _equal_content(a: Sequence[Recording], b: Sequence[Recording]) -> Iterator[_Found]:
    """Yield pairs from different sources with an identical channel."""
    by_excerpt = defaultdict(list)
    for i, channel in _channels(a):
        by_excerpt[_excerpt(channel)].append((i, channel))
    seen = set()
    for j, channel in _channels(b):
        for i, other in by_excerpt[_excerpt(channel)]:
            if (i, j) not in seen and not _have_same_source(a[i], b[j]) and np.array_equal(channel, other):
                seen.add((i, j))
                yield "content", i, j, f"a signal: {b[j].name} contains the samples of {a[i].name}"


def _channels(recordings: Sequence[Recording]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the index of the recording and the samples `[N]` of every channel that is not constant."""
    for index, recording in enumerate(recordings):
        for channel in recording.signal:
            if (channel != channel[0]).any():
                yield index, channel


def _excerpt(channel: np.ndarray) -> tuple[int, bytes]:
    """Return a hashable key, the length and a few samples, that is almost unique to a signal."""
    return len(channel), channel[:: max(1, len(channel) // 64)].tobytes()


def _normalized_path(recording: Recording) -> str:
    return os.path.normpath(recording.source) if recording.source else ""


def _have_same_source(a: Recording, b: Recording) -> bool:
    return a.source != "" and _normalized_path(a) == _normalized_path(b)


def _start_s(recording: Recording) -> float:
    return recording.start_sample / recording.sampling_rate_hz


# ------------------------------------------------------------------------------------------------------------ copies


@dataclass(frozen=True)
class _Fingerprint:
    """Landmarks of all signals of a part, and the signs of the signals.

    Attributes:
        recording: index of the recording of each of the S signals (channels).
        signs: whether the whitened samples of each signal are positive, `[N / 8]`, one bit per sample.
        lengths: number of samples N of each signal.
        signal: index of the signal of each of the L landmarks, `[L]`.
        position: sample index of each landmark, `[L]`.
        snippet: whitened samples around each landmark, unit norm and positive at the landmark, `[L, SNIPPET]`.
    """

    recording: list[int]
    signs: list[np.ndarray]
    lengths: list[int]
    signal: Tensor
    position: Tensor
    snippet: Tensor

    def signs_of(self, signal: int) -> np.ndarray:
        """Return whether each whitened sample of a signal is positive, `[N]`."""
        return np.unpackbits(self.signs[signal], count=self.lengths[signal])


def _fingerprint(recordings: Sequence[Recording], reach: int) -> _Fingerprint:
    channels = list(_channels(recordings))
    signs: list[np.ndarray] = [np.empty(0)] * len(channels)
    landmarks = [(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0, SNIPPET))]
    lengths = torch.tensor([len(channel) for _, channel in channels])

    def of_batch(batch: tuple[list[int], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        indices, white = torch.tensor(batch[0]), _whiten(batch[1])
        row, position, snippet = _landmarks(white, lengths[indices], reach)
        for index, positive in zip(batch[0], (white > 0).numpy(), strict=True):
            signs[index] = np.packbits(positive[: lengths[index]])
        return indices[row], position, snippet

    with one_torch_thread():
        landmarks += map_in_threads(of_batch, _batches([channel for _, channel in channels]))
    signal, position, snippet = (torch.cat(column) for column in zip(*landmarks, strict=True))
    n_samples = [len(channel) for _, channel in channels]
    return _Fingerprint([index for index, _ in channels], signs, n_samples, signal, position, snippet)


def _batches(channels: Sequence[np.ndarray]) -> Iterator[tuple[list[int], Tensor]]:
    """Yield batches of signals of similar length `[B, N]`, with zero mean and padded with zeros."""
    by_length = defaultdict(list)
    for index, channel in enumerate(channels):
        by_length[-(-len(channel) // PADDING) * PADDING].append(index)
    for length, indices in by_length.items():
        size = max(1, BATCH_SAMPLES // length)
        for first in range(0, len(indices), size):
            batch = indices[first : first + size]
            signals = np.zeros((len(batch), length), dtype=np.float32)
            for row, index in zip(signals, batch, strict=True):
                np.subtract(channels[index], channels[index].mean(), out=row[: len(channels[index])])
            yield batch, torch.from_numpy(signals)


def _whiten(signals: Tensor) -> Tensor:
    """Whiten the spectrum of signals `[B, N]` and remove lines.

    Each bin is divided by the mean magnitude of its band, which whitens noise of any color, and then limited to
    `LINE_LIMIT`, so that a line has no more weight than a few bins of noise. Bands 30 dB below the strongest ones are
    not amplified: they contain rounding errors or the stop band of an anti-alias filter.
    """
    spectrum = torch.fft.rfft(signals)
    n_bins = spectrum.shape[1]
    n_bands = min(MAX_BANDS, n_bins // 8)
    width = -(-n_bins // n_bands)
    banded = F.pad(spectrum, (0, n_bands * width - n_bins)).view(len(signals), n_bands, width)
    magnitude = banded.abs()
    level = magnitude.mean(dim=-1, keepdim=True)
    level += 0.03 * level.quantile(0.9, dim=1, keepdim=True) + TINY
    banded *= torch.minimum(1 / level, LINE_LIMIT / magnitude)
    return torch.fft.irfft(banded.view(len(signals), -1)[:, :n_bins], signals.shape[1])


def _landmarks(white: Tensor, lengths: Tensor, reach: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return row `[L]`, sample `[L]` and snippet `[L, SNIPPET]` of the landmarks of whitened signals `[B, N]`."""
    peak, offset = white.abs().unflatten(1, (-1, LANDMARK_GRID)).max(dim=-1)
    is_maximum = peak == F.max_pool1d(peak, 2 * reach + 1, stride=1, padding=reach)
    position = offset + torch.arange(peak.shape[1]) * LANDMARK_GRID
    half = SNIPPET // 2
    is_inside = (position >= half) & (position < lengths[:, None] - half)
    row, cell = (is_maximum & is_inside).nonzero(as_tuple=True)
    position = position[row, cell]
    start = row * white.shape[1] + position - half
    snippet = white.flatten().unfold(0, SNIPPET, 1)[start]
    deviation = snippet.square().mean(dim=1, keepdim=True).sqrt()
    # limit the landmark itself, which would make any two snippets similar
    snippet = snippet.clamp(-2 * deviation, 2 * deviation) * snippet[:, half, None].sign()
    return row, position, F.normalize(snippet)


def _copies(a: _Fingerprint, b: _Fingerprint) -> set[tuple[int, int]]:
    """Return pairs of recordings that contain the same signal."""
    if len(b.signal) > len(a.signal):
        return {(i, j) for j, i in _copies(b, a)}
    copies = set()
    for s, t, lag in _candidates(a, b):
        pair = (a.recording[s], b.recording[t])
        if pair not in copies and _have_equal_signs(a.signs_of(s), b.signs_of(t), lag):
            copies.add(pair)
    return copies


def _candidates(a: _Fingerprint, b: _Fingerprint) -> list[tuple[int, int, int]]:
    """Return signal of a, signal of b and lag for the best match in a of each landmark of b."""
    if not len(b.signal):
        return []
    best = map_in_threads(lambda chunk: (chunk @ a.snippet.T).max(dim=1), b.snippet.split(CHUNK))
    correlation, match = (torch.cat(column) for column in zip(*best, strict=True))
    lag = a.position[match] - b.position
    candidates = torch.stack([a.signal[match], b.signal, lag], dim=1)[correlation > CANDIDATE_CORRELATION]
    return [(s, t, lag) for s, t, lag in candidates.unique(dim=0).tolist()]


def _have_equal_signs(a: np.ndarray, b: np.ndarray, lag: int) -> bool:
    """Return whether sign sequences, b starting at sample `lag` of a, (dis)agree far more often than by chance."""
    a, b = a[max(0, lag) :], b[max(0, -lag) :]
    overlap = min(len(a), len(b))
    correlation = abs(2 * np.count_nonzero(a[:overlap] == b[:overlap]) / overlap - 1)
    return bool(correlation > max(COPY_CORRELATION, COPY_SIGMAS / math.sqrt(overlap)))
