"""Which hyper-parameters are worth a search, and where: one table, from which grids, distributions and spaces follow.

Why these ranges. Each spans what changes the score on vibration data of some hundred to some ten thousand windows, and
stops where more of it has been found to do nothing but cost time:

- `RandomForest`: the share of features a split may choose from matters most (small: unlike trees; large: strong
  ones), then how small a leaf may be. More trees never hurt and soon stop helping, so their number is bounded by cost.
- `SVM`, radial kernel on standardised features: `C` and `gamma` over decades, as both act by their logarithm. The usual
  gamma, 1 / number of features, is inside for 1 to 10 000 features.
- `GradientBoosting`: learning rate and number of trees trade against each other; shallow trees, as each only corrects.
- `MLP` on standardised features: one hidden layer (its width), its step and its weight decay.
- networks: the learning rate matters most, by decades around the preset of `SignalClassifier`; weight decay and label
  smoothing against overfitting; the batch size and, where the network has it, the width. Epochs are a budget, not a
  parameter: more are better. Attention wants smaller steps than convolutions.

A grid grows as a product, so it leaves out what matters least; the default stays there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from whirl._distribution import install_hint
from whirl.models.registry import list_models
from whirl.validation import unknown_name


@dataclass(frozen=True)
class Range:
    """Real numbers from `low` to `high`, both included.

    Attributes:
        low: smallest value.
        high: largest value.
        n_grid: points of a grid, the ends among them; 0 leaves the parameter out of grids.
        log: whether equal ratios, not equal differences, are alike; then `low` > 0.
    """

    low: float
    high: float
    n_grid: int = 0
    log: bool = False

    def grid(self) -> list[Any]:
        """Points at equal distances (ratios where `log`), inner ones rounded to two digits."""
        forward, back = (math.log, math.exp) if self.log else (float, float)
        low, step = forward(self.low), (forward(self.high) - forward(self.low)) / max(1, self.n_grid - 1)
        inner = [float(f"{back(low + i * step):.2g}") for i in range(1, self.n_grid - 1)]
        return [self.low, *inner, self.high] if self.n_grid else []

    def distribution(self) -> Any:
        """A frozen SciPy distribution."""
        from scipy.stats import loguniform, uniform

        return loguniform(self.low, self.high) if self.log else uniform(self.low, self.high - self.low)

    def optuna(self) -> Any:
        return _distributions().FloatDistribution(self.low, self.high, log=self.log)


@dataclass(frozen=True)
class IntRange:
    """Integers from `low` to `high`, both included, all alike.

    Attributes:
        low: smallest value.
        high: largest value.
        n_grid: points of a grid, the ends among them; 0 leaves the parameter out of grids.
    """

    low: int
    high: int
    n_grid: int = 0

    def grid(self) -> list[Any]:
        """Points at equal distances, rounded."""
        step = (self.high - self.low) / max(1, self.n_grid - 1)
        return [round(self.low + i * step) for i in range(self.n_grid)]

    def distribution(self) -> Any:
        """A frozen SciPy distribution."""
        from scipy.stats import randint

        return randint(self.low, self.high + 1)

    def optuna(self) -> Any:
        return _distributions().IntDistribution(self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """One of some values, without an order.

    Attributes:
        values: None, bools, numbers or strings, which are what a storage of Optuna can keep.
        in_grid: whether grids hold the parameter.
    """

    values: tuple[bool | float | str | None, ...]
    in_grid: bool = False

    def grid(self) -> list[Any]:
        return list(self.values) if self.in_grid else []

    def distribution(self) -> list[Any]:
        """The values, which scikit-learn draws from evenly."""
        return list(self.values)

    def optuna(self) -> Any:
        return _distributions().CategoricalDistribution(self.values)


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
        "svc__C": Range(0.1, 1000.0, n_grid=5, log=True),
        "svc__gamma": Range(1e-4, 1.0, n_grid=5, log=True),
        "svc__class_weight": _WEIGHTS,
    },
    "GradientBoosting": {
        "learning_rate": Range(0.02, 0.3, n_grid=3, log=True),
        "n_estimators": IntRange(50, 250, n_grid=3),
        "max_depth": IntRange(2, 5, n_grid=3),
        "subsample": Range(0.5, 1.0, n_grid=2),
        "max_features": Range(0.05, 1.0, log=True),
    },
    "MLP": {
        "mlpclassifier__hidden_layer_sizes": IntRange(32, 256, n_grid=3),
        "mlpclassifier__learning_rate_init": Range(3e-4, 3e-2, n_grid=3, log=True),
        "mlpclassifier__alpha": Range(1e-5, 1.0, n_grid=4, log=True),
        "mlpclassifier__batch_size": Choice((32, 64, 128)),
    },
}
"""Presets of the models that see features; a step's name stands before the name of its parameter."""

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
    """Names that have a preset: the classical models', then those of all networks in the registry.

    Example:
        >>> preset_names()[:4]
        ['RandomForest', 'SVM', 'GradientBoosting', 'MLP']
    """
    return [*CLASSICAL, *list_models()]


