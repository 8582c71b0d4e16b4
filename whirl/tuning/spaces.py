"""Recommended search spaces: one table of presets, from which grids, distributions and Optuna spaces are derived.

Each range covers the values that change the score on vibration data of a few hundred to some ten thousand windows, and
ends where further values were found to cost time without benefit:

- `RandomForest`: the share of features considered at a split matters most (small values give diverse trees, large
  values strong ones), then the minimum leaf size. More trees never hurt but soon stop helping, so cost bounds them.
- `SVM`, radial kernel on standardized features: `C` and `gamma` over several decades, since both act on a logarithmic
  scale. The default gamma, 1 / number of features, is in the range for 1 to 10 000 features.
- `GradientBoosting`: learning rate and number of trees compensate each other; trees are shallow, since each one only
  corrects the ones before.
- `MLP` on standardized features: width of the one hidden layer, learning rate and weight decay.
- networks: the learning rate matters most, over decades around the default of `SignalClassifier`; weight decay and
  label smoothing act against overfitting; then batch size and, if the network supports it, width. The number of epochs
  is a budget, not a parameter, since more are better. Attention needs smaller learning rates than convolutions.

The size of a grid is a product, so grids omit the parameters that matter least, which keep their defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from whirl.models.registry import list_models
from whirl.tuning.storage import import_optuna
from whirl.validation import check_name


@dataclass(frozen=True)
class Range:
    """Real numbers from `low` to `high`, both included.

    Attributes:
        low: smallest value.
        high: largest value.
        n_grid: number of grid points, including the ends; 0 omits the parameter from grids.
        log: whether values are spaced and drawn on a logarithmic scale; requires `low` > 0.

    Example:
        >>> Range(0.1, 10.0, n_grid=3, log=True).grid()
        [0.1, 1.0, 10.0]
    """

    low: float
    high: float
    n_grid: int = 0
    log: bool = False

    def grid(self) -> list[Any]:
        """Return points at equal distances (equal ratios if `log`), the inner ones rounded to two digits."""
        scale, unscale = (math.log, math.exp) if self.log else (float, float)
        low, step = scale(self.low), (scale(self.high) - scale(self.low)) / max(1, self.n_grid - 1)
        inner = [float(f"{unscale(low + i * step):.2g}") for i in range(1, self.n_grid - 1)]
        return [self.low, *inner, self.high] if self.n_grid else []

    def distribution(self) -> Any:
        """Return a frozen SciPy distribution."""
        from scipy.stats import loguniform, uniform

        return loguniform(self.low, self.high) if self.log else uniform(self.low, self.high - self.low)

    def optuna(self) -> Any:
        """Return an Optuna distribution."""
        return import_optuna().distributions.FloatDistribution(self.low, self.high, log=self.log)


@dataclass(frozen=True)
class IntRange:
    """Integers from `low` to `high`, both included, drawn uniformly.

    Attributes:
        low: smallest value.
        high: largest value.
        n_grid: number of grid points, including the ends; 0 omits the parameter from grids.

    Example:
        >>> IntRange(1, 9, n_grid=3).grid()
        [1, 5, 9]
    """

    low: int
    high: int
    n_grid: int = 0

    def grid(self) -> list[Any]:
        """Return points at equal distances, rounded to integers."""
        step = (self.high - self.low) / max(1, self.n_grid - 1)
        return [round(self.low + i * step) for i in range(self.n_grid)]

    def distribution(self) -> Any:
        """Return a frozen SciPy distribution."""
        from scipy.stats import randint

        return randint(self.low, self.high + 1)

    def optuna(self) -> Any:
        """Return an Optuna distribution."""
        return import_optuna().distributions.IntDistribution(self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """One of several values, without an order.

    Attributes:
        values: None, bools, numbers or strings, the types that Optuna's storages support.
        in_grid: whether grids include the parameter.

    Example:
        >>> Choice((None, "balanced"), in_grid=True).grid()
        [None, 'balanced']
    """

    values: tuple[bool | float | str | None, ...]
    in_grid: bool = False

    def grid(self) -> list[Any]:
        """Return the values, or an empty list if grids omit the parameter."""
        return list(self.values) if self.in_grid else []

    def distribution(self) -> list[Any]:
        """Return the values, from which scikit-learn draws uniformly."""
        return list(self.values)

    def optuna(self) -> Any:
        """Return an Optuna distribution."""
        return import_optuna().distributions.CategoricalDistribution(self.values)


Space = Range | IntRange | Choice

_WEIGHTS = Choice((None, "balanced"))

CLASSICAL: Mapping[str, Mapping[str, Space]] = {
    "RandomForest": {
        "n_estimators": IntRange(100, 400, n_grid=2),
        "max_features": Range(0.05, 1.0, n_grid=5, log=True),
        "min_samples_leaf": IntRange(1, 9, n_grid=3),
        "max_depth": Choice((None, 8, 16), in_grid=True),
        "class_weight": _WEIGHTS,
    },
    "SVM": {
        "C": Range(0.1, 1000.0, n_grid=5, log=True),
        "gamma": Range(1e-4, 1.0, n_grid=5, log=True),
        "class_weight": _WEIGHTS,
    },
    "GradientBoosting": {
        "learning_rate": Range(0.02, 0.3, n_grid=3, log=True),
        "n_estimators": IntRange(50, 250, n_grid=3),
        "max_depth": IntRange(2, 5, n_grid=3),
        "subsample": Range(0.5, 1.0, n_grid=2),
        "max_features": Range(0.05, 1.0, log=True),
    },
    "MLP": {
        "hidden_layer_sizes": IntRange(32, 256, n_grid=3),
        "learning_rate_init": Range(3e-4, 3e-2, n_grid=3, log=True),
        "alpha": Range(1e-5, 1.0, n_grid=4, log=True),
        "batch_size": Choice((32, 64, 128)),
    },
}
"""Presets of the models that take features, with the parameter names of the estimator itself."""

_CLASSES = {
    "RandomForestClassifier": "RandomForest",
    "SVC": "SVM",
    "GradientBoostingClassifier": "GradientBoosting",
    "MLPClassifier": "MLP",
}
"""Presets by the name of scikit-learn's class."""

