"""The combined physics loss: components, diagnosis, missing inputs and argument checks."""

import re

import pytest
import torch

from tests.losses.physics_cases import N, gradient, rand
from whirl.losses.physics_loss_functions import (
    EvidenceConsistencyLoss,
    FrequencyConsistencyLoss,
    PhysicalConstraintLoss,
    SommerfeldConsistencyLoss,
    TemporalSmoothnessLoss,
)
from whirl.physics.faults import ROLLING_CLASSES


def new_loss():
    lines = {0: [], 1: [1.0], 2: [2.0], 3: [0.5, 1.5]}
    return FrequencyConsistencyLoss(lines, freq_unit="order", spectrum="raw")


def test_components_add_up_to_total(faulty):
    signals, metadata, targets = faulty
    n = len(targets)
    complete = metadata | {"sommerfeld": rand(n).exp().float(), "recording": torch.arange(n) // 3}
    logits = rand(n, 11).float().requires_grad_()
    loss = PhysicalConstraintLoss(0.7, 0.3, 2.0)
    components = loss.components(logits, signals, complete)
    assert list(components) == ["freq_loss", "sommerfeld_loss", "temporal_loss", "total_loss"]
    terms = loss.terms(logits, signals, complete)
    assert all(components[name] == term > 0 and gradient(term, logits).any() for name, term in terms.items())
    expected = 0.7 * components["freq_loss"] + 0.3 * components["sommerfeld_loss"] + 2 * components["temporal_loss"]
    assert components["total_loss"].item() == pytest.approx(expected.item())
    assert loss(logits, signals, complete) == components["total_loss"]
    off = PhysicalConstraintLoss(0, 0, 0)
    assert not any(term.any() for term in off.components(logits, None).values())
    assert off.diagnose(logits, None) == {}
    assert list(off.terms(logits, None, complete, names=["temporal_loss"])) == ["temporal_loss"]


def test_diagnose_reveals_contradiction_and_missing_evidence(calibrated, faulty):
    signals, metadata, targets = faulty
    correct, wrong = (8 * torch.eye(11)[classes] for classes in (targets, (targets + 1) % 11))
    diagnosis = calibrated.diagnose(correct, signals, metadata)
    assert diagnosis["evidence_coverage"] > 0.5
    assert diagnosis["physics_agreement"] > 0.7
    assert calibrated.diagnose(wrong, signals, metadata)["physics_agreement"] < 0.2
    for unknown in ({}, {"rpm": torch.full((len(targets),), torch.nan)}):
        assert not any(value.any() for value in calibrated.diagnose(correct, signals, unknown).values())


NAN = {"rpm": torch.full((2,), torch.nan)}
SHORT = {"rpm": torch.full((2,), 3000.0)}


@pytest.mark.parametrize(
    ("name", "metadata", "reason"),
    [
        ("freq_loss", {"load": 1.0}, r"the metadata have no 'rpm', only \['load'\]"),
        ("freq_loss", NAN, "rpm is NaN for all"),
        ("freq_loss", SHORT, "too short to resolve .* use windows of at least .* s"),
        ("sommerfeld_loss", NAN, "neither 'sommerfeld' nor"),
        ("sommerfeld_loss", {"sommerfeld": torch.tensor([0.1, 0.11])}, "factor 2"),
        ("temporal_loss", NAN, "no 'recording' or 'record_ids'"),
        ("temporal_loss", {"recording": torch.tensor([3, 4])}, "no two windows"),
    ],
)
def test_explains_zero_gradient(name, metadata, reason):
    signals, loss = rand(2, 1, 2048).float(), PhysicalConstraintLoss()
    assert re.search(reason, loss.explain_zero_gradient(name, signals, metadata))


@pytest.mark.parametrize(
    ("classes", "kwargs"),
    [(ROLLING_CLASSES, {}), (("healthy", "gear_crack"), {}), (None, {"expected_freqs": {0: [], 1: []}})],
    ids=["rolling without orders", "unknown class", "no lines"],
)
def test_frequency_term_is_zero_without_expected_lines(classes, kwargs):
    loss = PhysicalConstraintLoss(1, 0, 0, classes=classes, **kwargs)
    logits = torch.zeros(2, 11, requires_grad=True)
    term = loss.terms(logits, rand(2, N).float(), SHORT, names=["freq_loss"])["freq_loss"]
    assert term == 0
    assert not gradient(term, logits).any()
    assert "classes have expected lines" in loss.explain_zero_gradient("freq_loss", rand(2, N), SHORT)


def test_warns_once_about_missing_metadata():
    loss, logits = PhysicalConstraintLoss(), torch.zeros(2, 11, requires_grad=True)
    with pytest.warns(UserWarning, match="loss is 0") as caught:
        assert loss(logits, rand(2, N), {}) == 0
    assert [str(warning.message).split(" is 0")[0] for warning in caught] == [
        "the frequency loss",
        "the Sommerfeld loss",
        "the temporal loss",
    ]
    assert loss(logits, rand(2, N), {}) == 0  # warnings are errors in this suite


def test_warns_about_classes_with_the_same_lines():
    with pytest.warns(UserWarning, match=r"classes \[1, 3\] have the same expected lines"):
        FrequencyConsistencyLoss({0: [], 1: [60.0], 2: [90.0], 3: [60.0]})


LOGITS = torch.zeros(2, 11)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: PhysicalConstraintLoss(form="hinge"), ValueError, "unknown form 'hinge'"),
        (lambda: PhysicalConstraintLoss(-1), ValueError, "lambda_freq is -1"),
        (lambda: PhysicalConstraintLoss(control="noise"), ValueError, "unknown control 'noise'"),
        (lambda: PhysicalConstraintLoss(temperature=0), ValueError, "temperature is 0"),
        (lambda: PhysicalConstraintLoss().terms(LOGITS, None, {}, ["freq"]), ValueError, "unknown term 'freq'"),
        (lambda: FrequencyConsistencyLoss({"wear": []}), KeyError, "unknown class 'wear'"),
        (lambda: FrequencyConsistencyLoss({5: []}, classes=["a"]), KeyError, "class 5"),
        (lambda: FrequencyConsistencyLoss({5: []}, n_classes=3), ValueError, "n_classes is 3"),
        (lambda: FrequencyConsistencyLoss({}, tolerance=0), ValueError, "tolerance is 0"),
        (lambda: FrequencyConsistencyLoss({0: [9.0]}, sample_rate=0), ValueError, "sampling_rate_hz is 0"),
        (lambda: FrequencyConsistencyLoss({}, freq_unit="rpm"), ValueError, "unknown freq_unit 'rpm'"),
        (lambda: new_loss()(torch.zeros(2, 3), rand(2, N), SHORT), ValueError, r"\(2, 3\), expected logits"),
        (lambda: new_loss()(torch.zeros(2, 4).long(), rand(2, N), SHORT), ValueError, "int64"),
        (lambda: new_loss()(torch.zeros(3, 4), rand(2, N), SHORT), ValueError, "2 signals, but predictions for 3"),
        (lambda: new_loss()(torch.zeros(2, 4), rand(2, N), {"rpm": torch.ones(3)}), ValueError, "'rpm' has shape"),
        (lambda: new_loss()(torch.zeros(2, 4), rand(2, N), {"rpm": torch.tensor(0.0)}), ValueError, "rpm is 0"),
        (lambda: new_loss()(torch.zeros(2, 4), rand(2, N), {"rpm": -1500.0}), ValueError, "rpm is -1500"),
        (lambda: new_loss()(torch.zeros(2, 4), rand(2, 256), SHORT), ValueError, "shorter than one revolution"),
        (lambda: new_loss()(torch.zeros(2, 4), None, SHORT), ValueError, "neither a signal nor"),
        (
            lambda: new_loss()(torch.zeros(2, 4), None, {"physics_evidence": torch.ones(2, 7)}),
            ValueError,
            r"\(2, 7\), expected \[B, 4\]",
        ),
        (lambda: SommerfeldConsistencyLoss(["rust", "wear"]), KeyError, "'rust'"),
        (lambda: SommerfeldConsistencyLoss([3, 3]), ValueError, "2 different classes"),
        (lambda: SommerfeldConsistencyLoss()(torch.zeros(2, 4), {"sommerfeld": 1.0}), ValueError, "expected logits"),
        (lambda: TemporalSmoothnessLoss(-1), ValueError, "lambda_smooth is -1"),
        (lambda: TemporalSmoothnessLoss()(torch.zeros(3)), ValueError, "expected logits"),
        (lambda: EvidenceConsistencyLoss(None, torch.zeros(2, 0)).evidence(rand(2, N)), ValueError, "no class has"),
    ],
)
def test_rejects_invalid_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
