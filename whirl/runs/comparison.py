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
from whirl.evaluation.significance import McNemar, mcnemar
from whirl.runs.config import Config
from whirl.runs.factory import new_model
from whirl.runs.run_folder import RunFolder
from whirl.training.model_cost import ROUNDS, count_parameters, size_bytes, times_s


@dataclass(frozen=True)
class RunCard:
    """One of the compared runs.

    Attributes:
        run: path of the run folder.
        model: name of the network.
        accuracy: fraction of the test recordings that are classified correctly.
        parameters: number of parameters of the network.
        latency_s: median time for one window, in seconds.
        latency_quartiles_s: lower and upper quartile of these times.
        window_s: length of the window, in seconds.
        size_bytes: size of a file with the network's weights.
    """

    run: str
    model: str
    accuracy: float
    parameters: int
    latency_s: float
    latency_quartiles_s: tuple[float, float]
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
        latency_ratio: lower quartile, median and upper quartile of the ratio of latencies, second to first; the
            networks are timed alternately.
        device: device of the latency measurement.
        threads: number of CPU threads.
    """

    a: RunCard
    b: RunCard
    n_recordings: int
    n_specimens: int | None
    agreement: float
    test: McNemar
    latency_ratio: tuple[float, float, float]
    device: str
    threads: int

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        a, b, test, ratio = self.a, self.b, self.test, self.latency_ratio
        noise = "; the difference is within the noise" if ratio[0] <= 1 <= ratio[2] else ""
        rows = [
            ("", a.run, b.run, "second / first"),
            ("network", a.model, b.model, ""),
            ("recording accuracy", f"{a.accuracy:.3f}", f"{b.accuracy:.3f}", _ratio(b.accuracy, a.accuracy)),
            ("parameters", f"{a.parameters:,}", f"{b.parameters:,}", _ratio(b.parameters, a.parameters)),
            ("latency of a window", _milliseconds(a), _milliseconds(b), "{1:.3g} ({0:.3g} to {2:.3g})".format(*ratio)),
            ("weights on disk", _kilobytes(a), _kilobytes(b), _ratio(b.size_bytes, a.size_bytes)),
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join(
            [
                *table,
                f"agreement on {self.n_recordings} recordings: {self.agreement:.3f}",
                f"only the first is correct on {test.n_only_a}, only the second on {test.n_only_b}; "
                f"McNemar's exact test: p = {test.p_value:.3g}, {self._caution()}",
                test.verdict,
                f"latency: batch of one, {self.device}, {self.threads} thread{'s' * (self.threads > 1)}; medians and "
                f"quartiles of {ROUNDS} alternating rounds{noise}",
            ]
        )

    def _caution(self) -> str:
        """The test assumes independent recordings; those of one specimen are not."""
        if self.n_specimens is None:
            return "too small if several recordings are of one specimen (specimens are unknown)"
        caution = "too small, because recordings of one specimen are not independent"
        specimens = f"{self.n_specimens} specimen{'s' * (self.n_specimens > 1)}"
        return f"from {specimens}" if self.n_specimens == self.n_recordings else f"from {specimens}: {caution}"


def _ratio(value: float, reference: float) -> str:
    return f"{value / reference:.3g}" if reference else ""


def _milliseconds(card: RunCard) -> str:
    low, high = (1e3 * time_s for time_s in card.latency_quartiles_s)
    return f"{1e3 * card.latency_s:.2f} ms ({low:.2f} to {high:.2f}) for {card.window_s:.3g} s"


def _kilobytes(card: RunCard) -> str:
    return f"{card.size_bytes / 1e3:,.0f} kB"


def compare_runs(run_a: str | Path, run_b: str | Path, device: str | torch.device = "cpu") -> Comparison:
    """Compare two finished runs on their common test recordings.

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
    _check_recordings(folders)
    predictions = [_read_predictions(folder) for folder in folders]
    _check_predictions(folders, predictions)
    (_, labels, predicted_a, specimens), (_, _, predicted_b, _) = predictions
    torch_device = resolve_device(device)
    networks = [_load_network(folder, config, torch_device) for folder, config in zip(folders, configs, strict=True)]
    quartiles_a, quartiles_b, latency_ratio = _latency_quartiles(networks, configs, torch_device)
    cards = [
        RunCard(
            run=str(folder.path),
            model=config.model_name,
            accuracy=float((predicted == labels).mean()),
            parameters=count_parameters(network),
            latency_s=median,
            latency_quartiles_s=(low, high),
            window_s=config.input.window / config.data.sampling_rate_hz,
            size_bytes=size_bytes(network),
        )
        for folder, config, network, predicted, (low, median, high) in zip(
            folders, configs, networks, (predicted_a, predicted_b), (quartiles_a, quartiles_b), strict=True
        )
    ]
    return Comparison(
        *cards,
        n_recordings=len(labels),
        n_specimens=len(set(specimens)) if all(specimens) else None,
        agreement=float((predicted_a == predicted_b).mean()),
        test=mcnemar(predicted_a == labels, predicted_b == labels),
        latency_ratio=latency_ratio,
        device=str(torch_device),
        threads=torch.get_num_threads(),
    )


