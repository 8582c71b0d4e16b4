"""Comparison of two runs: accuracy, agreement, latency and size."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whirl.data.windows import FALLBACK_RPM
from whirl.engine.batch import Batch, call_model
from whirl.engine.checkpoint import load_weights
from whirl.engine.device import resolve_device
from whirl.evaluation.significance import LEVEL, McNemar, mcnemar, specimen_p_value
from whirl.runs.config import Config
from whirl.runs.factory import new_model
from whirl.runs.run_folder import RunFolder
from whirl.training.model_cost import ROUNDS, count_parameters, size_bytes, times_s


@dataclass(frozen=True)
class RunCard:
    """One of the compared runs.

    Attributes:
        run: path of the run folder.
        model: name of the network, or of the model of descriptors.
        accuracy: fraction of the test recordings that are classified correctly.
        parameters: number of parameters; None for a model of descriptors.
        latency_s: median time for one window, in seconds; None unless both are networks.
        latency_quartiles_s: lower and upper quartile of these times.
        window_s: length of the window, in seconds.
        size_bytes: size of a file with the weights, or of the model of descriptors.
    """

    run: str
    model: str
    accuracy: float
    parameters: int | None
    latency_s: float | None
    latency_quartiles_s: tuple[float, float] | None
    window_s: float
    size_bytes: int


@dataclass(frozen=True)
class Comparison:
    """Comparison of two runs on the same test recordings.

    Attributes:
        a: the first run.
        b: the second run.
        n_recordings: number of test recordings.
        n_specimens: number of specimens among them; None if the specimen of any recording is unknown.
        agreement: fraction of the recordings for which both networks predict the same class, correct or not.
        test: McNemar's test on the recordings.
        specimen_p_value: p-value of the sign-flip test over specimens; None if a specimen is unknown.
        latency_ratio: lower quartile, median and upper quartile of the ratio of latencies, second to first; the
            networks are timed alternately. None unless both are networks.
        device: device of the latency measurement.
        threads: number of CPU threads.
    """

    a: RunCard
    b: RunCard
    n_recordings: int
    n_specimens: int | None
    agreement: float
    test: McNemar
    specimen_p_value: float | None
    latency_ratio: tuple[float, float, float] | None
    device: str
    threads: int

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        a, b, test, ratio = self.a, self.b, self.test, self.latency_ratio
        ratios = "" if ratio is None else "{1:.3g} ({0:.3g} to {2:.3g})".format(*ratio)
        rows = [
            ("", a.run, b.run, "second / first"),
            ("model", a.model, b.model, ""),
            ("recording accuracy", f"{a.accuracy:.3f}", f"{b.accuracy:.3f}", _ratio(b.accuracy, a.accuracy)),
            ("parameters", _count(a.parameters), _count(b.parameters), _ratio(b.parameters, a.parameters)),
            ("latency of a window", _milliseconds(a), _milliseconds(b), ratios),
            ("size on disk", _kilobytes(a), _kilobytes(b), _ratio(b.size_bytes, a.size_bytes)),
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join(
            [
                *table,
                f"agreement on {self.n_recordings} recordings: {self.agreement:.3f}",
                f"only the first is correct on {test.n_only_a}, only the second on {test.n_only_b}",
                self._significance(),
                *([] if ratio is None else [self._about_latency(ratio)]),
            ]
        )

    def _about_latency(self, ratio: tuple[float, float, float]) -> str:
        noise = "; the difference is within the noise" if ratio[0] <= 1 <= ratio[2] else ""
        return (
            f"latency: batch of one, {self.device}, {self.threads} thread{'s' * (self.threads > 1)}; medians and "
            f"quartiles of {ROUNDS} alternating rounds{noise}"
        )

    def _significance(self) -> str:
        """One p-value and what it means: recordings of one specimen are not independent, so specimens count."""
        if self.n_specimens is not None and self.n_specimens < self.n_recordings:
            p_value, more = self.specimen_p_value or 1.0, "first" if self.a.accuracy > self.b.accuracy else "second"
            found = f"significant: the {more} is more accurate" if p_value < LEVEL else "not significant"
            return f"sign-flip test over {self.n_specimens} specimens: p = {p_value:.3g}, {found}"
        condition = "" if self.n_specimens else ", if no two recordings are of one specimen (specimens are unknown)"
        return f"McNemar's exact test: p = {self.test.p_value:.3g}, {self.test.verdict}{condition}"


def _ratio(value: float | None, reference: float | None) -> str:
    return f"{value / reference:.3g}" if value is not None and reference else ""


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _milliseconds(card: RunCard) -> str:
    if card.latency_s is None or card.latency_quartiles_s is None:
        return "-"
    low, high = (1e3 * time_s for time_s in card.latency_quartiles_s)
    return f"{1e3 * card.latency_s:.2f} ms ({low:.2f} to {high:.2f}) for {card.window_s:.3g} s"


def _kilobytes(card: RunCard) -> str:
    return f"{card.size_bytes / 1e3:,.0f} kB"


def compare_runs(run_a: str | Path, run_b: str | Path, device: str | torch.device = "cpu") -> Comparison:
    """Compare two finished runs on their common test recordings.

    If they differ in nothing but labels, e.g. as the second was trained with corrections, those of the second count.
    Predictions are read from `predictions.csv` of the run folders; the recordings themselves are not needed. Latencies
    are measured now, with the two networks timed alternately.

    Args:
        run_a: the first run folder.
        run_b: the second run folder.
        device: device on which to measure latencies.

    Raises:
        ValueError: a folder is not that of a finished run, or the runs differ in classes, recordings or test part.
    """
    folders = RunFolder(run_a), RunFolder(run_b)
    configs = folders[0].read_config(), folders[1].read_config()
    _check_classes(folders, configs)
    is_corrected = _check_recordings(folders)
    predictions = [_read_predictions(folder) for folder in folders]
    _check_predictions(folders, predictions, is_corrected)
    (_, _, predicted_a, specimens), (_, labels, predicted_b, _) = predictions
    torch_device = resolve_device(device)
    networks = [_load_network(folder, config, torch_device) for folder, config in zip(folders, configs, strict=True)]
    quartiles_a, quartiles_b, ratio = _latency_quartiles(networks, configs, torch_device)
    cards = [
        RunCard(
            run=str(folder.path),
            model=config.model_name,
            accuracy=float((predicted == labels).mean()),
            parameters=None if network is None else count_parameters(network),
            latency_s=None if quartiles is None else quartiles[1],
            latency_quartiles_s=None if quartiles is None else (quartiles[0], quartiles[2]),
            window_s=config.input.window / config.data.sampling_rate_hz,
            size_bytes=folder.diagnoser_file.stat().st_size if network is None else size_bytes(network),
        )
        for folder, config, network, predicted, quartiles in zip(
            folders, configs, networks, (predicted_a, predicted_b), (quartiles_a, quartiles_b), strict=True
        )
    ]
    right_a, right_b = predicted_a == labels, predicted_b == labels
    return Comparison(
        *cards,
        n_recordings=len(labels),
        n_specimens=len(set(specimens)) if all(specimens) else None,
        agreement=float((predicted_a == predicted_b).mean()),
        test=mcnemar(right_a, right_b),
        specimen_p_value=specimen_p_value(right_a, right_b, specimens) if all(specimens) else None,
        latency_ratio=ratio,
        device=str(torch_device),
        threads=torch.get_num_threads(),
    )


Folders = tuple[RunFolder, RunFolder]
RecordingPredictions = tuple[list[str], np.ndarray, np.ndarray, list[str]]
"""Files, labels `[N]`, predicted labels `[N]` and specimens of the recordings; unknown specimens are empty."""


def _check_classes(folders: Folders, configs: tuple[Config, Config]) -> None:
    for folder, config in zip(folders, configs, strict=True):
        if config.is_regression:
            raise ValueError(f"{folder.path}: predicts a number, but runs are compared by their classes")
    classes_a, classes_b = (set(config.data.classes) for config in configs)
    if classes_a != classes_b:
        raise ValueError(
            f"{folders[0].path} and {folders[1].path} have different classes: "
            f"only one of them has {', '.join(sorted(classes_a ^ classes_b))}"
        )


def _check_recordings(folders: Folders) -> bool:
    """Validate that both runs have the same recordings and test part; return whether their labels differ."""
    data = [folder.read_data() for folder in folders]
    names = f"{folders[0].path} and {folders[1].path}"
    inputs_a, inputs_b = (facts.get("inputs", {}) for facts in data)
    is_corrected = [name for name in inputs_a if inputs_a[name] != inputs_b.get(name)] == ["label"]
    if data[0]["fingerprint"] != data[1]["fingerprint"] and not is_corrected:
        raise ValueError(
            f"{names} were trained on different recordings (their fingerprints differ); train both on the same data, "
            "classes and channels to compare them"
        )
    test_a, test_b = ({row["source"] for row in facts["parts"]["test"]} for facts in data)
    if test_a != test_b:
        raise ValueError(
            f"{names} have different test parts: {len(test_a - test_b)} recordings only in the first, "
            f"{len(test_b - test_a)} only in the second; train both with the same --seed and fractions"
        )
    return is_corrected


def _read_predictions(folder: RunFolder) -> RecordingPredictions:
    file = folder.predictions_file
    try:
        with file.open(encoding="utf-8", newline="") as text:
            rows = sorted(csv.DictReader(text), key=lambda row: row["file"])
        columns = [[row[name] for row in rows] for name in ("file", "label", "predicted", "specimen")]
    except FileNotFoundError:
        raise ValueError(f"{folder.path}: no predictions.csv; finish the run with whirl train --resume") from None
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise ValueError(f"{file}: cannot be read as predictions ({type(error).__name__}: {error})") from None
    files, labels, predicted, specimens = columns
    return files, np.array(labels), np.array(predicted), specimens


def _check_predictions(folders: Folders, predictions: list[RecordingPredictions], is_corrected: bool) -> None:
    """Validate that both files list the same recordings; they may have been written later or edited."""
    (files_a, labels_a, *_), (files_b, labels_b, *_) = predictions
    has_same_labels = is_corrected or np.array_equal(labels_a, labels_b)
    if files_a != files_b or not has_same_labels or not files_a:
        raise ValueError(
            f"{folders[0].predictions_file} ({len(files_a)} rows) and {folders[1].predictions_file} ({len(files_b)} "
            "rows) list different recordings or labels; write them again with whirl evaluate"
        )


def _load_network(folder: RunFolder, config: Config, device: torch.device) -> torch.nn.Module | None:
    """Load the network of a run; None if it has a model of descriptors."""
    if folder.diagnoser_file.is_file():
        return None
    network = new_model(config)
    load_weights(network, folder.best_checkpoint)
    return network.to(device).eval()


Quartiles = tuple[float, float, float]


def _latency_quartiles(
    networks: Sequence[torch.nn.Module | None], configs: Sequence[Config], device: torch.device
) -> tuple[Quartiles, Quartiles, Quartiles] | tuple[None, None, None]:
    """Return the quartiles of both latencies in seconds, and of their ratio, second to first, for two networks."""
    known = [network for network in networks if network is not None]
    if len(known) < len(networks):
        return None, None, None
    with torch.inference_mode():
        calls = [_make_call(network, config, device) for network, config in zip(known, configs, strict=True)]
        times = np.array(times_s(calls, device))
    quartiles = np.percentile([*times, times[1] / times[0]], (25, 50, 75), axis=1).T
    first, second, ratio = (tuple(row) for row in quartiles.tolist())
    return first, second, ratio


def _make_call(network: torch.nn.Module, config: Config, device: torch.device) -> Callable[[], object]:
    """Return a function that passes one window of noise through the network."""
    generator = torch.Generator().manual_seed(0)
    signals = torch.randn(1, len(config.data.channels), config.input.window, generator=generator).to(device)
    rpm = torch.tensor([config.speed_range[1] if config.speed_range else FALLBACK_RPM]).to(device)
    batch = Batch(signals, torch.zeros(1, dtype=torch.int64, device=device), {"rpm": rpm})
    return lambda: call_model(network, batch)
