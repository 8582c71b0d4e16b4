"""Trust: what a trained diagnoser does with recordings that it should not trust.

Why: a class with probability 0.99 is worth nothing if zeros, noise and unknown faults get one as well. For each seed,
models of descriptors are trained on simulated machines; other machines of the same population are judged.

- `not_ok_spoiled`, `not_ok_noise`: share of silent, constant and clipped recordings, and of white, pink and
  band-limited noise, whose status is not `ok`.
- `auroc_journal`, `auroc_rolling`: area under the ROC curve of the typicality, between a class that was left out of
  training and the others on new machines; mean over the classes. For rolling bearings the faults are left out in turn;
  `auroc_rolling_healthy` is for healthy machines, which faint faults look like.
- `auroc_sensor`, `auroc_wrong_bearing`: the same for a sensor that passes only 2 kHz, and for a bearing that is stated
  wrongly.
- `false_alarms`: share of known classes on new machines that are rejected at the stated rate of 2 %.
- `coverage`: share of recordings whose prediction set at 90 % contains the true class, calibrated on at least 1000
  simulated specimens and tested on as many others.
- `risk_at_80`: error rate of the 80 % of recordings of highest probability, divided by that of all.
- `auroc_cwru`, `auroc_rotor_rig`: as above for real recordings, where these are at hand.

    WHIRL_REAL_DATA=... python benchmarks/trust.py --page docs/results/trust.md
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _harness import REAL_DATA, add_seed_options, configure, make_parser, print_results
from _unseen_specimens import CWRU
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt
from sklearn.metrics import roc_auc_score

from whirl.data import Recording, load_dataset
from whirl.data.simulation import simulate
from whirl.diagnosis.calibration import PredictionSets
from whirl.diagnosis.descriptor_sets import Descriptors
from whirl.diagnosis.learned import Candidate, LearnedDiagnoser
from whirl.diagnosis.signal_quality import why_unusable
from whirl.physics.faults import JOURNAL_CLASSES, ROLLING_CLASSES
from whirl.runs.descriptors import PartDescriptors, shows_noise
from whirl.runs.reliability import FALSE_ALARM_RATE, Reliability, reliability_of_diagnoser

GOALS = {
    "not_ok_spoiled": ">= 1",
    "not_ok_noise": ">= 0.99",
    "auroc_journal": ">= 0.90",
    "auroc_rolling": ">= 0.90",
    "coverage": ">= 0.88",
    "coverage_at_most": "<= 0.93",
}
RIG = "adi_spectraquest_rotor"
FAMILIES = {
    "journal": (JOURNAL_CLASSES, Candidate("extra_trees", "evidence_and_levels"), 40_000),
    "rolling": (ROLLING_CLASSES, Candidate("extra_trees", "families"), 60_000),
}


@dataclass(frozen=True, eq=False)
class Trained:
    """A model of descriptors with its reliability.

    Attributes:
        model: the model.
        reliability: its reliability.
    """

    model: LearnedDiagnoser
    reliability: Reliability

    @classmethod
    def on(cls, candidate: Candidate, known: PartDescriptors, seed: int) -> Trained:
        """Train on the part `"train"`."""
        labels = [str(recording.label) for recording in known.parts["train"]]
        classes = sorted(set(labels))
        model = LearnedDiagnoser(candidate, seed).fit(known.get("train", candidate.kind), labels, classes)
        return cls(model, reliability_of_diagnoser(model, known, classes))

    def judge(self, new: PartDescriptors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return calibrated probabilities `[n, K]` and typicalities `[n]` of the part `"train"`."""
        raw = self.model.predict_proba(new.get("train", self.model.candidate.kind))
        return self.reliability.calibrate(raw), self.reliability.p_values(new, "train", raw)


def part(recordings: Sequence[Recording]) -> PartDescriptors:
    """Describe recordings when needed."""
    return PartDescriptors({"train": recordings})


