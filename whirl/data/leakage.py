"""Finds what test results must not know: the same machine, file, samples or signal on both sides of a split.

Names and positions are compared as they are. Signals are compared by fingerprint, since a copy may have another name,
gain, offset, sign, length, start, precision or a little noise:

1. The spectrum is whitened in narrow bands and its lines are capped. Shaft orders and resonances, which all recordings
   of one machine share, then hardly count; what is left is mostly noise, which no two recordings share.
2. Landmarks are samples whose magnitude nothing near exceeds. A copy has them at the same events, wherever it begins.
3. The stretch around each landmark of one part is looked up among those of the other part by one matrix product. The
   best match proposes a pair of recordings and a lag.
4. A proposal is a copy when the signs of both whitened signals agree over the whole overlap far more often than chance.
   Signs are enough and make single impacts harmless (one-bit correlation: Bensen et al. 2007, *Geophysical Journal
   International* 169:1239-1260).

Real recordings of one bearing at other loads agree in sign by less than 0.03 beyond chance, copies with noise 30 dB
below the signal by more than 0.4.
"""

from __future__ import annotations

import logging
import math
import os.path
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from whirl.data.recording import Recording
from whirl.data.splits import Split

_logger = logging.getLogger(__name__)

LANDMARK_GRID = 128
"""Samples in which at most one landmark is sought."""

LANDMARK_REACH = 8
"""Grid cells to either side that a landmark must dominate at least: about one landmark in 2200 samples."""

MAX_LANDMARKS = 25_000
"""From here on (54 million samples) landmarks must dominate more, since looking them up costs their number squared."""

STRETCH = 128
"""Samples around a landmark that are looked up."""

PROPOSAL_CORRELATION = 0.35
"""Correlation of two stretches that proposes a pair: 4 standard deviations of chance."""

COPY_CORRELATION = 0.4
"""Correlation of the signs of two whitened signals that are called copies."""

COPY_SIGMAS = 15.0
"""The same in standard deviations of chance, `1 / sqrt(overlap)`; decides for short overlaps."""

MAX_BANDS = 1024
"""Bands in which a spectrum is whitened; fewer for short signals."""

LINE_LIMIT = 2.0
"""Largest magnitude of a whitened bin: noise exceeds it in one bin of 20, every line does."""

PADDING = 1024
"""Signals are padded to a multiple of this, so that those of nearly equal length share a transform."""

BATCH_SAMPLES = 2**20
"""Samples transformed at once: the intermediate results stay in the cache."""

TINY = 1e-30
"""Keeps bands without any content from dividing by zero."""

CHUNK = 1024
"""Landmarks looked up at once."""


class LeakageError(ValueError):
    """The parts of a split share what they must not."""


@dataclass(frozen=True)
class Leak:
    """Something that stands on both sides of a split.

    Attributes:
        kind: `"specimen"`, `"file"`, `"overlap"` (samples of one source), `"content"` (equal samples under another
            name) or `"near-duplicate"` (a copy that was changed).
        part_a: name of the one part, e.g. `"train"`.
        part_b: name of the other.
        name_a: recording in the one part.
        name_b: recording in the other.
        message: one sentence for people.
    """

    kind: str
    part_a: str
    part_b: str
    name_a: str
    name_b: str
    message: str


def check_leakage(split: Split, allow_leakage: bool = False) -> list[Leak]:
    """Stop a training whose test results would mean nothing.

    Args:
        split: what is about to be trained and tested.
        allow_leakage: report instead of stopping.

    Returns:
        The leaks found; not empty only with `allow_leakage`, and then also logged as warnings.

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
        train and test share specimen 'pump 3' (a.mat, b.mat); --allow-leakage trains all the same
    """
    leaks = find_leaks(split)
    if not leaks:
        return leaks
    shown = "; ".join(leak.message for leak in leaks[:3])
    more = f"; and {len(leaks) - 3} more" if len(leaks) > 3 else ""
    if not allow_leakage:
        raise LeakageError(f"{shown}{more}; --allow-leakage trains all the same")
    _logger.warning("leakage allowed: %s%s", shown, more)
    return leaks


def find_leaks(split: Split) -> list[Leak]:
    """Everything that two parts of a split share and must not.

    The test part must share no specimen and no file with the others, however it was split off: a bearing seen in
    training is never in the test set. Validation only chooses the epoch, so train and val may share what `val_by`
    says: specimens by recording, specimens and files by time. Overlapping samples and copies are leaks everywhere.
    Cuts of one source are judged by their position alone, since a machine that runs steadily does resemble itself.

    Copies with noise 30 dB below the signal are found reliably from 20 000 common samples on, half of them from 4000
    on (in sets of more than 54 million samples in proportion later). Bring the recordings to one sampling rate first
    (`resample.to_common_rate`). Constant channels are not compared.

    Args:
        split: the parts; an empty part shares nothing.

    Returns:
        One leak for each shared specimen and file, and for each pair of recordings with common or similar samples.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=(2, 40_000))
        >>> a, b = (Recording(signal, 12_000, specimen=name, source=name) for signal, name in zip(noise, "ab"))
        >>> copy = Recording(1 - 3 * a.signal[:, 5000:], 12_000, specimen="c", source="c")
        >>> find_leaks(Split([a], [], [b], "specimen", "time"))
        []
        >>> [leak.message for leak in find_leaks(Split([a], [], [b, copy], "specimen", "time"))]
        ['train and test share a signal: c is a changed copy of a']
    """
    parts = {"train": split.train, "val": split.val, "test": split.test}
    with _one_thread():
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
        changed = [
            ("near-duplicate", i, j, f"a signal: {b[j].name} is a changed copy of {a[i].name}")
            for i, j in sorted(copies)
            if not _one_source(a[i], b[j])
        ]
        leaks += [
            Leak(kind, name_a, name_b, a[i].name, b[j].name, f"{name_a} and {name_b} share {what}")
            for kind, i, j, what in (*_shared_names(a, b, by), *_overlaps(a, b), *equal, *changed)
        ]
    return leaks


