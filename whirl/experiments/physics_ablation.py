"""Does physics help? Arms with and without it, and controls that should not help, run for run on the same windows."""

from __future__ import annotations

import json
import logging
import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from whirl._distribution import install_hint
from whirl.data.dataset import load_dataset
from whirl.data.features import evidence_features
from whirl.data.loaders import make_loader
from whirl.data.recording import Recording
from whirl.data.resampling import to_common_rate
from whirl.data.simulation import simulate
from whirl.data.windows import WindowDataset
from whirl.engine.files import atomic_write, write_text
from whirl.evaluation.paired import PairedDifference, compare_arms
from whirl.evaluation.prediction import predict_windows
from whirl.losses.evidence_consistency import FORMS
from whirl.losses.physics_loss_functions import PhysicalConstraintLoss
from whirl.models.registry import create_model
from whirl.optim.cnn_optimizer import create_optimizer
from whirl.optim.scheduler_factory import create_training_scheduler
from whirl.physics.compatibility import (
    class_probabilities,
    default_calibration,
    expectation_table,
    log_compatibility,
    presence_probability,
)
from whirl.physics.evidence import OrderEvidence
from whirl.physics.faults import JOURNAL_CLASSES, signature
from whirl.physics.rolling_bearing import BEARINGS, FaultOrders, fault_orders
from whirl.runs.data import rolling_faults
from whirl.training.pinn_trainer import PINNTrainer
from whirl.training.trainer import Trainer
from whirl.validation import check_name, unknown_name

logger = logging.getLogger(__name__)

CONTROL_ARM = "ce"
MIN_HEALTHY = 3  # windows from which the normal level of a line can be told


@dataclass(frozen=True)
class StudySetting:
    """What all runs of a study have in common.

    Attributes:
        labels: labelled windows of each class; 0 takes all there are.
        epochs: passes over the unlabelled windows; every arm takes the same number of steps.
        batch_size: labelled windows in a step, and as many unlabelled ones.
        lr: highest learning rate of one-cycle.
        weight: lambda of the frequency term.
        form: of the frequency term: `log`, `linear`, `set` or `kl`.
        schedule: of lambda: `constant`, `linear`, `cosine`, `exponential` or `step`.
        trust: correct the physics by what the labelled windows say of it.
        network: the network; of arms with evidence or orders, the waveform's part of it.
        bearing: name in the table of bearings; None is a journal bearing.
        device: where to train.
        data: what the windows are of; a study is not gone on with on other data.
    """

    labels: int = 5
    epochs: int = 10
    batch_size: int = 32
    lr: float = 3e-3
    weight: float = 1.0
    form: str = "log"
    schedule: str = "constant"
    trust: bool = True
    network: str = "wdcnn"
    bearing: str | None = None
    device: str = "auto"
    data: str = "simulated"

    def __post_init__(self) -> None:
        if self.labels < 0 or self.epochs < 1 or self.batch_size < 2:
            raise ValueError(
                f"labels is {self.labels}, epochs {self.epochs}, batch_size {self.batch_size}; expected >= 0, 1 and 2"
            )
        check_name("form", self.form, FORMS)
        if self.bearing is not None and self.bearing not in BEARINGS:
            raise ValueError(unknown_name("bearing", self.bearing, BEARINGS))

    @property
    def orders(self) -> FaultOrders | None:
        """Fault orders of the bearing."""
        return None if self.bearing is None else fault_orders(BEARINGS[self.bearing])


@dataclass(frozen=True)
class Task:
    """The windows of one run.

    Attributes:
        labelled: windows whose labels are used, `labelled.dataset` those of all training recordings.
        unlabelled: windows whose labels nobody looks at.
        test: windows of specimens that neither of the two holds.
    """

    labelled: WindowSubset
    unlabelled: WindowSubset
    test: WindowSubset

    @property
    def classes(self) -> tuple[str, ...]:
        """Label of each class index."""
        return self.test.dataset.classes or ()

    @property
    def sampling_rate_hz(self) -> float:
        """Of all windows."""
        return self.test.dataset.sampling_rate_hz


