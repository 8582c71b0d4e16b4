"""Formulas of learning-rate schedules: pure functions from a step to a factor of the learning rate.

Steps are counted from 0. A step is an epoch or an optimizer step, depending on the scheduler (`Schedule.step_unit`).
"""

from __future__ import annotations

import math

from whirl.validation import check_count


def warmup(step: int, warmup_steps: int) -> float:
    """Compute a linear warmup: (step + 1) / (warmup_steps + 1), then 1.

    The factor is never 0, and first reaches 1 at step `warmup_steps`.

    Example:
        >>> [warmup(step, 3) for step in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return min(1.0, (step + 1) / (warmup_steps + 1))


def polynomial(step: int, total_steps: int, power: float = 1.0, floor: float = 0.0) -> float:
    """Compute a polynomial decay: floor + (1 - floor) (1 - step / total_steps)^power.

    The factor is 1 at step 0 and `floor` from step `total_steps` on.

    Example:
        >>> [polynomial(step, 4, power=2) for step in range(6)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    """
    return _rescale((1 - _progress(step, total_steps)) ** power, floor)


def cosine(step: int, total_steps: int, floor: float = 0.0) -> float:
    """Compute a cosine decay: floor + (1 - floor) (1 + cos(pi step / total_steps)) / 2.

    The factor is 1 at step 0 and `floor` from step `total_steps` on. Loshchilov & Hutter 2017, SGDR, eq. 5.

    Example:
        >>> [round(cosine(step, 4, floor=0.1), 4) for step in (0, 2, 4, 5)]
        [1.0, 0.55, 0.1, 0.1]
    """
    return _rescale((1 + math.cos(math.pi * _progress(step, total_steps))) / 2, floor)


def warmup_cosine(step: int, warmup_steps: int, total_steps: int, floor: float = 0.0) -> float:
    """Compute `warmup` for `warmup_steps`, then `cosine` for the remaining steps; `floor` from `total_steps` on.

    Example:
        >>> [round(warmup_cosine(step, 1, 5), 4) for step in range(7)]
        [0.5, 1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0]
    """
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    return cosine(step - warmup_steps, total_steps - warmup_steps, floor)


def warmup_linear(step: int, warmup_steps: int, total_steps: int) -> float:
    """Compute `warmup` for `warmup_steps`, then a linear decay; 0 from `total_steps` on.

    Example:
        >>> [warmup_linear(step, 1, 5) for step in range(7)]
        [0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    return polynomial(step - warmup_steps, total_steps - warmup_steps)


def noam(step: int, d_model: float, warmup_steps: int) -> float:
    """Compute d_model^-0.5 min(s^-0.5, s warmup_steps^-1.5) with s = step + 1, since the paper counts steps from 1.

    Vaswani et al. 2017, Attention Is All You Need, eq. 3. The factor increases until s = warmup_steps, and then decays
    indefinitely.

    Example:
        >>> noam(0, 16, 4), noam(3, 16, 4), noam(15, 16, 4)
        (0.03125, 0.125, 0.0625)
    """
    s = step + 1
    return d_model**-0.5 * min(s**-0.5, s * warmup_steps**-1.5)


def inverse_sqrt(step: int, warmup_steps: int, timescale: int) -> float:
    """Compute `warmup` for `warmup_steps`, then sqrt(timescale / (step - warmup_steps + timescale)).

    The decay starts at 1, is 1/sqrt(2) after `timescale` steps, and has no end. With `timescale=warmup_steps` it is
    proportional to that of `noam`. Zhai et al. 2022, Scaling Vision Transformers, sec. 3.5.

    Example:
        >>> [round(inverse_sqrt(step, 1, 4), 4) for step in (0, 1, 5, 13)]
        [0.5, 1.0, 0.7071, 0.5]
    """
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    return math.sqrt(timescale / (step - warmup_steps + timescale))


def constant(step: int) -> float:
    """Return 1 at every step.

    Example:
        >>> constant(7)
        1.0
    """
    return 1.0


def _progress(step: int, total_steps: int) -> float:
    return step / total_steps if step < total_steps else 1.0


def _rescale(value: float, floor: float) -> float:
    """Map [0, 1] to [floor, 1], with both ends exact."""
    return floor * (1 - value) + value


def check_warmup(warmup_epochs: int, total_epochs: int) -> tuple[int, int]:
    """Validate the lengths of a schedule with warmup.

    Returns:
        Both lengths as Python ints.

    Raises:
        ValueError: they are not integers with 0 <= `warmup_epochs` <= `total_epochs` and `total_epochs` >= 1.
    """
    total_epochs = check_count("total_epochs", total_epochs)
    warmup_epochs = check_count("warmup_epochs", warmup_epochs, 0)
    if warmup_epochs > total_epochs:
        raise ValueError(f"warmup_epochs is {warmup_epochs}, expected at most total_epochs, which is {total_epochs}")
    return warmup_epochs, total_epochs