_NETWORK: Mapping[str, Space] = {
    "lr": Range(3e-4, 3e-2, n_grid=5, log=True),
    "weight_decay": Range(1e-4, 0.1, n_grid=3, log=True),
    "label_smoothing": Range(0.0, 0.2, n_grid=2),
    "batch_size": Choice((16, 32, 64, 128)),
}
_WIDTH = Range(0.5, 2.0, log=True)
_SPECIAL: Mapping[str, Mapping[str, Space]] = {
    "cnn1d": {"width": _WIDTH},
    "wdcnn": {"width": _WIDTH},
    "resnet18_1d": {"width": _WIDTH},
    "patch_transformer": {"lr": Range(1e-4, 1e-2, n_grid=5, log=True)},
}


def preset_names() -> list[str]:
    """Return the names that have a preset: the classical models, then all networks of the registry.

    Example:
        >>> preset_names()[:4]
        ['RandomForest', 'SVM', 'GradientBoosting', 'MLP']
    """
    return [*CLASSICAL, *list_models()]


def preset(name: str) -> dict[str, Space]:
    """Return the recommended search space of a model.

    Args:
        name: one of `preset_names()`.

    Returns:
        `{parameter: range or choice}`, for the parameters of the estimator; `new_model(name)` may be a pipeline that
        ends with it.

    Raises:
        ValueError: there is no such preset; the message lists the known ones.

    Example:
        >>> preset("SVM")["C"]
        Range(low=0.1, high=1000.0, n_grid=5, log=True)
        >>> preset("Forest")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: unknown preset 'Forest'; did you mean 'RandomForest'? Expected one of: RandomForest, SVM, ...
    """
    check_name("preset", name, preset_names())
    return dict(CLASSICAL[name]) if name in CLASSICAL else {**_NETWORK, **_SPECIAL.get(name, {})}


def preset_of(model: Any) -> str:
    """Return the name of the preset of an estimator or of its class; a pipeline has that of its last step.

    A subclass of an estimator with a preset has the same one.

    Raises:
        ValueError: the estimator has none; the message lists the estimators that have one.

    Example:
        >>> from sklearn.svm import SVC
        >>> preset_of(SVC), preset_of(new_model("SVM")), preset_of(new_model("wdcnn"))
        ('SVM', 'SVM', 'wdcnn')
    """
    _, last = _last_step(model)
    kinds = [kind.__name__ for kind in (last if isinstance(last, type) else type(last)).__mro__]
    if "SignalClassifier" in kinds:
        return getattr(last, "model", "cnn1d")
    name = next((name for name in kinds if name in _CLASSES), None)
    if name is None:
        known = ", ".join([*_CLASSES, "SignalClassifier"])
        raise ValueError(
            f"{kinds[0]} has no default search space, only {known} have one; give the parameters to search"
        )
    return _CLASSES[name]


