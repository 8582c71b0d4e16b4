"""Settings of a run: what a user may say, checked, and how it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from whirl.augment.policies import make_augmentation
from whirl.dsp.time_frequency import TimeFrequency
from whirl.engine.checkpoint import SaveInterval
from whirl.engine.files import write_text
from whirl.losses.balancing import LAMBDA_SCHEDULES
from whirl.models.multi_tfr import DEFAULT_KINDS
from whirl.models.registry import check_model_name, list_models
from whirl.optim.cnn_optimizer import optimizer_names
from whirl.optim.scheduler_factory import schedule_names
from whirl.physics.rolling_bearing import BEARINGS
from whirl.validation import unknown_name

PHYSICAL_MODELS = ("hybrid_pinn", "order_cnn")
"""Networks that are told the sampling rate, and look at the speed of the shaft."""

MAP_MODELS = ("cnn2d", "resnet18_2d", "multi_tfr")
"""Networks that see time-frequency maps."""

WIDE_MODELS = ("cnn1d", "wdcnn", "resnet18_1d")
"""Networks whose number of channels can be scaled."""

Kind = Literal["stft", "cwt", "wvd", "envelope", "order"]

_BELONG_TO: dict[str, tuple[str, ...]] = {
    "representation": ("maps", "specaugment", "map_cache"),
    "teacher": ("temperature", "alpha"),
    "progressive": ("progressive_method",),
}
"""Settings that mean nothing without another."""

_PINN_ONLY = ("lambda_freq", "lambda_sommerfeld", "lambda_temporal", "lambda_schedule", "unlabeled")


_LARGEST_MAP, _MAX_TRANSFORM = 4096, 2**20  # rows or columns, and samples

_MAX_CHARS = 100_000  # of a file of settings


class SimulationConfig(BaseModel):
    """What to simulate where no recordings are given.

    Attributes:
        family: `journal` (11 classes) or `rolling` (4 classes).
        n_machines: machines (specimens), each recorded in every class.
        recordings_per_class: recordings of each class on each machine.
        duration_s: length of a recording in seconds.
        sampling_rate_hz: samples per second.
        seed: same seed, same bits.
        snr_db_range: signal over sensor noise, drawn between the two for each recording, in dB.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    family: Literal["journal", "rolling"] = "journal"
    n_machines: int = Field(default=80, ge=3)
    recordings_per_class: int = Field(default=2, ge=1)
    duration_s: float = Field(default=5.0, gt=0, le=3600)
    sampling_rate_hz: float = Field(default=20480.0, gt=0, le=1e6)
    seed: int = Field(default=0, ge=0, lt=2**63)
    snr_db_range: tuple[float, float] = (5.0, 20.0)


