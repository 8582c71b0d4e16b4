"""Deterministic algorithms for the time of a training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deterministic_algorithms(enabled: bool = True) -> Iterator[None]:
    """Within the block, let torch use only algorithms that give the same bits in every run on the same machine.

    On a CPU torch does so anyway, with few exceptions. On CUDA it costs speed, and an operation without a deterministic
    algorithm raises `RuntimeError`. Matrix products on CUDA also need the environment variable
    `CUBLAS_WORKSPACE_CONFIG`, which is set to `:4096:8` here unless it is set; it takes effect only if CUDA has
    not been used yet in this process.

    Args:
        enabled: False changes nothing.

    Example:
        >>> with deterministic_algorithms():
        ...     torch.are_deterministic_algorithms_enabled()
        True
        >>> torch.are_deterministic_algorithms_enabled()
        False
    """
    if not enabled:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
