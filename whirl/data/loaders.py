"""Loaders whose data set cuts a whole batch at a time: no Python per sample, nothing to collate."""

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


class BatchSampler(Sampler[Tensor]):
    """Batches of indices in an order that is a pure function of seed and epoch.

    Nothing is remembered from one epoch to the next, so a run resumed in the middle of epoch 7 sees what the
    uninterrupted run saw: call `set_epoch(7)` and set `start_batch` to the batch to go on with.

    Args:
        n_samples: number of indices, >= 1.
        batch_size: indices in a batch, >= 1; the last batch may be smaller.
        shuffle: a new permutation each epoch, otherwise 0, 1, 2, …
        seed: of the permutations, >= 0.
        drop_last: leave a smaller last batch out.
        shard: which part of every batch to yield, 0 to n_shards - 1.
        n_shards: processes that train together, >= 1. `batch_size` is that of each; they part batches of
            `batch_size * n_shards` as equally as can be. A last batch with fewer than two indices for each joins the
            one before, so that every process has the same number of batches and no index is left out or seen twice.

    Attributes:
        epoch: whose order comes next; set by `set_epoch`.
        start_batch: first batch of the next pass; counts for one pass only and then is 0 again.

    Raises:
        ValueError: a number out of range, or `drop_last` with fewer than `batch_size` indices, which leaves no batch.

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
    ) -> None:
        if n_samples < 1 or batch_size < 1 or seed < 0:
            raise ValueError(
                f"n_samples is {n_samples}, batch_size {batch_size}, seed {seed}; expected at least 1, 1 and 0"
            )
        if not 0 <= shard < n_shards:
            raise ValueError(f"shard is {shard} of {n_shards}, expected 0 to {n_shards - 1}")
        if n_samples < n_shards:
            raise ValueError(f"{n_samples} windows are too few for {n_shards} processes: start fewer")
        if drop_last and n_samples < batch_size * n_shards:
            raise ValueError(
                f"{n_samples} windows do not fill one batch of {batch_size * n_shards}, and drop_last leaves the rest "
                "out: choose a smaller batch_size"
            )
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
        """Choose the order of the next pass; epochs count from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Tensor]:
        # a generator, so that nothing is used up before the first batch is asked for: with workers, DataLoader makes an
        # iterator that it throws away
        start, self.start_batch = self.start_batch, 0
        order, last = self._order(), len(self) - 1
        for batch in range(start, last + 1):
            first = batch * self._batch_of_all
            end = self.n_samples if batch == last and not self.drop_last else first + self._batch_of_all
            yield order[first:end].tensor_split(self.n_shards)[self.shard]

    def __len__(self) -> int:
        """Batches in a whole epoch, whatever `start_batch` is."""
        full, rest = divmod(self.n_samples, self._batch_of_all)
        if self.drop_last:
            return full
        joins = self.n_shards > 1 and full > 0 and rest < 2 * self.n_shards
        return full if joins else full + bool(rest)

    @property
    def _batch_of_all(self) -> int:
        return self.batch_size * self.n_shards

    def _order(self) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.n_samples)
        mixed = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1, np.uint64)[0]
        return torch.randperm(self.n_samples, generator=torch.Generator().manual_seed(int(mixed)))


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
) -> DataLoader[Sample]:
    """A PyTorch `DataLoader` over windows in which a batch is one gather.

    Its `sampler` is a `BatchSampler` (`loader.sampler.set_epoch(epoch)`) and `len(loader)` the number of batches.
    Batches and their order do not depend on `num_workers`. Cutting windows costs so little that workers rarely pay.
    Workers leave Ctrl-C to the process that started them, and going through the loader draws nothing from torch's
    global generator.

    Args:
        dataset: the windows.
        batch_size: windows in a batch, >= 1.
        shuffle: a new order each epoch.
        seed: of the order, >= 0.
        num_workers: processes that cut batches; 0 cuts them in this one.
        drop_last: leave a smaller last batch out.
        multiprocessing_context: how workers are started, `"fork"`, `"spawn"` or `"forkserver"`; None is the
            platform's way.
        shard: this process's part of every batch, as for the next one see `BatchSampler`.
        n_shards: processes that train together.
        device: where the batches will go; for CUDA into pinned memory first. `"auto"` is CUDA where there is one.

    Returns:
        A loader of `(signals [B, C, T], targets [B], metadata)`.

    Raises:
        ValueError: as `BatchSampler`.

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
        batch_size=None,  # the sampler's index tensors go to the data set as they are
        sampler=BatchSampler(len(dataset), batch_size, shuffle, seed, drop_last, shard, n_shards),
        num_workers=num_workers,
        collate_fn=_identity_collate,
        pin_memory=torch.device("cuda" if device == "auto" else device).type == "cuda" and torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        multiprocessing_context=multiprocessing_context,
        worker_init_fn=_ignore_sigint,
        # DataLoader draws its workers' seed from here: once with persistent workers, in every epoch without
        generator=torch.Generator().manual_seed(seed),
    )


def _ignore_sigint(worker_id: int) -> None:
    """Ctrl-C in a terminal, or a scheduler's SIGTERM, reaches the workers too, but whether to stop is the training's.

    Its own SIGTERM counts: by it multiprocessing ends the workers that still live when the training exits, and it waits
    for them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # elsewhere (macOS, Windows) everybody's SIGTERM ends a worker
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_parent_sigterm, daemon=True).start()


def _exit_on_parent_sigterm() -> None:
    parent = multiprocessing.parent_process()
    while parent is not None and signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)


def _identity_collate(batch: Any) -> Any:
    """The batch is complete; a module-level function, because spawned workers unpickle it."""
    return batch
