"""Cost of a network: number of parameters, bytes on disk, latency."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

ROUNDS, WARM_UP = 30, 3


def count_parameters(model: nn.Module) -> int:
    """Count the parameters of a network, including frozen ones.

    Example:
        >>> count_parameters(nn.Linear(10, 3))
        33
    """
    return sum(parameter.numel() for parameter in model.parameters())


def size_bytes(model: nn.Module) -> int:
    """Return the size of a file with the network's weights and buffers, as torch saves them, without writing it.

    Example:
        >>> size_bytes(nn.Linear(1000, 1000)) > 4 * 1000 * 1000
        True
    """
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.getbuffer().nbytes


def latencies_s(calls: Sequence[Callable[[], object]], device: str | torch.device = "cpu") -> list[float]:
    """Measure the median time of each call, in seconds; see `times_s`.

    Example:
        >>> model, signals = nn.Linear(8, 2), torch.randn(4, 8)
        >>> [median_s] = latencies_s([lambda: model(signals)])
        >>> median_s > 0
        True
    """
    return [statistics.median(times) for times in times_s(calls, device)]


def times_s(calls: Sequence[Callable[[], object]], device: str | torch.device = "cpu") -> list[list[float]]:
    """Measure the times of each call in `ROUNDS` rounds, in seconds.

    The calls are made in turns, so that other load on the machine affects them equally, after a few calls to warm up.
    On CUDA the device's queue is empty at both readings of the clock.

    Args:
        calls: functions without arguments.
        device: where they compute.

    Returns:
        One list per call; equal indices belong to the same round.
    """
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    for call in calls:
        for _ in range(WARM_UP):
            call()
    rounds = [[_seconds(call, wait) for call in calls] for _ in range(ROUNDS)]
    return [list(times) for times in zip(*rounds, strict=True)]


def _seconds(call: Callable[[], object], wait: Callable[[], object]) -> float:
    wait()
    began = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - began
