"""Validation of arguments that several losses share."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Literal

from torch import Tensor

from whirl.validation import check_name, unwrap_scalar

Reduction = Literal["none", "mean", "sum"]


def check_non_negative(value: Any, name: str) -> float:
    """Validate a finite number >= 0.

    Args:
        value: the number; tensors that require a gradient are rejected, since none would reach them.
        name: name of the argument, for the message.

    Returns:
        The value as a Python float.

    Raises:
        TypeError: the value is not a number.
        ValueError: the value is negative or not finite.
    """
    if not 0 <= (number := _as_float(value, name)) < math.inf:
        raise ValueError(f"{name} is {value!r}, expected a finite number >= 0")
    return number


def check_gamma(gamma: float) -> float:
    """Validate a focusing exponent, see `check_non_negative`."""
    return check_non_negative(gamma, "gamma")


def check_smoothing(smoothing: float) -> float:
    """Validate the weight of the uniform distribution in label smoothing.

    Returns:
        The value as a Python float.

    Raises:
        TypeError: the value is not a number.
        ValueError: the value is outside [0, 1).
    """
    if not 0 <= (number := _as_float(smoothing, "smoothing")) < 1:
        raise ValueError(f"smoothing is {smoothing!r}, expected a number in [0, 1)")
    return number


def check_temperature(temperature: float) -> float:
    """Validate a temperature, by which logits or similarities are divided.

    Returns:
        The value as a Python float.

    Raises:
        TypeError: the value is not a number; learnable temperatures are not supported.
        ValueError: the value is not positive, or not finite.
    """
    if not 0 < (number := _as_float(temperature, "temperature")) < math.inf:
        raise ValueError(f"temperature is {temperature!r}, expected a finite number > 0")
    return number


def check_reduction(reduction: str) -> None:
    """Validate the name of a reduction.

    Raises:
        ValueError: the name is not `'none'`, `'mean'` or `'sum'`.
    """
    check_name("reduction", reduction, ("none", "mean", "sum"))


def copy_class_weights(weights: Tensor | None, name: str) -> Tensor | None:
    """Validate class weights and return a copy that can be registered as a buffer.

    Args:
        weights: `[K]`, each finite and >= 0, or None.
        name: name of the argument, for the message.

    Returns:
        A detached copy; None for None.

    Raises:
        TypeError: the weights are not a tensor.
        ValueError: the shape is not `[K]`, or a weight is negative or not finite.
    """
    if weights is None:
        return None
    check_weight_tensor(weights, name)
    if weights.ndim != 1:
        raise ValueError(f"{name} has shape {list(weights.shape)}, expected one weight per class [K]")
    if not bool(((weights >= 0) & (weights < math.inf)).all()):
        raise ValueError(f"{name} is {weights.tolist()}, expected finite weights >= 0")
    return weights.detach().clone()


def check_weight_tensor(weights: Any, name: str) -> None:
    """Validate that class weights are a tensor.

    Raises:
        TypeError: they are not.
    """
    if not isinstance(weights, Tensor):
        raise TypeError(f"{name} is {weights!r}, expected a tensor of one weight per class [K]")


def _as_float(value: Any, name: str) -> float:
    if type(value) is float:  # fast path: isinstance against an abstract base class takes about a microsecond
        return value
    number = unwrap_scalar(value)
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(f"{name} is {value!r}, expected a number")
    return float(number)
