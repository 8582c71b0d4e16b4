"""Formulas of learning-rate schedules: pure functions of the step, counted from 0, to a factor of the full rate.

A step is an epoch or an optimizer step, whichever the scheduler counts (`Schedule.step_unit`).
"""

from __future__ import annotations

import math

from whirl.validation import check_count


def warmup(step: int, warmup_steps: int) -> float:
    """Linear rise: (step + 1) / (warmup_steps + 1), then 1.

    No step has factor 0, and the full rate comes first at step `warmup_steps`.

    Example:
        >>> [warmup(step, 3) for step in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return min(1.0, (step + 1) / (warmup_steps + 1))


def polynomial(step: int, total_steps: int, power: float = 1.0, floor: float = 0.0) -> float:
    """From 1 at step 0 to `floor` at `total_steps` and after: floor + (1 - floor) (1 - step / total_steps)^power.

    Example:
        >>> [polynomial(step, 4, power=2) for step in range(6)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    """
    return _descent((1 - _progress(step, total_steps)) ** power, floor)


def cosine(step: int, total_steps: int, floor: float = 0.0) -> float:
    """From 1 at step 0 to `floor` at `total_steps` and after: floor + (1 - floor) (1 + cos(pi step / total_steps)) / 2.

    Loshchilov & Hutter 2017, SGDR, eq. 5.

    Example:
        >>> [round(cosine(step, 4, floor=0.1), 4) for step in (0, 2, 4, 5)]
        [1.0, 0.55, 0.1, 0.1]
    """
    return _descent((1 + math.cos(math.pi * _progress(step, total_steps))) / 2, floor)


def warmup_cosine(step: int, warmup_steps: int, total_steps: int, floor: float = 0.0) -> float:
    """`warmup` for `warmup_steps`, then `cosine` over the rest: `floor` at `total_steps` and after.

    Example:
        >>> [round(warmup_cosine(step, 1, 5), 4) for step in range(7)]
        [0.5, 1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0]
    """
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    return cosine(step - warmup_steps, total_steps - warmup_steps, floor)


def warmup_linear(step: int, warmup_steps: int, total_steps: int) -> float:
    """`warmup` for `warmup_steps`, then a straight line to 0 at `total_steps` and after.

    Example:
        >>> [warmup_linear(step, 1, 5) for step in range(7)]
        [0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    return polynomial(step - warmup_steps, total_steps - warmup_steps)


def noam(step: int, d_model: float, warmup_steps: int) -> float:
    """d_model^-0.5 min(s^-0.5, s warmup_steps^-1.5) with s = step + 1, as the paper counts steps from 1.

    Vaswani et al. 2017, Attention Is All You Need, eq. 3: rises up to s = warmup_steps, then falls without end.

    Example:
        >>> noam(0, 16, 4), noam(3, 16, 4), noam(15, 16, 4)
        (0.03125, 0.125, 0.0625)
    """
    s = step + 1
    return d_model**-0.5 * min(s**-0.5, s * warmup_steps**-1.5)


def _progress(step: int, total_steps: int) -> float:
    return step / total_steps if step < total_steps else 1.0


def _descent(height: float, floor: float) -> float:
    """`height` in [0, 1] between `floor` and 1, both met exactly."""
    return floor * (1 - height) + height


def check_warmup(warmup_epochs: int, total_epochs: int) -> tuple[int, int]:
    """Both as plain ints; a ValueError unless 0 <= warmup_epochs <= total_epochs and there is an epoch at all."""
    total_epochs = check_count("total_epochs", total_epochs)
    warmup_epochs = check_count("warmup_epochs", warmup_epochs, 0)
    if warmup_epochs > total_epochs:
        raise ValueError(f"warmup_epochs is {warmup_epochs}, expected at most total_epochs, which is {total_epochs}")
    return warmup_epochs, total_epochs
