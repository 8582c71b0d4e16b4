"""Export of a run as a bundle for whirl, or as a graph for other programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from whirl._distribution import installed_version
from whirl.engine.batch import Batch
from whirl.evaluation.export import export_onnx, export_program
from whirl.runs.bundle import Bundle, export_bundle
from whirl.runs.config import Config
from whirl.runs.data import PreparedData, prepare_run
from whirl.runs.factory import load_run_network
from whirl.runs.operating_range import OperatingRange
from whirl.runs.run_folder import RunFolder
from whirl.runs.tracking import log_export

Kind = Literal["bundle", "onnx", "torch"]

_DEFAULT_NAMES: Mapping[str, str] = {"bundle": "bundle", "onnx": "model.onnx", "torch": "model.pt2"}
_N_COMPARED = 28  # windows: whole batches of 1 and of 7


def export_graph(run: str | Path, out: str | Path, kind: Literal["onnx", "torch"]) -> float:
    """Write the network of a run as a graph, if the graph gives the same logits on windows of the test part.

    Args:
        run: the run folder; its recordings are loaded again.
        out: file to write, atomically.
        kind: `onnx`, or `torch` for a `torch.export` program (`.pt2`).

    Returns:
        The largest difference of logits, which is below `whirl.evaluation.export.PARITY`.

    Raises:
        ImportError: a required package is not installed.
        ValueError: the network uses the shaft speed, cannot be exported, or the graph gives other logits.
    """
    folder = RunFolder(run)
    config, network = load_run_network(folder)
    if config.network_uses_speed:
        raise ValueError(
            f"{folder.path}: {config.model_name!r} is computed differently for each shaft speed, which a fixed graph "
            "cannot represent; export a bundle"
        )
    data = prepare_run(folder)
    export = {"onnx": export_onnx, "torch": export_program}[kind]
    return export(network, _example_windows(data), out, _metadata(config, OperatingRange.of(data.split.train)))


def _example_windows(data: PreparedData) -> Batch:
    """Return windows spread over the test part; a small part contributes some of them twice."""
    windows = data.windows(data.split.test)
    return Batch(*windows[torch.linspace(0, len(windows) - 1, _N_COMPARED).long()])


def _metadata(config: Config, operating_range: OperatingRange) -> dict[str, str]:
    """Return what is needed to use the graph without whirl."""
    return {
        "whirl": installed_version(),
        "network": config.model_name,
        "classes": json.dumps(config.data.classes),
        "channels": json.dumps(config.data.channels),
        "sampling_rate_hz": f"{config.data.sampling_rate_hz:g}",
        "band_limit_hz": "" if config.band_hz is None else f"{config.band_hz:g}",
        "window": str(config.input.window),
        "input": "signals [batch, channels, window]: of each window and channel (x - mean) / standard deviation",
        "output": f"{config.data.target} [batch, 1]"
        if config.is_regression
        else "logits [batch, classes]; softmax gives probabilities",
        **({"threshold": f"{config.evaluation.threshold:g}"} if config.training.task == "binary" else {}),
        "operating_range": operating_range.model_dump_json(),
    }


def export_run(run: str | Path, out: str | Path | None, kind: Kind) -> list[str]:
    """Export a run, and add the export to its experiment loggers.

    Args:
        run: the run folder.
        out: file or folder to write; None uses a default name in the run folder.
        kind: `bundle`, `onnx` or `torch`.

    Returns:
        A summary in a few lines.

    Raises:
        ImportError: a required package is not installed.
        ValueError: see `export_bundle` and `export_graph`.
    """
    target = Path(run) / _DEFAULT_NAMES[kind] if out is None else Path(out)
    if kind == "bundle":
        lines = [f"bundle: {target}", f"  {_describe_bundle(export_bundle(run, target))}"]
    else:
        difference = export_graph(run, target, kind)
        lines = [
            str(target),
            f"  its outputs are within {difference:.1e} of the network's on {_N_COMPARED} windows of the test part",
        ]
    log_export(RunFolder(run), target)
    return lines


def _describe_bundle(bundle: Bundle) -> str:
    rpm = bundle.description.operating_range.rpm
    speeds = "speeds unknown" if rpm is None else f"trained on {rpm[0]:g} to {rpm[1]:g} rpm"
    data = bundle.config.data
    predicts = f"predicts {data.target}" if bundle.config.is_regression else f"{len(data.classes)} classes"
    return f"{bundle.config.model_name}, {predicts}, {speeds}"
