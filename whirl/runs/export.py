"""A trained run as something to hand on: a bundle that whirl loads without executing anything, or a graph for others.

A bundle is a folder of two files. `bundle.json` says what the network is, what it takes and what it was trained on;
`model.safetensors` holds its weights. The network is built by this installation of whirl from its name and settings.
"""

from __future__ import annotations

import hashlib
import json
import math
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, JsonValue, ValidationError
from torch import nn

from whirl._distribution import installed_version
from whirl.engine.batch import Batch
from whirl.engine.checkpoint import load_weights
from whirl.engine.files import atomic_write, to_json_safe, write_text
from whirl.evaluation.export import (
    export_onnx,
    export_program,
    max_weight_bytes,
    weights_from_bytes,
    weights_to_bytes,
)
from whirl.evaluation.prediction import predict_windows
from whirl.runs.config import Config, make_config
from whirl.runs.data import PreparedData, check_same_recordings, prepare
from whirl.runs.factory import model_arguments, new_model
from whirl.runs.flat import get_setting, to_flat
from whirl.runs.operating_range import OperatingRange, PlainModel, load_operating_range
from whirl.runs.run_folder import RunFolder
from whirl.runs.tracking import log_export

DESCRIPTION, WEIGHTS = "bundle.json", "model.safetensors"
FORMAT = 1

SETTINGS = (
    "window",
    "channels",
    "classes",
    "sampling_rate_hz",
    "band_limit_hz",
    "trainer",
    "representation",
    "maps",
    "width",
    "rpm_from",
    "rpm_range",
    "bearing",
    "split",
    "allow_leakage",
)
"""Settings of a run that say what its network is, what it takes, and how it was judged; the folders are nobody's."""

Range = tuple[float, float]

_LIMITS: dict[str, Range] = {
    "classes": (1, 10_000),
    "channels": (1, 1_000),
    "window": (16, 2**28),
    "sampling_rate_hz": (1, 1e9),
    "rpm_range": (0.01, 1e6),
    "band_share": (1e-4, 1e9),
}
"""What machines and recorders have; far beyond, a setting costs time and memory without end."""

_MAX_DESCRIPTION_BYTES = 2**20
_MAX_COMPARED = 28  # windows: whole batches of 1 and of 7


class NetworkDescription(PlainModel):
    """What was built.

    Attributes:
        name: in the registry.
        arguments: what it was told besides its numbers of classes and channels.
    """

    name: str
    arguments: dict[str, JsonValue]


class Scores(PlainModel):
    """How the run did on its own test part, by recording.

    Attributes:
        recordings: judged.
        specimens: they are of; None where that is not known.
        accuracy: 0 to 1.
        macro_f1: 0 to 1.
    """

    recordings: int = Field(ge=1)
    specimens: int | None
    accuracy: float = Field(ge=0, le=1)
    macro_f1: float | None = Field(ge=0, le=1)


