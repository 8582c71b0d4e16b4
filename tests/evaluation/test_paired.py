"""Tests of paired comparisons against SciPy and manual calculations."""

import math

import numpy as np
import pytest
from scipy import stats

from whirl.evaluation.paired import compare_arms, paired_difference


def test_interval_matches_scipy_one_sample_t_interval():
    rng = np.random.default_rng(0)
    arm, control = dict(enumerate(rng.normal(0.8, 0.05, 10))), dict(enumerate(rng.normal(0.7, 0.05, 10)))
    found = paired_difference(arm, control)
    differences = np.array([arm[i] - control[i] for i in range(10)])
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.p_value == pytest.approx(stats.wilcoxon(differences).pvalue)


def test_exact_p_value_of_five_positive_differences():
    """All 2^5 sign patterns are equally likely, and two of them are as extreme."""
    found = paired_difference({i: 0.5 + 0.01 * (i + 1) for i in range(5)}, dict.fromkeys(range(5), 0.5))
    assert found.p_value == pytest.approx(2 / 32)


def test_uses_only_common_runs():
    found = paired_difference({0: 1.0, 1: 0.5, 7: 0.0}, {1: 0.25, 0: 0.5, 3: 0.9})
    assert (found.n_runs, found.difference, found.mean) == (2, 0.375, 0.75)


def test_single_run_has_no_interval():
    found = paired_difference({0: 1.0}, {0: 0.5})
    assert math.isnan(found.low)
    assert "no interval" in str(found)


def test_control_comes_first_with_zero_difference():
    scores = {"arm": {0: 0.6, 1: 0.7}, "control": {0: 0.5, 1: 0.5}}
    found = compare_arms(scores, "control")
    assert list(found) == ["control", "arm"]
    assert found["control"].difference == 0
    assert math.isnan(found["control"].p_value)


def test_rejects_invalid_scores():
    with pytest.raises(ValueError, match="no run in common"):
        paired_difference({0: 1.0}, {1: 1.0})
    with pytest.raises(ValueError, match="expected finite numbers"):
        paired_difference({0: math.nan}, {0: 1.0})
    with pytest.raises(ValueError, match="unknown arm 'b'; expected one of: a"):
        compare_arms({"a": {0: 1.0}}, "b")