class RunConfig(BaseModel):
    """All settings of a training run; None means "chosen from the data" and is resolved in the run folder.

    Attributes:
        data: folder of recordings; None simulates them.
        simulation: what to simulate then.
        model: name of a network in the registry.
        epochs: passes over the training windows; None is about 1000 steps, at least 6 epochs and at most 40.
        window: samples per window; None chooses at least 16 revolutions of the slowest recording.
        hop: samples from one training window to the next; None is half a window.
        channels: channels to use, by name; None uses all.
        classes: labels to use; None uses all.
        sampling_rate_hz: rate to which every recording is brought; None chooses the lowest that holds the
            band in which the classes differ. Also the rate of files that do not say theirs.
        band_limit_hz: low-pass for all recordings; None sets it where their own rates differ.
        split: what a test part must not share with training.
        test_specimens: specimens of the test part; None draws them.
        test_fraction: share of the data for testing where specimens are drawn.
        val_fraction: share of the data for validation.
        batch_size: windows per step, >= 2 for batch normalisation.
        loss: `ce`, cross entropy, or `focal`, which weighs windows down that are already told apart.
        class_weights: weigh each class by the inverse of its number of training windows.
        label_smoothing: share of the target spread over all classes; of cross entropy.
        optimizer: name of an optimizer of torch, e.g. `adamw` or `sgd`.
        lr: highest learning rate.
        weight_decay: of the optimizer.
        schedule: of the learning rate, e.g. `onecycle` or `warmup_cosine`, as long as the training.
        augment: what training windows go through: `light`, `medium`, `heavy`, or sub-policies as lists of
            `[operation, probability, magnitude]`; None leaves them as they are. A preset also drops, shifts and masks
            the tokens of a `patch_transformer`.
        representation: what the network sees instead of the waveform: `stft`, `cwt`, `wvd`, `envelope` or `order` maps,
            a list of these for several by turns, or `multi` for the usual list.
        maps: arguments of `TimeFrequency` by kind, e.g. `{stft: {n_frequencies: 128}}`; None is the usual ones.
        specaugment: mask stretches of time and of frequency in the maps, in training.
        map_cache: folder on whose disk the maps of training and validation are kept, to be computed once for all runs
            on the same windows.
        width: share of a network's usual number of channels, for students, > 0.
        teacher: run folder of a trained network whose outputs the network learns besides the labels.
        temperature: divides teacher's and student's logits before they are compared, > 0.
        alpha: share of the teacher in the loss, 0 to 1; the labels have the rest.
        progressive: stages of training as pairs of a window's length in samples and a number of epochs, the last at
            full length; earlier stages see every window resized. None trains at full length throughout.
        progressive_method: how windows become shorter: `crop` keeps a stretch that begins anywhere, `interpolate`
            lowers the sampling rate, `truncate` keeps the beginning.
        trainer: `cnn`, or `pinn`, whose loss also holds predictions against physics.
        lambda_freq: weight of the lines that physics expects, of `pinn`; 0 turns the term off, as for the next two.
        lambda_sommerfeld: weight of the severities' ranking by Sommerfeld number, of `pinn`.
        lambda_temporal: weight of steadiness within a recording, of `pinn`.
        lambda_schedule: how these weights rise over the epochs: `linear`, `cosine`, `exponential`, `step`, `constant`.
        unlabeled: folder of recordings, sorted like `data`, whose labels nobody looks at: physics acts on them too.
        rpm_from: `manifest` takes the speed that manifest or file states; `signal` estimates it where they do not.
        rpm_range: lowest and highest speed of the shaft, rev/min, in which speeds are estimated; it should not hold a
            speed and its double. None is what the recordings state.
        precision: of a training step's arithmetic: `32`, `bf16` or `fp16`; None is the lower one that the device has
            instructions for.
        checkpoint_every: save in mid-epoch too, every so many batches or, as `90s` or `10min`, after so much time.
        on_nonfinite: what a loss that is no number does: `raise` ends the training, `skip` leaves the batch out.
        bearing: name in the table of bearings, whose fault orders the report draws and physics looks for.
        seed: of weights, order and split.
        device: `auto`, `cpu`, `cuda`, ...
        threads: threads of a step on the CPU; None measures which number is fastest.
        num_workers: loader processes.
        sync_batchnorm: batch normalisation over the windows of all processes, under `torchrun`.
        mmap_dir: folder on whose disk the recordings' samples are kept instead of in memory, for more than fit into it.
        allow_leakage: train although test data were seen in training; stamped on the report.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    data: str | None = None
    simulation: SimulationConfig = SimulationConfig()
    model: str = "cnn1d"
    epochs: int | None = Field(default=None, ge=1)
    window: int | None = Field(default=None, ge=16)
    hop: int | None = Field(default=None, ge=1)
    channels: list[str] | None = None
    classes: list[str] | None = None
    sampling_rate_hz: float | None = Field(default=None, gt=0)
    band_limit_hz: float | None = Field(default=None, gt=0)
    split: Literal["specimen", "recording", "time"] = "specimen"
    test_specimens: list[str] | None = None
    test_fraction: float = Field(default=0.25, gt=0, lt=1)
    val_fraction: float = Field(default=0.15, gt=0, lt=1)
    batch_size: int = Field(default=64, ge=2)
    loss: Literal["ce", "focal"] = "ce"
    class_weights: bool = False
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    optimizer: str = "adamw"
    lr: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    schedule: str = "onecycle"
    augment: Any = None
    representation: Kind | Literal["multi"] | list[Kind] | None = None
    maps: dict[str, dict[str, Any]] | None = None
    specaugment: bool = True
    map_cache: str | None = None
    width: float = Field(default=1.0, gt=0, le=4)
    teacher: str | None = None
    temperature: float = Field(default=4.0, gt=0)
    alpha: float = Field(default=0.7, ge=0, le=1)
    progressive: list[tuple[int, int]] | None = None
    progressive_method: Literal["crop", "interpolate", "truncate"] = "crop"
    trainer: Literal["cnn", "pinn"] = "cnn"
    lambda_freq: float = Field(default=1.0, ge=0)
    lambda_sommerfeld: float = Field(default=0.0, ge=0)
    lambda_temporal: float = Field(default=0.0, ge=0)
    lambda_schedule: str = "constant"
    unlabeled: str | None = None
    rpm_from: Literal["manifest", "signal"] = "manifest"
    rpm_range: tuple[float, float] | None = None
    precision: Literal["32", "bf16", "fp16"] | None = None
    checkpoint_every: int | str | None = None
    on_nonfinite: Literal["raise", "skip"] = "raise"
    bearing: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = "auto"
    threads: int | None = Field(default=None, ge=1)
    num_workers: int = Field(default=0, ge=0)
    sync_batchnorm: bool = False
    mmap_dir: str | None = None
    allow_leakage: bool = False

    @property
    def uses_speed(self) -> bool:
        """Whether training or network look at the speed of the shaft."""
        return self.trainer == "pinn" or self.model in PHYSICAL_MODELS or "order" in self.representations

    @property
    def representations(self) -> list[str]:
        """Kinds of the maps that the network sees; none where it sees waveforms."""
        if self.representation is None:
            return []
        if self.representation == "multi":
            return list(DEFAULT_KINDS)
        return [self.representation] if isinstance(self.representation, str) else list(self.representation)

    @model_validator(mode="before")
    @classmethod
    def _usual_model(cls, settings: Any) -> Any:
        """Maps want a network for maps where none is named."""
        if isinstance(settings, dict) and settings.get("representation") and settings.get("model") is None:
            several = settings["representation"] == "multi" or isinstance(settings["representation"], list)
            return settings | {"model": "multi_tfr" if several else "cnn2d"}
        return settings

    @field_validator("precision", mode="before")
    @classmethod
    def _as_text(cls, precision: Any) -> Any:
        return "32" if precision == 32 else precision  # YAML reads 32 as a number

    @field_validator("model")
    @classmethod
    def _known_model(cls, name: str) -> str:
        check_model_name(name)
        return name

    @field_validator("augment")
    @classmethod
    def _known_augmentation(cls, setting: Any) -> Any:
        if setting is not None:
            make_augmentation(setting)
        return setting

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, name: str) -> str:
        # Muon takes matrices only, and every network here has biases.
        known = [known for known in optimizer_names() if known != "muon"]
        if name.lower() not in known:
            raise ValueError(f"expected one of: {', '.join(known)}")
        return name.lower()

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, name: str) -> str:
        # A bare warm-up needs another schedule to warm up for.
        known = [known for known in schedule_names() if known != "warmup"]
        if name not in known:
            raise ValueError(f"expected one of: {', '.join(known)}")
        return name

    @field_validator("lambda_schedule")
    @classmethod
    def _known_lambda_schedule(cls, name: str) -> str:
        if name not in LAMBDA_SCHEDULES:
            raise ValueError(f"expected one of: {', '.join(LAMBDA_SCHEDULES)}")
        return name

    @field_validator("checkpoint_every")
    @classmethod
    def _readable_interval(cls, interval: int | str | None) -> int | str | None:
        # A number comes as text from a command line.
        interval = int(interval) if isinstance(interval, str) and interval.isdigit() else interval
        if interval is not None:
            SaveInterval(interval)
        return interval

    @field_validator("representation", mode="before")
    @classmethod
    def _known_maps(cls, kinds: Any) -> Any:
        known = ("multi", *get_args(Kind))
        strange = [kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind not in (None, *known)]
        if strange:
            raise ValueError(f"expected one of: {', '.join(known)}")
        return kinds

    @field_validator("representation")
    @classmethod
    def _several(cls, kinds: Any) -> Any:
        if isinstance(kinds, list) and (not kinds or len(set(kinds)) < len(kinds)):
            raise ValueError("expected at least one kind of maps and none twice")
        return kinds

    @field_validator("progressive")
    @classmethod
    def _growing(cls, stages: list[tuple[int, int]] | None) -> list[tuple[int, int]] | None:
        if stages is not None:
            lengths = [length for length, _ in stages]
            if not stages or min(lengths) < 16 or lengths != sorted(set(lengths)) or min(n for _, n in stages) < 1:
                raise ValueError("expected stages (length, epochs) of growing length >= 16, each of at least 1 epoch")
        return stages

    @field_validator("data", "unlabeled", "teacher", "map_cache")
    @classmethod
    def _absolute(cls, folder: str | None) -> str | None:
        # A run folder can then be judged again from any working directory.
        return None if folder is None else str(Path(folder).resolve())

    @field_validator("rpm_range")
    @classmethod
    def _in_order(cls, speeds: tuple[float, float] | None) -> tuple[float, float] | None:
        if speeds is not None and not 0 < speeds[0] <= speeds[1]:
            raise ValueError("expected 0 < lowest <= highest")
        return speeds

    @model_validator(mode="after")
    def _physics_fits(self) -> RunConfig:
        strange = [name for name in _PINN_ONLY if getattr(self, name) != type(self).model_fields[name].default]
        if self.trainer != "pinn" and strange:
            raise ValueError(f"{strange[0]} belongs to the trainer 'pinn', and the trainer is {self.trainer!r}")
        for owner, names in _BELONG_TO.items():
            changed = [name for name in names if getattr(self, name) != type(self).model_fields[name].default]
            if getattr(self, owner) is None and changed:
                raise ValueError(f"{changed[0]} belongs to {owner}, which is not set")
        if self.rpm_from == "signal" and self.rpm_range is None:
            raise ValueError("rpm_from 'signal' needs rpm_range, e.g. 'rpm_range: [1200, 2300]' in the --config file")
        return self

    @model_validator(mode="after")
    def _one_way_of_training(self) -> RunConfig:
        ways = {"trainer 'pinn'": self.trainer == "pinn"}
        ways |= {name: bool(getattr(self, name)) for name in ("representation", "teacher", "progressive")}
        chosen = [name for name, is_chosen in ways.items() if is_chosen]
        if len(chosen) > 1:
            raise ValueError(f"{chosen[0]} and {chosen[1]} are two ways of training: choose one")
        return self

    @model_validator(mode="after")
    def _stages_fit(self) -> RunConfig:
        if self.progressive is None:
            return self
        window, epochs = self.progressive[-1][0], sum(n for _, n in self.progressive)
        for name, asked, staged in (("window", self.window, window), ("epochs", self.epochs, epochs)):
            if asked not in (None, staged):
                raise ValueError(f"{name} is {asked}, but the stages of progressive end at {staged}: leave it out")
        self.window, self.epochs = window, epochs
        return self

    @model_validator(mode="after")
    def _maps_fit(self) -> RunConfig:
        for kind, arguments in (self.maps or {}).items():
            if kind not in self.representations:
                raise ValueError(f"maps has {kind!r}, and the representations are {', '.join(self.representations)}")
            if max(arguments.get("n_frequencies", 0), arguments.get("n_times", 0)) > _LARGEST_MAP:
                raise ValueError(f"maps of {kind!r} have more than {_LARGEST_MAP} rows or columns")
            try:
                made = TimeFrequency(kind, self.sampling_rate_hz or 1e9, **arguments)
            except TypeError as error:
                raise ValueError(f"maps of {kind!r}: {str(error).removeprefix('TimeFrequency.__init__() ')}") from None
            step, last = (made.frequencies[1] - made.frequencies[0]).item(), made.frequencies[-1].item()
            whole = last if kind == "order" else made.sampling_rate_hz
            if kind != "cwt" and self.sampling_rate_hz and whole / step > _MAX_TRANSFORM:
                raise ValueError(f"maps of {kind!r}: rows {step:g} apart need transforms that are too long")
        return self

    @model_validator(mode="after")
    def _model_fits(self) -> RunConfig:
        if (self.representation is not None) != (self.model in MAP_MODELS):
            seen = "waveforms" if self.representation is None else f"maps ({', '.join(self.representations)})"
            fitting = [name for name in list_models() if (name in MAP_MODELS) == (self.representation is not None)]
            raise ValueError(f"model {self.model!r} cannot take {seen}: expected one of {', '.join(fitting)}")
        several = self.representation == "multi" or isinstance(self.representation, list)
        if several != (self.model == "multi_tfr"):
            raise ValueError("several representations and the model 'multi_tfr' go together, and with no other")
        if self.map_cache is not None and self.augment is not None:
            raise ValueError("map_cache keeps maps of windows as they are, and augment changes the windows: choose one")
        if self.width != 1 and self.model not in WIDE_MODELS:
            raise ValueError(f"width belongs to {', '.join(WIDE_MODELS)}, and the model is {self.model!r}")
        if self.progressive and self.progressive_method == "interpolate" and self.model in PHYSICAL_MODELS:
            raise ValueError(f"interpolate changes the sampling rate, which the model {self.model!r} relies on")
        if self.progressive and self.progressive_method == "crop" and self.num_workers:
            raise ValueError(
                "progressive_method 'crop' needs num_workers 0: workers' crops could not be resumed exactly"
            )
        return self

    @model_validator(mode="after")
    def _loss_fits(self) -> RunConfig:
        if self.loss == "focal" and self.label_smoothing:
            raise ValueError("label_smoothing belongs to the loss 'ce', and the loss is 'focal'")
        return self

    @field_validator("bearing")
    @classmethod
    def _known_bearing(cls, name: str | None) -> str | None:
        if name is not None and name not in BEARINGS:
            raise ValueError(f"not in the table of bearings; expected one of: {', '.join(BEARINGS)}")
        return name

    @field_validator("channels", "classes", "test_specimens")
    @classmethod
    def _not_empty(cls, names: list[str] | None) -> list[str] | None:
        if names is not None and (not names or len(set(names)) < len(names)):
            raise ValueError("expected at least one name and none twice")
        return names


def make_config(settings: dict[str, Any], source: str = "settings") -> RunConfig:
    """A checked configuration.

    Args:
        settings: values by name.
        source: where they come from, for messages.

    Raises:
        ValueError: a name is unknown (the nearest known one is named) or a value is out of range.

    Example:
        >>> make_config({"epoch": 3})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: settings: unknown setting 'epoch'; did you mean 'epochs'? Expected one of: ...
    """
    try:
        return RunConfig(**settings)
    except ValidationError as error:
        raise ValueError(f"{source}: " + "; ".join(_explain(e) for e in error.errors())) from None


def _explain(error: Any) -> str:
    if not error["loc"]:
        return error["msg"].removeprefix("Value error, ")
    *parents, name = map(str, error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{'.'.join([*parents, name])}: {error['msg'].removeprefix('Value error, ')}, got {error['input']!r}"
    known = (SimulationConfig if parents == ["simulation"] else RunConfig).model_fields
    return unknown_name("setting", name, list(known))


class _PlainLoader(yaml.SafeLoader):
    """Values as they stand: a few lines of aliases can mean more values than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not read", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)