class WindowSubset(torch.utils.data.Dataset):
    """Some windows of a data set, cut whole batches at a time.

    Args:
        dataset: all windows.
        indices: which of them, int64 `[W]`; one may occur several times.
    """

    def __init__(self, dataset: WindowDataset, indices: Tensor) -> None:
        self.dataset, self.indices = dataset, indices

    @property
    def targets(self) -> Tensor:
        """Class of each window, `[W]`."""
        return self.dataset.targets[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Tensor) -> Any:
        return self.dataset[self.indices[index]]

    def repeated(self, n_windows: int) -> WindowSubset:
        """The same windows over and over, `n_windows` in all."""
        times = math.ceil(n_windows / len(self))
        return WindowSubset(self.dataset, self.indices.repeat(times)[:n_windows])

    def whole(self) -> tuple[Tensor, Tensor, Tensor]:
        """All signals `[W, C, T]`, targets `[W]` and speeds `[W]`."""
        signals, targets, metadata = self.dataset[self.indices]
        return signals, targets, metadata["rpm"]


# -- conditions ----------------------------------------------------------------------------------------------


SIMULATED = {
    "few": {},
    "speed_shift": {"labelled_rpm": (1200, 1800), "test_rpm": (2600, 3600)},
    "noise": {"snr_db_range": (-6.0, 0.0)},
}
"""Conditions of simulated journal bearings: as they are; labels at low and tests at high speed; noise of 0 to 6 dB
more power than the vibration."""

N_MACHINES, N_TEST_MACHINES, RATE_HZ, WINDOW = 18, 6, 2560, 4096


def simulated_task(condition: str, labels: int, seed: int) -> Task:
    """12 machines to learn from and 6 to be tested on, 2560 Hz, windows of 1.6 s.

    Raises:
        ValueError: an unknown condition.
    """
    if condition not in SIMULATED:
        raise ValueError(unknown_name("condition", condition, SIMULATED))
    settings = SIMULATED[condition]
    recordings = simulate(
        N_MACHINES,
        seed=seed,
        sampling_rate_hz=RATE_HZ,
        n_samples=2 * WINDOW,
        snr_db_range=settings.get("snr_db_range", (5.0, 20.0)),
    )
    tested = {f"machine{index:02d}" for index in range(N_MACHINES - N_TEST_MACHINES, N_MACHINES)}
    train = [recording for recording in recordings if recording.specimen not in tested]
    test = [recording for recording in recordings if recording.specimen in tested]
    return make_task(
        train,
        _between(test, settings.get("test_rpm")),
        JOURNAL_CLASSES,
        WINDOW,
        labels,
        seed,
        may_be_labelled=lambda r: _is_between(r, settings.get("labelled_rpm")),
    )


def folder_task(recordings: Sequence[Recording], labels: int, seed: int, window: int) -> Task:
    """One specimen of each class labelled, one for the test, the others unlabelled; each seed draws the roles anew.

    Windows of the labelled specimen are unlabelled windows as well. A specimen tested in one class is left out of
    training in every other.

    Raises:
        ValueError: a class with fewer than two specimens.
    """
    classes = tuple(sorted({str(recording.label) for recording in recordings}))
    specimens_of = {label: {str(r.specimen) for r in recordings if r.label == label} for label in classes}
    few = [label for label in classes if len(specimens_of[label]) < 2]
    if few:
        raise ValueError(f"class {few[0]!r} has 1 specimen; a study needs at least 2: to learn from and to test on")
    # One order for all classes, so that machines that show several faults keep their role.
    order = np.random.default_rng(seed).permutation(sorted(set().union(*specimens_of.values()))).tolist()
    tested = {label: next(name for name in order if name in specimens_of[label]) for label in classes}
    held_out = set(tested.values())
    left = {label: [name for name in order if name in specimens_of[label] - held_out] for label in classes}
    train = [r for r in recordings if str(r.specimen) not in held_out]
    test = [r for r in recordings if tested[str(r.label)] == str(r.specimen)]
    return make_task(
        train,
        test,
        classes,
        window,
        labels,
        seed,
        may_be_labelled=lambda r: left[str(r.label)][0] == str(r.specimen),
    )


