"""What a network costs: parameters, bytes on disk, time for an answer."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

ROUNDS, WARM_UP = 30, 3


def count_parameters(model: nn.Module) -> int:
    """Numbers that the network has learnt or could learn, frozen ones included.

    Example:
        >>> count_parameters(nn.Linear(10, 3))
        33
    """
    return sum(parameter.numel() for parameter in model.parameters())


def size_bytes(model: nn.Module) -> int:
    """Size of a file with the network's weights and buffers, as torch saves them; nothing is written.

    Example:
        >>> size_bytes(nn.Linear(1000, 1000)) > 4 * 1000 * 1000
        True
    """
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.getbuffer().nbytes


def latencies_s(calls: Sequence[Callable[[], object]], device: str | torch.device = "cpu") -> list[float]:
    """Median time of each call, in seconds; see `times_s`.

    Example:
        >>> short, long = latencies_s([lambda: None, lambda: time.sleep(1e-3)])
        >>> short < long
        True
    """
    return [statistics.median(times) for times in times_s(calls, device)]


def times_s(calls: Sequence[Callable[[], object]], device: str | torch.device = "cpu") -> list[list[float]]:
    """Times of each call in each of `ROUNDS` rounds, in seconds.

    The calls take turns, so that whatever else the machine does meets them alike, and each is made a few times
    before. On CUDA the device's queue is empty at both readings of the clock.

    Args:
        calls: what to time, without arguments.
        device: where they compute.

    Returns:
        A list for each call; what stands at one place in them is of one round.
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