class Description(PlainModel):
    """What `bundle.json` holds.

    Attributes:
        format: of the bundle.
        whirl: version that wrote it.
        torch: version that it ran on.
        network: what to build.
        settings: those of the run that are named in `SETTINGS`.
        standardization: `window`: each window and channel is brought to mean 0 and deviation 1.
        operating_range: what the training recordings were of.
        fingerprint: of the run's recordings, as in its `data.json`.
        scores: on the run's test part; None where it was not judged.
        weights_sha256: of `model.safetensors`, in hexadecimal.
    """

    format: Literal[1] = FORMAT
    whirl: str
    torch: str
    network: NetworkDescription
    settings: dict[str, JsonValue]
    standardization: Literal["window"] = "window"
    operating_range: OperatingRange
    fingerprint: str = Field(pattern="^[0-9a-f]{32}$")
    scores: Scores | None
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")

    def config(self) -> Config:
        """The settings, checked, with everything else at its default.

        Raises:
            ValueError: a setting is unknown, missing or makes no sense.
        """
        strange = sorted(self.settings.keys() - set(SETTINGS))
        if strange:
            raise ValueError(f"setting {strange[0]!r} has no place in a bundle")
        config = make_config({"model": self.network.name, **self.settings})
        _check_settled(config)
        return config


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded bundle.

    Attributes:
        description: what its `bundle.json` says.
        config: of the run, as far as it says what the network is and takes.
        network: with its weights, on the CPU.
    """

    description: Description
    config: Config
    network: nn.Module


def export_bundle(run: str | Path, out: str | Path) -> Bundle:
    """Write the diagnoser of a run as a bundle, if the bundle says what the run says, to the bit.

    Args:
        run: the run folder.
        out: folder to write, new, empty, or an older bundle that is replaced.

    Returns:
        What will be loaded from `out`.

    Raises:
        ImportError: safetensors is not installed.
        ValueError: the run cannot be read or rebuilt, or `out` holds something else.
    """
    folder, target = RunFolder(run), Path(out)
    _check_free(target)
    config, network = read_run(folder)
    weights = weights_to_bytes(network)
    description = _describe(folder, config, hashlib.sha256(weights).hexdigest())
    text = description.model_dump_json(indent=2) + "\n"
    bundle = _build(text.encode(), target / DESCRIPTION)
    _fill(bundle, weights, target / WEIGHTS)
    _check_same(network, bundle, folder)
    # The description comes last: without the one that fits them, the weights are no bundle.
    with atomic_write(target / WEIGHTS) as file:
        file.write(weights)
    write_text(target / DESCRIPTION, text)
    return bundle


def read_run(folder: RunFolder) -> tuple[Config, nn.Module]:
    """The configuration of a run and its network with the best weights.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the folder is no run's, or its checkpoint is broken.
    """
    config = folder.read_config()
    network = new_model(config)
    load_weights(network, folder.best_checkpoint)
    return config, network


def is_bundle(path: str | Path) -> bool:
    """Whether a folder claims to be a bundle."""
    return (Path(path) / DESCRIPTION).is_file()


def load_bundle(path: str | Path) -> Bundle:
    """Load a bundle, from whomever; nothing in it is executed, and no more is read than its network needs.

    Raises:
        ImportError: safetensors is not installed.
        ValueError: the folder is no bundle, or not a whole one; in one line.
    """
    folder = Path(path)
    bundle = _build(_read(folder / DESCRIPTION, _MAX_DESCRIPTION_BYTES), folder / DESCRIPTION)
    _fill(bundle, _read(folder / WEIGHTS, max_weight_bytes(bundle.network)), folder / WEIGHTS)
    return bundle


def _build(text: bytes, file: Path) -> Bundle:
    """The bundle that `text` describes, with fresh weights."""
    with _in_one_line(file):
        description = Description.model_validate_json(text)
        config = description.config()
        arguments = _plain_arguments(config)
        if arguments != description.network.arguments:
            raise ValueError(
                f"this whirl builds {config.model_name!r} with {arguments}, the bundle's was built with "
                f"{description.network.arguments}"
            )
        return Bundle(description, config, new_model(config))


def _fill(bundle: Bundle, weights: bytes, file: Path) -> None:
    with _in_one_line(file):
        if hashlib.sha256(weights).hexdigest() != bundle.description.weights_sha256:
            raise ValueError(f"broken, or not the weights that {DESCRIPTION} was written for (their checksums differ)")
        weights_from_bytes(bundle.network, weights)


@contextmanager
def _in_one_line(file: Path) -> Iterator[None]:
    """Whatever is wrong with a file of unknown origin is a ValueError of one short line that names it."""
    try:
        yield
    except ImportError:
        raise
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(textwrap.shorten(f"{file}: {where}: {first['msg']}", 400)) from None
    except Exception as error:
        raise ValueError(textwrap.shorten(f"{file}: {error}", 400)) from None


def _read(file: Path, most: int) -> bytes:
    if not file.is_file():
        raise ValueError(f"{file.parent}: not a bundle (it has no {file.name})")
    with file.open("rb") as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{file}: larger than the {most} bytes that it could need")
    return data


def _check_settled(config: Config) -> None:
    """Refuse what a bundle must say and does not, and sizes that nothing real has."""
    for name in ("classes", "channels", "window", "sampling_rate_hz"):
        if get_setting(config, name) is None:
            raise ValueError(f"setting {name!r} is missing")
    for name, values in _extents(config).items():
        low, high = _LIMITS[name]
        if values and not low <= min(values) <= max(values) <= high:
            raise ValueError(f"{name} is {values}, expected {low:g} to {high:g}")
    for name in (*config.data.classes, *config.data.channels):
        if not name.isprintable():  # it will be printed, and could steer a terminal
            raise ValueError(f"the name {name!r} holds characters that cannot be printed")


def _extents(config: Config) -> dict[str, tuple[float, ...]]:
    """Sizes by the names of `_LIMITS`; nothing where there is none."""
    rate_hz, band_hz = config.data.sampling_rate_hz, config.band_hz
    return {
        "classes": (len(config.data.classes),),
        "channels": (len(config.data.channels),),
        "window": (config.input.window,),
        "sampling_rate_hz": (rate_hz,),
        "rpm_range": config.speed_range or (),
        "band_share": () if band_hz is None else (band_hz / rate_hz,),
    }


def _plain_arguments(config: Config) -> dict[str, Any]:
    """The network's arguments as JSON gives them back."""
    return json.loads(json.dumps(to_json_safe(model_arguments(config))))