def _last_step(model: Any) -> tuple[str, Any]:
    """Return the last step of a pipeline, also of a nested one, and the prefix of its parameters."""
    prefix = ""
    while hasattr(model, "steps"):
        name, model = model.steps[-1]
        prefix += f"{name}__"
    return prefix, model


def full_spaces(model: Any, space: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Any:
    """Return a search space, or a list of them, with the names that a pipeline has for parameters of its last step.

    Names that the model itself has, or that neither has, are unchanged.

    Example:
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> from sklearn.svm import SVC
        >>> full_spaces(make_pipeline(StandardScaler(), SVC()), {"C": [1, 10], "svc__gamma": [0.1]})
        {'svc__C': [1, 10], 'svc__gamma': [0.1]}
    """
    if not hasattr(model, "steps"):
        return space
    if not isinstance(space, Mapping):
        return [full_spaces(model, part) for part in space]
    known, (prefix, _) = model.get_params(), _last_step(model)
    full = {name: f"{prefix}{name}" if name not in known else name for name in space}
    return {full[name] if full[name] in known else name: values for name, values in space.items()}


def preset_grid(name: str) -> dict[str, list[Any]]:
    """Return the preset as a grid of at most 100 candidates, for `GridSearchCV`.

    Example:
        >>> preset_grid("wdcnn")["lr"]
        [0.0003, 0.00095, 0.003, 0.0095, 0.03]
    """
    grids = {parameter: space.grid() for parameter, space in preset(name).items()}
    return {parameter: points for parameter, points in grids.items() if points}


def preset_distributions(name: str) -> dict[str, Any]:
    """Return the preset as SciPy distributions and lists of values, for `RandomizedSearchCV`.

    Example:
        >>> preset_distributions("SVM")["class_weight"]
        [None, 'balanced']
    """
    return {parameter: space.distribution() for parameter, space in preset(name).items()}


def preset_optuna(name: str) -> dict[str, Any]:
    """Return the preset as Optuna distributions.

    Raises:
        ImportError: Optuna is not installed.

    Example:
        >>> preset_optuna("SVM")["gamma"]
        FloatDistribution(high=1.0, log=True, low=0.0001, step=None)
    """
    return {parameter: space.optuna() for parameter, space in preset(name).items()}


def new_model(name: str, random_state: int | None = None, **settings: Any) -> Any:
    """Create the unfitted estimator that a preset belongs to.

    The support vector machine and the multi-layer perceptron are pipelines with a `StandardScaler`, since their ranges
    assume standardized features. A network is a `SignalClassifier`.

    Args:
        name: one of `preset_names()`.
        random_state: seed of the model; None to keep the default of the estimator.
        **settings: parameters of the estimator, e.g. `epochs=20` for a network, or `C=10` for the support vector
            machine.

    Raises:
        ValueError: there is no such preset, or the estimator lacks a parameter.

    Example:
        >>> new_model("SVM")
        Pipeline(steps=[('standardscaler', StandardScaler()), ('svc', SVC())])
    """
    preset(name)
    seed = {} if random_state is None else {"random_state": random_state}
    model = _build(name, seed)
    return model.set_params(**full_spaces(model, settings))


def _build(name: str, seed: dict[str, Any]) -> Any:
    if name not in CLASSICAL:
        from whirl.tuning.estimator import SignalClassifier

        return SignalClassifier(model=name, **seed)

    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    match name:
        case "RandomForest":
            return RandomForestClassifier(**seed)
        case "GradientBoosting":
            return GradientBoostingClassifier(**seed)
        case "SVM":
            return make_pipeline(StandardScaler(), SVC(**seed))
        case _:
            # Low learning rates on few windows need more iterations than the default of 200 to converge.
            return make_pipeline(StandardScaler(), MLPClassifier(max_iter=1000, **seed))
