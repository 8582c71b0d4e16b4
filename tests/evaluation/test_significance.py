"""Tests of McNemar's exact test."""

from math import comb

import numpy as np
import pytest

from whirl.evaluation.significance import mcnemar, specimen_p_value


def predictions(both, only_a, only_b, none):
    counts = [both, only_a, only_b, none]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(("only_a", "only_b"), [(9, 2), (2, 9), (0, 5), (1, 0)])
def test_p_value_matches_binomial_tail(only_a, only_b):
    n = only_a + only_b
    tail = sum(comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
    found = mcnemar(*predictions(50, only_a, only_b, 7))
    assert (found.n_only_a, found.n_only_b) == (only_a, only_b)
    assert found.p_value == pytest.approx(min(1.0, 2 * tail))


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (4, 4)])
def test_equal_classifiers_have_p_value_one(only_a, only_b):
    assert mcnemar(*predictions(3, only_a, only_b, 3)).p_value == 1


@pytest.mark.parametrize(
    ("only_a", "only_b", "verdict"),
    [
        (0, 0, "not significant: the two differ in 0 cases, and significance requires"),
        (
            5,
            0,
            "not significant: the two differ in 5 cases, and significance requires at least 6",
        ),  # p = 2 / 2^5 = 0.0625
        (6, 0, "significant: the first is more accurate"),  # p = 2 / 2^6 = 0.03125
        (1, 8, "significant: the second is more accurate"),  # p = 2 (1 + 9) / 2^9 = 0.039
        (6, 1, "not significant: 6 of 7 differing cases may be due to chance"),
    ],
)
def test_verdict(only_a, only_b, verdict):
    assert mcnemar(*predictions(3, only_a, only_b, 3)).verdict.startswith(verdict)


@pytest.mark.parametrize(("a", "b"), [([True], [True, False]), ([], []), ([[True]], [[True]])])
def test_rejects_invalid_shapes(a, b):
    with pytest.raises(ValueError, match="expected \\[N\\] for both"):
        mcnemar(a, b)


def test_sign_flips_over_specimens_of_one_recording_give_mcnemars_p_value():
    a, b = predictions(3, 6, 1, 3)
    assert specimen_p_value(a, b, np.arange(len(a))) == pytest.approx(mcnemar(a, b).p_value)


def test_recordings_of_one_specimen_count_as_one():
    a, b = np.ones(40, bool), np.zeros(40, bool)
    assert mcnemar(a, b).p_value < 1e-6
    assert specimen_p_value(a, b, np.repeat(np.arange(4), 10)) == pytest.approx(2 / 2**4)
    assert specimen_p_value(a, a, np.arange(40)) == 1.0


def test_random_sign_flips_agree_with_the_exact_test():
    rng = np.random.default_rng(0)
    a, b = rng.random(30) < 0.8, rng.random(30) < 0.5
    assert specimen_p_value(a, b, np.arange(30)) == pytest.approx(mcnemar(a, b).p_value, abs=0.02)
