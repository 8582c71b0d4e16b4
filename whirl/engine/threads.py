"""Choose the number of CPU threads for a training step by measuring it.

A second thread speeds up large steps. In small steps the threads mostly wait for each other, and they wait long if
another process keeps a core busy: a step of 75 ms took 200 to 400 ms with two threads on two cores, one of them busy.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

ROUNDS = 3
ENOUGH_S = 1.0
"""A round ends the measurement if so many seconds have passed: long steps vary little."""

MIN_GAIN = 0.85
"""More threads are used only if a step takes at most this fraction of the time."""


def fastest_thread_count(step: Callable[[], object], candidates: Sequence[int] | None = None) -> int:
    """Return the number of threads with which `step` is fastest, or fewer if the difference is small.

    Args:
        step: one typical step; called a few times with each number of threads.
        candidates: ascending numbers of threads; None is 1, 2, 4, ... up to torch's current setting.

    Returns:
        One of the candidates. The setting of torch is restored.

    Example:
        >>> fastest_thread_count(lambda: torch.ones(8).sum(), candidates=[1])
        1
    """
    before = torch.get_num_threads()
    candidates = _powers_of_two(before) if candidates is None else candidates
    if len(candidates) == 1:
        return candidates[0]
    times: dict[int, list[float]] = {count: [] for count in candidates}
    began = time.perf_counter()
    try:
        for _ in range(ROUNDS):
            for count in candidates:
                torch.set_num_threads(count)
                step()
                times[count].append(_seconds(step))
            if time.perf_counter() - began > ENOUGH_S:
                break
    finally:
        torch.set_num_threads(before)
    return _fewest_fast_enough({count: statistics.median(taken) for count, taken in times.items()})


def _seconds(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def _powers_of_two(maximum: int) -> list[int]:
    return [*(1 << i for i in range(maximum.bit_length() - 1)), maximum] if maximum > 1 else [1]


def _fewest_fast_enough(median_s: dict[int, float]) -> int:
    chosen, *more = median_s
    for count in more:
        if median_s[count] <= MIN_GAIN * median_s[chosen]:
            chosen = count
    return chosen
