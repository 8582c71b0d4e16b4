"""Diagnosis of bearings without training: the CWRU folds, other sampling rates, false alarms.

Why: the spectral rule is the baseline for trained diagnosers on unseen bearings.

- `mean_of_folds`: macro F1 over complete recordings of the drive end (12 kHz), three classes, mean over the fault sizes
  0.007, 0.014 and 0.021 inch. Nothing is trained, so a fold is only the set of recordings that is scored. "No line
  found", "not judged" and "cage" count as `ball`, the class whose lines hardly show on this rig.
- `at_48_khz`, `at_25_khz`, `at_8_khz`: the same recordings resampled (SciPy, polyphase).
- `changed_verdicts`: fraction of verdicts that an offset of 3 and a gain of 0.01 change.
- `false_alarms`: fraction of the fan-end channels, whose bearing is a healthy 6203, with a faulty verdict.

    WHIRL_REAL_DATA=... python benchmarks/unseen_bearings.py
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from _harness import configure, make_parser, print_results, real_data
from _unseen_specimens import CWRU, FAULT_SIZES
from scipy.signal import resample_poly

from whirl.data import Recording, load_dataset, read
from whirl.diagnosis.spectral import SpectralDiagnoser
from whirl.evaluation.metrics import scores

CLASSES = ("inner_race", "outer_race", "ball")
FAULTY = (*CLASSES, "cage")
GOALS = {
    "mean_of_folds": ">= 0.84",
    "at_48_khz": ">= 0.84",
    "at_25_khz": ">= 0.84",
    "at_8_khz": ">= 0.80",
    "changed_verdicts": "<= 0",
    "false_alarms": "<= 0.05",
}


def verdicts(recordings: Sequence[Recording], bearing: str) -> list[str]:
    """Return the verdict of each recording by its one channel."""
    return [found.verdict for found in SpectralDiagnoser().diagnose(recordings, bearing)]


def macro_f1(recordings: Sequence[Recording], found: Sequence[str]) -> float:
    """Return macro F1; a verdict that is no class counts as ball."""
    confusion = np.zeros((len(CLASSES), len(CLASSES)))
    for recording, verdict in zip(recordings, found, strict=True):
        named = verdict if verdict in CLASSES else "ball"
        confusion[CLASSES.index(str(recording.label)), CLASSES.index(named)] += 1
    return float(scores(confusion)["macro_f1"])


def mean_of_folds(folds: Sequence[Sequence[Recording]], change: Callable[[Recording], Recording]) -> float:
    """Return the mean macro F1 over the fault sizes, of changed recordings."""
    changed = [[change(recording) for recording in fold] for fold in folds]
    return float(np.mean([macro_f1(fold, verdicts(fold, "6205")) for fold in changed]))


def at_rate(rate_hz: float) -> Callable[[Recording], Recording]:
    """Return a function that resamples a recording."""

    def change(recording: Recording) -> Recording:
        ratio = Fraction(rate_hz / recording.sampling_rate_hz).limit_denominator(1000)
        signal = resample_poly(recording.signal, ratio.numerator, ratio.denominator, axis=1)
        return replace(recording, signal=signal.astype(np.float32), sampling_rate_hz=rate_hz)

    return change


def main() -> None:
    """Measure, and print the results."""
    make_parser(__doc__).parse_args()
    folder = Path(real_data(CWRU))
    configure(None)
    with (folder / "manifest.csv").open(newline="") as file:
        sizes = {row["file"]: row["fault_size"] for row in csv.DictReader(file)}
    channels = {Path(r.source).name: r for r in load_dataset(folder, channels=["DE"], classes=list(CLASSES))}
    folds = [[r for name, r in channels.items() if sizes[name].startswith(f"0.{size}")] for size in FAULT_SIZES]
    everything = [recording for fold in folds for recording in fold]
    scaled = [replace(r, signal=(0.01 * r.signal + 3).astype(np.float32)) for r in everything]
    changed = np.mean(np.array(verdicts(everything, "6205")) != np.array(verdicts(scaled, "6205")))
    small = [name for name in channels if not sizes[name].startswith("0.028")]
    both = [replace(read(folder / name), rpm=channels[name].rpm) for name in small]
    alarms = verdicts([r.select_channels(["FE"]) for r in both if "FE" in r.channels], "6203")
    ratios = {
        "mean_of_folds": mean_of_folds(folds, lambda recording: recording),
        "at_48_khz": mean_of_folds(folds, at_rate(48_000)),
        "at_25_khz": mean_of_folds(folds, at_rate(25_600)),
        "at_8_khz": mean_of_folds(folds, at_rate(8_000)),
        "changed_verdicts": float(changed),
        "false_alarms": float(np.mean([verdict in FAULTY for verdict in alarms])),
    }
    by_size = {size: macro_f1(fold, verdicts(fold, "6205")) for size, fold in zip(FAULT_SIZES, folds, strict=True)}
    print_results(ratios, GOALS, by_size=by_size, n_recordings=len(everything), n_fan_end=len(alarms))


if __name__ == "__main__":
    main()
