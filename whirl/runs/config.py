"""The configuration of a run: as stated by the user (`Config`), and with every choice made (`ResolvedConfig`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError, model_validator

from whirl.data.names import LABEL
from whirl.models.registry import list_models
from whirl.registry import import_plugins
from whirl.runs.descriptions import OFF, UNKNOWN, Section
from whirl.runs.flat import from_flat, to_flat, walk
from whirl.runs.methods import MapsMethod, ProgressiveMethod
from whirl.runs.sections import (
    DataSection,
    EvaluationSection,
    InputSection,
    ModelSection,
    PhysicsSection,
    RunSection,
    SearchSection,
    SplitSection,
    TrainingSection,
)
from whirl.runs.setting_errors import explain

PHYSICAL_MODELS = ("hybrid_pinn", "order_cnn")
"""Networks that use the sampling rate and the shaft speed."""

MAP_MODELS = ("cnn2d", "resnet18_2d", "multi_tfr")
"""Networks that take time-frequency maps."""

WIDE_MODELS = ("cnn1d", "wdcnn", "resnet18_1d")
"""Networks whose number of channels can be scaled."""

_LARGEST_MAP, _MAX_TRANSFORM = 4096, 2**20  # rows or columns, and samples


class Config(Section):
    """The settings of a run, in sections. A value of None is chosen from the data.

    Example:
        >>> config = make_config({"model": "wdcnn", "lr": 0.01})
        >>> config.training.lr, config.input.window
        (0.01, None)
    """

    data: DataSection = DataSection()
    split: SplitSection = SplitSection()
    model: ModelSection = ModelSection()
    input: InputSection = InputSection()
    training: TrainingSection = TrainingSection()
    physics: PhysicsSection = PhysicsSection()
    search: SearchSection = SearchSection()
    evaluation: EvaluationSection = EvaluationSection()
    run: RunSection = RunSection()

    @property
    def model_name(self) -> str:
        """Name of the network: as stated, otherwise the default of the training method."""
        default = "cnn1d" if not self.representations else "multi_tfr" if self.has_several_maps else "cnn2d"
        return self.model.name or default

    @property
    def representations(self) -> list[str]:
        """Kinds of the maps that the network takes; empty for waveforms."""
        method = self.training.method
        return method.kinds if isinstance(method, MapsMethod) else []

    @property
    def has_several_maps(self) -> bool:
        """Whether the network takes several kinds of maps."""
        method = self.training.method
        return isinstance(method, MapsMethod) and (method.representation == "multi" or len(method.kinds) > 1)

    @property
    def is_regression(self) -> bool:
        """Whether a number is predicted, instead of a class."""
        return self.training.task == "regression"

    @property
    def uses_speed(self) -> bool:
        """Whether the training or the network uses the shaft speed."""
        return self.training.method.kind == "pinn" or self.network_uses_speed

    @property
    def network_uses_speed(self) -> bool:
        """Whether the network uses the shaft speed."""
        return self.model_name in PHYSICAL_MODELS or "order" in self.representations

    @property
    def band_hz(self) -> float | None:
        """Cutoff frequency of the low-pass filter (Hz); None if it is off or not set."""
        band_hz = self.data.band_limit_hz
        return None if band_hz in (None, OFF) else float(band_hz)

    @property
    def speed_range(self) -> tuple[float, float] | None:
        """Lowest and highest shaft speed (rpm); None if unknown or not set."""
        return self.physics.rpm_range if isinstance(self.physics.rpm_range, tuple) else None

    @property
    def bearing(self) -> str | None:
        """Designation of the rolling bearing; None if unknown or not set."""
        return None if self.physics.bearing in (None, UNKNOWN) else self.physics.bearing

    @model_validator(mode="after")
    def _task_fits(self) -> Config:
        if self.evaluation.threshold != 0.5 and self.training.task != "binary":
            raise ValueError(f"threshold requires task 'binary' (got {self.training.task!r})")
        if self.is_regression:
            self._check_regression()
        elif self.data.target != LABEL:
            raise ValueError(f"target requires task 'regression' (got {self.training.task!r})")
        return self

    def _check_regression(self) -> None:
        training, method = self.training, self.training.method.kind
        of_classes = {
            f"trainer {method!r}": method in ("pinn", "distilled"),
            "model 'hybrid_pinn'": self.model.name == "hybrid_pinn",
            "a list of classes": self.data.classes not in (None, [self.data.target]),
            "class_weights": training.class_weights,
            "balance 'class'": training.balance == "class",
            "metrics of plug-ins": bool(self.evaluation.metrics),
        }
        wrong = [name for name, is_stated in of_classes.items() if is_stated]
        if wrong:
            raise ValueError(f"{wrong[0]} requires classes, but task 'regression' predicts a number: leave it out")

    @model_validator(mode="after")
    def _stages_fit(self) -> Config:
        method = self.training.method
        if isinstance(method, ProgressiveMethod):
            window, epochs = method.stages[-1][0], sum(n for _, n in method.stages)
            for name, stated, staged in (
                ("window", self.input.window, window),
                ("epochs", self.training.epochs, epochs),
            ):
                if stated not in (None, staged):
                    raise ValueError(f"{name} is {stated}, but the stages of progressive end at {staged}; leave it out")
            if method.resize == "interpolate" and self.model_name in PHYSICAL_MODELS:
                raise ValueError(
                    f"progressive_method 'interpolate' changes the sampling rate, which {self.model_name!r} uses"
                )
            if method.resize == "crop" and self.run.num_workers:
                raise ValueError("progressive_method 'crop' requires num_workers 0: crops in workers cannot be resumed")
        return self

    @model_validator(mode="after")
    def _maps_fit(self) -> Config:
        method = self.training.method
        if isinstance(method, MapsMethod):
            for kind, arguments in (method.maps or {}).items():
                _check_map(kind, arguments, method, self.data.sampling_rate_hz)
            if method.map_cache != OFF and self.input.augment != OFF:
                raise ValueError("map_cache stores maps of unchanged windows, so it cannot be combined with augment")
        return self

    @model_validator(mode="after")
    def _model_fits(self) -> Config:
        name, sees_maps = self.model_name, bool(self.representations)
        if name in list_models() and sees_maps != (name in MAP_MODELS):
            seen = f"maps ({', '.join(self.representations)})" if sees_maps else "waveforms"
            fitting = [known for known in list_models() if (known in MAP_MODELS) == sees_maps]
            raise ValueError(f"model {name!r} does not take {seen}; expected one of: {', '.join(fitting)}")
        if self.training.task != "multiclass" and name == "multi_tfr":
            raise ValueError(f"task {self.training.task!r} requires one network, but model 'multi_tfr' has several")
        if self.has_several_maps != (name == "multi_tfr"):
            raise ValueError("several representations require model 'multi_tfr', and it requires several")
        if self.model.width != 1 and name in set(list_models()) - set(WIDE_MODELS):
            raise ValueError(f"width requires model {', '.join(WIDE_MODELS)} (got {name!r})")
        return self

    @model_validator(mode="after")
    def _compared_fit(self) -> Config:
        if self.model.compared and self.is_regression:
            raise ValueError("compared requires classes, but task 'regression' predicts a number: leave it out")
        if self.model.compared and self.training.pretrained != OFF:
            raise ValueError("compared requires networks that start anew, but pretrained states one: leave one out")
        for name in self.model.compared:
            with_settings(self, model=name, compared=[])
        return self


def _check_map(kind: str, arguments: Mapping[str, Any], method: MapsMethod, rate_hz: float | None) -> None:
    from whirl.dsp.time_frequency import TimeFrequency

    if kind not in method.kinds:
        raise ValueError(f"maps has {kind!r}, but the configured kinds are {', '.join(method.kinds)}")
    sizes = [arguments.get(name, 0) for name in ("n_frequencies", "n_times")]
    if not all(isinstance(size, int) and size <= _LARGEST_MAP for size in sizes):
        raise ValueError(f"maps of {kind!r}: expected at most {_LARGEST_MAP} rows and columns, got {sizes}")
    try:
        transform = TimeFrequency(kind, rate_hz or 1e9, **arguments)
    except (TypeError, ArithmeticError) as error:
        raise ValueError(f"maps of {kind!r}: {str(error).removeprefix('TimeFrequency.__init__() ')}") from None
    step, last = (transform.frequencies[1] - transform.frequencies[0]).item(), transform.frequencies[-1].item()
    bandwidth = last if kind == "order" else transform.sampling_rate_hz
    if kind != "cwt" and rate_hz and bandwidth / step > _MAX_TRANSFORM:
        raise ValueError(
            f"maps of {kind!r}: rows {step:g} apart require transforms of more than {_MAX_TRANSFORM} points"
        )


class ResolvedConfig(Config):
    """The settings of a run with every choice made: no field is None."""

    @model_validator(mode="after")
    def _all_set(self) -> ResolvedConfig:
        unset = [flat.name for flat, value in walk(self) if value is None and flat.path[0] != "search"]
        if unset:
            raise ValueError(f"{unset[0]} is not set; a resolved configuration requires every setting")
        return self


AnyConfig = TypeVar("AnyConfig", bound=Config)


def make_config(
    settings: Mapping[str, Any], source: str = "settings", config_class: type[AnyConfig] = Config
) -> AnyConfig:
    """Make a configuration from settings by flat name.

    Args:
        settings: values by flat name; None leaves a setting at its default.
        source: origin of the settings, for messages.
        config_class: `Config` or `ResolvedConfig`.

    Raises:
        ValueError: a name is unknown (the message suggests the nearest) or a value is out of range.

    Example:
        >>> make_config({"epoch": 3})
        Traceback (most recent call last):
        ...
        ValueError: settings: unknown setting 'epoch'; did you mean 'epochs'?
    """
    try:
        nested = from_flat(settings, config_class)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return parse_config(nested, source, config_class)


def parse_config(
    nested: Mapping[str, Any], source: str = "settings", config_class: type[AnyConfig] = Config
) -> AnyConfig:
    """Make a configuration from nested sections, as in a YAML file.

    Raises:
        ValueError: a name is unknown or a value is out of range.
    """
    try:
        import_plugins(_imports_of(nested))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    try:
        return config_class.model_validate(nested)
    except ValidationError as error:
        messages = dict.fromkeys(explain(each, nested, config_class) for each in error.errors())
        raise ValueError(f"{source}: " + "; ".join(messages)) from None


def _imports_of(nested: Mapping[str, Any]) -> list[str]:
    """Return the plug-in modules, which must be imported before names are validated."""
    run = nested.get("run")
    names = run.get("imports", []) if isinstance(run, Mapping) else []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def with_settings(config: AnyConfig, **changes: Any) -> AnyConfig:
    """Return the configuration with some settings changed, and validate it.

    Args:
        config: the configuration.
        **changes: new values by flat name.
    """
    return make_config(to_flat(config) | changes, config_class=type(config))


def training_settings(config: Config) -> dict[str, Any]:
    """Return the settings by flat name, without those of a search and of a simulation that is not used."""
    hidden = {*SearchSection.model_fields} | (set() if config.data.is_simulated else {"simulation"})
    return {name: value for name, value in to_flat(config).items() if name not in hidden}


def resolve(config: Config, **choices: Any) -> ResolvedConfig:
    """Return the configuration with every choice made.

    Args:
        config: configuration as stated by the user.
        **choices: settings chosen from the data, by flat name.

    Raises:
        ValueError: a setting is still not set.
    """
    return make_config(to_flat(config) | choices, "resolved configuration", ResolvedConfig)
