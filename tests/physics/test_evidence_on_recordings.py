"""Evidence of the lines of bearings in real recordings."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from whirl.physics.evidence import OrderEvidence
from whirl.physics.rolling_bearing import BEARINGS, fault_orders

CLASSES = ("inner_race", "outer_race", "ball")
SIZES = ("0.007 in", "0.014 in", "0.021 in")
RATE_HZ = 12_000


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
def test_complete_recordings_show_the_family_of_their_race(cwru) -> None:
    evidence = OrderEvidence.rolling(RATE_HZ, fault_orders(BEARINGS["6205"]))
    correct, total = {}, {}
    for label, size, rpm, signal in cwru:
        if label == "inner_race" or (label == "outer_race" and size != "0.014 in"):
            strongest = evidence(signal[None, :120_000], rpm)[0, :3].argmax()
            correct[label] = correct.get(label, 0) + (CLASSES[int(strongest)] == label)
            total[label] = total.get(label, 0) + 1
    assert correct == total == {"inner_race": 12, "outer_race": 24}