def preset(name: str) -> dict[str, Space]:
    """Parameters worth a search for the model of that name, and where to look for them.

    Args:
        name: one of `preset_names()`.

    Returns:
        Space by the name of the parameter of `new_model(name)`.

    Raises:
        ValueError: there is no such preset; the known ones are listed.

    Example:
        >>> preset("SVM")["svc__C"]
        Range(low=0.1, high=1000.0, n_grid=5, log=True)
        >>> preset("Forest")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: unknown preset 'Forest'; did you mean 'RandomForest'? Expected one of: RandomForest, SVM, ...
    """
    if name not in preset_names():
        raise ValueError(unknown_name("preset", name, preset_names()))
    return dict(CLASSICAL[name]) if name in CLASSICAL else {**_NETWORK, **_SPECIAL.get(name, {})}


def preset_grid(name: str) -> dict[str, list[Any]]:
    """The preset as a grid of at most 100 candidates, as `GridSearchCV` takes it.

    Example:
        >>> preset_grid("wdcnn")["lr"]
        [0.0003, 0.00095, 0.003, 0.0095, 0.03]
    """
    grids = {parameter: space.grid() for parameter, space in preset(name).items()}
    return {parameter: points for parameter, points in grids.items() if points}


def preset_distributions(name: str) -> dict[str, Any]:
    """The preset as SciPy distributions and lists of values, as `RandomizedSearchCV` takes it.

    Example:
        >>> preset_distributions("SVM")["svc__class_weight"]
        [None, 'balanced']
    """
    return {parameter: space.distribution() for parameter, space in preset(name).items()}


def preset_optuna(name: str) -> dict[str, Any]:
    """The preset as distributions of Optuna.

    Raises:
        ImportError: Optuna is not installed.

    Example:
        >>> preset_optuna("SVM")["svc__gamma"]
        FloatDistribution(high=1.0, log=True, low=0.0001, step=None)
    """
    return {parameter: space.optuna() for parameter, space in preset(name).items()}


def new_model(name: str, random_state: int | None = None, **settings: Any) -> Any:
    """The unfitted estimator that the preset of that name is for.

    The support vector machine and the perceptron come behind a `StandardScaler`, without which their ranges mean
    nothing; a network is a `SignalClassifier`.

    Args:
        name: one of `preset_names()`.
        random_state: seed of the model; None leaves its own default.
        **settings: parameters of the estimator to begin with, e.g. `epochs=20` of a network.

    Raises:
        ValueError: there is no such preset, or the estimator has no such parameter.

    Example:
        >>> new_model("SVM")
        Pipeline(steps=[('standardscaler', StandardScaler()), ('svc', SVC())])
    """
    preset(name)
    seed = {} if random_state is None else {"random_state": random_state}
    return _build(name, seed).set_params(**settings)


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
            # Small steps on few windows need more passes than the usual 200 to converge.
            return make_pipeline(StandardScaler(), MLPClassifier(max_iter=1000, **seed))


def _distributions() -> Any:
    try:
        from optuna import distributions
    except ImportError:
        raise ImportError(f"Bayesian search needs Optuna: {install_hint('search')}") from None
    return distributions
