"""Checks of arguments, with one form of message: the value, what was expected, and the nearest name."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_MAX_IMPLIED_CLASSES = 10_000


def unwrap_scalar(value: Any) -> Any:
    """Return the Python number in a NumPy scalar or in a zero-dimensional array or tensor.

    Any other value is returned unchanged, also a tensor that requires a gradient, which would be lost.

    Example:
        >>> import numpy as np
        >>> unwrap_scalar(np.float32(0.5)), unwrap_scalar(np.array(3)), unwrap_scalar("adam")
        (0.5, 3, 'adam')
    """
    is_scalar = getattr(value, "ndim", None) == 0 and hasattr(value, "item")
    return value.item() if is_scalar and not getattr(value, "requires_grad", False) else value


def check_count(name: str, value: int, minimum: int = 1) -> int:
    """Validate an integer that is at least `minimum`.

    Args:
        name: name of the argument, for the message.
        value: the integer, or a zero-dimensional array or tensor of one.
        minimum: smallest allowed value.

    Returns:
        The value as a Python int: a NumPy integer in a checkpoint would need pickle.

    Raises:
        ValueError: the value is smaller, a fraction, a bool or not a number.

    Example:
        >>> check_count("k", 1.5)
        Traceback (most recent call last):
        ValueError: k is 1.5, expected an integer >= 1
    """
    number = unwrap_scalar(value)
    if not isinstance(number, Integral) or isinstance(number, bool) or number < minimum:
        raise ValueError(f"{name} is {value!r}, expected an integer >= {minimum}")
    return int(number)


def check_number(name: str, value: float, low: float, high: float = math.inf, *, open_ends: bool = False) -> float:
    """Validate a finite number in [low, high], or in (low, high) with `open_ends`.

    Args:
        name: name of the argument, for the message.
        value: the number, or a zero-dimensional array or tensor of one.
        low: lower bound.
        high: upper bound.
        open_ends: exclude the bounds themselves.

    Returns:
        The value as a Python float.

    Raises:
        ValueError: the value is out of range, not finite, a bool or not a number.

    Example:
        >>> check_number("lr", 0, 0, open_ends=True)
        Traceback (most recent call last):
        ValueError: lr is 0, expected a finite number > 0
        >>> check_number("probability", 1.5, 0, 1)
        Traceback (most recent call last):
        ValueError: probability is 1.5, expected a number in [0, 1]
    """
    number = unwrap_scalar(value)
    if _is_finite(number) and (low < number < high if open_ends else low <= number <= high):
        return float(number)
    if high == math.inf:
        raise ValueError(f"{name} is {value!r}, expected a finite number {'>' if open_ends else '>='} {low:g}")
    left, right = "()" if open_ends else "[]"
    raise ValueError(f"{name} is {value!r}, expected a number in {left}{low:g}, {high:g}{right}")


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond the range of float
        return False


def check_name(kind: str, name: Any, known: Collection[str]) -> None:
    """Validate a name against the known ones.

    Args:
        kind: what the name stands for, e.g. `"model"`.
        name: the name.
        known: the names to choose from.

    Raises:
        ValueError: the name is not among them; the message suggests the nearest one.

    Example:
        >>> check_name("color", "gren", ["green", "red"])
        Traceback (most recent call last):
        ValueError: unknown color 'gren'; did you mean 'green'? Expected one of: green, red
    """
    if name not in known:
        raise ValueError(unknown_name(kind, name, known))


def unknown_name(kind: str, name: Any, known: Collection[str]) -> str:
    """Format the message for a name that is not known.

    Example:
        >>> unknown_name("color", "blue", ["green", "red"])
        "unknown color 'blue'; expected one of: green, red"
    """
    close = nearest_name(name, known)
    hint = f"did you mean {close!r}? Expected" if close else "expected"
    return f"unknown {kind} {name!r}; {hint} one of: {', '.join(known)}"


def nearest_name(name: Any, known: Collection[str]) -> str | None:
    """Return the known name that is spelled most like `name` in either case, or None if none is close.

    Example:
        >>> nearest_name("Epoch", ["epochs", "lr"])
        'epochs'
        >>> nearest_name("acme", ["nice"])
    """
    by_spelling = {str(each).lower(): each for each in known}
    close = difflib.get_close_matches(str(name).lower(), by_spelling, n=1, cutoff=0.6)
    return by_spelling[close[0]] if close else None


def check_ignore_index(ignore_index: int | None) -> int | None:
    """Validate the label of windows without a label.

    Returns:
        The label as a Python int, or None.

    Raises:
        TypeError: it is not an integer.
    """
    index = unwrap_scalar(ignore_index)
    if index is not None and (isinstance(index, bool) or not isinstance(index, Integral)):
        raise TypeError(f"ignore_index is {ignore_index!r}, expected an integer or None")
    return None if index is None else int(index)


def implied_num_classes(highest: int) -> int:
    """Return the number of classes that the largest label implies, if it was not given.

    Raises:
        ValueError: the label is more likely a name, such as a date, than an index.

    Example:
        >>> implied_num_classes(2)
        3
    """
    if highest >= _MAX_IMPLIED_CLASSES:
        raise ValueError(
            f"labels range up to {highest}, expected class indices below {_MAX_IMPLIED_CLASSES}; number the classes "
            "with np.unique(labels, return_inverse=True), or give num_classes"
        )
    return highest + 1


def check_floating(name: str, tensor: Any) -> None:
    """Validate a floating-point tensor.

    Args:
        name: name of the argument, for the message.
        tensor: the tensor.

    Raises:
        TypeError: it is not a tensor, or one of integers or bools.

    Example:
        >>> check_floating("noise", [1.0])
        Traceback (most recent call last):
        TypeError: noise is a list, expected a floating-point tensor
    """
    from torch import Tensor

    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}, expected a floating-point tensor")
    if not tensor.is_floating_point():
        raise TypeError(f"{name} is a tensor of {tensor.dtype}, expected a floating-point tensor")


def check_batch(signals: Tensor, rpm: Tensor | None = None) -> None:
    """Validate a batch of windows and their speeds.

    Args:
        signals: float `[B, C, T]`, no axis empty.
        rpm: `[B]`; None if there are no speeds.

    Raises:
        TypeError: the signals are not a floating-point tensor.
        ValueError: a shape is wrong.

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