@contextmanager
def _one_thread() -> Iterator[None]:
    """Many small tensor operations: a second thread on a busy core makes them slower, up to ten times."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_Found = tuple[str, int, int, str]
"""Kind, position in the one part, position in the other, and what is shared, in words."""


# ----------------------------------------------------------------------------------------- names, positions, content


def _shared_names(a: Sequence[Recording], b: Sequence[Recording], by: str) -> Iterator[_Found]:
    """The first pair of each shared specimen and source, unless parts split `by` something else may share it."""
    if by == "specimen":
        for i, j in _first_pairs([r.specimen or "" for r in a], [r.specimen or "" for r in b]):
            yield "specimen", i, j, f"specimen {a[i].specimen!r} ({a[i].name}, {b[j].name})"
    if by != "time":
        for i, j in _first_pairs([_path(r) for r in a], [_path(r) for r in b]):
            yield "file", i, j, f"the file {a[i].name}"


def _first_pairs(a: list[str], b: list[str]) -> Iterator[tuple[int, int]]:
    for name in sorted(set(a) & set(b) - {""}):
        yield a.index(name), b.index(name)


def _overlaps(a: Sequence[Recording], b: Sequence[Recording]) -> Iterator[_Found]:
    """Pairs of cuts of one source that have samples in common."""
    of_source = defaultdict(list)
    for i, recording in enumerate(a):
        of_source[_path(recording)].append(i)
    for j, recording in enumerate(b):
        for i in of_source[_path(recording)] if recording.source else ():
            start_s = max(_start_s(a[i]), _start_s(recording))
            stop_s = min(_start_s(a[i]) + a[i].duration_s, _start_s(recording) + recording.duration_s)
            # cuts that were resampled afterwards may touch by a rounded sample
            if (stop_s - start_s) * recording.sampling_rate_hz > 1.5:
                yield "overlap", i, j, f"samples of {recording.name}, from {start_s:.6g} s to {stop_s:.6g} s"


def _equal_content(a: Sequence[Recording], b: Sequence[Recording]) -> Iterator[_Found]:
    """Pairs from different sources that have a channel in common, sample by sample."""
    of_excerpt = defaultdict(list)
    for i, channel in _channels(a):
        of_excerpt[_excerpt(channel)].append((i, channel))
    seen = set()
    for j, channel in _channels(b):
        for i, other in of_excerpt[_excerpt(channel)]:
            if (i, j) not in seen and not _one_source(a[i], b[j]) and np.array_equal(channel, other):
                seen.add((i, j))
                yield "content", i, j, f"a signal: {b[j].name} holds the samples of {a[i].name}"


def _channels(recordings: Sequence[Recording]) -> Iterator[tuple[int, np.ndarray]]:
    """Position of the recording and samples `[N]` of every channel that is not constant."""
    for index, recording in enumerate(recordings):
        for channel in recording.signal:
            if (channel != channel[0]).any():
                yield index, channel


def _excerpt(channel: np.ndarray) -> tuple[int, bytes]:
    """Length and a few samples: equal signals have equal ones, others hardly ever."""
    return len(channel), channel[:: max(1, len(channel) // 64)].tobytes()


def _path(recording: Recording) -> str:
    return os.path.normpath(recording.source) if recording.source else ""


def _one_source(a: Recording, b: Recording) -> bool:
    return a.source != "" and _path(a) == _path(b)


def _start_s(recording: Recording) -> float:
    return recording.start_sample / recording.sampling_rate_hz


# ------------------------------------------------------------------------------------------------------------ copies


@dataclass(frozen=True)
class _Fingerprint:
    """Landmarks of all signals of a part, and what is needed to check a proposal.

    Attributes:
        recording: recording of each of the S signals (channels).
        signs: for each signal, whether its whitened samples are positive, `[N / 8]`, a bit each.
        lengths: samples N of each signal.
        signal: signal of each of the L landmarks, `[L]`.
        position: sample of each landmark, `[L]`.
        stretch: whitened samples around each landmark, unit norm and positive at the landmark, `[L, STRETCH]`.
    """

    recording: list[int]
    signs: list[np.ndarray]
    lengths: list[int]
    signal: Tensor
    position: Tensor
    stretch: Tensor

    def signs_of(self, signal: int) -> np.ndarray:
        """Whether each whitened sample of a signal is positive, `[N]`."""
        return np.unpackbits(self.signs[signal], count=self.lengths[signal])


def _fingerprint(recordings: Sequence[Recording], reach: int) -> _Fingerprint:
    channels = list(_channels(recordings))
    signs: list[np.ndarray] = [np.empty(0)] * len(channels)
    landmarks = [(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0, STRETCH))]
    for chosen, signals in _batches([channel for _, channel in channels]):
        white = _whiten(signals)
        lengths = torch.tensor([len(channels[index][1]) for index in chosen])
        row, position, stretch = _landmarks(white, lengths, reach)
        landmarks.append((torch.tensor(chosen)[row], position, stretch))
        for index, length, positive in zip(chosen, lengths.tolist(), (white > 0).numpy(), strict=True):
            signs[index] = np.packbits(positive[:length])
    signal, position, stretch = (torch.cat(column) for column in zip(*landmarks, strict=True))
    lengths_of = [len(channel) for _, channel in channels]
    return _Fingerprint([index for index, _ in channels], signs, lengths_of, signal, position, stretch)


def _batches(channels: Sequence[np.ndarray]) -> Iterator[tuple[list[int], Tensor]]:
    """Signals of about the same length together `[B, N]`, without their mean and padded with zeros."""
    of_length = defaultdict(list)
    for index, channel in enumerate(channels):
        of_length[-(-len(channel) // PADDING) * PADDING].append(index)
    for length, indices in of_length.items():
        size = max(1, BATCH_SAMPLES // length)
        for first in range(0, len(indices), size):
            chosen = indices[first : first + size]
            signals = np.zeros((len(chosen), length), dtype=np.float32)
            for row, index in zip(signals, chosen, strict=True):
                np.subtract(channels[index], channels[index].mean(), out=row[: len(channels[index])])
            yield chosen, torch.from_numpy(signals)


def _whiten(signals: Tensor) -> Tensor:
    """Signals `[B, N]` whose spectrum has the same level in all bands and no lines.

    Each bin is divided by the mean magnitude of its band, so noise of any colour becomes white, and then limited to
    `LINE_LIMIT`, so a line of whatever strength counts for a few bins. Bands 30 dB below the loud ones stay low: they
    hold rounding errors or what an anti-alias filter left.
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
    """Row `[L]`, sample `[L]` and surroundings `[L, STRETCH]` of the landmarks of whitened signals `[B, N]`."""
    peak, offset = white.abs().unflatten(1, (-1, LANDMARK_GRID)).max(dim=-1)
    dominant = peak == F.max_pool1d(peak, 2 * reach + 1, stride=1, padding=reach)
    position = offset + torch.arange(peak.shape[1]) * LANDMARK_GRID
    half = STRETCH // 2
    inside = (position >= half) & (position < lengths[:, None] - half)
    row, cell = (dominant & inside).nonzero(as_tuple=True)
    position = position[row, cell]
    start = row * white.shape[1] + position - half
    stretch = white.flatten().unfold(0, STRETCH, 1)[start]
    deviation = stretch.square().mean(dim=1, keepdim=True).sqrt()
    # the landmark itself would make any two stretches alike
    stretch = stretch.clamp(-2 * deviation, 2 * deviation) * stretch[:, half, None].sign()
    return row, position, F.normalize(stretch)