def _describe(folder: RunFolder, config: Config, weights_sha256: str) -> Description:
    settings = to_flat(config)
    return Description(
        whirl=installed_version(),
        torch=torch.__version__,
        network=NetworkDescription(name=config.model_name, arguments=_plain_arguments(config)),
        settings={name: settings[name] for name in SETTINGS if name in settings},
        operating_range=_training_operating_range(folder, config),
        fingerprint=folder.read_data()["fingerprint"],
        scores=_scores(folder),
        weights_sha256=weights_sha256,
    )


def _training_operating_range(folder: RunFolder, config: Config) -> OperatingRange:
    return load_operating_range(folder) or OperatingRange.of(_recordings_of(folder, config).split.train)


def _recordings_of(folder: RunFolder, config: Config) -> PreparedData:
    data = prepare(config)
    check_same_recordings(config, data.fingerprint, folder.read_data()["fingerprint"])
    return data


def _scores(folder: RunFolder) -> Scores | None:
    if not folder.metrics_file.is_file():
        return None
    found = json.loads(folder.metrics_file.read_text(encoding="utf-8"))["recording"]
    return Scores(
        recordings=found["n"],
        specimens=found["n_specimens"],
        accuracy=found["accuracy"],
        macro_f1=found["macro_f1"],
    )


def _check_free(target: Path) -> None:
    if target.is_file():
        raise ValueError(f"{target}: is a file, expected a folder for the bundle")
    strange = sorted({path.name for path in target.iterdir()} - {DESCRIPTION, WEIGHTS}) if target.is_dir() else []
    if strange:
        raise ValueError(f"{target}: holds {strange[0]!r}, which is no part of a bundle; choose another --out")


def _check_same(network: nn.Module, bundle: Bundle, folder: RunFolder) -> None:
    """Refuse a bundle whose network answers otherwise than the run's: then its description lacks something."""
    config = bundle.config
    noise = torch.randn(2, len(config.data.channels), config.input.window, generator=torch.Generator().manual_seed(0))
    rpm = torch.tensor(bundle.description.operating_range.rpm or (math.nan, math.nan))
    batch = (noise, torch.zeros(2, dtype=torch.int64), {"recording": torch.arange(2), "rpm": rpm})
    one, other = (predict_windows(model, [batch], "cpu").probabilities for model in (network, bundle.network))
    if not np.array_equal(one, other):
        raise ValueError(
            f"{folder.path}: its network cannot be rebuilt from a bundle's description; nothing is written"
        )


