"""A data set whose signals are resized to one length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset, default_collate

from whirl.data.windows import WindowDataset
from whirl.dsp.resizing import resize
from whirl.validation import check_count, check_name

METHODS = ("interpolate", "truncate", "pad", "crop")

_TENSOR_INDEXED = (WindowDataset, TensorDataset)  # return a batch for a tensor of indices, the same in every epoch
_CHUNK = 64  # signals that `cache` resizes at once


class ResizableSignalDataset(Dataset[Any]):
    """A data set whose signals are resized to one length.

    `"interpolate"` changes the sampling rate and keeps the duration: frequencies below the lower of the two Nyquist
    frequencies are kept, those above are removed, and a tone keeps its cycles per signal but not its frequency per
    sample (`whirl.dsp.resizing.resize`). `"truncate"` keeps the first samples, `"crop"` a random section, drawn anew
    each time, `"pad"` appends zeros; these three keep the sampling rate.

    Samples keep the form of the base data set: `(signal, target)`, `(signal, target, metadata)` or a mapping with
    `signal`. Metadata are unchanged, so `"start"` counts samples of the base. A tensor, list or slice of indices
    returns a batch, which is resized at once; it is read in one operation from a `WindowDataset` or `TensorDataset`,
    item by item from any other. `make_loader` and a plain `DataLoader` both accept this data set.

    Args:
        base_dataset: returns signals `[C, T]` or `[T]`.
        target_length: samples L of every signal, >= 1; may be changed between two epochs.
        resize_method: `"interpolate"`, `"truncate"`, `"pad"` or `"crop"`, which draws from torch's global generator.

    Raises:
        ValueError: the length is below 1 or the method is unknown; when a sample is read, the signal is too short to
            truncate or crop or too long to pad.

    Example:
        >>> tone = torch.sin(2 * torch.pi * 8 * torch.arange(256) / 256)
        >>> base = TensorDataset(tone.expand(10, 1, -1), torch.zeros(10, dtype=torch.int64))
        >>> shorter = ResizableSignalDataset(base, target_length=64)
        >>> signals, targets = shorter[torch.tensor([3, 5])]
        >>> tuple(signals.shape), bool(torch.allclose(signals[0, 0], tone[::4], atol=1e-4))
        ((2, 1, 64), True)
        >>> ResizableSignalDataset(base, 512, "truncate")[0]
        Traceback (most recent call last):
        ValueError: cannot truncate signals of 256 samples to 512: choose 256 or less, or 'pad' or 'interpolate'
    """

    def __init__(self, base_dataset: Dataset[Any], target_length: int, resize_method: str = "interpolate") -> None:
        check_name("resize method", resize_method, METHODS)
        self.base_dataset = base_dataset
        self.resize_method = resize_method
        # A tensor, which can be shared with the workers of a loader.
        self._target_length = torch.tensor(check_count("target_length", target_length))
        self._cached: tuple[int, Any] | None = None

    @property
    def target_length(self) -> int:
        """Samples L of every signal."""
        return int(self._target_length)

    @target_length.setter
    def target_length(self, target_length: int) -> None:
        self._target_length.fill_(check_count("target_length", target_length))
        if self._cached is not None and self._cached[0] != target_length:
            self._cached = None

    @property
    def base_length(self) -> int:
        """Samples T of the base's signals; of its first signal, if they differ."""
        if isinstance(self.base_dataset, WindowDataset):
            return self.base_dataset.window
        return signal_of(self.base_dataset[0]).shape[-1]

    @property
    def sampling_rate_hz(self) -> float | None:
        """Sampling rate of the resized signals; None if the base has no `sampling_rate_hz`."""
        base_hz = getattr(self.base_dataset, "sampling_rate_hz", None)
        if base_hz is None or self.resize_method != "interpolate":
            return base_hz
        return base_hz * self.target_length / self.base_length

    @property
    def is_cacheable(self) -> bool:
        """Whether the base returns the same samples in every epoch: a `WindowDataset` or a `TensorDataset` does."""
        return isinstance(self.base_dataset, _TENSOR_INDEXED)

    def share_length(self) -> None:
        """Let loader workers that are started from now on follow changes of `target_length`."""
        self._target_length.share_memory_()

    def cache(self) -> None:
        """Resize all signals now and keep them, `[N, C, L]` in memory, until the length changes.

        Raises:
            TypeError: the base may return other samples in every epoch.
        """
        if not self.is_cacheable:
            raise TypeError(
                f"base_dataset is a {type(self.base_dataset).__name__}, which may return other samples in every epoch; "
                "expected a WindowDataset or TensorDataset to cache"
            )
        if self._cached is None:
            chunks = [self._batch(indices) for indices in torch.arange(len(self)).split(_CHUNK)]
            self._cached = self.target_length, _concatenate(chunks)

    def __len__(self) -> int:
        return len(self.base_dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Any:
        if isinstance(index, slice):
            index = range(len(self))[index]
        if isinstance(index, (Tensor, Sequence)):
            return self._batch(torch.as_tensor(index))
        return self._resized(self.base_dataset[index])

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return the samples of a batch as a list, the form that `DataLoader` expects; they are resized together."""
        items = self._items(indices)
        signals = [signal_of(item) for item in items]
        if len({signal.shape for signal in signals}) > 1:
            return [self._resized(item) for item in items]
        resized = self._resize(torch.stack(signals))
        return [_with_signal(item, signal) for item, signal in zip(items, resized.unbind(), strict=True)]

    def _items(self, indices: Sequence[int]) -> list[Any]:
        fetch = getattr(self.base_dataset, "__getitems__", None)
        return [self.base_dataset[index] for index in indices] if fetch is None else fetch(indices)

    def _batch(self, indices: Tensor) -> Any:
        if self._cached is not None and self._cached[0] == self.target_length:
            return _select(self._cached[1], indices)
        if self.is_cacheable:
            return self._resized(cast(Any, self.base_dataset)[indices])
        return default_collate(self.__getitems__(indices.tolist()))

    def _resized(self, sample: Any) -> Any:
        """Return one sample, or a batch of the same form, with its signals resized."""
        return _with_signal(sample, self._resize(signal_of(sample)))

    def _resize(self, signals: Tensor) -> Tensor:
        n_samples, n_wanted = signals.shape[-1], self.target_length
        if self.resize_method == "interpolate":
            return resize(signals, n_wanted)
        if self.resize_method == "truncate":
            if n_samples < n_wanted:
                raise ValueError(_length_error("truncate", n_samples, n_wanted, "less, or 'pad'"))
            return signals[..., :n_wanted].contiguous()
        if self.resize_method == "crop":
            return _crop(signals, n_wanted)
        if n_samples > n_wanted:
            raise ValueError(_length_error("pad", n_samples, n_wanted, "more, or 'truncate'"))
        return F.pad(signals, (0, n_wanted - n_samples))


def _crop(signals: Tensor, n_wanted: int) -> Tensor:
    """Return a section of each signal `[..., C, T]`, with its start uniform among the possible ones."""
    n_samples = signals.shape[-1]
    if n_samples < n_wanted:
        raise ValueError(_length_error("crop", n_samples, n_wanted, "less, or 'pad'"))
    if n_samples == n_wanted:
        return signals
    starts = torch.randint(n_samples - n_wanted + 1, (*signals.shape[:-2], 1, 1))
    return signals.gather(-1, (starts + torch.arange(n_wanted)).expand(*signals.shape[:-1], n_wanted))


def _length_error(method: str, n_samples: int, n_wanted: int, hint: str) -> str:
    choices = f"choose {n_samples} or {hint} or 'interpolate'"
    return f"cannot {method} signals of {n_samples} samples to {n_wanted}: {choices}"


def signal_of(sample: Any) -> Tensor:
    """Return the signal of a sample, or the signals of a batch, in any of the accepted forms."""
    return torch.as_tensor(sample["signal"] if isinstance(sample, Mapping) else sample[0])


def _with_signal(sample: Any, signal: Tensor) -> Any:
    return {**sample, "signal": signal} if isinstance(sample, Mapping) else (signal, *sample[1:])


def _concatenate(batches: Sequence[Any]) -> Any:
    """Concatenate batches of the same form along the first axis."""
    first = batches[0]
    if isinstance(first, Tensor):
        return torch.cat(list(batches))
    if isinstance(first, Mapping):
        return {name: _concatenate([batch[name] for batch in batches]) for name in first}
    return tuple(_concatenate(part) for part in zip(*batches, strict=True))


def _select(batch: Any, indices: Tensor) -> Any:
    """Return the samples at `indices`, in the form of the batch."""
    if isinstance(batch, Tensor):
        return batch.index_select(0, indices)
    if isinstance(batch, Mapping):
        return {name: _select(part, indices) for name, part in batch.items()}
    return tuple(_select(part, indices) for part in batch)
