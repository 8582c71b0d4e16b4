"""Bundles: trained diagnosers to pass on, which whirl loads without executing any code from them.

A bundle is a folder of two files. `bundle.json` describes the network, its input and its training data;
`model.safetensors` holds its weights. The installed whirl builds the network from its name and settings.
"""

from __future__ import annotations

import hashlib
import json
import math
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, JsonValue, ValidationError
from torch import nn

from whirl._distribution import installed_version
from whirl.diagnosis.calibration import PredictionSets
from whirl.diagnosis.descriptor_sets import DESCRIPTOR_KINDS, DescriptorKind
from whirl.diagnosis.learned import Candidate, LearnedDiagnoser
from whirl.diagnosis.novelty import NoveltyDetector
from whirl.engine.files import atomic_write, to_json_safe, write_text
from whirl.evaluation.export import max_weight_bytes, weights_from_bytes, weights_to_bytes
from whirl.evaluation.prediction import predict_outputs
from whirl.models.heads import single_faults
from whirl.runs.config import Config, make_config
from whirl.runs.data import prepare_run
from whirl.runs.descriptors import is_descriptor_model
from whirl.runs.factory import load_run_network, model_arguments, new_model
from whirl.runs.flat import get_setting, to_flat
from whirl.runs.operating_range import OperatingRange, PlainModel, load_operating_range
from whirl.runs.packed_diagnoser import MAX_PACKED_BYTES, example_descriptors, pack, unpack
from whirl.runs.reliability import Reliability
from whirl.runs.run_folder import RunFolder
from whirl.runs.typical_error import TypicalError
from whirl.validation import check_name

DESCRIPTION, WEIGHTS, PREVIOUS = "bundle.json", "model.safetensors", "previous.safetensors"
FORMAT = 1

SETTINGS = (
    "descriptors",
    "window",
    "channels",
    "classes",
    "sampling_rate_hz",
    "band_limit_hz",
    "trainer",
    "task",
    "threshold",
    "target",
    "representation",
    "maps",
    "width",
    "rpm_from",
    "rpm_range",
    "bearing",
    "split",
    "allow_leakage",
)
"""Settings of a run that define its network, its input and its evaluation; no paths."""

_LIMITS: dict[str, tuple[float, float]] = {
    "classes": (1, 10_000),
    "faults": (1, 1_000),
    "channels": (1, 1_000),
    "window": (16, 2**28),
    "sampling_rate_hz": (1, 1e9),
    "rpm_range": (0.01, 1e6),
    "band_share": (1e-4, 1e9),
}
"""Ranges that cover real machines and recorders; values far outside would exhaust time or memory."""

_MAX_DESCRIPTION_BYTES = 2**20


class NetworkDescription(PlainModel):
    """Name and arguments of a network.

    Attributes:
        name: name in the registry.
        arguments: arguments besides the numbers of classes and channels.
    """

    name: str
    arguments: dict[str, JsonValue]


class Scores(PlainModel):
    """Test scores of the run, by recording.

    Attributes:
        recordings: number of test recordings.
        specimens: number of specimens among them; None if unknown.
        accuracy: 0 to 1; None if a number is predicted, as macro F1.
        macro_f1: 0 to 1.
        mae: mean absolute error of a predicted number; None for classes.
        r2: its R2, at most 1.
    """

    recordings: int = Field(ge=1)
    specimens: int | None
    accuracy: float | None = Field(default=None, ge=0, le=1)
    macro_f1: float | None = Field(default=None, ge=0, le=1)
    mae: float | None = Field(default=None, ge=0)
    r2: float | None = Field(default=None, le=1)


class Calibration(PlainModel):
    """Calibration of the probabilities, see `whirl.runs.reliability.Reliability`.

    Attributes:
        temperature: temperature of the probabilities.
        threshold: smallest probability of a class in a prediction set; None if there are no sets.
        coverage: share of specimens whose set contains the true class.
        specimens: specimens that the threshold was determined on.
        shows_noise: whether a training recording shows nothing but noise.
        kind: descriptors of the detector of unusual recordings; None for the waveform alone.
        rate_hz: lowest sampling rate of the training recordings.
        typical_error: the error to expect of a predicted number; None for classes.
    """

    temperature: float = Field(default=1.0, ge=0.1, le=10)
    threshold: float | None = Field(default=None, ge=0, le=1)
    coverage: float = Field(default=0.9, gt=0, lt=1)
    specimens: int = Field(default=0, ge=0)
    shows_noise: bool = False
    kind: Literal["families", "evidence_and_levels"] | None = None
    rate_hz: float = Field(default=0.0, ge=0, le=1e9)
    typical_error: TypicalError | None = None

    @classmethod
    def of(cls, known: Reliability) -> Calibration:
        """Return what the description holds of the reliability of a run."""
        sets = known.sets
        of_sets = (
            {}
            if sets is None
            else {"threshold": sets.threshold, "coverage": sets.coverage, "specimens": sets.n_specimens}
        )
        return cls(
            temperature=known.temperature,
            shows_noise=known.shows_noise,
            kind=cast("Any", known.kind),
            rate_hz=known.rate_hz,
            typical_error=known.typical_error,
            **of_sets,
        )

    def reliability(self, novelty: NoveltyDetector | None = None) -> Reliability:
        """Return the reliability with a detector of unusual recordings, if there is one."""
        sets = None if self.threshold is None else PredictionSets(self.threshold, self.coverage, self.specimens)
        return Reliability(
            self.temperature, sets, novelty, self.kind, self.rate_hz, self.shows_noise, self.typical_error
        )


