import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from whirl.validation import check_batch, check_count, check_floating, check_number


@pytest.mark.parametrize("value", [1, 7, np.int64(3), np.array(3), torch.tensor(2)])
def test_integers_are_returned_as_int(value):
    assert type(check_count("k", value)) is int
    assert check_count("k", value) == value


@pytest.mark.parametrize(
    "value", [0, -1, 1.0, True, "2", None, math.nan, np.array([2]), torch.tensor([2]), torch.tensor(True)]
)
def test_rejects_values_that_are_not_counts(value):
    with pytest.raises(ValueError, match=r"k is .*, expected an integer >= 1"):
        check_count("k", value)


@pytest.mark.parametrize(
    "value", [0, 1, 0.5, np.float32(0.3), np.float64(1), np.array(0.5), torch.tensor(0.5), Fraction(1, 3)]
)
def test_numbers_in_a_closed_range_are_returned_as_float(value):
    assert type(check_number("p", value, 0, 1)) is float
    assert check_number("p", value, 0, 1) == float(value)


@pytest.mark.parametrize(
    "value",
    [
        -1e-9,
        1.5,
        10**400,
        math.nan,
        math.inf,
        -math.inf,
        True,
        "0.5",
        None,
        1j,
        np.array([0.5]),
        torch.tensor([0.5]),
        torch.tensor(0.5, requires_grad=True),
    ],
)
def test_rejects_values_outside_a_closed_range(value):
    with pytest.raises(ValueError, match=r"p is .*, expected a number in \[0, 1\]"):
        check_number("p", value, 0, 1)


@pytest.mark.parametrize("value", [0, 1])
def test_rejects_the_ends_of_an_open_range(value):
    with pytest.raises(ValueError, match=rf"p is {value}, expected a number in \(0, 1\)"):
        check_number("p", value, 0, 1, open_ends=True)


@pytest.mark.parametrize(("open_ends", "expected"), [(False, ">= 0"), (True, "> 0")])
def test_rejects_infinity_without_an_upper_end(open_ends, expected):
    check_number("lr", 1e300, 0, open_ends=open_ends)
    with pytest.raises(ValueError, match=f"lr is inf, expected a finite number {expected}$"):
        check_number("lr", math.inf, 0, open_ends=open_ends)


def test_kinds_and_shapes_of_tensors_are_named():
    check_batch(torch.ones(2, 1, 8, dtype=torch.float16), torch.ones(2))
    with pytest.raises(TypeError, match=r"noise is a tensor of torch\.int64"):
        check_floating("noise", torch.ones(3, dtype=torch.int64))
    with pytest.raises(TypeError, match="signals is a ndarray"):
        check_batch(np.ones((2, 1, 8)))  # pyright: ignore
    for shape in ([2, 8], [0, 1, 8], [2, 1, 0]):
        with pytest.raises(ValueError, match="signals have shape"):
            check_batch(torch.ones(shape))
    with pytest.raises(ValueError, match=r"rpm has shape \[3\], expected one speed per sample: \[2\]"):
        check_batch(torch.ones(2, 1, 8), torch.ones(3))
