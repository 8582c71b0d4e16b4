"""Bundles: trained diagnosers to pass on, which whirl loads without executing any code from them.

A bundle is a folder of two files. `bundle.json` describes the network, its input and its training data;
`model.safetensors` holds its weights. The installed whirl builds the network from its name and settings.
"""

from __future__ import annotations

import hashlib
import math
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn

from whirl.diagnosis.descriptor_sets import DESCRIPTOR_KINDS, DescriptorKind
from whirl.diagnosis.learned import Candidate, LearnedDiagnoser
from whirl.engine.files import atomic_write, write_text
from whirl.evaluation.export import max_weight_bytes, weights_from_bytes, weights_to_bytes
from whirl.evaluation.prediction import predict_outputs
from whirl.runs.bundle_description import Description, describe_run, json_arguments
from whirl.runs.config import Config
from whirl.runs.descriptors import is_descriptor_model
from whirl.runs.factory import load_run_network, new_model
from whirl.runs.packed_diagnoser import MAX_PACKED_BYTES, example_descriptors, pack, unpack
from whirl.runs.reliability import Reliability
from whirl.runs.run_folder import RunFolder
from whirl.validation import check_name

DESCRIPTION, WEIGHTS, PREVIOUS = "bundle.json", "model.safetensors", "previous.safetensors"
_MAX_DESCRIPTION_BYTES = 2**20


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded bundle.

    Attributes:
        description: content of its `bundle.json`.
        config: configuration of the run, as far as it defines the network and its input.
        network: the network with its weights, on the CPU, or the model of descriptors.
        reliability: calibration and, for a model of descriptors, the detector of unusual recordings.
    """

    description: Description
    config: Config
    network: nn.Module | LearnedDiagnoser
    reliability: Reliability


def export_bundle(run: str | Path, out: str | Path) -> Bundle:
    """Write the diagnoser of a run as a bundle, if the bundle reproduces the predictions of the run exactly.

    Args:
        run: the run folder.
        out: folder to write: new, empty, or an older bundle, which is replaced.

    Returns:
        The bundle as it is loaded from `out`.

    Raises:
        ImportError: safetensors is not installed.
        ValueError: the run cannot be read or rebuilt, or `out` contains other files.
    """
    folder, target = RunFolder(run), Path(out)
    _check_target(target)
    config, network, weights = _load_run(folder)
    description = describe_run(folder, config, hashlib.sha256(weights).hexdigest())
    text = description.model_dump_json(indent=2) + "\n"
    bundle = _with_weights(_build(text.encode(), target / DESCRIPTION), weights, target / WEIGHTS)
    _check_same_predictions(network, bundle, folder)
    _write(target, weights, text)
    return bundle


def _load_run(folder: RunFolder) -> tuple[Config, nn.Module | LearnedDiagnoser, bytes]:
    """Return the configuration of a run, its model, and the content of the file of weights."""
    if not folder.diagnoser_file.is_file():
        config, network = load_run_network(folder)
        return config, network, weights_to_bytes(network)
    diagnoser = LearnedDiagnoser.load(folder.diagnoser_file)
    return folder.read_config(), diagnoser, pack(diagnoser, Reliability.load(folder).novelty)


def _write(target: Path, weights: bytes, description: str) -> None:
    """Write both files; at every moment the folder contains the older bundle or the new one, complete.

    The older weights are kept beside the new ones until the description is written, and put back if that fails.
    """
    _recover(target)
    try:
        with atomic_write(target / WEIGHTS, target / PREVIOUS) as file:
            file.write(weights)
        write_text(target / DESCRIPTION, description)
    finally:
        _recover(target)


def _recover(target: Path) -> None:
    """Finish an export if its description was written, otherwise undo it; remove temporary files."""
    for file in target.glob(".*"):
        if _is_temporary(file.name):
            file.unlink()
    described, previous = target / DESCRIPTION, target / PREVIOUS
    if not described.is_file():
        (target / WEIGHTS).unlink(missing_ok=True)
    elif previous.is_file():
        is_new = hashlib.sha256((target / WEIGHTS).read_bytes()).hexdigest() in described.read_text(encoding="utf-8")
        previous.unlink() if is_new else previous.replace(target / WEIGHTS)


def is_bundle(path: str | Path) -> bool:
    """Whether a folder has the description of a bundle."""
    return (Path(path) / DESCRIPTION).is_file()


def load_bundle(path: str | Path) -> Bundle:
    """Load a bundle of any origin; no code from it is executed, and no more is read than the network needs.

    Raises:
        ImportError: safetensors is not installed.
        ValueError: the folder is not a bundle, or it is damaged; the message is one line.
    """
    folder = Path(path)
    bundle = _build(_read(folder / DESCRIPTION, _MAX_DESCRIPTION_BYTES), folder / DESCRIPTION)
    network = bundle.network
    max_bytes = max_weight_bytes(network) if isinstance(network, nn.Module) else MAX_PACKED_BYTES
    weights = _read(folder / WEIGHTS, max_bytes)
    if _is_described(weights, bundle) or not (folder / PREVIOUS).is_file():
        return _with_weights(bundle, weights, folder / WEIGHTS)
    # The export of a newer bundle was killed.
    return _with_weights(bundle, _read(folder / PREVIOUS, max_bytes), folder / PREVIOUS)


def _is_described(weights: bytes, bundle: Bundle) -> bool:
    return hashlib.sha256(weights).hexdigest() == bundle.description.weights_sha256


def _build(text: bytes, file: Path) -> Bundle:
    """Build the described bundle, without its weights."""
    with _as_value_error(file):
        description = Description.model_validate_json(text)
        config = description.config()
        arguments = json_arguments(config)
        if arguments != description.network.arguments:
            raise ValueError(
                f"this version of whirl builds {config.model_name!r} with {arguments}, but the bundle was built with "
                f"{description.network.arguments}"
            )
        model = _new_diagnoser(config) if is_descriptor_model(config.model_name) else new_model(config)
        return Bundle(description, config, model, description.calibration.reliability())


def _new_diagnoser(config: Config) -> LearnedDiagnoser:
    kind = cast("DescriptorKind", config.model.descriptors)
    check_name("descriptors", kind, DESCRIPTOR_KINDS)
    return LearnedDiagnoser(Candidate(config.model_name, kind))


def _with_weights(bundle: Bundle, weights: bytes, file: Path) -> Bundle:
    with _as_value_error(file):
        if not _is_described(weights, bundle):
            raise ValueError(f"damaged, or not the weights described by {DESCRIPTION} (the checksums differ)")
        if isinstance(bundle.network, nn.Module):
            weights_from_bytes(bundle.network, weights)
            return bundle
        data, known = bundle.config.data, bundle.description.calibration
        diagnoser, novelty = unpack(weights, bundle.network.candidate, data.classes, len(data.channels))
        return replace(bundle, network=diagnoser, reliability=known.reliability(novelty))


@contextmanager
def _as_value_error(file: Path) -> Iterator[None]:
    """Convert any error in a file of unknown origin to a ValueError of one short line that names the file."""
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


def _read(file: Path, max_bytes: int) -> bytes:
    if not file.is_file():
        raise ValueError(f"{file.parent}: not a bundle (it has no {file.name})")
    with file.open("rb") as stream:
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"{file}: larger than the maximum of {max_bytes} bytes")
    return data


def _check_target(target: Path) -> None:
    if target.is_file():
        raise ValueError(f"{target}: is a file, expected a folder for the bundle")
    names = {path.name for path in target.iterdir()} if target.is_dir() else set()
    others = sorted(name for name in names - {DESCRIPTION, WEIGHTS, PREVIOUS} if not _is_temporary(name))
    if others:
        raise ValueError(f"{target}: contains {others[0]!r}, which is not part of a bundle; choose another --out")


def _is_temporary(name: str) -> bool:
    """Return whether a file was left by an export that was killed."""
    return name.startswith((f".{DESCRIPTION}.", f".{WEIGHTS}."))


def _check_same_predictions(network: nn.Module | LearnedDiagnoser, bundle: Bundle, folder: RunFolder) -> None:
    """Validate that the bundled model predicts the same as the run's; otherwise its description is incomplete."""
    expected, actual = (_predict_noise(model, bundle) for model in (network, bundle.network))
    if not np.array_equal(expected, actual):
        raise ValueError(f"{folder.path}: the model cannot be rebuilt from the description; no bundle was written")


def _predict_noise(model: nn.Module | LearnedDiagnoser, bundle: Bundle) -> NDArray[np.float64]:
    config = bundle.config
    if isinstance(model, LearnedDiagnoser):
        return model.predict_proba(example_descriptors(model.candidate.kind, len(config.data.channels)))
    noise = torch.randn(2, len(config.data.channels), config.input.window, generator=torch.Generator().manual_seed(0))
    rpm = torch.tensor(bundle.description.operating_range.rpm or (math.nan, math.nan))
    batch = (noise, torch.zeros(2, dtype=torch.int64), {"recording": torch.arange(2), "rpm": rpm})
    return predict_outputs(model, [batch], "cpu")[0].numpy()