def take(all_of_them: PartDescriptors, chosen: NDArray[np.bool_]) -> PartDescriptors:
    """Return some recordings, with the descriptors that have been computed."""
    rows = np.flatnonzero(chosen)
    some = part([all_of_them.parts["train"][row] for row in rows])
    for (_, kind), found in all_of_them._computed.items():
        if kind != "evidence_and_levels" or len(found.values) == found.n_recordings:
            some.add("train", found.take(rows))
    return some


def labels_of(described: PartDescriptors) -> NDArray[np.str_]:
    """Return the labels."""
    return np.array([str(recording.label) for recording in described.parts["train"]])


def auroc(unknown: NDArray[np.bool_], typicality: NDArray[np.float64]) -> float:
    """Return the AUROC of a low typicality as a sign of the unknown; what cannot be judged is the most unusual."""
    return float(roc_auc_score(unknown, -np.nan_to_num(typicality, nan=-1.0)))


def left_out_in_turn(
    candidate: Candidate, known: PartDescriptors, new: PartDescriptors, seed: int
) -> tuple[dict[str, float], list[float]]:
    """Return the AUROC of each class that is left out of training, and the false alarms of the others."""
    found, alarms = {}, []
    for label in np.unique(labels_of(known)):
        trained = Trained.on(candidate, take(known, labels_of(known) != label), seed)
        _, typicality = trained.judge(new)
        unknown = labels_of(new) == label
        found[str(label)] = auroc(unknown, typicality)
        alarms.append(float(np.mean(typicality[~unknown] <= FALSE_ALARM_RATE)))
    return found, alarms


# -- signals ---------------------------------------------------------------------------------------------------------


def spoiled(recording: Recording, rng: np.random.Generator) -> Recording:
    """Return a silent, constant or clipped recording."""
    x = recording.signal
    kind = rng.integers(3)
    limit = x.std() * rng.uniform(0.3, 1.5)
    return replace(recording, signal=(np.zeros_like(x), np.full_like(x, rng.normal()), np.clip(x, -limit, limit))[kind])


def noise(recording: Recording, rng: np.random.Generator) -> Recording:
    """Return white, pink or band-limited noise of the level of a recording."""
    n = recording.n_samples
    spectrum = np.fft.rfft(rng.normal(size=n))
    share = np.arange(len(spectrum)) / len(spectrum)
    low = rng.uniform(0, 0.4)
    gains = (np.ones_like(share), 1 / np.sqrt(share + 1e-4), (share >= low) & (share <= low + rng.uniform(0.1, 0.5)))
    signal = np.fft.irfft(spectrum * gains[rng.integers(3)], n)[None]
    return replace(recording, signal=(signal / signal.std() * recording.signal.std()).astype(np.float32))


def other_sensor(recording: Recording) -> Recording:
    """Return a recording as a sensor would give it that passes 2 kHz."""
    sos = butter(4, 2000, fs=recording.sampling_rate_hz, output="sos")
    return replace(recording, signal=sosfiltfilt(sos, recording.signal, axis=-1).astype(np.float32))


def is_ok(trained: Trained, recordings: Sequence[Recording]) -> NDArray[np.bool_]:
    """Return whether a recording is judged without a doubt of its signal or its typicality."""
    _, typicality = trained.judge(part(recordings))
    usable = [all(why_unusable(signal) is None for signal in recording.signal) for recording in recordings]
    silent = [shows_noise(recording) for recording in recordings]
    return np.array(usable) & ~np.array(silent) & (typicality > FALSE_ALARM_RATE)


# -- measurements ----------------------------------------------------------------------------------------------------


