import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from whirl.data.simulation import simulate
from whirl.physics.envelope_rule import EnvelopeRule
from whirl.physics.evidence import OrderEvidence
from whirl.physics.faults import ROLLING_CLASSES
from whirl.physics.rolling_bearing import BEARINGS, fault_orders

ORDERS = fault_orders(BEARINGS["6205"])
CLASSES = ("inner_race", "outer_race", "ball")
SIZES = ("0.007 in", "0.014 in", "0.021 in")
RATE_HZ = 12_000


def test_names_simulated_faults() -> None:
    recordings = simulate(
        6, 1, ROLLING_CLASSES, seed=3, n_samples=RATE_HZ, sampling_rate_hz=RATE_HZ, severity_range=(0.6, 1)
    )
    signals = torch.stack([torch.from_numpy(each.signal) for each in recordings])
    rule = EnvelopeRule(ROLLING_CLASSES, ORDERS)
    rpm = torch.tensor([each.rpm for each in recordings])
    found = rule.predict_proba(signals, rpm, RATE_HZ)
    assert found.shape == (24, 4)
    torch.testing.assert_close(found.sum(1), torch.ones(24))
    targets = torch.tensor([ROLLING_CLASSES.index(each.label) for each in recordings])
    predicted = rule.predict(signals, rpm, RATE_HZ)
    assert torch.equal(predicted, found.argmax(1))
    assert (predicted == targets).float().mean() >= 0.8


def test_knows_when_it_knows_nothing() -> None:
    found = EnvelopeRule(CLASSES, ORDERS).predict_proba(torch.randn(2, 4096), float("nan"), RATE_HZ)
    torch.testing.assert_close(found, torch.full((2, 3), 1 / 3))


@pytest.mark.parametrize("classes", [("ball",), ("ball", "gear_crack"), ()])
def test_impossible_classes(classes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="classes are"):
        EnvelopeRule(classes, ORDERS)


@pytest.fixture(scope="module")
def cwru(real_data: Path) -> list[tuple[str, str, float, torch.Tensor]]:
    """Label, size, rpm and drive-end signal of the SKF bearings with a fault."""
    from scipy.io import loadmat

    folder, records = real_data / "cwru_12k_de", []
    with (folder / "manifest.csv").open() as file:
        for row in csv.DictReader(file):
            if row["label"] in CLASSES and row["fault_size"] in SIZES:
                key = next(name for name in row["mat_keys"].split() if name.endswith("DE_time"))
                signal = loadmat(folder / row["file"])[key].ravel().astype(np.float32)
                records.append((row["label"], row["fault_size"], float(row["rpm"]), torch.from_numpy(signal)))
    return records


@pytest.mark.data
def test_whole_records_show_the_family_of_their_race(cwru) -> None:
    evidence, right, total = OrderEvidence.rolling(RATE_HZ, ORDERS), {}, {}
    for label, size, rpm, signal in cwru:
        if label == "inner_race" or (label == "outer_race" and size != "0.014 in"):
            strongest = evidence(signal[None, :120_000], rpm)[0, :3].argmax()
            right[label] = right.get(label, 0) + (CLASSES[int(strongest)] == label)
            total[label] = total.get(label, 0) + 1
    assert right == total == {"inner_race": 12, "outer_race": 24}


@pytest.mark.data
def test_windows_of_170_ms_are_told_without_training(cwru) -> None:
    from sklearn.metrics import f1_score

    rule, scores = EnvelopeRule(CLASSES, ORDERS), []
    for held_out in SIZES:
        truth, predicted = [], []
        for label, size, rpm, signal in cwru:
            if size == held_out:
                windows = signal[: len(signal) // 2048 * 2048].view(-1, 2048)
                predicted += rule.predict(windows, rpm, RATE_HZ).tolist()
                truth += [CLASSES.index(label)] * len(windows)
        scores.append(f1_score(truth, predicted, average="macro"))
    assert np.mean(scores) >= 0.60, scores
