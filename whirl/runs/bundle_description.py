"""What `bundle.json` states of a bundle: network, settings, input, calibration and scores."""

from __future__ import annotations

import json
from typing import Any, Literal, cast

import torch
from pydantic import Field, JsonValue

from whirl._distribution import installed_version
from whirl.diagnosis.calibration import PredictionSets
from whirl.diagnosis.novelty import NoveltyDetector
from whirl.engine.files import to_json_safe
from whirl.models.heads import single_faults
from whirl.runs.config import Config, make_config
from whirl.runs.data import prepare_run
from whirl.runs.descriptors import is_descriptor_model
from whirl.runs.factory import model_arguments
from whirl.runs.flat import get_setting, to_flat
from whirl.runs.operating_range import OperatingRange, PlainModel, load_operating_range
from whirl.runs.reliability import Reliability
from whirl.runs.run_folder import RunFolder
from whirl.runs.typical_error import TypicalError

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


def json_arguments(config: Config) -> dict[str, Any]:
    """Return the network's arguments as they are read back from JSON; a model of descriptors has none."""
    if is_descriptor_model(config.model_name):
        return {}
    return json.loads(json.dumps(to_json_safe(model_arguments(config))))


def describe_run(folder: RunFolder, config: Config, weights_sha256: str) -> Description:
    """Return the description of a bundle of a run.

    Args:
        folder: the run folder.
        config: its configuration.
        weights_sha256: SHA-256 of the weights, in hexadecimal.
    """
    settings = to_flat(config)
    return Description(
        whirl=installed_version(),
        torch=torch.__version__,
        network=NetworkDescription(name=config.model_name, arguments=json_arguments(config)),
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