def measure_family(family: str, n_machines: int, seed: int) -> dict[str, Any]:
    """Measure one family of simulated machines for one seed."""
    classes, candidate, n_samples = FAMILIES[family]
    known, new = (
        part(simulate(n_machines, 1, list(classes), 2 * seed + place, n_samples=n_samples)) for place in (0, 1)
    )
    for described in (known, new):
        described.get("train", "families" if candidate.kind == "families" else "evidence_and_levels")
    by_class, alarms = left_out_in_turn(candidate, known, new, seed)
    trained = Trained.on(candidate, known, seed)
    probabilities, typicality = trained.judge(new)
    rng = np.random.default_rng(seed)
    some = [new.parts["train"][row] for row in rng.choice(len(labels_of(new)), 100)]
    sensor = part([other_sensor(recording) for recording in new.parts["train"][::4]])
    found = {
        "auroc": by_class,
        "false_alarms": float(np.mean([*alarms, np.mean(typicality <= FALSE_ALARM_RATE)])),
        "not_ok_spoiled": float(1 - is_ok(trained, [spoiled(recording, rng) for recording in some]).mean()),
        "not_ok_noise": float(1 - is_ok(trained, [noise(recording, rng) for recording in some]).mean()),
        "auroc_sensor": against(typicality, trained.judge(sensor)[1]),
        **selective(probabilities, labels_of(new), trained.model.classes),
    }
    if family == "rolling":
        wrong = part([replace(recording, bearing="N205") for recording in new.parts["train"]])
        found["auroc_wrong_bearing"] = against(typicality, trained.judge(wrong)[1])
    return found


def against(known: NDArray[np.float64], unknown: NDArray[np.float64]) -> float:
    """Return the AUROC between two samples of typicalities."""
    return auroc(np.repeat([False, True], [len(known), len(unknown)]), np.concatenate([known, unknown]))


def selective(probabilities: NDArray[np.float64], labels: NDArray[np.str_], classes: Sequence[str]) -> dict[str, Any]:
    """Return error rates of the most certain recordings, by their share."""
    wrong = np.array(classes)[probabilities.argmax(axis=1)] != labels
    order = np.argsort(-probabilities.max(axis=1))
    risks = {f"{share:g}": float(wrong[order][: round(share * len(order))].mean()) for share in (0.5, 0.8, 0.9, 1.0)}
    return {"risks": risks, "risk_at_80": risks["0.8"] / max(risks["1"], 1e-9)}


def measure_coverages(n_specimens: int, seeds: Sequence[int]) -> list[float]:
    """Return the coverage of 90 % sets on specimens of one recording each, for random splits of one population.

    A split has three parts: for training (40 of each class), for calibration and for the test.
    """
    n_per_class = 41 + 2 * n_specimens // len(JOURNAL_CLASSES)
    recordings = [
        replace(each, specimen=f"{label}{each.specimen}")
        for place, label in enumerate(JOURNAL_CLASSES)
        for each in simulate(n_per_class, 1, [label], 1000 + place, n_samples=20_000)
    ]
    described = part(recordings)
    candidate = FAMILIES["journal"][1]
    descriptors, labels = described.get("train", candidate.kind), labels_of(described)
    return [_coverage(descriptors, labels, n_specimens, candidate, seed) for seed in seeds]


def _coverage(
    descriptors: Descriptors, labels: NDArray[np.str_], n_specimens: int, candidate: Candidate, seed: int
) -> float:
    order = np.random.default_rng(seed).permutation(len(labels))
    test, calibration, train = order[:n_specimens], order[n_specimens : 2 * n_specimens], order[2 * n_specimens :]
    model = LearnedDiagnoser(candidate, seed).fit(descriptors.take(train), labels[train].tolist())
    targets = np.array([model.classes.index(label) for label in labels])
    rows = np.arange(n_specimens)
    sets = PredictionSets.fit(model.predict_proba(descriptors.take(calibration)), targets[calibration], rows, 0.9)
    return float(sets.contains(model.predict_proba(descriptors.take(test)))[rows, targets[test]].mean())


