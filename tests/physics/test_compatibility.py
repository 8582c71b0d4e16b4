import math

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly

from whirl.data.recording import Recording
from whirl.data.simulation import simulate
from whirl.physics.compatibility import (
    FORBIDDEN,
    NEUTRAL,
    REQUIRED,
    Calibration,
    class_probabilities,
    default_calibration,
    expectation_table,
    fit_calibration,
    log_compatibility,
    presence_probability,
    trust_matrix,
    with_control,
)
from whirl.physics.evidence import OrderEvidence
from whirl.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES
from whirl.physics.features import Feature, journal_features, rolling_features
from whirl.physics.rolling_bearing import BEARINGS, fault_orders

ORDERS = fault_orders(BEARINGS["6205"])

# R required, o tolerated, . forbidden; columns in the order of journal_features
JOURNAL_TABLE = {
    "healthy": "...........",
    "misalignment": "...oRR.....",
    "imbalance": "...R.......",
    "clearance": ".RRoooR....",
    "lubrication": "........ooR",
    "cavitation": "........RR.",
    "wear": "...ooo.R...",
    "oil_whirl": "R..........",
    "misalignment_imbalance": "...RRR.....",
    "wear_lubrication": "...ooo.RooR",
    "cavitation_clearance": ".RRoooR.RR.",
}
ROLLING_TABLE = {"healthy": ".....", "inner_race": "R..oo", "outer_race": ".R.oo", "ball": "..oRo"}
PROBABILITY = {"R": REQUIRED, "o": NEUTRAL, ".": FORBIDDEN}


def parse_table(rows: dict[str, str]) -> torch.Tensor:
    return torch.tensor([[PROBABILITY[each] for each in row] for row in rows.values()])


def test_expectation_table_of_journal_bearings() -> None:
    assert torch.equal(expectation_table(JOURNAL_CLASSES, journal_features()), parse_table(JOURNAL_TABLE))


def test_expectation_table_of_rolling_bearings() -> None:
    table = expectation_table(ROLLING_CLASSES, rolling_features(ORDERS), ORDERS)
    assert torch.equal(table, parse_table(ROLLING_TABLE))
    assert torch.equal(expectation_table(["Normal", "IR", "OR", "ball"], rolling_features(ORDERS), ORDERS), table)


@pytest.mark.parametrize("label", ["gear_crack", "outer_race", "inner_race"])
def test_unknown_label_or_missing_features_give_neutral_row(label: str) -> None:
    assert (expectation_table([label], journal_features(), ORDERS) == NEUTRAL).all()
    assert (expectation_table([label], rolling_features(ORDERS)) == NEUTRAL).all()


def test_calibration_is_ridge_regression_with_scatter() -> None:
    rng = np.random.default_rng(0)
    rpm = rng.uniform(1000, 4000, 4000)
    x = np.log(rpm / 2000)
    e = 5 + 8 * x + 3 * rng.standard_normal(4000)
    found = fit_calibration(torch.tensor(e)[:, None], torch.tensor(rpm))
    dx = x - x.mean()
    slope = (dx * e).sum() / ((dx**2).sum() + 1)
    assert found.slope.item() == pytest.approx(slope, rel=1e-5)
    assert found.offset.item() == pytest.approx(e.mean() - slope * x.mean(), rel=1e-5)
    assert found.scale.item() == pytest.approx(3, rel=0.05)


def test_calibration_ignores_unknown_values() -> None:
    e = torch.tensor([[1.0, math.nan], [3.0, math.nan], [2.0, 7.0], [99.0, 99.0]])
    found = fit_calibration(e, torch.tensor([2000.0, 2000.0, 2000.0, math.nan]))
    assert found.offset[0] == 2
    assert found.offset[1].isnan()
    assert found.slope[0] == 0
    assert presence_probability(torch.tensor([[2.0, 50.0]]), 2000.0, found)[0, 1] == 0.5
    with pytest.raises(ValueError, match="no healthy recording"):
        fit_calibration(e, torch.full((4,), math.nan))
    with pytest.raises(ValueError, match=r"expected \[M, L\] and \[M\]"):
        fit_calibration(e, torch.ones(3))


def test_calibration_round_trips_through_file(tmp_path) -> None:
    calibration = default_calibration(rolling_features(ORDERS))
    torch.save(calibration.state_dict(), tmp_path / "calibration.pt")
    loaded = Calibration(**torch.load(tmp_path / "calibration.pt", weights_only=True))
    for name, value in calibration.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, equal_nan=True)


