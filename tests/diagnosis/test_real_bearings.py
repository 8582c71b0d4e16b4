"""The untrained rule on the CWRU bearings (recordings are not shipped)."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from whirl.data.recording import Recording
from whirl.diagnosis.spectral import SpectralDiagnoser

pytestmark = pytest.mark.data


def load(folder: Path, channel: str, bearing: str) -> list[Recording]:
    """Recordings of one channel, without the bearings of another manufacturer (0.028 in)."""
    recordings = []
    with (folder / "manifest.csv").open() as file:
        for row in csv.DictReader(file):
            key = next((name for name in row["mat_keys"].split() if name.endswith(f"{channel}_time")), None)
            if key is None or row["fault_size"] == "0.028 in":
                continue
            signal = loadmat(folder / row["file"])[key].ravel().astype(np.float32)
            recordings.append(
                Recording(
                    signal,
                    float(row["sampling_rate"]),
                    (channel,),
                    label=row["label"],
                    rpm=float(row["rpm"]),
                    bearing=bearing,
                    metadata={"size": row["fault_size"][:5]},
                )
            )
    return recordings


def test_drive_end_faults(real_data):
    """Faults of races are found if they have lines; the outer race of 14 mil and most balls have none."""
    recordings = load(real_data / "cwru_12k_de", "DE", "6205")
    found = SpectralDiagnoser().diagnose(recordings)
    counts = Counter(
        (each.label, each.metadata["size"], result.verdict) for each, result in zip(recordings, found, strict=True)
    )
    races = {key: count for key, count in counts.items() if key[0] != "ball"}
    assert races == {
        ("normal", "", "no_line_found"): 1,
        **{("inner_race", size, "inner_race"): 4 for size in ("0.007", "0.014", "0.021")},
        **{("outer_race", size, "outer_race"): 12 for size in ("0.007", "0.021")},
        ("outer_race", "0.014", "no_line_found"): 4,
    }
    assert all(verdict in ("ball", "no_line_found") for label, _, verdict in counts if label == "ball")


def test_healthy_fan_end_bearing(real_data):
    """The fan-end 6203 is healthy while the drive-end bearing is faulty: at most 5 % of recordings are false alarms."""
    recordings = [each for each in load(real_data / "cwru_12k_de", "FE", "6203") if each.label != "normal"]
    assert len(recordings) == 52
    assert sum(each.leading.is_fault for each in SpectralDiagnoser().diagnose(recordings)) <= 2