def measure_real(
    recordings: Sequence[Recording], folds: Sequence[str], candidate: Candidate, seed: int
) -> dict[str, float]:
    """Return the AUROC of each class that is left out of training, over all folds that are held out in turn."""
    described = part(recordings)
    described.get("train", "families" if candidate.kind == "families" else "evidence_and_levels")
    labels, fold = labels_of(described), np.array(folds)
    found = {}
    for label in np.unique(labels):
        typicality = np.full(len(labels), np.nan)
        for held in np.unique(fold):
            trained = Trained.on(candidate, take(described, (fold != held) & (labels != label)), seed)
            typicality[fold == held] = trained.judge(take(described, fold == held))[1]
        found[str(label)] = auroc(labels == label, typicality)
    return found


def real_measurements(seed: int) -> dict[str, dict[str, float]]:
    """Measure the real recordings that are at hand."""
    folder, found = os.environ.get(REAL_DATA), {}
    if folder and (Path(folder) / CWRU).is_dir():
        path = Path(folder) / CWRU
        with (path / "manifest.csv").open(newline="") as file:
            sizes = {row["file"]: row["fault_size"] for row in csv.DictReader(file)}
        classes = list(ROLLING_CLASSES[1:])
        recordings = [replace(r, bearing="6205") for r in load_dataset(path, channels=["DE"], classes=classes)]
        folds = [sizes[Path(recording.source).name] for recording in recordings]
        found["cwru"] = measure_real(recordings, folds, Candidate("extra_trees", "families"), seed)
    if folder and (Path(folder) / RIG).is_dir():
        recordings = load_dataset(Path(folder) / RIG)
        folds = [str(round(recording.rpm or 0, -2)) for recording in recordings]
        found["rotor_rig"] = measure_real(recordings, folds, FAMILIES["journal"][1], seed)
    return found


# -- results ---------------------------------------------------------------------------------------------------------


def mean_of(runs: Sequence[dict[str, Any]], name: str) -> float:
    """Return the mean over the seeds."""
    return float(np.mean([run[name] for run in runs]))


