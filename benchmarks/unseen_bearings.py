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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from _harness import add_seed_options, configure, make_parser, print_results, real_data
from _unseen_specimens import CWRU, FAULT_SIZES
from scipy.signal import resample_poly

from whirl._parallel import available_cores
from whirl.data import Recording, load_dataset, read
from whirl.diagnosis.descriptor_sets import Descriptors, describe
from whirl.diagnosis.family_net import FamilyNet
from whirl.diagnosis.learned import BEARING_CANDIDATES, Candidate, LearnedDiagnoser
from whirl.diagnosis.pretrain import pretrain, simulated_samples
from whirl.diagnosis.selection import choose_candidate
from whirl.diagnosis.spectral import SpectralDiagnoser
from whirl.evaluation.metrics import scores

CLASSES = ("inner_race", "outer_race", "ball")
FAULTY = (*CLASSES, "cage")
GOALS = {
    "mean_of_folds": ">= 0.84",
    "family_net": ">= 0.83",
    "trained_default": ">= 0.85",
    "trained_minus_rule": ">= -0.01",
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


@dataclass(frozen=True)
class Folds:
    """Described recordings, and which of them each fold holds out.

    Attributes:
        recordings: the recordings, each with its own bearing.
        descriptors: their families of lines.
        held_out: indices of the recordings of each fold.
    """

    recordings: Sequence[Recording]
    descriptors: Descriptors
    held_out: Sequence[np.ndarray]

    @classmethod
    def of(cls, folds: Sequence[Sequence[Recording]]) -> Folds:
        """Describe the recordings of all folds once."""
        recordings = [recording for fold in folds for recording in fold]
        ends = np.cumsum([len(fold) for fold in folds])[:-1]
        return cls(recordings, describe(recordings), np.split(np.arange(len(recordings)), ends))

    def labels(self, chosen: np.ndarray) -> list[str]:
        """Return the labels of some recordings."""
        return [str(self.recordings[index].label) for index in chosen]

    def predict(self, seed: int, candidates: Sequence[Candidate]) -> list[str]:
        """Predict each fold by the model that the other folds prefer, trained on them."""
        found = [""] * len(self.recordings)
        for test in self.held_out:
            train = np.setdiff1d(np.arange(len(self.recordings)), test)
            training = self.descriptors.take(train)
            known = [self.recordings[index] for index in train]
            choice = choose_candidate(known, candidates, lambda _, found=training: found, seed=seed)
            diagnoser = LearnedDiagnoser(choice.candidate, seed).fit(training, self.labels(train))
            for index, name in zip(test, diagnoser.predict(self.descriptors.take(test)), strict=True):
                found[index] = name or "ball"
        return found

    def predict_by_network(self, net: FamilyNet) -> list[str]:
        """Predict by a family network as it is; "no line found" counts as ball."""
        chosen = net.predict_proba(self.descriptors.families, self.descriptors.judged).argmax(axis=1)
        return [(*CLASSES, "ball")[index] for index in chosen]

    def predict_by_rule(self) -> list[str]:
        """Predict by the untrained rule; "no line found" counts as ball."""
        return [(*CLASSES, "ball")[index] for index in self.descriptors.verdicts]

    def score(self, found: Sequence[str]) -> float:
        """Return the mean macro F1 over the folds."""
        return float(np.mean([f1(self.labels(test), [found[index] for index in test]) for test in self.held_out]))

    def intervals(self, found: Mapping[str, Sequence[str]], n_draws: int = 2000) -> dict[str, list[float]]:
        """Return 95 % intervals of macro F1, pooled over the folds, by bootstrap over the bearings of each class."""
        rng = np.random.default_rng(0)
        owners = np.array([str(recording.specimen) for recording in self.recordings])
        labels = np.array(self.labels(np.arange(len(owners))))
        by_class = [np.unique(owners[labels == label]) for label in np.unique(labels)]
        draws = {name: [] for name in found}
        for _ in range(n_draws):
            drawn = [bearing for bearings in by_class for bearing in rng.choice(bearings, len(bearings))]
            rows = np.concatenate([np.flatnonzero(owners == bearing) for bearing in drawn])
            for name, predicted in found.items():
                draws[name].append(f1(labels[rows].tolist(), [predicted[row] for row in rows]))
        return {name: np.quantile(values, [0.025, 0.975]).round(3).tolist() for name, values in draws.items()}


def f1(labels: Sequence[Any], found: Sequence[Any]) -> float:
    """Return macro F1."""
    names = sorted({*labels, *found})
    confusion = np.zeros((len(names), len(names)))
    np.add.at(confusion, ([names.index(x) for x in labels], [names.index(x) for x in found]), 1)
    return float(scores(confusion)["macro_f1"])


def measure_learned(
    folds: Sequence[Sequence[Recording]], fan_end: Sequence[Sequence[Recording]], n_seeds: int, n_groups: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """Score the family network and trained models; return ratios and details."""
    described, seeds = Folds.of(folds), range(n_seeds)
    samples = simulated_samples(n_groups, seed=1, n_workers=available_cores())
    networks = [described.predict_by_network(pretrain(samples, seed)) for seed in seeds]
    trained = {
        "trained_default": BEARING_CANDIDATES,
        **{candidate.model: (candidate,) for candidate in BEARING_CANDIDATES if candidate.model != "rule"},
    }
    found = {name: [described.predict(seed, candidates) for seed in seeds] for name, candidates in trained.items()}
    found["fine_tuned"] = found.pop("family_net")
    by_seed = {name: [described.score(each) for each in runs] for name, runs in found.items()}
    by_seed["family_net"] = [described.score(each) for each in networks]
    rule = described.predict_by_rule()
    with_healthy = Folds.of([[*fold, *sound] for fold, sound in zip(folds, fan_end, strict=True)])
    by_seed["four_classes"] = [with_healthy.score(with_healthy.predict(seed, BEARING_CANDIDATES)) for seed in seeds]
    ratios = {name: float(np.mean(values)) for name, values in by_seed.items()}
    ratios["trained_minus_rule"] = ratios["trained_default"] - described.score(rule)
    first = {name: runs[0] for name, runs in found.items()}
    pooled = {"rule": rule, "shipped_network": described.predict_by_network(FamilyNet.pretrained()), **first}
    details = {"by_seed": by_seed, "pooled_intervals": described.intervals(pooled)}
    return ratios, details


def main() -> None:
    """Measure, and print the results."""
    parser = make_parser(__doc__)
    add_seed_options(parser, seeds=5)
    parser.add_argument(
        "--groups", type=int, default=200, help="simulated groups to train networks on (default %(default)s)"
    )
    arguments = parser.parse_args()
    folder = Path(real_data(CWRU))
    configure(None)
    with (folder / "manifest.csv").open(newline="") as file:
        sizes = {row["file"]: row["fault_size"] for row in csv.DictReader(file)}
    channels = {Path(r.source).name: r for r in load_dataset(folder, channels=["DE"], classes=list(CLASSES))}
    channels = {name: replace(recording, bearing="6205") for name, recording in channels.items()}
    names = [[name for name in channels if sizes[name].startswith(f"0.{size}")] for size in FAULT_SIZES]
    folds = [[channels[name] for name in fold] for fold in names]
    everything = [recording for fold in folds for recording in fold]
    scaled = [replace(r, signal=(0.01 * r.signal + 3).astype(np.float32)) for r in everything]
    changed = np.mean(np.array(verdicts(everything, "6205")) != np.array(verdicts(scaled, "6205")))
    fan_end = [[sound for name in fold if (sound := fan_end_of(folder / name, channels[name]))] for fold in names]
    alarms = verdicts([recording for fold in fan_end for recording in fold], "6203")
    learned, details = measure_learned(folds, fan_end, arguments.seeds, arguments.groups)
    ratios = {
        "mean_of_folds": mean_of_folds(folds, lambda recording: recording),
        **learned,
        "at_48_khz": mean_of_folds(folds, at_rate(48_000)),
        "at_25_khz": mean_of_folds(folds, at_rate(25_600)),
        "at_8_khz": mean_of_folds(folds, at_rate(8_000)),
        "changed_verdicts": float(changed),
        "false_alarms": float(np.mean([verdict in FAULTY for verdict in alarms])),
    }
    by_size = {size: macro_f1(fold, verdicts(fold, "6205")) for size, fold in zip(FAULT_SIZES, folds, strict=True)}
    print_results(ratios, GOALS, by_size=by_size, n_recordings=len(everything), n_fan_end=len(alarms), **details)


def fan_end_of(file: Path, beside: Recording) -> Recording | None:
    """Return the fan-end channel, of a sound 6203, of a recording with a drive-end fault; None if it has none."""
    recording = read(file)
    if "FE" not in recording.channels:
        return None
    about = {"rpm": beside.rpm, "bearing": "6203", "label": "healthy", "specimen": f"fan end beside {beside.specimen}"}
    return replace(recording.select_channels(["FE"]), **about)


if __name__ == "__main__":
    main()