class Description(PlainModel):
    """Content of `bundle.json`.

    Attributes:
        format: version of the format.
        whirl: version of whirl that wrote the bundle.
        torch: version of torch that it ran with.
        network: the network to build.
        settings: settings of the run, those named in `SETTINGS`.
        standardization: `window`: each window and channel is scaled to mean 0 and standard deviation 1.
        operating_range: speeds and loads of the training recordings.
        calibration: calibration of the probabilities.
        fingerprint: hash of the recordings of the run, as in its `data.json`.
        scores: test scores of the run; None if it has not been evaluated.
        weights_sha256: SHA-256 of `model.safetensors`, in hexadecimal.
    """

    format: Literal[1] = FORMAT
    whirl: str
    torch: str
    network: NetworkDescription
    settings: dict[str, JsonValue]
    standardization: Literal["window"] = "window"
    operating_range: OperatingRange
    calibration: Calibration = Calibration()
    fingerprint: str = Field(pattern="^[0-9a-f]{32}$")
    scores: Scores | None
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")

    def config(self) -> Config:
        """Return the validated settings, with all others at their defaults.

        Raises:
            ValueError: a setting is unknown, missing or invalid.
        """
        unknown = sorted(self.settings.keys() - set(SETTINGS))
        if unknown:
            raise ValueError(f"setting {unknown[0]!r} is not allowed in a bundle")
        config = make_config({"model": self.network.name, **self.settings})
        _check_complete(config)
        return config


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
    description = _describe(folder, config, hashlib.sha256(weights).hexdigest())
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
        arguments = _json_arguments(config)
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


def _check_complete(config: Config) -> None:
    """Validate that all required settings are present, sizes are in realistic ranges and names are printable."""
    for name in ("classes", "channels", "window", "sampling_rate_hz"):
        if get_setting(config, name) is None:
            raise ValueError(f"setting {name!r} is missing")
    for name, values in _sizes(config).items():
        low, high = _LIMITS[name]
        if values and not low <= min(values) <= max(values) <= high:
            raise ValueError(f"{name} is {values}, expected {low:g} to {high:g}")
    for name in (*config.data.classes, *config.data.channels):
        if not name.isprintable():  # names are printed, and escape sequences would control the terminal
            raise ValueError(f"the name {name!r} contains characters that cannot be printed")


def _sizes(config: Config) -> dict[str, tuple[float, ...]]:
    """Return the values to compare with `_LIMITS`; empty where the setting is not used."""
    rate_hz, band_hz = config.data.sampling_rate_hz, config.band_hz
    return {
        "classes": (len(config.data.classes),),
        "faults": (len(single_faults(config.data.classes)),) if config.training.task == "multilabel" else (),
        "channels": (len(config.data.channels),),
        "window": (config.input.window,),
        "sampling_rate_hz": (rate_hz,),
        "rpm_range": config.speed_range or (),
        "band_share": () if band_hz is None else (band_hz / rate_hz,),
    }


def _json_arguments(config: Config) -> dict[str, Any]:
    """Return the network's arguments as they are read back from JSON; a model of descriptors has none."""
    if is_descriptor_model(config.model_name):
        return {}
    return json.loads(json.dumps(to_json_safe(model_arguments(config))))


def _describe(folder: RunFolder, config: Config, weights_sha256: str) -> Description:
    settings = to_flat(config)
    return Description(
        whirl=installed_version(),
        torch=torch.__version__,
        network=NetworkDescription(name=config.model_name, arguments=_json_arguments(config)),
        settings={name: settings[name] for name in SETTINGS if name in settings},
        operating_range=load_operating_range(folder) or OperatingRange.of(prepare_run(folder).split.train),
        calibration=Calibration.of(Reliability.load(folder)),
        fingerprint=folder.read_data()["fingerprint"],
        scores=_scores(folder),
        weights_sha256=weights_sha256,
    )


def _scores(folder: RunFolder) -> Scores | None:
    if not folder.metrics_file.is_file():
        return None
    metrics = json.loads(folder.metrics_file.read_text(encoding="utf-8"))["recording"]
    return Scores(
        recordings=metrics["n"],
        specimens=metrics["n_specimens"],
        **{name: metrics.get(name) for name in ("accuracy", "macro_f1", "mae", "r2")},
    )


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