def mean_by_class(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean over the seeds for each class."""
    return {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}


def summarize(by_family: dict[str, list[dict[str, Any]]], coverages: list[float], real: list[dict[str, Any]]) -> Any:
    """Return the ratios, and the AUROC of each class."""
    by_class = {family: mean_by_class([run["auroc"] for run in runs]) for family, runs in by_family.items()}
    for name in real[0] if real else ():
        by_class[name] = mean_by_class([run[name] for run in real])
    everything = [run for runs in by_family.values() for run in runs]
    faults = {name: value for name, value in by_class["rolling"].items() if name != ROLLING_CLASSES[0]}
    ratios = {
        **{
            name: mean_of(everything, name)
            for name in ("not_ok_spoiled", "not_ok_noise", "auroc_sensor", "false_alarms")
        },
        "auroc_journal": float(np.mean(list(by_class["journal"].values()))),
        "auroc_rolling": float(np.mean(list(faults.values()))),
        "auroc_rolling_healthy": by_class["rolling"][ROLLING_CLASSES[0]],
        "auroc_wrong_bearing": mean_of(by_family["rolling"], "auroc_wrong_bearing"),
        "coverage": float(np.mean(coverages)),
        "coverage_at_most": float(np.mean(coverages)),
        "risk_at_80": mean_of(by_family["journal"], "risk_at_80"),
        **{f"auroc_{name}": float(np.mean(list(by_class[name].values()))) for name in (real[0] if real else ())},
    }
    return ratios, by_class


def over_seeds(values: Sequence[float]) -> str:
    """Format the mean and the range over the seeds."""
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def to_page(
    by_family: dict[str, list[dict[str, Any]]], coverages: list[float], real: list[dict[str, Any]], arguments: Any
) -> str:
    """Format the measurements as a page."""
    ratios, by_class = summarize(by_family, coverages, real)
    lines = [
        "# When a diagnoser must not be trusted",
        "",
        f"Made by `python benchmarks/trust.py --page docs/results/trust.md`: {arguments.seeds} seeds, "
        f"{arguments.machines} simulated machines for training and as many others for the test, of each family. "
        "Models: extra trees on descriptors. The rejector never sees the class or the kind of signal that it is judged "
        "on. Mean, and lowest and highest value over the seeds.",
        "",
        "## Signals without a machine",
        "",
        "| 100 recordings of each kind and seed whose status is not `ok` | journal | rolling |",
        "| --- | --- | --- |",
    ]
    for name, text in (
        ("not_ok_spoiled", "silent, constant or clipped"),
        ("not_ok_noise", "white, pink or band-limited noise"),
    ):
        cells = [over_seeds([run[name] for run in by_family[family]]) for family in ("journal", "rolling")]
        lines.append(f"| {text} | {' | '.join(cells)} |")
    lines += [
        "",
        "## Unknown faults, sensors and bearings",
        "",
        "AUROC of the typicality: the probability that an unknown recording is more unusual than a known one, both on "
        "machines that training has not seen. Each class is left out of training in turn.",
        "",
        "| data | class left out | AUROC |",
        "| --- | --- | --- |",
    ]
    for family, classes in by_class.items():
        lines += [f"| {family.replace('_', ' ')} | {label} | {value:.3f} |" for label, value in classes.items()]
        lines.append(f"| {family.replace('_', ' ')} | mean | {np.mean(list(classes.values())):.3f} |")
    lines += [
        "",
        "A healthy machine that training did not know looks like one with a faint fault, and a compound fault like its "
        "parts: there the limits lie. On the rotor rig, where each class is one state of one machine and every speed "
        "is held out in turn, unknown faults are hardly recognized.",
        "",
        "| planted unknown | AUROC |",
        "| --- | --- |",
        f"| a sensor that passes only 2 kHz | {ratios['auroc_sensor']:.3f} |",
        f"| a bearing that is stated wrongly (N205 instead of 6205) | {ratios['auroc_wrong_bearing']:.3f} |",
        "",
        f"Known classes on new machines are rejected in {100 * ratios['false_alarms']:.1f} % of the recordings, at a "
        f"stated rate of {100 * FALSE_ALARM_RATE:g} %.",
        "",
        "## Prediction sets and selective accuracy",
        "",
        f"Sets at a nominal coverage of 90 %, calibrated and tested on {arguments.specimens} simulated specimens each, "
        f"contain the true class in {over_seeds(coverages)} of the recordings.",
        "",
        "| share of recordings, the most certain first | error rate, journal | error rate, rolling |",
        "| --- | --- | --- |",
    ]
    for share in ("0.5", "0.8", "0.9", "1"):
        cells = [over_seeds([run["risks"][share] for run in by_family[family]]) for family in ("journal", "rolling")]
        lines.append(f"| {100 * float(share):g} % | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def parse() -> argparse.Namespace:
    """Parse the arguments."""
    parser = make_parser(__doc__)
    add_seed_options(parser, seeds=5)
    parser.add_argument("--machines", type=int, default=30, help="machines of each part (default %(default)s)")
    parser.add_argument("--specimens", type=int, default=1000, help="specimens for coverage (default %(default)s)")
    parser.add_argument("--page", help="Markdown page to write")
    return parser.parse_args()


def main() -> None:
    """Measure, and print the results."""
    arguments = parse()
    configure(None)
    seeds = range(arguments.seeds)
    by_family = {family: [measure_family(family, arguments.machines, seed) for seed in seeds] for family in FAMILIES}
    coverages = measure_coverages(arguments.specimens, seeds)
    real = [found for seed in seeds if (found := real_measurements(seed))]
    if arguments.page:
        Path(arguments.page).write_text(to_page(by_family, coverages, real, arguments), encoding="utf-8")
    ratios, by_class = summarize(by_family, coverages, real)
    print_results(ratios, GOALS, by_class=by_class)


if __name__ == "__main__":
    main()
