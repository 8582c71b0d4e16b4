"""Search spaces over the settings of a run: the preset of a network, or a file of the user."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from whirl.runs.config import Config, make_config
from whirl.runs.descriptions import OFF
from whirl.runs.flat import flat_settings, get_setting, to_flat, unknown_setting, walk
from whirl.tuning.spaces import Choice, preset
from whirl.tuning.storage import import_optuna

Space = dict[str, dict[str, Any] | list[Any]]
"""By setting, `{"low": ..., "high": ..., "log": ...}` or a list of values, as in the file for `--space`."""

SEARCHABLE = (
    "batch_size",
    "loss",
    "class_weights",
    "label_smoothing",
    "optimizer",
    "lr",
    "weight_decay",
    "schedule",
    "augment",
    "specaugment",
    "width",
    "temperature",
    "alpha",
    "progressive_method",
    "lambda_freq",
    "lambda_sommerfeld",
    "lambda_temporal",
    "lambda_schedule",
)
"""Settings of `Config` that can be searched: they change the training but not the windows."""

_METHOD = ("model", "trainer", "representation", "maps", "teacher", "progressive")
_MACHINE = ("device", "threads", "num_workers", "precision", "mmap_dir", "checkpoint_every", "on_nonfinite")
_REASONS = {
    **dict.fromkeys(_METHOD, "it changes the network or the training method; run a separate search for each value"),
    **dict.fromkeys((*_MACHINE, "sync_batchnorm"), "it concerns the machine, not the trained network"),
    "epochs": "trials are compared epoch by epoch; set their number with --epochs",
    "seed": "it also draws the split, and the best of several seeds is due to chance",
}
_CHANGES_WINDOWS = "it changes the windows, and scores on different windows are not comparable"
_KEYS = ("low", "high", "log")


def preset_space(config: Config, given: Collection[str] = ()) -> Space:
    """Return the preset of the configured network, without the given settings and those that do not apply.

    Args:
        config: the configuration.
        given: names of settings that the user gave, which are fixed.

    Raises:
        ValueError: no setting is left to search.

    Example:
        >>> preset_space(make_config({"model": "wdcnn"}), given=["lr", "width", "batch_size", "weight_decay"])
        {'label_smoothing': {'low': 0.0, 'high': 0.2, 'log': False}}
    """
    space: Space = {}
    for name, values in preset(config.model_name).items():
        if name in given or not _applies(name, config):
            continue
        bounds = asdict(values)
        space[name] = (
            [OFF if value is None else value for value in values.values]
            if isinstance(values, Choice)
            else {key: bounds[key] for key in _KEYS if key in bounds}
        )
    if not space:
        raise ValueError(
            f"every setting in the preset of {config.model_name!r} is given, so nothing is left to search; list the "
            "settings to search in a file for --space"
        )
    return space


def _applies(name: str, config: Config) -> bool:
    """Whether a setting can be searched: a pretrained network has its width, and only cross entropy smooths labels."""
    if name == "width":
        return config.training.pretrained == OFF
    return name != "label_smoothing" or config.training.loss == "ce"


def check_space(space: Mapping[str, Any], config: Config, source: str = "space") -> Space:
    """Validate a search space against the rest of the configuration, and return it with numbers converted.

    Args:
        space: by setting, a list of values, or `low`, `high` and optionally `log`.
        config: all other settings.
        source: origin of the space, for messages.

    Raises:
        ValueError: the space is empty, a setting is unknown or cannot be searched, a range is empty, or a value is out
            of bounds.

    Example:
        >>> check_space({"lr": {"low": "1e-4", "high": 0.1, "log": True}, "batch_size": [32, 64]}, Config())
        {'lr': {'low': 0.0001, 'high': 0.1, 'log': True}, 'batch_size': [32, 64]}
        >>> check_space({"device": ["cpu"]}, Config())
        Traceback (most recent call last):
        ...
        ValueError: space: device cannot be searched: it concerns the machine, not the trained network
    """
    if not space:
        raise ValueError(f"{source}: no settings to search; expected e.g. 'lr: {{low: 1e-4, high: 0.1, log: true}}'")
    checked: Space = {}
    fixed = to_flat(config) | ({"loss": "ce"} if "loss" in space and not config.is_regression else {})
    for name, values in space.items():
        _check_searchable(name, config, source)
        where = f"{source}: {name}"
        checked[name] = (
            _checked_range(name, values, where) if isinstance(values, dict) else _checked_choice(values, where)
        )
        for value in _extremes(checked[name]):
            make_config(fixed | candidate_settings(config, {name: value}), source)
    return checked


def _check_searchable(name: str, config: Config, source: str) -> None:
    known = flat_settings(Config)
    if name not in known:
        raise ValueError(f"{source}: {unknown_setting(name, Config)}")
    if name not in SEARCHABLE:
        raise ValueError(f"{source}: {name} cannot be searched: {_REASONS.get(name, _CHANGES_WINDOWS)}")
    if name not in {flat.name for flat, _ in walk(config)}:
        raise ValueError(f"{source}: {name} requires trainer {known[name].method!r}; leave it out")


def _checked_range(name: str, bounds: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not {"low", "high"} <= set(bounds) <= set(_KEYS):
        raise ValueError(
            f"{where}: expected low, high and optionally log, got {', '.join(map(str, bounds)) or 'nothing'}"
        )
    low, high, log = _number(bounds["low"], where), _number(bounds["high"], where), bounds.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"{where}: log is {log!r}, expected true or false")
    if flat_settings(Config)[name].info.annotation not in (int, float):
        raise ValueError(f"{where}: not a number; list its values instead, e.g. [a, b]")
    if not low < high:
        raise ValueError(f"{where}: the range from {low:g} to {high:g} is empty; expected low < high")
    if log and low <= 0:
        raise ValueError(f"{where}: low is {low:g}, but a logarithmic range requires low > 0")
    if flat_settings(Config)[name].info.annotation is int:
        if not (low.is_integer() and high.is_integer()):
            raise ValueError(f"{where}: {low:g} to {high:g}, expected integers")
        low, high = int(low), int(high)
    return {"low": low, "high": high, "log": log}


def _checked_choice(values: Any, where: str) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise ValueError(f"{where}: expected a list of values or {{low: ..., high: ..., log: ...}}, got {values!r}")
    for value in values:
        if not (value is None or isinstance(value, (bool, int, float, str))):
            raise ValueError(f"{where}: got {value!r}, expected a number, a string, true, false or null")
    values = [_number(value, where) if _is_numeral(value) else OFF if value is None else value for value in values]
    if len(set(map(repr, values))) < len(values):
        raise ValueError(f"{where}: {values!r} contains a value twice")
    return values


def _is_numeral(value: Any) -> bool:
    """Whether a string is a number: YAML reads `1e-4` as a string."""
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not (isinstance(value, (int, float)) or _is_numeral(value)):
        raise ValueError(f"{where}: got {value!r}, expected a number")
    if not math.isfinite(float(value)):
        raise ValueError(f"{where}: got {value!r}, expected a finite number")
    return float(value)


def _extremes(values: dict[str, Any] | list[Any]) -> list[Any]:
    return [values["low"], values["high"]] if isinstance(values, dict) else values


def distributions(space: Space) -> dict[str, Any]:
    """Convert the space to Optuna's distributions.

    Raises:
        ImportError: Optuna is not installed.

    Example:
        >>> distributions({"batch_size": [32, 64]})
        {'batch_size': CategoricalDistribution(choices=(32, 64))}
    """
    optuna = import_optuna()
    result: dict[str, Any] = {}
    for name, values in space.items():
        if isinstance(values, list):
            result[name] = optuna.distributions.CategoricalDistribution(values)
        elif isinstance(values["low"], int):
            result[name] = optuna.distributions.IntDistribution(
                values["low"], values["high"], log=values.get("log", False)
            )
        else:
            result[name] = optuna.distributions.FloatDistribution(
                values["low"], values["high"], log=values.get("log", False)
            )
    return result


def count(space: Space) -> int | None:
    """Return the number of candidates in the space; None if a range of floats makes it infinite.

    Example:
        >>> count({"batch_size": [32, 64], "augment": [None, "light", "medium"]})
        6
        >>> count({"lr": {"low": 0.01, "high": 0.1}, "batch_size": [32, 64]})
    """
    sizes = [
        len(values) if isinstance(values, list) else values["high"] - values["low"] + 1 for values in space.values()
    ]
    return math.prod(sizes) if all(isinstance(size, int) for size in sizes) else None


def default_candidate(space: Space, config: Config) -> dict[str, Any]:
    """Return the configured value of every searched setting."""
    return {name: get_setting(config, name) for name in space}


def outside(space: Space, candidate: Mapping[str, Any]) -> list[str]:
    """List the settings whose value is outside the space.

    Example:
        >>> outside({"lr": {"low": 0.1, "high": 1.0}}, {"lr": 0.01})
        ['lr']
    """
    return [name for name, values in space.items() if not _contains(values, candidate[name])]


def _contains(values: dict[str, Any] | list[Any], value: Any) -> bool:
    return value in values if isinstance(values, list) else values["low"] <= value <= values["high"]


def candidate_settings(config: Config, candidate: Mapping[str, Any]) -> dict[str, Any]:
    """Return the candidate's values as settings; label smoothing is 0 with the focal loss, which does not support it.

    Example:
        >>> candidate_settings(Config(), {"loss": "focal", "label_smoothing": 0.1})
        {'loss': 'focal', 'label_smoothing': 0.0}
    """
    return {**candidate, **({"label_smoothing": 0.0} if candidate.get("loss") == "focal" else {})}