class _PlainDumper(yaml.SafeDumper):
    """Writes a value that occurs twice twice, for `_PlainLoader`."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def read_settings(path: str | Path) -> dict[str, Any]:
    """Settings from a YAML file; nothing in it is executed.

    Raises:
        ValueError: there is no such file, or it holds no mapping of names to values.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for ever
            raise ValueError("it is no regular file")
        with path.open(encoding="utf-8") as file:
            text = file.read(_MAX_CHARS + 1)
        if len(text) > _MAX_CHARS:
            raise ValueError(f"it has more than {_MAX_CHARS} letters")
        settings = yaml.load(text, _PlainLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: expected 'name: value' lines, found {type(settings).__name__}")
    strange = [name for name in settings if not isinstance(name, str)]
    if strange:
        raise ValueError(f"{path}: unknown setting {strange[0]!r}; names are words")
    return settings


def write_config(path: Path, config: RunConfig) -> None:
    """Write a configuration as YAML that `whirl train --config` takes."""
    settings = config.model_dump(mode="json", exclude=unused_settings(config))
    write_text(path, yaml.dump(settings, Dumper=_PlainDumper, sort_keys=False))


def make_time_frequency(config: RunConfig, kind: str) -> TimeFrequency:
    """What makes the configured maps of one kind."""
    return TimeFrequency(kind, config.sampling_rate_hz or 0, **(config.maps or {}).get(kind, {}))


def resolved_maps(config: RunConfig) -> dict[str, dict[str, Any]] | None:
    """Every argument of the configured maps, so that a run does not depend on what is usual later."""
    if config.representation is None:
        return None
    made = {kind: make_time_frequency(config, kind).config for kind in config.representations}
    own = ("kind", "sampling_rate_hz")
    return {kind: {name: value for name, value in given.items() if name not in own} for kind, given in made.items()}


def unused_settings(config: RunConfig) -> set[str]:
    """Names of settings that mean nothing for this run."""
    simulation = set() if config.data is None else {"simulation"}
    idle = {name for owner, names in _BELONG_TO.items() if getattr(config, owner) is None for name in names}
    return simulation | idle | (set() if config.trainer == "pinn" else {*_PINN_ONLY})
