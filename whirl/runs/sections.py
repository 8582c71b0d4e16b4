"""The settings of a run, each described once, in sections.

To keep the start of the command fast, validators that need torch import it when they run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, field_validator, model_validator

from whirl.data.names import LABEL
from whirl.diagnosis.registry import DIAGNOSERS
from whirl.models.registry import list_models
from whirl.runs.descriptions import OFF, SIMULATED, UNKNOWN, About, Folder, Names, Section, one_of, setting
from whirl.runs.methods import MAX_WINDOW
from whirl.runs.training_section import TrainingSection as TrainingSection


class SimulationSection(Section):
    """Recordings to simulate if no folder is given."""

    family: Literal["journal", "rolling"] = setting("journal", "Machines: journal (11 classes) or rolling (4 classes).")
    n_machines: int = setting(
        60, "Machines (specimens), each recorded in every class.", About(flag="--machines"), ge=3, le=100_000
    )
    recordings_per_class: int = setting(
        2, "Recordings of each class on each machine.", About(flag="--recordings"), ge=1, le=100_000
    )
    duration_s: float = setting(5.0, "Length of a recording.", About(flag="--seconds", unit="s"), gt=0, le=3600)
    sampling_rate_hz: float = setting(
        20480.0, "Samples per second.", About(flag="--sampling-rate", unit="Hz"), gt=0, le=1e6
    )
    seed: int = setting(0, "Random seed; the same seed gives the same bits.", ge=0, lt=2**63)
    snr_db_range: tuple[float, float] = setting(
        (5.0, 20.0),
        "Lowest and highest signal-to-noise ratio, drawn for each recording.",
        About(unit="dB", kind="LOW,HIGH"),
    )


class DataSection(Section):
    """Recordings."""

    path: Folder = setting(SIMULATED, "Folder of recordings; simulated machines by default.", About("data", flag=""))
    simulation: SimulationSection = setting(
        SimulationSection(), "Recordings to simulate if no folder is given.", About(flag="", kind="section")
    )
    corrections: str = setting(
        OFF, "CSV file (columns file, label) of labels that replace those of the data set.", About(kind="path")
    )
    channels: Names = setting(
        None, "Channels to use, e.g. DE,FE.", About(auto="all", synonyms=("sensors", "columns"), kind="names")
    )
    classes: Names = setting(
        None, "Classes to use, e.g. inner_race,ball.", About(auto="all", synonyms=("labels",), kind="names")
    )
    target: str = setting(
        LABEL,
        "Number to predict with task regression: a column of the manifest, e.g. severity, or the label.",
        About(synonyms=("target_column", "y", "regression_target")),
    )
    sampling_rate_hz: float = setting(
        None,
        "Resample to this rate; assumed for files that state none.",
        About(
            flag="--sampling-rate",
            unit="Hz",
            auto="the lowest rate that covers the band in which the classes differ",
            synonyms=("sample_rate", "fs", "rate"),
        ),
        gt=0,
        le=1e9,
    )
    band_limit_hz: float | Literal["off"] = setting(
        None,
        "Low-pass filter for all recordings.",
        About(unit="Hz", auto="set if the sampling rates of the recordings differ", synonyms=("lowpass", "cutoff_hz")),
    )
    mmap_dir: str = setting(
        OFF, "Store samples in memory-mapped files in this folder instead of in memory.", About(kind="folder")
    )

    @property
    def is_simulated(self) -> bool:
        """Whether the recordings are simulated."""
        return self.path == SIMULATED

    @field_validator("band_limit_hz")
    @classmethod
    def _positive(cls, band_hz: Any) -> Any:
        if isinstance(band_hz, float) and not 0 < band_hz <= 1e9:
            raise ValueError("expected a frequency > 0 or off")
        return band_hz


class SplitSection(Section):
    """Training, validation and test parts."""

    by: Literal["specimen", "recording", "time"] = setting(
        "specimen", "What training and test parts must not share.", About("split")
    )
    test_specimens: Names | Literal["drawn"] = setting(
        "drawn", "Specimens to test on, e.g. X,Y.", About(kind="names", synonyms=("holdout", "test_machines"))
    )
    test_fraction: float = setting(
        0.25, "Fraction of the data for testing.", About(synonyms=("test_size",)), gt=0, lt=1
    )
    val_fraction: float = setting(
        0.15, "Fraction of the data for validation.", About(synonyms=("val_size", "validation_split")), gt=0, lt=1
    )
    allow_leakage: bool = setting(False, "Train even if test data leak into training; the report is stamped.")


def _models() -> list[str]:
    return sorted([*list_models(), *DIAGNOSERS.names()])


class ModelSection(Section):
    """Network or model of descriptors."""

    name: str = setting(
        None,
        "Network, e.g. cnn1d, wdcnn, hybrid_pinn, or model of descriptors, e.g. rule, family_net, extra_trees.",
        About(
            "model",
            auto="the best model of descriptors if speeds, and bearings of rolling bearings, are known; otherwise "
            "cnn1d, cnn2d for maps, multi_tfr for several kinds of maps",
            choices=_models,
            synonyms=("network", "architecture", "backbone"),
        ),
    )
    descriptors: Literal["families", "order_levels", "evidence", "evidence_and_levels", "off"] = setting(
        None,
        "Descriptors of recordings for a model of descriptors: families of bearing lines; for rotors, levels at orders "
        "of the shaft, evidence of faults, or both.",
        About(auto="chosen within the training part; off for networks"),
    )
    width: float = setting(
        1.0, "Number of channels relative to the network's default.", About(synonyms=("width_multiplier",)), gt=0, le=4
    )
    compared: list[str] = setting(
        [],
        "Networks to train next on the same split, each in a folder of its own, and to show in the report.",
        About(flag="--compare-with", kind="names", choices=list_models, synonyms=("networks", "also")),
    )

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return one_of("model", name, _models())

    @field_validator("compared")
    @classmethod
    def _known_networks(cls, names: list[str]) -> list[str]:
        return [one_of("network", name, list_models()) for name in dict.fromkeys(names)]


class InputSection(Section):
    """Input windows."""

    window: int = setting(
        None,
        "Samples per window.",
        About(
            unit="samples",
            auto="at least 16 revolutions of the slowest recording",
            synonyms=("window_size", "window_length", "segment_length"),
        ),
        ge=16,
        le=MAX_WINDOW,
    )
    hop: int = setting(
        None,
        "Samples from one training window to the next.",
        About(unit="samples", auto="half a window", synonyms=("stride", "step", "overlap")),
        ge=1,
        le=MAX_WINDOW,
    )
    augment: Any = setting(
        OFF,
        "Augmentation of training windows: light, medium, heavy, or a policy of [operation, probability, magnitude].",
        About(synonyms=("augmentation", "transforms"), kind="name or policy"),
    )

    @field_validator("augment")
    @classmethod
    def _known_augmentation(cls, value: Any) -> Any:
        if value != OFF:
            from whirl.augment.policies import make_augmentation

            make_augmentation(value)
        return value


def _bearing(name: Any) -> Any:
    if name not in (None, UNKNOWN):
        from whirl.physics.bearings import parse_bearings

        return "; ".join(bearing.text for bearing in parse_bearings(str(name)))
    return name


class PhysicsSection(Section):
    """Speed and bearing."""

    bearing: Annotated[str, BeforeValidator(_bearing)] = setting(
        None,
        "Rolling bearing of recordings that do not state theirs: designation, e.g. 6205, geometry or fault orders.",
        About(auto="the simulated one, otherwise unknown", kind="bearing"),
    )
    rpm_from: Literal["manifest", "signal"] = setting(
        "manifest", "Shaft speed: as stated, or estimated from the signal if it is not stated."
    )
    rpm_range: tuple[float, float] | Literal["unknown"] = setting(
        None,
        "Lowest and highest shaft speed, for its estimation; the highest should be less than twice the lowest.",
        About(unit="rpm", auto="the range stated by the recordings", synonyms=("rpm", "speed_range"), kind="LOW,HIGH"),
    )

    @field_validator("rpm_range")
    @classmethod
    def _in_order(cls, speeds: Any) -> Any:
        if isinstance(speeds, tuple) and not 0.01 <= speeds[0] <= speeds[1] <= 1e6:
            raise ValueError("expected 0.01 <= lowest <= highest <= 1e6")
        return speeds

    @model_validator(mode="after")
    def _range_for_the_signal(self) -> PhysicsSection:
        if self.rpm_from == "signal" and self.rpm_range is None:
            raise ValueError("rpm_from 'signal' requires rpm_range, e.g. --rpm-range 1200,2300")
        return self


def _pruners() -> Sequence[str]:
    return ("median", "hyperband", "none")


class SearchSection(Section):
    """Search for settings."""

    trials: int = setting(50, "Number of candidates, including those of other workers.", ge=1, le=1_000_000)
    pruner: str = setting(
        "median", "Pruner for unpromising trials: median, hyperband or none.", About(choices=_pruners)
    )
    storage: str = setting(
        "own", "File or URL shared by the workers; a file in --out by default.", About(kind="file or URL")
    )
    study: str = setting("search", "Name of the study within the storage.")
    space: dict[str, Any] = setting(
        None,
        "Settings to search, with ranges or lists of values.",
        About(flag="", auto="the network's preset", kind="YAML"),
    )

    @field_validator("pruner")
    @classmethod
    def _known(cls, name: str) -> str:
        return one_of("pruner", name, _pruners())


def _metrics() -> Sequence[str]:
    from whirl.evaluation.registry import METRICS

    return METRICS.names()


class EvaluationSection(Section):
    """Evaluation."""

    metrics: list[str] = setting(
        [], "Additional test metrics registered by plug-ins.", About(kind="names", choices=_metrics)
    )
    threshold: float = setting(
        0.5,
        "Calibrated probability of the second class above which it is predicted, for task binary.",
        About(synonyms=("cutoff", "decision_threshold")),
        gt=0,
        lt=1,
    )

    @field_validator("metrics")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        return [one_of("metric", name, _metrics()) for name in names]


def _loggers() -> Sequence[str]:
    from whirl.callbacks.registry import LOGGERS

    return LOGGERS.names()


def _interval(interval: Any) -> Any:
    """Convert a number of batches, which is text on the command line."""
    interval = int(interval) if isinstance(interval, str) and interval.isdigit() else interval
    if interval != OFF:
        from whirl.engine.checkpoint import SaveInterval

        SaveInterval(interval)
    return interval


class RunSection(Section):
    """Execution."""

    imports: list[str] = setting(
        [],
        "Modules to import first, which register networks, losses, trainers and so on.",
        About(flag="--import", kind="names", synonyms=("plugins", "modules", "import")),
    )

    log: list[str] = setting(
        [],
        "Experiment loggers, e.g. tensorboard,mlflow,csv,wandb.",
        About(kind="names", choices=_loggers, synonyms=("loggers", "tracker", "logger")),
    )
    seed: int = setting(
        0, "Random seed for weights, data order and split.", About(synonyms=("random_state",)), ge=0, lt=2**63
    )
    device: str = setting("auto", "Device: auto, cpu, cuda, cuda:1, mps.", About(synonyms=("gpu", "accelerator")))
    precision: Literal["32", "bf16", "fp16"] = setting(
        None,
        "Floating-point precision of a training step.",
        About(auto="the fastest that the device supports in hardware", synonyms=("mixed_precision", "amp")),
    )
    threads: int = setting(
        None,
        "CPU threads of a training step.",
        About(auto="measured", synonyms=("n_jobs", "num_threads")),
        ge=1,
        le=1024,
    )
    num_workers: int = setting(0, "Number of data-loading processes.", About(flag="--workers"), ge=0, le=256)
    compile: bool = setting(
        False,
        "Compile the network with torch.compile, which takes one or two minutes first.",
        About(synonyms=("torch_compile", "jit")),
    )
    deterministic: bool = setting(
        False, "Use only algorithms that give the same bits in every run, also on a GPU; slower there."
    )
    sync_batchnorm: bool = setting(False, "Batch normalization over all processes, under torchrun.")
    checkpoint_every: Annotated[int | str, BeforeValidator(_interval)] = setting(
        OFF,
        "Also save a checkpoint within epochs: every so many batches, or a time such as 90s or 10min.",
        About(kind="INT or TIME"),
    )
    on_nonfinite: Literal["raise", "skip"] = setting("raise", "What to do on a NaN or infinite loss: raise or skip.")

    @field_validator("log")
    @classmethod
    def _known_loggers(cls, names: list[str]) -> list[str]:
        return [one_of("logger", name, _loggers()) for name in names]

    @field_validator("precision", mode="before")
    @classmethod
    def _as_text(cls, precision: Any) -> Any:
        return "32" if precision == 32 else precision  # YAML reads 32 as a number
