"""Two runs held against each other: accuracy, agreement, and what either costs."""

from __future__ import annotations

import csv
from collections.abc import Callable
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
    """One of the runs compared.

    Attributes:
        run: its folder.
        model: name of its network.
        accuracy: fraction of the test recordings that it names rightly.
        parameters: of the network.
        latency_s: median time for one window, in seconds.
        latency_quartiles_s: lower and upper quartile of these times.
        window_s: length of that window, in seconds.
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
    """What two runs say of the same test recordings, and what either costs.

    Attributes:
        a: the first run.
        b: the second.
        n_recordings: test recordings.
        n_specimens: machines or bearings that they are of; None where that is not known of all.
        agreement: fraction of them of which both say the same, rightly or not.
        test: McNemar's test on the recordings.
        latency_ratio: lower quartile, median and upper quartile of the second's time over the first's, taken in turns.
        device: where latencies were taken.
        threads: of a network on the CPU.
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
        """Plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        a, b, test, ratio = self.a, self.b, self.test, self.latency_ratio
        noise = "; their difference decides nothing" if ratio[0] <= 1 <= ratio[2] else ""
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
                f"only the first is right on {test.n_only_a}, only the second on {test.n_only_b}; "
                f"McNemar's exact test: p = {test.p_value:.3g}, {self._caution()}",
                test.verdict,
                f"latency: batch of one, {self.device}, {self.threads} thread{'s' * (self.threads > 1)}; medians and "
                f"quartiles of {ROUNDS} rounds in turns{noise}",
            ]
        )

    def _caution(self) -> str:
        """The test takes recordings for independent, which those of one specimen are not."""
        if self.n_specimens is None:
            return "too small if several recordings are of one specimen, which is not known"
        caution = "too small: recordings of one specimen are not independent"
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
    """Hold two finished runs against each other on the test recordings that they share.

    What the networks said is taken from the folders' `predictions.csv`; the recordings themselves are not needed.
    Latencies are taken now, the two networks taking turns.

    Args:
        run_a: a run folder.
        run_b: another.
        device: where to take the latencies.

    Raises:
        ValueError: a folder is no finished run's; or the runs have not the same classes, recordings or test part, and
            then how they differ.
    """
    folders = RunFolder(run_a), RunFolder(run_b)
    configs = folders[0].read_config(), folders[1].read_config()
    _check_classes(folders, configs)
    _check_recordings(folders)
    answers = [_read_answers(folder) for folder in folders]
    _check_answers(folders, answers)
    (_, labels, said_a, specimens), (_, _, said_b, _) = answers
    place = resolve_device(device)
    networks = [_network(folder, config, place) for folder, config in zip(folders, configs, strict=True)]
    with torch.inference_mode():
        calls = [_call(network, config, place) for network, config in zip(networks, configs, strict=True)]
        times = np.array(times_s(calls, place))
    quartiles = np.percentile([*times, times[1] / times[0]], (25, 50, 75), axis=1).T.tolist()
    cards = [
        RunCard(
            run=str(folder.path),
            model=config.model_name,
            accuracy=float((said == labels).mean()),
            parameters=count_parameters(network),
            latency_s=middle,
            latency_quartiles_s=(low, high),
            window_s=config.input.window / config.data.sampling_rate_hz,
            size_bytes=size_bytes(network),
        )
        for folder, config, network, said, (low, middle, high) in zip(
            folders, configs, networks, (said_a, said_b), quartiles[:2], strict=True
        )
    ]
    return Comparison(
        *cards,
        n_recordings=len(labels),
        n_specimens=len(set(specimens)) if all(specimens) else None,
        agreement=float((said_a == said_b).mean()),
        test=mcnemar(said_a == labels, said_b == labels),
        latency_ratio=tuple(quartiles[2]),
        device=str(place),
        threads=torch.get_num_threads(),
    )


Folders = tuple[RunFolder, RunFolder]
Answers = tuple[list[str], np.ndarray, np.ndarray, list[str]]
"""Files, true labels and predicted ones `[N]`, specimens, empty where they are not known."""


def _check_classes(folders: Folders, configs: tuple[Config, Config]) -> None:
    of_a, of_b = (set(config.data.classes) for config in configs)
    if of_a != of_b:
        raise ValueError(
            f"{folders[0].path} and {folders[1].path} do not tell the same classes: "
            f"only one of them knows {', '.join(sorted(of_a ^ of_b))}"
        )


def _check_recordings(folders: Folders) -> None:
    data = [folder.read_data() for folder in folders]
    names = f"{folders[0].path} and {folders[1].path}"
    if data[0]["fingerprint"] != data[1]["fingerprint"]:
        raise ValueError(
            f"{names} were made from different recordings (their fingerprints differ); judge both on the same data: "
            "train them with the same --data or simulation, classes and channels"
        )
    of_a, of_b = ({row["source"] for row in noted["parts"]["test"]} for noted in data)
    if of_a != of_b:
        raise ValueError(
            f"{names} have different test parts: {len(of_a - of_b)} recordings are tested by the first alone, "
            f"{len(of_b - of_a)} by the second alone; train both with the same --seed and fractions"
        )


def _read_answers(folder: RunFolder) -> Answers:
    file = folder.predictions_file
    try:
        with file.open(encoding="utf-8", newline="") as text:
            rows = sorted(csv.DictReader(text), key=lambda row: row["file"])
        columns = [[row[name] for row in rows] for name in ("file", "label", "predicted", "specimen")]
    except FileNotFoundError:
        raise ValueError(f"{folder.path}: has no predictions.csv; finish the run with whirl train --resume") from None
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise ValueError(f"{file}: cannot be read as predictions ({type(error).__name__}: {error})") from None
    files, labels, predicted, specimens = columns
    return files, np.array(labels), np.array(predicted), specimens


def _check_answers(folders: Folders, answers: list[Answers]) -> None:
    """The predictions may have been made later, or by hand."""
    (files_a, labels_a, *_), (files_b, labels_b, *_) = answers
    if files_a != files_b or not np.array_equal(labels_a, labels_b) or not files_a:
        raise ValueError(
            f"{folders[0].predictions_file} ({len(files_a)} rows) and {folders[1].predictions_file} ({len(files_b)} "
            "rows) do not list the same recordings with the same labels; make them anew with whirl evaluate"
        )


def _network(folder: RunFolder, config: Config, device: torch.device) -> torch.nn.Module:
    network = new_model(config)
    load_weights(network, folder.best_checkpoint)
    return network.to(device).eval()


def _call(network: torch.nn.Module, config: Config, device: torch.device) -> Callable[[], object]:
    """One window of noise through the network."""
    generator = torch.Generator().manual_seed(0)
    signals = torch.randn(1, len(config.data.channels), config.input.window, generator=generator).to(device)
    rpm = torch.tensor([config.speed_range[1] if config.speed_range else FALLBACK_RPM]).to(device)
    batch = Batch(signals, torch.zeros(1, dtype=torch.int64, device=device), {"rpm": rpm})
    return lambda: call_model(network, batch)