def export_graph(run: str | Path, out: str | Path, kind: Literal["onnx", "torch"]) -> float:
    """Write the network of a run as a graph, if that gives the same logits on windows of the run's test part.

    Args:
        run: the run folder; its recordings are loaded again.
        out: file to write; it appears whole, or not at all.
        kind: `onnx`, or `torch`, an exported program (`.pt2`).

    Returns:
        The largest difference of logits, below `evaluation.export.PARITY`.

    Raises:
        ImportError: an extra is not installed.
        ValueError: the network looks at the speed of the shaft, cannot be captured or expressed, or gives other logits.
    """
    folder = RunFolder(run)
    config, network = read_run(folder)
    if config.network_uses_speed:
        raise ValueError(
            f"{folder.path}: {config.model_name!r} is computed differently for each speed of the shaft, "
            "and a fixed graph cannot hold that; export a bundle"
        )
    data = _recordings_of(folder, config)
    export = {"onnx": export_onnx, "torch": export_program}[kind]
    return export(network, _some_windows(data), out, _facts(config, OperatingRange.of(data.split.train)))


def _some_windows(data: PreparedData) -> Batch:
    """Windows spread over the test part; a small part gives some of them twice."""
    windows = data.windows(data.split.test)
    return Batch(*windows[torch.linspace(0, len(windows) - 1, _MAX_COMPARED).long()])


def _facts(config: Config, operating_range: OperatingRange) -> dict[str, str]:
    """What somebody with nothing but the graph must know."""
    return {
        "whirl": installed_version(),
        "network": config.model_name,
        "classes": json.dumps(config.data.classes),
        "channels": json.dumps(config.data.channels),
        "sampling_rate_hz": f"{config.data.sampling_rate_hz:g}",
        "band_limit_hz": "" if config.band_hz is None else f"{config.band_hz:g}",
        "window": str(config.input.window),
        "input": "signals [batch, channels, window]: of each window and channel (x - mean) / standard deviation",
        "output": "logits [batch, classes]; softmax gives probabilities",
        "operating_range": operating_range.model_dump_json(),
    }


Kind = Literal["bundle", "onnx", "torch"]

_DEFAULT_NAMES: Mapping[str, str] = {"bundle": "bundle", "onnx": "model.onnx", "torch": "model.pt2"}


def export_run(run: str | Path, out: str | Path | None, kind: Kind) -> list[str]:
    """Export a run in one of three forms.

    Args:
        run: the run folder.
        out: where to; None is a new name within the run folder.
        kind: `bundle`, `onnx`, or `torch`.

    Returns:
        What was written, in a few lines.

    Raises:
        ImportError: an extra is not installed.
        ValueError: as of `export_bundle` and `export_graph`.
    """
    target = Path(run) / _DEFAULT_NAMES[kind] if out is None else Path(out)
    if kind == "bundle":
        bundle = export_bundle(run, target)
        log_export(RunFolder(run), target)
        operating_range = bundle.description.operating_range
        speeds = (
            "speeds unknown"
            if operating_range.rpm is None
            else f"trained on {operating_range.rpm[0]:g} to {operating_range.rpm[1]:g} rpm"
        )
        return [
            f"bundle: {target}",
            f"  {bundle.config.model_name}, {len(bundle.config.data.classes)} classes, {speeds}",
        ]
    difference = export_graph(run, target, kind)
    log_export(RunFolder(run), target)
    return [
        f"{target}",
        f"  its logits are within {difference:.1e} of the network's on {_MAX_COMPARED} windows of the test part",
    ]