Folders = tuple[RunFolder, RunFolder]
RecordingPredictions = tuple[list[str], np.ndarray, np.ndarray, list[str]]
"""Files, labels `[N]`, predicted labels `[N]` and specimens of the recordings; unknown specimens are empty."""


def _check_classes(folders: Folders, configs: tuple[Config, Config]) -> None:
    classes_a, classes_b = (set(config.data.classes) for config in configs)
    if classes_a != classes_b:
        raise ValueError(
            f"{folders[0].path} and {folders[1].path} have different classes: "
            f"only one of them has {', '.join(sorted(classes_a ^ classes_b))}"
        )


def _check_recordings(folders: Folders) -> None:
    data = [folder.read_data() for folder in folders]
    names = f"{folders[0].path} and {folders[1].path}"
    if data[0]["fingerprint"] != data[1]["fingerprint"]:
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


def _check_predictions(folders: Folders, predictions: list[RecordingPredictions]) -> None:
    """Validate that both files list the same recordings; they may have been written later or edited."""
    (files_a, labels_a, *_), (files_b, labels_b, *_) = predictions
    if files_a != files_b or not np.array_equal(labels_a, labels_b) or not files_a:
        raise ValueError(
            f"{folders[0].predictions_file} ({len(files_a)} rows) and {folders[1].predictions_file} ({len(files_b)} "
            "rows) list different recordings or labels; write them again with whirl evaluate"
        )


def _load_network(folder: RunFolder, config: Config, device: torch.device) -> torch.nn.Module:
    network = new_model(config)
    load_weights(network, folder.best_checkpoint)
    return network.to(device).eval()


def _latency_quartiles(
    networks: Sequence[torch.nn.Module], configs: Sequence[Config], device: torch.device
) -> list[tuple[float, float, float]]:
    """Return the quartiles of both latencies in seconds, and of their ratio, second to first."""
    with torch.inference_mode():
        calls = [_make_call(network, config, device) for network, config in zip(networks, configs, strict=True)]
        times = np.array(times_s(calls, device))
    quartiles = np.percentile([*times, times[1] / times[0]], (25, 50, 75), axis=1).T
    return [tuple(row) for row in quartiles.tolist()]


def _make_call(network: torch.nn.Module, config: Config, device: torch.device) -> Callable[[], object]:
    """Return a function that passes one window of noise through the network."""
    generator = torch.Generator().manual_seed(0)
    signals = torch.randn(1, len(config.data.channels), config.input.window, generator=generator).to(device)
    rpm = torch.tensor([config.speed_range[1] if config.speed_range else FALLBACK_RPM]).to(device)
    batch = Batch(signals, torch.zeros(1, dtype=torch.int64, device=device), {"rpm": rpm})
    return lambda: call_model(network, batch)
