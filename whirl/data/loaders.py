"""Data loaders that cut a complete batch in one operation, without Python code per sample or collation."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from whirl.data.windows import Sample, Windows
from whirl.validation import check_count


class BatchSampler(Sampler[Tensor]):
    """Sampler of index batches whose order is a pure function of seed and epoch.

    No state is carried from one epoch to the next. A run resumed in the middle of epoch 7 therefore sees the same
    batches as an uninterrupted one: call `set_epoch(7)` and set `start_batch` to the first batch to process.

    Args:
        n_samples: number of indices, >= 1.
        batch_size: number of indices in a batch, >= 1; the last batch may be smaller.
        shuffle: whether to draw a new permutation each epoch instead of the order 0, 1, 2, ...
        seed: seed of the permutations, >= 0.
        drop_last: whether to drop a smaller last batch.
        shard: the part of each batch to yield, from 0 to n_shards - 1.
        n_shards: number of processes in distributed training, >= 1. `batch_size` is per process; batches of
            `batch_size * n_shards` are split as evenly as possible. A last batch with fewer than two indices per
            process is merged with the previous one, so that all processes have the same number of batches and every
            index occurs exactly once.
        weights: weight of each index, `[n_samples]`, finite and >= 0, not all 0: an epoch of the same length contains
            an index in proportion to its weight, rounded up or down at random, e.g. twice or not at all. See
            `balanced_weights`. None is each index once.

    Attributes:
        epoch: epoch of the next pass; set by `set_epoch`.
        start_batch: first batch of the next pass; reset to 0 afterwards.

    Raises:
        ValueError: a number is out of range, there are fewer indices than processes, `drop_last` leaves no batch, or
            there are weights without `shuffle`.

    Example:
        >>> sampler = BatchSampler(5, batch_size=2)
        >>> [batch.tolist() for batch in sampler], len(sampler)
        ([[0, 1], [2, 3], [4]], 3)
        >>> sampler.start_batch = 2
        >>> [batch.tolist() for batch in sampler]
        [[4]]
        >>> [[batch.tolist() for batch in BatchSampler(9, 2, shard=shard, n_shards=2)] for shard in (0, 1)]
        [[[0, 1], [4, 5, 6]], [[2, 3], [7, 8]]]
    """

    def __init__(
        self,
        n_samples: int,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        shard: int = 0,
        n_shards: int = 1,
        *,
        weights: Tensor | None = None,
    ) -> None:
        check_count("n_samples", n_samples)
        check_count("batch_size", batch_size)
        check_count("seed", seed, 0)
        if not 0 <= shard < n_shards:
            raise ValueError(f"shard is {shard}, expected 0 to {n_shards - 1} for {n_shards} processes")
        if n_samples < n_shards:
            raise ValueError(f"{n_samples} windows for {n_shards} processes, expected at least one each; use fewer")
        if drop_last and n_samples < batch_size * n_shards:
            raise ValueError(
                f"{n_samples} windows do not fill one batch of {batch_size * n_shards}, and drop_last drops it; "
                "choose a smaller batch_size"
            )
        self.weights = None if weights is None else _checked_weights(weights, n_samples, shuffle)
        self.n_samples = n_samples
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.shard = shard
        self.n_shards = n_shards
        self.epoch = 0
        self.start_batch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0, that determines the order of the next pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Tensor]:
        # A generator function, so that start_batch is not reset before the first batch is requested: with workers,
        # DataLoader creates an iterator that it discards.
        start, self.start_batch = self.start_batch, 0
        order, last = self._order(), len(self) - 1
        for batch in range(start, last + 1):
            first = batch * self._global_batch_size
            end = self.n_samples if batch == last and not self.drop_last else first + self._global_batch_size
            yield order[first:end].tensor_split(self.n_shards)[self.shard]

    def __len__(self) -> int:
        """Number of batches in a complete epoch, independent of `start_batch`."""
        full, rest = divmod(self.n_samples, self._global_batch_size)
        if self.drop_last:
            return full
        is_merged = self.n_shards > 1 and full > 0 and rest < 2 * self.n_shards
        return full if is_merged else full + bool(rest)

    @property
    def _global_batch_size(self) -> int:
        return self.batch_size * self.n_shards

    def _order(self) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.n_samples)
        mixed_seed = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(mixed_seed))
        order = torch.randperm(self.n_samples, generator=generator)
        return order if self.weights is None else _resample(order, self.weights, generator)


def balanced_weights(groups: Tensor) -> Tensor:
    """Return weights with which all groups have the same share of an epoch, for `make_loader`.

    Args:
        groups: index >= 0 of each sample's group, e.g. its class, recording or specimen, int64 `[N]`.

    Returns:
        One over the size of the sample's group, float64 `[N]`.

    Example:
        >>> balanced_weights(torch.tensor([0, 0, 1]))
        tensor([0.5000, 0.5000, 1.0000], dtype=torch.float64)
    """
    return 1 / torch.bincount(groups)[groups].double()


def _resample(order: Tensor, weights: Tensor, generator: torch.Generator) -> Tensor:
    """Return as many indices in proportion to their weights (systematic resampling), in random order."""
    share = weights[order] * (len(order) / weights.sum())
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    last = (share.cumsum(0) + offset).floor().clamp_(max=len(order)).long()
    last[-1] = len(order)  # despite rounding
    drawn = order.repeat_interleave(last.diff(prepend=torch.zeros(1, dtype=torch.int64)))
    return drawn[torch.randperm(len(order), generator=generator)]


def _checked_weights(weights: Tensor, n_samples: int, shuffle: bool) -> Tensor:
    weights = torch.as_tensor(weights, dtype=torch.float64)
    if weights.shape != (n_samples,) or not (weights.isfinite().all() and (weights >= 0).all() and weights.any()):
        raise ValueError(f"weights are {weights}, expected {n_samples} finite numbers >= 0, not all 0")
    if not shuffle:
        raise ValueError("weights require shuffle=True: they are drawn anew in each epoch")
    return weights


def make_loader(
    dataset: Windows,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    num_workers: int = 0,
    drop_last: bool = False,
    multiprocessing_context: str | None = None,
    shard: int = 0,
    n_shards: int = 1,
    device: str | torch.device = "auto",
    *,
    weights: Tensor | None = None,
) -> DataLoader[Sample]:
    """Create a PyTorch `DataLoader` that cuts each batch of windows in one operation.

    Its `sampler` is a `BatchSampler` (call `loader.sampler.set_epoch(epoch)`), and `len(loader)` is the number of
    batches. Batches and their order do not depend on `num_workers`. Cutting windows is so fast that workers rarely pay
    off. Worker processes ignore Ctrl-C, which is handled by the main process, and iterating over the loader does not
    use torch's global random generator.

    Args:
        dataset: the windows.
        batch_size: number of windows in a batch, >= 1.
        shuffle: whether to shuffle the windows, differently in each epoch.
        seed: seed of the order, >= 0.
        num_workers: number of worker processes; 0 cuts batches in the main process.
        drop_last: whether to drop a smaller last batch.
        multiprocessing_context: start method of the workers, `"fork"`, `"spawn"` or `"forkserver"`; None is the default
            of the platform.
        shard: part of each batch for this process in distributed training, see `BatchSampler`.
        n_shards: number of processes in distributed training, see `BatchSampler`.
        device: device that the batches will be moved to; for CUDA they are placed in pinned memory. `"auto"` is CUDA if
            available.
        weights: weight of each window in an epoch, see `BatchSampler`; `balanced_weights(dataset.targets)` gives all
            classes the same share.

    Returns:
        A loader of `(signals [B, C, T], targets [B], metadata)`.

    Raises:
        ValueError: as for `BatchSampler`.

    Example:
        >>> from whirl.data.recording import Recording
        >>> recording = Recording(np.zeros(8192), sampling_rate_hz=12_000, label="wear")
        >>> from whirl.data.windows import WindowDataset
        >>> loader = make_loader(WindowDataset([recording], ["wear"], window=1024), batch_size=3)
        >>> [tuple(signals.shape) for signals, targets, metadata in loader]
        [(3, 1, 1024), (3, 1, 1024), (2, 1, 1024)]
    """
    return DataLoader(
        cast(Dataset[Sample], dataset),
        batch_size=None,  # the data set is indexed by the sampler's index tensors
        sampler=BatchSampler(len(dataset), batch_size, shuffle, seed, drop_last, shard, n_shards, weights=weights),
        num_workers=num_workers,
        collate_fn=_identity_collate,
        pin_memory=torch.device("cuda" if device == "auto" else device).type == "cuda" and torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        multiprocessing_context=multiprocessing_context,
        worker_init_fn=_ignore_sigint,
        # DataLoader draws the base seed of its workers from this generator, not from the global one
        generator=torch.Generator().manual_seed(seed),
    )


def _ignore_sigint(worker_id: int) -> None:
    """Ignore Ctrl-C and foreign SIGTERM in a worker process.

    A terminal sends SIGINT, and a scheduler SIGTERM, to all processes of a group, but only the main process decides
    whether to stop. A SIGTERM from the main process ends the worker: multiprocessing sends it at exit and waits for the
    workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # without it (macOS, Windows) any SIGTERM ends a worker
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_parent_sigterm, daemon=True).start()


def _exit_on_parent_sigterm() -> None:
    parent = multiprocessing.parent_process()
    while parent is not None and signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)


def _identity_collate(batch: Any) -> Any:
    """Return the batch unchanged; a module-level function, since spawned workers unpickle it."""
    return batch
