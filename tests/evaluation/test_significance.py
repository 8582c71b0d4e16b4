"""McNemar's exact test."""

from math import comb

import numpy as np
import pytest

from whirl.evaluation.significance import mcnemar


def answers(both, only_a, only_b, none):
    counts = [both, only_a, only_b, none]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(("only_a", "only_b"), [(9, 2), (2, 9), (0, 5), (1, 0)])
def test_by_counting_coin_tosses(only_a, only_b):
    n = only_a + only_b
    tail = sum(comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
    found = mcnemar(*answers(50, only_a, only_b, 7))
    assert (found.n_only_a, found.n_only_b) == (only_a, only_b)
    assert found.p_value == pytest.approx(min(1.0, 2 * tail))


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (4, 4)])
def test_no_difference(only_a, only_b):
    assert mcnemar(*answers(3, only_a, only_b, 3)).p_value == 1


@pytest.mark.parametrize(
    ("only_a", "only_b", "verdict"),
    [
        (0, 0, "decides nothing: one alone is right on 0 cases, and it takes 6"),
        (5, 0, "decides nothing: one alone is right on 5 cases, and it takes 6"),  # p = 2 / 2^5 = 0.0625
        (6, 0, "speaks for the first"),  # p = 2 / 2^6 = 0.03125
        (1, 8, "speaks for the second"),  # p = 2 (1 + 9) / 2^9 = 0.039
        (6, 1, "decides nothing: chance explains 6 of 7"),
    ],
)
def test_what_the_p_value_decides(only_a, only_b, verdict):
    assert mcnemar(*answers(3, only_a, only_b, 3)).verdict.startswith(verdict)


@pytest.mark.parametrize(("a", "b"), [([True], [True, False]), ([], []), ([[True]], [[True]])])
def test_answers_that_do_not_match(a, b):
    with pytest.raises(ValueError, match="shapes"):
        mcnemar(a, b)
