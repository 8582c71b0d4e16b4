"""What functions ask of their arguments, said once: numbers within a range, tensors of floats, batches of windows."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

from torch import Tensor


def check_count(name: str, value: int, least: int = 1) -> int:
    """Refuses what is not a whole number >= `least`.

    Args:
        name: what the caller calls the number.
        value: the number.
        least: the smallest that will do.

    Returns:
        The number as a plain int: one of NumPy's would make a checkpoint need pickle.

    Raises:
        ValueError: it is smaller, a fraction, a bool or no number.

    Example:
        >>> check_count("k", 1.5)
        Traceback (most recent call last):
        ValueError: k is 1.5, expected a whole number >= 1
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {value!r}, expected a whole number >= {least}")
    return int(value)


def check_number(name: str, value: float, low: float, high: float = math.inf, *, open_ends: bool = False) -> float:
    """Refuses what is not a finite number in [low, high], or in (low, high) with `open_ends`.

    Args:
        name: what the caller calls the number.
        value: the number.
        low: lower end of the range.
        high: its upper end.
        open_ends: whether the ends themselves are refused.

    Returns:
        The number as a plain float.

    Raises:
        ValueError: it lies outside, is not finite, a bool or no number.

    Example:
        >>> check_number("lr", 0, 0, open_ends=True)
        Traceback (most recent call last):
        ValueError: lr is 0, expected a finite number > 0
        >>> check_number("probability", 1.5, 0, 1)
        Traceback (most recent call last):
        ValueError: probability is 1.5, expected a number in [0, 1]
    """
    if _is_finite(value) and (low < value < high if open_ends else low <= value <= high):
        return float(value)
    if high == math.inf:
        raise ValueError(f"{name} is {value!r}, expected a finite number {'>' if open_ends else '>='} {low:g}")
    left, right = "()" if open_ends else "[]"
    raise ValueError(f"{name} is {value!r}, expected a number in {left}{low:g}, {high:g}{right}")


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def check_name(kind: str, name: Any, known: Collection[str]) -> None:
    """Refuses a name that is none of the known ones.

    Args:
        kind: what it should name.
        name: the name.
        known: the names to choose from.

    Raises:
        ValueError: it is not among them.

    Example:
        >>> check_name("colour", "gren", ["green", "red"])
        Traceback (most recent call last):
        ValueError: no colour is named 'gren'; did you mean 'green'? Known: green, red
    """
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ValueError(f"no {kind} is named {name!r}{hint} Known: {', '.join(known)}")


def check_floating(name: str, tensor: Any) -> None:
    """Refuses what is not a floating-point tensor.

    Args:
        name: what the caller calls it.
        tensor: anything.

    Raises:
        TypeError: it is no tensor, or one of other numbers.

    Example:
        >>> check_floating("noise", [1.0])
        Traceback (most recent call last):
        TypeError: the type of noise is list, expected a floating-point tensor
    """
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"the type of {name} is {kind}, expected a floating-point tensor")


def check_batch(signals: Tensor, rpm: Tensor | None = None) -> None:
    """Refuses what is not a batch of windows, or speeds that are not one for each of them.

    Args:
        signals: should be float `[B, C, T]`, none of them 0.
        rpm: should be `[B]`, where there are speeds.

    Raises:
        TypeError: the signals are not a floating-point tensor.
        ValueError: a shape is another.

    Example:
        >>> import torch
        >>> check_batch(torch.ones(2, 8))
        Traceback (most recent call last):
        ValueError: signals have shape [2, 8], expected [batch, channels, samples], none empty
    """
    check_floating("signals", signals)
    if signals.ndim != 3 or 0 in signals.shape:
        raise ValueError(f"signals have shape {list(signals.shape)}, expected [batch, channels, samples], none empty")
    if rpm is not None and rpm.shape != signals.shape[:1]:
        raise ValueError(f"rpm has shape {list(rpm.shape)}, expected one speed per sample: [{len(signals)}]")