def test_presence_probability_matches_hand_computation() -> None:
    calibration = Calibration(torch.tensor([10.0]), torch.tensor([4.0]), torch.tensor([2.0]))
    found = presence_probability(torch.tensor([[18.0], [math.nan]]), 2000 * math.e, calibration)
    # the baseline is 14 dB at this speed, 18 dB is two standard deviations above it
    assert found.flatten().tolist() == pytest.approx([0.5, 0.5])
    assert presence_probability(torch.tensor([[20.0]]), 2000 * math.e, calibration).item() == pytest.approx(
        1 / (1 + math.exp(-1.7))
    )


def test_log_compatibility_matches_hand_computation() -> None:
    table = torch.tensor([[0.9, 0.08], [0.5, 0.5]])
    r = torch.tensor([[0.75, 0.25]])
    expected = [math.log(0.9 * 0.75 + 0.1 * 0.25) + math.log(0.08 * 0.25 + 0.92 * 0.75), 2 * math.log(0.5)]
    assert log_compatibility(r, table)[0].tolist() == pytest.approx(expected)
    weighted = log_compatibility(r, table, torch.tensor([2.0, 0.0]))[0].tolist()
    assert weighted == pytest.approx([2 * math.log(0.9 * 0.75 + 0.1 * 0.25), 2 * math.log(0.5)])
    assert class_probabilities(torch.tensor([[0.0, -math.log(9)]]), 2)[0].tolist() == pytest.approx([0.75, 0.25])
    with pytest.raises(ValueError, match="temperature"):
        class_probabilities(torch.zeros(1, 2), 0)


def test_unknown_evidence_gives_uniform_distribution() -> None:
    table = expectation_table(JOURNAL_CLASSES, journal_features())
    r = presence_probability(torch.full((2, 11), math.nan), math.nan, default_calibration(journal_features()))
    q = class_probabilities(log_compatibility(r, table))
    torch.testing.assert_close(q, torch.full((2, 11), 1 / 11))


def test_trust_matrix_matches_hand_computation() -> None:
    q = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]])
    # sums: [0.7, 0.1], [0.3, 0.9], plus 0.3 on the diagonal
    expected = torch.tensor([[1.0 / 1.1, 0.1 / 1.1], [0.3 / 1.5, 1.2 / 1.5]])
    torch.testing.assert_close(trust_matrix(q, torch.tensor([0, 0, 1]), 2), expected)
    torch.testing.assert_close(trust_matrix(q[:0], torch.zeros(0, dtype=torch.long), 2), torch.eye(2))
    with pytest.raises(ValueError, match="prior"):
        trust_matrix(q, torch.tensor([0, 0, 1]), 2, prior=0)
    with pytest.raises(ValueError, match="shape"):
        trust_matrix(q, torch.tensor([0, 0]), 2)


def test_negative_controls() -> None:
    evidence = OrderEvidence.journal(20480)
    table = expectation_table(JOURNAL_CLASSES, evidence.features)
    assert with_control(evidence, table, None) == (evidence, table)
    for seed in range(5):
        same, scrambled = with_control(evidence, table, "scrambled", seed)
        assert same is evidence
        assert sorted(scrambled.tolist()) == sorted(table.tolist())
        assert not (scrambled == table).all(1).any()
    other, same_table = with_control(evidence, table, "random_bands", 1)
    assert torch.equal(same_table, table)
    assert other.names == evidence.names
    assert other.features != evidence.features
    with pytest.raises(ValueError, match="unknown control 'none'"):
        with_control(evidence, table, "none")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="cannot scramble 1 classes"):
        with_control(evidence, table[:1], "scrambled")


class Benchmark:
    """Faults of severity 0.5 to 1 at an SNR of 10 dB, and a calibration on other, healthy machines."""

    def __init__(self, classes: tuple[str, ...], evidence: OrderEvidence) -> None:
        self.classes, self.evidence = classes, evidence
        self.table = expectation_table(classes, evidence.features, ORDERS)
        common = {"n_samples": 20480, "sampling_rate_hz": evidence.sampling_rate_hz}
        healthy = simulate(24, 1, classes[:2], seed=7, **common)
        healthy = [recording for recording in healthy if recording.label == "healthy"]
        self.calibration = fit_calibration(self.measure(healthy), rpm_of(healthy))
        self.recordings = simulate(8, 1, classes, 1, severity_range=(0.5, 1), snr_db_range=(10, 10), **common)
        self.targets = torch.tensor([classes.index(recording.label) for recording in self.recordings])

    def measure(self, recordings: list[Recording]) -> torch.Tensor:
        return self.evidence(torch.stack([torch.from_numpy(each.signal) for each in recordings]), rpm_of(recordings))

    def log_k(self, table: torch.Tensor | None = None) -> torch.Tensor:
        r = presence_probability(self.measure(self.recordings), rpm_of(self.recordings), self.calibration)
        return log_compatibility(r, self.table if table is None else table)

    def win_rates(self, log_k: torch.Tensor) -> torch.Tensor:
        """Return the fraction [C] of wrong classes that fit worse than the true class."""
        own = log_k.gather(1, self.targets[:, None])
        rates = (own > log_k).float().sum(1) / (len(self.classes) - 1)
        return torch.stack([rates[self.targets == index].mean() for index in range(len(self.classes))])