def make_task(
    train: Sequence[Recording],
    test: Sequence[Recording],
    classes: Sequence[str],
    window: int,
    labels: int,
    seed: int,
    may_be_labelled: Callable[[Recording], bool] = lambda recording: True,
) -> Task:
    """Draw the labelled windows.

    Args:
        train: recordings to learn from.
        test: recordings of other specimens.
        classes: label of each class index.
        window: samples.
        labels: labelled windows of each class; 0 takes all that may be.
        seed: of the draw.
        may_be_labelled: whether a recording's label may be used.

    Raises:
        ValueError: a class has too few windows, or there is nothing to test.
    """
    if not test:
        raise ValueError("there is no recording to test on")
    dataset, tested = WindowDataset(train, classes, window, window // 2), WindowDataset(test, classes, window)
    allowed = torch.tensor([may_be_labelled(recording) for recording in train])[dataset.recording_index]
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    chosen = []
    for index, label in enumerate(classes):
        mine = order[(dataset.targets[order] == index) & allowed[order]]
        if len(mine) < max(labels, 1):
            raise ValueError(f"class {label!r} has {len(mine)} windows to label, expected at least {max(labels, 1)}")
        chosen.append(mine[:labels] if labels else mine)
    everything = torch.arange(len(dataset))
    return Task(
        WindowSubset(dataset, torch.cat(chosen)),
        WindowSubset(dataset, everything),
        WindowSubset(tested, torch.arange(len(tested))),
    )


def _between(recordings: Sequence[Recording], rpm: tuple[float, float] | None) -> list[Recording]:
    return [recording for recording in recordings if _is_between(recording, rpm)]


def _is_between(recording: Recording, rpm: tuple[float, float] | None) -> bool:
    return rpm is None or rpm[0] <= (recording.rpm or 0) <= rpm[1]


# -- arms ----------------------------------------------------------------------------------------------------


def _trained(
    network: str | None = None, physics: str | None = None, weight: float | None = None, **options: Any
) -> Callable[[Task, StudySetting, int], np.ndarray]:
    """An arm that trains: `network` or the setting's own, with or without the physics term on `physics` windows."""

    def predicted(task: Task, setting: StudySetting, seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        model = _new_network(network or setting.network, task, setting)
        n_windows = max(len(task.unlabelled), len(task.labelled))
        loader = _loader(task.labelled.repeated(n_windows), setting, seed)
        optimizer = create_optimizer("adamw", model, lr=setting.lr, weight_decay=1e-2)
        schedule = create_training_scheduler("onecycle", optimizer, setting.epochs, len(loader))
        common = {"optimizer": optimizer, "device": setting.device, "lr_scheduler": schedule}
        if physics is None:
            Trainer(model, loader, **common).fit(setting.epochs)
        else:
            PINNTrainer(
                model,
                loader,
                **common,
                lambda_freq=setting.weight if weight is None else weight,
                lambda_sommerfeld=0,
                lambda_temporal=0,
                lambda_schedule=setting.schedule,
                physics_loss=_physics_loss(task, setting, seed, **options),
                unlabeled_loader=_loader(task.unlabelled, setting, seed + 1) if physics == "unlabelled" else None,
            ).fit(setting.epochs)
        return predict_windows(model, _loader(task.test, setting, None)).predicted

    return predicted


def _new_network(name: str, task: Task, setting: StudySetting) -> nn.Module:
    arguments: dict[str, Any] = {}
    if name in ("hybrid_pinn", "order_cnn"):
        arguments |= {"sampling_rate_hz": task.sampling_rate_hz, "backbone": setting.network}
    if name == "hybrid_pinn" and setting.bearing is not None:
        arguments["bearing"] = setting.bearing
    if name == "order_cnn":
        slowest_rpm = min(windows.whole()[2].min().item() for windows in (task.labelled, task.unlabelled))
        arguments["samples_per_revolution"] = 60 * task.sampling_rate_hz / slowest_rpm
    return create_model(name, len(task.classes), task.test.dataset.n_channels, **arguments)


def _physics_loss(task: Task, setting: StudySetting, seed: int, **options: Any) -> PhysicalConstraintLoss:
    """The frequency term; where healthy windows are labelled, they say what is normal."""
    chosen: dict[str, Any] = {"form": setting.form} | options
    loss = PhysicalConstraintLoss(
        setting.weight,
        0,
        0,
        classes=task.classes,
        sample_rate=task.sampling_rate_hz,
        orders=setting.orders,
        control_seed=seed,
        **chosen,
    )
    signals, targets, rpm = task.labelled.whole()
    healthy = torch.tensor([signature(label) == signature("healthy") for label in task.classes])[targets]
    if healthy.sum() >= MIN_HEALTHY:
        loss.fit_calibration(signals[healthy], rpm[healthy])
    # Trust learns which class a signature really belongs to: it would unscramble a scrambled control.
    if setting.trust and "control" not in options:
        loss.fit_trust(signals, targets, {"rpm": rpm})
    return loss


def _loader(windows: WindowSubset, setting: StudySetting, seed: int | None) -> Any:
    shuffle = seed is not None
    return make_loader(windows, setting.batch_size, shuffle, seed or 0, drop_last=shuffle)  # type: ignore[arg-type]


def _evidence_search(task: Task, setting: StudySetting) -> OrderEvidence:
    if setting.orders is None:
        return OrderEvidence.journal(task.sampling_rate_hz)
    return OrderEvidence.rolling(task.sampling_rate_hz, setting.orders)


def _logistic_regression(task: Task, setting: StudySetting, seed: int) -> np.ndarray:
    """No network: logistic regression on the evidence of the labelled windows."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise ImportError(f"the arm 'evidence' needs scikit-learn: {install_hint('study')}") from None
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    search = _evidence_search(task, setting)
    model.fit(evidence_features(task.labelled, search).numpy(), task.labelled.targets.numpy())
    return model.predict(evidence_features(task.test, search).numpy())


def _rule(task: Task, setting: StudySetting, seed: int) -> np.ndarray:
    """No training at all: the class that fits the evidence best."""
    search = _evidence_search(task, setting)
    found = evidence_features(task.test, search, unknown_db=math.nan)
    there = presence_probability(found, task.test.whole()[2], default_calibration(search.features))
    table = expectation_table(task.classes, search.features, setting.orders)
    return class_probabilities(log_compatibility(there, table)).argmax(1).numpy()


ARMS: dict[str, Callable[[Task, StudySetting, int], np.ndarray]] = {
    "ce": _trained(),
    "physics": _trained(physics="unlabelled"),
    "unlabelled": _trained(physics="unlabelled", weight=1e-9),
    "random_bands": _trained(physics="unlabelled", control="random_bands"),
    "scrambled": _trained(physics="unlabelled", control="scrambled"),
    "kl": _trained(physics="unlabelled", form="kl", temperature=1.0),
    "labelled_only": _trained(physics="labelled"),
    "features": _trained("hybrid_pinn"),
    "features+physics": _trained("hybrid_pinn", physics="unlabelled"),
    "order": _trained("order_cnn"),
    "order+physics": _trained("order_cnn", physics="unlabelled"),
    "evidence": _logistic_regression,
    "rule": _rule,
}
"""Arms of the study: cross entropy alone; the physics loss on unlabelled windows; controls, which see the same windows
with a weight of nothing, with randomly placed bands, or with the classes' signatures handed round; the form that
imitates the physics' own opinion; the loss on the labelled windows only; evidence as input of the network, without and
with the loss; input resampled to orders, without and with it; no network but logistic regression on the evidence; no
training."""


# -- the study -----------------------------------------------------------------------------------------------


def study_physics(
    tasks: Callable[[str, int], Task],
    conditions: Sequence[str],
    arms: Sequence[str],
    seeds: Sequence[int],
    setting: StudySetting,
    out: str | Path,
) -> dict[str, dict[str, PairedDifference]]:
    """Run every arm on every condition and seed, and compare with cross entropy alone.

    Runs are kept in `results.jsonl` one by one, so that a study that was stopped goes on where it was; `table.md` and
    `study.png` are written at the end.

    Args:
        tasks: windows of a condition and a seed.
        conditions: names.
        arms: names in `ARMS`; `ce` is always run, for the differences.
        seeds: one run each.
        setting: what all runs have in common.
        out: folder for the results; a study of other settings there is refused.

    Returns:
        `{condition: {arm: difference in balanced accuracy}}`.

    Raises:
        ValueError: an unknown arm, or a folder that holds another study.
    """
    for arm in arms:
        check_name("arm", arm, ARMS)
    if not seeds:
        raise ValueError("there is no seed to run; a study needs at least one")
    folder = Path(out)
    _begin(folder, setting)
    names = list(dict.fromkeys((CONTROL_ARM, *arms)))
    done = {(row["condition"], row["arm"], row["seed"]) for row in _rows(folder)}
    for condition in conditions:
        for seed in seeds:
            todo = [arm for arm in names if (condition, arm, seed) not in done]
            if todo:
                _run(tasks(condition, seed), condition, seed, todo, setting, folder)
    results = _compare(_rows(folder), conditions, names, seeds)
    write_text(folder / "table.md", table(results))
    _plot(results, folder / "study.png")
    return results


def _begin(folder: Path, setting: StudySetting) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file, mine = folder / "setting.json", json.dumps(asdict(setting), indent=2)
    if file.exists() and file.read_text() != mine:
        raise ValueError(f"{folder}: holds a study of other settings; choose another --out")
    write_text(file, mine)
    write_text(folder / "results.jsonl", "".join(_whole_lines(folder)))


def _run(task: Task, condition: str, seed: int, arms: Sequence[str], setting: StudySetting, folder: Path) -> None:
    targets = task.test.targets.numpy()
    for arm in arms:
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            predicted = ARMS[arm](task, setting, seed)
        score = balanced_accuracy(targets, predicted, len(task.classes))
        row = {"condition": condition, "arm": arm, "seed": seed, "balanced_accuracy": score}
        with (folder / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row | {"time_s": round(time.perf_counter() - began, 2)}) + "\n")
        logger.info("%-12s %-17s seed %d  balanced accuracy %.3f", condition, arm, seed, score)


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _whole_lines(folder)]


def _whole_lines(folder: Path) -> list[str]:
    """The lines of `results.jsonl`; a killed study may have left half a line at the end."""
    file = folder / "results.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    return [line for line in lines if line.endswith("\n")]


def balanced_accuracy(targets: np.ndarray, predicted: np.ndarray, n_classes: int) -> float:
    """Mean recall of the classes that occur, 0 to 1.

    Example:
        >>> balanced_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), n_classes=3)
        0.8333333333333333
    """
    counts = np.zeros((n_classes, n_classes), dtype=int)
    np.add.at(counts, (targets, predicted), 1)
    occurs = counts.sum(1) > 0
    return float((np.diag(counts)[occurs] / counts[occurs].sum(1)).mean())


def _compare(
    rows: Sequence[dict[str, Any]], conditions: Sequence[str], arms: Sequence[str], seeds: Sequence[int]
) -> dict[str, dict[str, PairedDifference]]:
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row["seed"] in seeds:
            found[row["condition"]][row["arm"]][row["seed"]] = row["balanced_accuracy"]
    return {condition: compare_arms(found[condition], CONTROL_ARM, arms) for condition in conditions}


def table(results: dict[str, dict[str, PairedDifference]]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| condition | arm | runs | balanced accuracy | difference to `ce` | 95 % interval | Wilcoxon p |",
        "|---|---|---|---|---|---|---|",
    ]
    for condition, arms in results.items():
        for arm, d in arms.items():
            first = f"| {condition} | `{arm}` | {d.n_runs} | {d.mean:.3f} |"
            lines.append(
                f"{first} | | |"
                if arm == CONTROL_ARM
                else f"{first} {d.difference:+.3f} | – | – |"
                if d.n_runs == 1
                else f"{first} {d.difference:+.3f} | {d.low:+.3f} to {d.high:+.3f} | {d.p_value:.3f} |"
            )
    return "\n".join(lines) + "\n"


def _plot(results: dict[str, dict[str, PairedDifference]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(results), 0.4 * max(map(len, results.values())) + 1.4), layout="constrained")
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for panel, (condition, arms) in zip(panels, results.items(), strict=True):
        names = [arm for arm in arms if arm != CONTROL_ARM]
        differences = [arms[arm] for arm in names]
        means = [d.difference for d in differences]
        errors = [[d.difference - d.low for d in differences], [d.high - d.difference for d in differences]]
        panel.errorbar(means, range(len(names)), xerr=errors, fmt="o", capsize=3)
        panel.axvline(0, color="grey", linewidth=1)
        panel.set_yticks(range(len(names)), names)
        panel.set_title(f"{condition}: ce alone {arms[CONTROL_ARM].mean:.2f}", fontsize=10)
        panel.set_xlabel("difference in balanced accuracy")
    panels[0].invert_yaxis()
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=150)


def study_simulated(setting: StudySetting) -> Callable[[str, int], Task]:
    """Tasks from simulated journal bearings, by `simulated_task`."""
    return lambda condition, seed: simulated_task(condition, setting.labels, seed)


def study_folder(
    data: str | Path,
    setting: StudySetting,
    *,
    channels: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    sampling_rate_hz: float | None = None,
    without: Sequence[str] = (),
    window_s: float = 1.0,
) -> Callable[[str, int], Task]:
    """Tasks from a folder of recordings, by `folder_task`; recordings of unknown speed are left out.

    Args:
        data: folder of recordings.
        setting: of the study.
        channels: names; None uses all.
        classes: labels; None uses all.
        sampling_rate_hz: of files that do not say theirs.
        without: specimens to leave out.
        window_s: length of a window in seconds.

    Raises:
        ValueError: the folder cannot be read, or no speed is known.
    """
    recordings = load_dataset(data, channels=channels, classes=classes, sampling_rate_hz=sampling_rate_hz)
    recordings = [recording for recording in recordings if recording.specimen not in without]
    known = [recording for recording in recordings if recording.rpm is not None]
    if not known:
        raise ValueError(f"{data}: no recording's rpm is known, and physics needs it; add a column rpm to manifest.csv")
    blind = rolling_faults([str(recording.label) for recording in known])
    if blind and setting.bearing is None:
        raise ValueError(f"{data}: class {blind[0]!r} is told by the geometry of its bearing; name it with --bearing")
    if len(known) < len(recordings):
        logger.info("%d of %d recordings without rpm are left out", len(recordings) - len(known), len(recordings))
    rate_hz = min(recording.sampling_rate_hz for recording in known)
    alike = to_common_rate(known, rate_hz, None)
    return lambda condition, seed: folder_task(alike, setting.labels, seed, round(window_s * rate_hz))
