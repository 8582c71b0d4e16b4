import copy
import math
import pickle
import re
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.signal import resample
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from whirl.data.simulation import simulate
from whirl.losses.physics_loss_functions import (
    EvidenceConsistencyLoss,
    FrequencyConsistencyLoss,
    PhysicalConstraintLoss,
    SommerfeldConsistencyLoss,
    TemporalSmoothnessLoss,
    estimate_rpm,
)
from whirl.physics.compatibility import class_probabilities, log_compatibility, presence
from whirl.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES
from whirl.physics.journal_bearing import kinematic_viscosity_cst
from whirl.physics.rolling_bearing import BEARINGS, fault_orders

N = 20480  # one second
FORMS = ["linear", "log", "set", "kl"]
ORDERS = fault_orders(BEARINGS["6205"])
LINES = {0: [], 1: [1.0], 2: [2.0], 3: [0.5, 1.5]}


def rand(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def recorded(classes, **kwargs):
    """Signals [B, 1, N], metadata and targets of simulated records at 10 dB."""
    records = simulate(classes=classes, n_samples=N, snr_db_range=(10, 10), **kwargs)
    names = JOURNAL_CLASSES if set(classes) <= set(JOURNAL_CLASSES) else ROLLING_CLASSES
    signals = torch.tensor(np.stack([record.signal for record in records]))
    rpm = torch.tensor([record.rpm for record in records])
    return signals, {"rpm": rpm}, torch.tensor([names.index(record.label) for record in records])


@pytest.fixture(scope="module")
def faulty():
    return recorded(JOURNAL_CLASSES, n_machines=6, recordings_per_class=1, severity_range=(0.5, 1.0))


@pytest.fixture(scope="module")
def calibrated():
    """The journal loss, knowing what 24 other machines are like when healthy."""
    loss = PhysicalConstraintLoss()
    signals, metadata, _ = recorded(("healthy",), n_machines=24, recordings_per_class=1, seed=1)
    loss.fit_calibration(signals, metadata["rpm"])
    return loss


def gradient(loss, predictions):
    return torch.autograd.grad(loss, predictions)[0]


def order_loss(**kwargs):
    return FrequencyConsistencyLoss(LINES, freq_unit="order", spectrum="raw", **kwargs)


# ------------------------------------------------------------------------------------------------ frequency: gradient


@pytest.mark.parametrize("form", FORMS)
def test_gradient_is_right(form):
    loss, logits = order_loss(form=form), rand(6, 4).requires_grad_()
    metadata = {"physics_evidence": 10 * rand(6, 4, seed=1)}
    assert gradcheck(lambda z: loss(z, None, metadata), logits)
    assert gradient(loss(logits, None, metadata), logits).abs().amin(1).gt(0).all()


@pytest.mark.parametrize("form", ["linear", "log", "set"])
def test_gradient_in_closed_form(form):
    loss, logits = order_loss(form=form), rand(6, 4).requires_grad_()
    found = 10 * rand(6, 4, seed=1)
    there = presence(found.float(), 2000.0, loss.calibration)
    q = class_probabilities(log_compatibility(there, loss.table), 1.0).double()
    k, p = q / q.amax(1, keepdim=True), logits.detach().softmax(1)
    if form == "linear":
        m = 1 - k
        expected = p * (m - (p * m).sum(1, keepdim=True))
    else:
        allowed = p * ((k if form == "log" else (4 * k).clamp_max(1)) + 1e-4)
        expected = p - allowed / allowed.sum(1, keepdim=True)
    torch.testing.assert_close(gradient(loss(logits, None, {"physics_evidence": found}), logits), expected / 6)


def test_only_the_linear_form_hardly_moves_predictions_that_are_surely_wrong():
    found = {"physics_evidence": torch.tensor([[-20.0, 30.0, -20.0, -20.0]])}  # 2X
    sure = torch.tensor([[0.0, 5.0, 0.0, 0.0]], requires_grad=True)
    pull = {form: -gradient(order_loss(form=form)(sure, None, found), sure)[0, 2].item() for form in FORMS}
    assert 0 < pull["linear"] < 0.01
    assert min(pull[form] for form in ("log", "set", "kl")) > 10 * pull["linear"]


def test_flat_evidence_teaches_nothing():
    found = {"physics_evidence": torch.full((3, 4), torch.nan)}
    found["physics_evidence"][:, 0] = -4 + 2 * 2.0  # half present: fits all classes alike
    for form in FORMS:
        logits = rand(3, 4).requires_grad_()
        assert gradient(order_loss(form=form)(logits, None, found), logits).abs().max() < 1e-6


# --------------------------------------------------------------------------------------------------- frequency: sense


def of_each_class(loss, signals, metadata, n_classes):
    """[B, C] loss of each window if the prediction were surely that class."""
    found = loss.frequency.evidence(signals, metadata)
    one_by_one = [{"physics_evidence": row[None], "rpm": rpm} for row, rpm in zip(found, metadata["rpm"], strict=True)]
    sure = 20 * torch.eye(n_classes)
    return torch.stack([torch.stack([loss.frequency(z[None], None, m) for z in sure]) for m in one_by_one])


def share_below_wrong(losses, targets, c):
    own, all_of_class = losses[targets == c, c], losses[targets == c]
    return (own[:, None] < all_of_class).float().sum(1).div(losses.shape[1] - 1).mean()


def test_true_class_costs_less_than_a_random_wrong_one(calibrated, faulty):
    signals, metadata, targets = faulty
    losses = of_each_class(calibrated, signals, metadata, 11)
    assert min(share_below_wrong(losses, targets, c) for c in range(11)) >= 0.8


@pytest.mark.parametrize("known", [False, True], ids=["uncalibrated", "calibrated"])
def test_true_rolling_class_costs_less(known):
    loss = PhysicalConstraintLoss(classes=ROLLING_CLASSES, orders=ORDERS)
    if known:
        signals, metadata, targets = recorded(ROLLING_CLASSES, n_machines=12, recordings_per_class=1, seed=1)
        loss.fit_calibration(signals[targets == 0], metadata["rpm"][targets == 0])
    severe = {"n_machines": 6, "recordings_per_class": 1, "severity_range": (0.5, 1.0)}
    signals, metadata, targets = recorded(ROLLING_CLASSES, **severe)
    losses = of_each_class(loss, signals, metadata, 4)
    assert min(share_below_wrong(losses, targets, c) for c in range(4)) >= 0.8


def test_healthy_machines_fit_healthy_and_faulty_ones_do_not(calibrated, faulty):
    signals, metadata, targets = faulty
    q = calibrated.frequency.probabilities(signals, metadata)
    k = q[:, 0] / q.amax(1)
    assert k[targets == 0].min() > 0.9
    assert k[targets != 0].median() < 0.3
    assert (q.argmax(1) == 0)[targets != 0].float().mean() < 0.1


def test_everything_is_healthy_is_no_minimum(calibrated, faulty):
    signals, metadata, targets = faulty
    healthy = torch.zeros(len(targets), 11)
    healthy[:, 0] = 8
    true = 8 * torch.eye(11)[targets]
    for form in FORMS:
        loss = copy.deepcopy(calibrated.frequency)
        loss.form = form
        assert loss(healthy, signals, metadata) > 1.5 * loss(true, signals, metadata)


def test_logits_alone_move_to_the_true_class(calibrated, faulty):
    signals, metadata, targets = faulty
    found = {"physics_evidence": calibrated.frequency.evidence(signals, metadata), "rpm": metadata["rpm"]}
    logits = torch.zeros(len(targets), 11)
    for _ in range(100):
        logits.requires_grad_()
        logits = (logits - 30 * gradient(calibrated.frequency(logits, None, found), logits)).detach()
    assert (logits.argmax(1) == targets).float().mean() > 0.75
    assert logits.softmax(1).gather(1, targets[:, None]).median() > 0.8


def test_scrambled_signatures_mislead_and_labels_repair_them(faulty):
    signals, metadata, targets = faulty
    true, scrambled = PhysicalConstraintLoss(), PhysicalConstraintLoss(control="scrambled")
    scrambled.frequency.load_state_dict(true.frequency.state_dict())
    predictions = 8 * torch.eye(11)[targets]
    agreement = [loss.diagnose(predictions, signals, metadata)["physics_agreement"] for loss in (true, scrambled)]
    assert agreement[0] > 2 * agreement[1]
    scrambled.fit_trust(signals, targets, metadata)
    assert scrambled.diagnose(predictions, signals, metadata)["physics_agreement"] > agreement[0] - 0.1


@pytest.mark.filterwarnings("ignore:windows of 1 s are too short")  # bands may fall close to each other
def test_random_bands_look_elsewhere(faulty):
    signals, metadata, _ = faulty
    true, moved = (PhysicalConstraintLoss(control=control).frequency for control in (None, "random_bands"))
    assert torch.equal(true.table, moved.table)
    assert not torch.equal(true.evidence(signals, metadata)[:, 0], moved.evidence(signals, metadata)[:, 0])


# --------------------------------------------------------------------------------------------- frequency: invariances


@pytest.mark.parametrize(
    "change",
    [lambda x: 7 * x, lambda x: -x, lambda x: x.roll(777, -1), lambda x: x + 3, lambda x: x[:, 0]],
    ids=["gain", "sign", "shift", "offset", "no channel axis"],
)
def test_invariances(calibrated, faulty, change):
    signals, metadata, _ = faulty
    predictions = rand(len(signals), 11).float()
    loss, changed = (calibrated.frequency(predictions, x, metadata) for x in (signals, change(signals)))
    assert changed == pytest.approx(loss.item(), rel=0.02)


@pytest.mark.parametrize("speed", [0.7, 0.85, 1.2, 1.4])
def test_scaling_signal_and_speed_together(faulty, speed):
    signals, metadata, _ = faulty
    loss, predictions = order_loss(), rand(len(signals), 4).float()
    faster = torch.tensor(resample(signals.numpy(), round(N / speed), axis=-1))
    scaled = loss(predictions, faster, {"rpm": speed * metadata["rpm"]})
    assert scaled == pytest.approx(loss(predictions, signals, metadata).item(), rel=0.05)


def test_each_window_has_its_own_speed(faulty):
    signals, metadata, _ = faulty
    loss, predictions = order_loss(), rand(len(signals), 4).float()
    alone = [loss(predictions[i : i + 1], signals[i : i + 1], {"rpm": metadata["rpm"][i : i + 1]}) for i in range(8)]
    together = loss(predictions[:8], signals[:8], {"rpm": metadata["rpm"][:8]})
    assert together == pytest.approx(torch.stack(alone).mean().item(), rel=1e-4)


def test_windows_of_unknown_speed_are_left_out(faulty):
    signals, metadata, _ = faulty
    loss, predictions = order_loss(), rand(len(signals), 4).float().requires_grad_()
    some = metadata["rpm"].clone()
    some[::2] = torch.nan
    value = loss(predictions, signals, {"rpm": some})
    known = loss(predictions[1::2], signals[1::2], {"rpm": metadata["rpm"][1::2]})
    assert value.item() == pytest.approx(known.item(), rel=1e-5)
    assert not gradient(value, predictions)[::2].any()
    nothing = loss(predictions, signals, {"rpm": torch.full_like(some, torch.nan)})
    assert nothing == 0
    assert not gradient(nothing, predictions).any()


# ---------------------------------------------------------------------------------------- frequency: what is expected


def test_classes_by_name():
    loss = FrequencyConsistencyLoss(
        {"healthy": [], "rub": [0.5]}, classes=("healthy", "whirl", "rub", "unknown"), freq_unit="order", spectrum="raw"
    )
    torch.testing.assert_close(loss.table, torch.tensor([[0.08], [0.9]]))
    assert loss.judged.tolist() == [0, 2]
    assert loss.n_classes == 4


def test_classes_without_expectation_are_not_judged():
    loss, logits = FrequencyConsistencyLoss({0: [], 2: [1.0]}, freq_unit="order", n_classes=4), rand(5, 6)
    logits.requires_grad_()
    grads = gradient(loss(logits, None, {"physics_evidence": 10 * rand(5, 1)}), logits)
    assert not grads[:, [1, 3, 4, 5]].any()
    assert grads[:, [0, 2]].all()


def test_lines_in_hz_follow_the_speed_or_stay(faulty):
    signals, metadata, _ = faulty
    predictions = rand(len(signals), 3).float()
    in_hz = FrequencyConsistencyLoss({0: [], 1: [25.0], 2: [75.0]}, reference_rpm=1500)
    in_orders = FrequencyConsistencyLoss({0: [], 1: [1.0], 2: [3.0]}, freq_unit="order")
    assert in_hz(predictions, signals, metadata) == in_orders(predictions, signals, metadata)
    fixed = FrequencyConsistencyLoss({0: [], 1: [500.0], 2: [(900.0, 1100.0)]}, tolerance=0.02)
    time_s = torch.arange(N) / N
    tone = torch.sin(2 * torch.pi * 1000 * time_s) + rand(N).float()
    assert fixed.probabilities(tone[None])[0].argmax() == 2  # needs no speed
    nan = {"rpm": torch.tensor([torch.nan])}
    assert torch.equal(fixed.probabilities(tone[None], nan), fixed.probabilities(tone[None]))


def test_speed_is_found_where_none_is_given(faulty):
    signals, metadata, _ = faulty
    rpm = estimate_rpm(signals, N, (1200, 3600))
    assert ((rpm / metadata["rpm"] - 1).abs() < 0.01).float().mean() > 0.85
    loss, predictions = order_loss(rpm_range=(1200, 3600)), rand(len(signals), 4).float()
    assert loss(predictions, signals, {}) == loss(predictions, signals, {"rpm": rpm})


# ----------------------------------------------------------------------------------------------- frequency: machinery


class Operations(TorchDispatchMode):
    """Counts what torch is asked to do."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def test_evidence_is_taken_once_a_batch(faulty):
    signals, metadata, _ = faulty
    loss, predictions = PhysicalConstraintLoss(), rand(len(signals), 11).float()

    def transforms(signal):
        with Operations() as operations:
            loss.terms(predictions, signal, metadata, names=["freq_loss"])
            loss.diagnose(predictions, signal, metadata)
        return operations.counts["_fft_r2c"]

    assert transforms(signals[:, 0]) == 2  # of the signal and of its envelope
    kept = signals.clone()
    before = loss(predictions, kept, metadata | {"recording": torch.zeros(len(kept)), "sommerfeld": 1.0})
    kept.copy_(kept.flip(0))
    assert loss.terms(predictions, kept, metadata, ["freq_loss"])["freq_loss"] != before


def test_diagnosis_follows_what_changed(faulty):
    """What is kept of a batch is not taken for that of another: other evidence, speed, calibration or trust."""
    _, metadata, targets = faulty
    loss, right = PhysicalConstraintLoss(), 8 * torch.eye(11)[targets]
    found = 10 * rand(len(targets), 11).float()

    def agreement(**kwargs):
        return loss.diagnose(right, None, {"physics_evidence": found, "rpm": metadata["rpm"], **kwargs})

    first = agreement()
    assert agreement() == first
    assert agreement(physics_evidence=-found) != first
    assert agreement(rpm=torch.full_like(metadata["rpm"], 1000.0)) == first  # no trend is known yet
    loss.frequency.slope += 10
    loss.frequency.offset += 1
    assert agreement() != first
    loss.frequency.offset -= 1
    assert agreement(rpm=2000.0) == first != agreement(rpm=9000.0)
    loss.fit_trust(None, targets, {"physics_evidence": found, "rpm": metadata["rpm"]})
    assert agreement() != first


def test_a_step_never_waits_for_the_device():
    loss, logits = PhysicalConstraintLoss(), rand(16, 11).float().requires_grad_()
    metadata = {
        "physics_evidence": 10 * rand(16, 11).float(),
        "sommerfeld": rand(16).exp(),
        "machine_id": torch.arange(16) % 2,
        "recording": torch.arange(16) % 5,
        "start": torch.arange(16),
    }
    with Operations() as operations:
        gradient(sum(loss.terms(logits, None, metadata).values()), logits)
        loss.diagnose(logits, None, metadata)
    assert operations.counts["mul"]
    assert not {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2"} & {
        *operations.counts
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    logits = rand(8, 11).to(dtype)
    found = {"physics_evidence": 10 * rand(8, 11), "sommerfeld": rand(8).exp(), "recording": torch.arange(8) // 2}
    loss = PhysicalConstraintLoss()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits.requires_grad_(), None, found)
    assert value.dtype == torch.float32
    assert value == loss(logits.detach().float(), None, found)
    assert gradient(value, logits).isfinite().all()


def test_state_travels(calibrated, faulty):
    signals, metadata, _ = faulty
    other = PhysicalConstraintLoss()
    other.load_state_dict(calibrated.state_dict())
    predictions = rand(len(signals), 11).float()
    value = calibrated.frequency(predictions, signals, metadata)
    assert other.frequency(predictions, signals, metadata) == value
    assert pickle.loads(pickle.dumps(calibrated)).frequency(predictions, signals, metadata) == value
    assert copy.deepcopy(calibrated).to("meta").frequency.offset.is_meta


# --------------------------------------------------------------------------------------------------------- Sommerfeld


def test_ranking_by_hand():
    """Two windows surely of one mechanism, factor 10 in S: log S differs by 2.3, so the pair has weight 1."""
    S = {"sommerfeld": torch.tensor([1.0, 0.1])}
    loss = SommerfeldConsistencyLoss(["lubrication", "wear"])
    logits = torch.full((2, 11), -30.0)
    logits[:, [4, 6]] = torch.tensor([[0.0, math.log(4)], [math.log(4), 0.0]])  # severities 0.8 and 0.2
    assert loss(logits, S) == pytest.approx(0.63, abs=1e-4)  # thin films are worse: the lower S should be the severer
    assert loss(logits.flip(0), S) == 0
    whirl = SommerfeldConsistencyLoss([0, 7], classes=JOURNAL_CLASSES)  # whirl prefers high S
    logits = torch.full((2, 11), -30.0)
    logits[:, [0, 7]] = torch.tensor([[math.log(4), 0.0], [0.0, math.log(4)]])
    assert whirl(logits, S) == pytest.approx(0.63, abs=1e-4)
    assert whirl(logits.flip(0), S) == 0


def test_ranking_weighs_pairs_by_class_and_distance():
    """The formula, pair by pair."""
    logits, S, machine = rand(7, 11), rand(7, seed=1).mul(2).exp(), [0, 0, 1, 0, 1, 1, 0]
    p, order = logits.softmax(1), [0, 4, 6, 9]
    d = torch.zeros(11, dtype=torch.float64)
    d[[4, 6, 9]], d[7] = -1, 1
    mass = p[:, order].sum(1)
    severity = (p[:, order] @ torch.tensor([0, 1, 2, 3], dtype=torch.float64)) / 3 / mass
    top, bottom = 0.0, 0.0
    for i in range(7):
        for j in range(7):
            D = (d * p[i] * p[j]).sum()
            w = D.abs() * mass[i] * mass[j] * (S[i].log() - S[j].log() - 0.7).clamp(0, 1) * (machine[i] == machine[j])
            top += w * (0.03 - D.sign() * (severity[i] - severity[j])).relu()
            bottom += w
    value = SommerfeldConsistencyLoss()(logits, {"sommerfeld": S, "machine_id": torch.tensor(machine)})
    assert value.item() == pytest.approx((top / bottom).item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["severity", "levels"])
def test_ranking_gradient(kind):
    loss = SommerfeldConsistencyLoss(n_levels=4 if kind == "levels" else None)
    predictions = rand(6, 4) if kind == "levels" else rand(6).sigmoid()
    S = {"sommerfeld": rand(6, seed=1).mul(2).exp()}
    assert gradcheck(lambda x: loss(x, S), predictions.requires_grad_())
    assert gradient(loss(predictions, S), predictions).any()


def test_ranking_of_class_logits_has_a_gradient():
    logits, S = rand(6, 11).requires_grad_(), {"sommerfeld": rand(6, seed=1).mul(2).exp()}
    grads = gradient(SommerfeldConsistencyLoss()(logits, S), logits)
    assert grads.isfinite().all()
    assert grads[:, [0, 4, 6, 9]].any()
    assert not grads[:, [1, 2, 3, 5, 7, 8, 10]].any()  # other mechanisms


def test_sommerfeld_number_from_what_it_is_made_of():
    severity, rpm, load = rand(5).sigmoid(), 1000 + 500 * torch.arange(5.0), torch.tensor([9e3, 5e3, 1e3, 8e3, 2e2])
    oil = torch.tensor([40.0, 75.0, 50.0, 80.0, 61.0])
    viscosity = torch.tensor(kinematic_viscosity_cst(oil.numpy()))
    loss = SommerfeldConsistencyLoss()
    value = loss(severity, {"sommerfeld": 3.7e-4 * viscosity * rpm / load})
    assert value > 0
    for given in ({"viscosity": viscosity}, {"temperature": oil}):
        assert loss(severity, {"rpm": rpm, "load": load, **given}).item() == pytest.approx(value.item(), rel=1e-5)


@pytest.mark.parametrize("S", [[0.1, 0.15], [torch.nan, 1.0], [0.0, 1.0], [1.0, 1.0]])
def test_no_pair_no_loss(S):
    severity = torch.tensor([0.2, 0.9], requires_grad=True)
    value = SommerfeldConsistencyLoss()(severity, {"sommerfeld": torch.tensor(S)})
    assert value == 0
    assert not gradient(value, severity).any()


# ------------------------------------------------------------------------------------------------------ temporal


def test_temporal_by_hand():
    p = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    loss = TemporalSmoothnessLoss(lambda_smooth=2.0, tau_s=0.5, sample_rate=1000)
    steps = [2 * 0.4**2, 2 * 0.7**2]
    assert loss(p.log()[:, None]).item() == pytest.approx(2 * sum(steps) / 2)
    metadata = {"recording": torch.tensor([7, 7, 7]), "start": torch.tensor([0, 500, 1500])}
    weighted = 2 * (steps[0] * math.exp(-1) + steps[1] * math.exp(-2)) / 2
    assert loss(p.log(), metadata).item() == pytest.approx(weighted)
    order = torch.tensor([2, 0, 1])
    shuffled = {name: values[order] for name, values in metadata.items()}
    assert loss(p.log()[order], shuffled).item() == pytest.approx(weighted)
    in_seconds = {"record_ids": metadata["recording"], "time": metadata["start"] / 1000}
    assert loss(p.log(), in_seconds).item() == pytest.approx(weighted)


def test_temporal_never_pairs_recordings():
    logits = rand(6, 3).requires_grad_()
    metadata = {"recording": torch.tensor([0, 1, 2, 3, 4, 1 << 40]), "start": torch.zeros(6)}
    value = TemporalSmoothnessLoss()(logits, metadata)
    assert value == 0
    assert not gradient(value, logits).any()
    alternating = {"recording": torch.arange(6) % 2, "start": torch.arange(6)}
    steady = 50 * torch.eye(2)[alternating["recording"]]  # constant within each recording
    assert TemporalSmoothnessLoss()(steady, alternating) == 0


def test_temporal_gradient_and_bound():
    metadata = {"recording": torch.arange(8) // 4}
    loss = TemporalSmoothnessLoss(0.1)
    assert gradcheck(lambda z: loss(z, metadata), rand(8, 3).requires_grad_())
    assert gradcheck(loss, rand(4, 2, 3).requires_grad_())
    jumps = 100 * torch.eye(2)[torch.arange(8) % 2]
    assert loss(jumps, metadata) == pytest.approx(0.2)
    assert loss(torch.ones(5, 2, 3)) == 0


# ------------------------------------------------------------------------------------------------------ all together


def test_components_add_up(faulty):
    signals, metadata, targets = faulty
    n = len(targets)
    everything = metadata | {"sommerfeld": rand(n).exp().float(), "recording": torch.arange(n) // 3}
    logits = rand(n, 11).float().requires_grad_()
    loss = PhysicalConstraintLoss(0.7, 0.3, 2.0)
    parts = loss.components(logits, signals, everything)
    assert list(parts) == ["freq_loss", "sommerfeld_loss", "temporal_loss", "total_loss"]
    terms = loss.terms(logits, signals, everything)
    assert all(parts[name] == term > 0 and gradient(term, logits).any() for name, term in terms.items())
    expected = 0.7 * parts["freq_loss"] + 0.3 * parts["sommerfeld_loss"] + 2 * parts["temporal_loss"]
    assert parts["total_loss"].item() == pytest.approx(expected.item())
    assert loss(logits, signals, everything) == parts["total_loss"]
    off = PhysicalConstraintLoss(0, 0, 0)
    assert not any(part.any() for part in off.components(logits, None).values())
    assert off.diagnose(logits, None) == {}
    assert list(off.terms(logits, None, everything, names=["temporal_loss"])) == ["temporal_loss"]


def test_diagnosis_exposes_hostile_and_inert_losses(calibrated, faulty):
    signals, metadata, targets = faulty
    right, wrong = (8 * torch.eye(11)[classes] for classes in (targets, (targets + 1) % 11))
    found = calibrated.diagnose(right, signals, metadata)
    assert found["evidence_coverage"] > 0.5
    assert found["physics_agreement"] > 0.7 > 0.2 > calibrated.diagnose(wrong, signals, metadata)["physics_agreement"]
    for inert in ({}, {"rpm": torch.full((len(targets),), torch.nan)}):
        assert not any(value.any() for value in calibrated.diagnose(right, signals, inert).values())


NAN = {"rpm": torch.full((2,), torch.nan)}
SHORT = {"rpm": torch.full((2,), 3000.0)}


@pytest.mark.parametrize(
    ("name", "metadata", "reason"),
    [
        ("freq_loss", {"load": 1.0}, r"no 'rpm' in the metadata, which have \['load'\]"),
        ("freq_loss", NAN, "rpm is nan for all"),
        ("freq_loss", SHORT, "too short .* s would do"),
        ("sommerfeld_loss", NAN, "neither 'sommerfeld' nor"),
        ("sommerfeld_loss", {"sommerfeld": torch.tensor([0.1, 0.11])}, "factor 2"),
        ("temporal_loss", NAN, "no record ids"),
        ("temporal_loss", {"recording": torch.tensor([3, 4])}, "no two windows"),
    ],
)
def test_why_a_term_is_inert(name, metadata, reason):
    signals, loss = rand(2, 1, 2048).float(), PhysicalConstraintLoss()
    assert re.search(reason, loss.why_inert(name, signals, metadata))


@pytest.mark.parametrize(
    ("classes", "kwargs"),
    [(ROLLING_CLASSES, {}), (("healthy", "gear_crack"), {}), (None, {"expected_freqs": {0: [], 1: []}})],
    ids=["rolling without orders", "unknown class", "no lines"],
)
def test_nothing_to_judge_by(classes, kwargs):
    loss = PhysicalConstraintLoss(1, 0, 0, classes=classes, **kwargs)
    logits = torch.zeros(2, 11, requires_grad=True)
    term = loss.terms(logits, rand(2, N).float(), SHORT, names=["freq_loss"])["freq_loss"]
    assert term == 0
    assert not gradient(term, logits).any()
    assert "can be judged by expected lines" in loss.why_inert("freq_loss", rand(2, N), SHORT)


def test_what_is_missing_is_said_once():
    loss, logits = PhysicalConstraintLoss(), torch.zeros(2, 11, requires_grad=True)
    with pytest.warns(UserWarning, match="loss is 0") as caught:
        assert loss(logits, rand(2, N), {}) == 0
    assert [str(warning.message).split(" is 0")[0] for warning in caught] == [
        "the frequency loss",
        "the Sommerfeld loss",
        "the temporal loss",
    ]
    assert loss(logits, rand(2, N), {}) == 0  # no further warning, which would be an error here


def test_classes_that_no_line_parts():
    with pytest.warns(UserWarning, match=r"classes \[1, 3\] expect the same"):
        FrequencyConsistencyLoss({0: [], 1: [60.0], 2: [90.0], 3: [60.0]})


LOGITS = torch.zeros(2, 11)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: PhysicalConstraintLoss(form="hinge"), ValueError, "unknown form 'hinge'"),
        (lambda: PhysicalConstraintLoss(-1), ValueError, "weight of freq_loss is -1"),
        (lambda: PhysicalConstraintLoss(control="noise"), ValueError, "control is 'noise'"),
        (lambda: PhysicalConstraintLoss(temperature=0), ValueError, "temperature is 0"),
        (lambda: PhysicalConstraintLoss().terms(LOGITS, None, {}, ["freq"]), ValueError, "unknown term 'freq'"),
        (lambda: FrequencyConsistencyLoss({"wear": []}), KeyError, "'wear' is none of the classes"),
        (lambda: FrequencyConsistencyLoss({5: []}, classes=["a"]), KeyError, "class 5"),
        (lambda: FrequencyConsistencyLoss({5: []}, n_classes=3), ValueError, "n_classes is 3"),
        (lambda: FrequencyConsistencyLoss({}, tolerance=0), ValueError, "tolerance is 0"),
        (lambda: FrequencyConsistencyLoss({0: [9.0]}, sample_rate=0), ValueError, "sampling_rate_hz is 0"),
        (lambda: FrequencyConsistencyLoss({}, freq_unit="rpm"), ValueError, "freq_unit is 'rpm'"),
        (lambda: order_loss()(torch.zeros(2, 3), rand(2, N), SHORT), ValueError, r"\(2, 3\), expected logits"),
        (lambda: order_loss()(torch.zeros(2, 4).long(), rand(2, N), SHORT), ValueError, "int64"),
        (lambda: order_loss()(torch.zeros(3, 4), rand(2, N), SHORT), ValueError, "2 signals, .* for 3"),
        (lambda: order_loss()(torch.zeros(2, 4), rand(2, N), {"rpm": torch.ones(3)}), ValueError, "'rpm' has shape"),
        (lambda: order_loss()(torch.zeros(2, 4), rand(2, N), {"rpm": torch.tensor(0.0)}), ValueError, "rpm is 0"),
        (lambda: order_loss()(torch.zeros(2, 4), rand(2, N), {"rpm": -1500.0}), ValueError, "rpm is -1500"),
        (lambda: order_loss()(torch.zeros(2, 4), rand(2, 256), SHORT), ValueError, "shorter than one revolution"),
        (lambda: order_loss()(torch.zeros(2, 4), None, SHORT), ValueError, "neither a signal nor"),
        (
            lambda: order_loss()(torch.zeros(2, 4), None, {"physics_evidence": torch.ones(2, 7)}),
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
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
