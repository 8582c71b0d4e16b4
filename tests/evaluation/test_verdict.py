"""False alarms, missed faults, the risk-coverage curve, and the verdict in words."""

import numpy as np
import pytest
from scipy.stats import binomtest

from whirl.data.recording import Recording
from whirl.evaluation.prediction import Predictions
from whirl.evaluation.verdict import alarm_rates, risk_coverage, verdict, wilson_interval

CLASSES = ("normal", "ball", "inner_race")


def predicted(pairs, confidence=0.9):
    """Return predictions from pairs of true and predicted classes."""
    rows = np.full((len(pairs), 3), (1 - confidence) / 2)
    rows[np.arange(len(pairs)), [guess for _, guess in pairs]] = confidence
    return Predictions(rows, np.array([true for true, _ in pairs]), np.arange(len(pairs)))


def recordings(n, specimens=None):
    return [Recording(np.zeros(4), 100, specimen=f"m{(specimens or range(n))[index]}") for index in range(n)]


@pytest.mark.parametrize(("count", "n"), [(0, 5), (3, 10), (10, 10), (47, 400)])
def test_interval_is_that_of_scipy(count, n):
    expected = binomtest(count, n).proportion_ci(method="wilson")
    assert wilson_interval(count / n, n) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_rates_count_healthy_and_faulty_recordings():
    pairs = [(0, 0), (0, 0), (0, 1), (1, 1), (1, 0), (1, 2), (2, 2), (2, 2)]
    rates = alarm_rates(predicted(pairs), recordings(8), CLASSES)
    assert {name: (rate["count"], rate["n"]) for name, rate in rates.items()} == {
        "false_alarms": (1, 3), "missed_faults": (1, 5), "wrong_faults": (1, 5),
    }  # fmt: skip
    assert rates["missed_faults"]["rate"] == pytest.approx(0.2)


def test_interval_has_specimens_as_the_sample_size():
    pairs = [(0, 0), (0, 1)] * 20
    alone = alarm_rates(predicted(pairs), recordings(40), CLASSES)["false_alarms"]
    of_two = alarm_rates(predicted(pairs), recordings(40, [0, 1] * 20), CLASSES)["false_alarms"]
    assert (of_two["low"], of_two["high"]) == pytest.approx(wilson_interval(0.5, 2))
    assert of_two["high"] - of_two["low"] > alone["high"] - alone["low"]


def test_without_a_healthy_class_there_are_no_rates():
    assert alarm_rates(predicted([(0, 0)]), recordings(1), ("a", "b", "c")) == {}


def test_risk_falls_with_coverage_if_certainty_is_informative():
    rng = np.random.default_rng(0)
    rows = rng.dirichlet([1, 1, 1], size=4000)
    targets = np.array([rng.choice(3, p=row) for row in rows])
    risks = [point["risk"] for point in risk_coverage(Predictions(rows, targets, np.arange(4000)))]
    assert risks == sorted(risks)
    assert risks[-1] == pytest.approx(np.mean(1 - rows.max(axis=1)), abs=0.03)


def metrics_of(pairs, specimens=None):
    found = predicted(pairs)
    return {
        "recording": {
            "accuracy": float((found.predicted == found.targets).mean()),
            "majority_share": 0.5,
            "n": len(pairs),
            "alarm_rates": alarm_rates(found, recordings(len(pairs), specimens), CLASSES),
        }
    }


@pytest.mark.parametrize(
    ("pairs", "better", "is_unseen", "expected"),
    [
        ([(0, 1), (1, 0)], [], True, "Do not use: no better than always naming the most frequent class."),
        ([(0, 0), (1, 1)], ["the rule is better"], True, "Do not use as it is: the rule is better."),
        (
            [(0, 0), (1, 1), (2, 1)],
            [],
            True,
            "Finds 2 of 2 faults on machines it has not seen, 1 of them as another fault; "
            "0 of 1 healthy recordings would be called faulty.",
        ),
        (
            [(1, 1), (2, 2)],
            [],
            False,
            "Finds 2 of 2 faults on machines that may occur in the training data; "
            "false alarms are unknown, as no test recording is healthy.",
        ),
        (
            [(0, 0), (0, 0)],
            [],
            True,
            "Names the right class in 2 of 2 recordings on machines it has not seen.",
        ),
    ],
)
def test_verdict(pairs, better, is_unseen, expected):
    assert verdict(metrics_of(pairs), better, is_unseen) == expected


def test_order_of_equally_certain_recordings_does_not_matter():
    """A rule has few different probabilities, and files of one class follow each other."""
    rows = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    targets = np.array([0] * 8 + [1] * 2 + [0] * 5 + [1] * 5)
    shuffled = np.random.default_rng(0).permutation(20)
    curve = risk_coverage(Predictions(rows, targets, np.arange(20)))
    assert curve == risk_coverage(Predictions(rows[shuffled], targets[shuffled], np.arange(20)))
    assert {point["share"]: round(point["risk"], 3) for point in curve if point["share"] in (0.05, 0.5, 1.0)} == {
        0.05: 0.2, 0.5: 0.2, 1.0: 0.35,
    }  # fmt: skip