def _copies(a: _Fingerprint, b: _Fingerprint) -> set[tuple[int, int]]:
    """Pairs of recordings that hold the same signal."""
    if len(b.signal) > len(a.signal):
        return {(i, j) for j, i in _copies(b, a)}
    copies = set()
    for s, t, lag in _proposals(a, b):
        pair = (a.recording[s], b.recording[t])
        if pair not in copies and _sync_factors(a.signs_of(s), b.signs_of(t), lag):
            copies.add(pair)
    return copies


def _proposals(a: _Fingerprint, b: _Fingerprint) -> list[tuple[int, int, int]]:
    """Signal of a, signal of b and lag, from the most similar landmark of a for each landmark of b."""
    if not len(b.signal):
        return []
    best = [(chunk @ a.stretch.T).max(dim=1) for chunk in b.stretch.split(CHUNK)]
    correlation, match = (torch.cat(column) for column in zip(*best, strict=True))
    lag = a.position[match] - b.position
    proposals = torch.stack([a.signal[match], b.signal, lag], dim=1)[correlation > PROPOSAL_CORRELATION]
    return [(s, t, lag) for s, t, lag in proposals.unique(dim=0).tolist()]


def _sync_factors(a: np.ndarray, b: np.ndarray, lag: int) -> bool:
    """Whether two sign sequences, b beginning at sample `lag` of a, agree (or disagree) far more often than chance."""
    a, b = a[max(0, lag) :], b[max(0, -lag) :]
    overlap = min(len(a), len(b))
    correlation = abs(2 * np.count_nonzero(a[:overlap] == b[:overlap]) / overlap - 1)
    return bool(correlation > max(COPY_CORRELATION, COPY_SIGMAS / math.sqrt(overlap)))