def rpm_of(recordings: list[Recording]) -> torch.Tensor:
    return torch.tensor([recording.rpm for recording in recordings])


@pytest.fixture(scope="module")
def journal() -> Benchmark:
    return Benchmark(JOURNAL_CLASSES, OrderEvidence.journal(20480))


@pytest.fixture(scope="module")
def rolling() -> Benchmark:
    return Benchmark(ROLLING_CLASSES, OrderEvidence.rolling(20480, ORDERS))


@pytest.mark.parametrize("kind", ["journal", "rolling"])
def test_true_class_fits_better_than_random_wrong_class(kind: str, request) -> None:
    bench = request.getfixturevalue(kind)
    win_rates = dict(zip(bench.classes, bench.win_rates(bench.log_k()).tolist(), strict=True))
    assert min(win_rates.values()) >= 0.8, win_rates


@pytest.mark.parametrize("kind", ["journal", "rolling"])
def test_healthy_machines_are_compatible_with_healthy(kind: str, request) -> None:
    bench = request.getfixturevalue(kind)
    q = class_probabilities(bench.log_k())[bench.targets == 0]
    k = q[:, 0] / q.amax(1)
    assert k.mean() > 0.9
    assert k.median() == 1


@pytest.mark.parametrize("kind", ["journal", "rolling"])
def test_scrambled_signatures_fit_worse(kind: str, request) -> None:
    bench = request.getfixturevalue(kind)
    win_rates = [
        bench.win_rates(bench.log_k(with_control(bench.evidence, bench.table, "scrambled", s)[1])) for s in range(3)
    ]
    assert torch.stack(win_rates).mean() < 0.6 < bench.win_rates(bench.log_k()).mean()


@pytest.mark.parametrize("percent", [70, 120, 140])
def test_is_invariant_to_scaling_time_and_speed_together(journal: Benchmark, percent: int) -> None:
    """Stretching the signal of a machine is the same as running it slower; its lines keep their orders."""
    classes = ("misalignment", "imbalance", "clearance", "oil_whirl")
    table, pairs = expectation_table(classes, journal.evidence.features), []
    for recording, rpm in zip(journal.recordings, rpm_of(journal.recordings).tolist(), strict=True):
        if recording.label in classes and 1800 < rpm < 2500:
            stretched = resample_poly(recording.signal, percent, 100, axis=-1).astype(np.float32)
            evidence = [
                journal.evidence(torch.from_numpy(signal)[None], speed)
                for signal, speed in ((recording.signal, rpm), (stretched, rpm * 100 / percent))
            ]
            r = [presence_probability(each, rpm, journal.calibration) for each in evidence]
            pairs.append(torch.stack([class_probabilities(log_compatibility(each, table))[0] for each in r]))
    assert len(pairs) >= 8
    before, after = torch.stack(pairs).unbind(1)
    assert (before - after).abs().mean() < 0.05
    assert (before.argmax(1) == after.argmax(1)).float().mean() >= 0.95


@pytest.mark.parametrize("kind", ["journal", "rolling"])
def test_is_invariant_to_gain_sign_and_window_start(kind: str, request) -> None:
    bench = request.getfixturevalue(kind)
    signals, rpm = torch.stack([torch.from_numpy(each.signal) for each in bench.recordings]), rpm_of(bench.recordings)

    def q(changed: torch.Tensor) -> torch.Tensor:
        return class_probabilities(
            log_compatibility(presence_probability(bench.evidence(changed, rpm), rpm, bench.calibration), bench.table)
        )

    torch.testing.assert_close(q(-30 * signals), q(signals), atol=1e-3, rtol=0)
    assert (q(signals.roll(7001, -1)) - q(signals)).abs().mean() < 0.05


def test_features_in_hz_are_neutral() -> None:
    assert expectation_table(["imbalance"], [Feature("1X", "raw", ((0.9, 1.1),), unit="hz")]).item() == NEUTRAL
