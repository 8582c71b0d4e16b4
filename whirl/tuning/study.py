"""Optuna studies: their storage, their settings and the importance of their parameters.

Every candidate ends as one trial that has a score, was pruned, or failed for a stated reason. A trial whose worker died
is marked as failed by the worker that notices, and a new trial gets its parameters (`retry_of`), so a study can be
resumed wherever a worker was killed. Everything is stored in Optuna's own terms, so its dashboard and importances work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whirl.engine.distributed import is_main_process
from whirl.tuning.storage import import_optuna, open_storage, redact_password, retry
from whirl.validation import check_count, check_name

if TYPE_CHECKING:
    import optuna

Space = Mapping[str, Any] | Callable[[Any], Any]

PRUNERS = ("median", "hyperband")


def open_study(
    storage: str | Path | optuna.storages.BaseStorage | None,
    name: str = "search",
    *,
    pruner: str | optuna.pruners.BasePruner | None = "median",
    sampler: optuna.samplers.BaseSampler | None = None,
    seed: int = 0,
    fingerprint: Mapping[str, Any] | None = None,
) -> optuna.Study | None:
    """Create a study, or join an existing one of the same name.

    Args:
        storage: see `storage.open_storage`; or a storage of Optuna.
        name: name of the study in its storage.
        pruner: pruner for unpromising trials: `'median'`, `'hyperband'`, a pruner of Optuna, or None.
        sampler: sampler of Optuna; None for TPE, see `worker.run_trials`.
        seed: random seed of the search.
        fingerprint: what must be equal for scores to be comparable (space, data, model), as plain data; it must be
            equal for all workers that join.

    Returns:
        The study, whose scores are maximized; None on every rank except 0.

    Raises:
        ValueError: the pruner is unknown, `seed` is negative, or the study was created with other settings or minimizes
            its values.
        OSError: the storage cannot be used, see `storage.open_storage`.

    Example:
        >>> study = open_study(None, seed=3, fingerprint={"model": "wdcnn"})
        >>> study.user_attrs["settings"]
        {'model': 'wdcnn', 'pruner': 'median', 'seed': 3}
    """
    optuna = import_optuna()
    _check_kind("pruner", pruner, optuna.pruners.BasePruner, PRUNERS)
    _check_kind("sampler", sampler, optuna.samplers.BaseSampler, ())
    seed = check_count("seed", seed, minimum=0)
    if not is_main_process():
        return None
    given: Any = storage
    opened = given if isinstance(given, optuna.storages.BaseStorage) else open_storage(given)
    study = retry(
        lambda: optuna.create_study(
            storage=opened, study_name=name, direction="maximize", pruner=_new_pruner(pruner),
            sampler=sampler or optuna.samplers.RandomSampler(), load_if_exists=True,
        )
    )  # fmt: skip
    if [direction.name for direction in study.directions] != ["MAXIMIZE"]:
        raise ValueError(
            f"study {name!r} in {redact_password(given)} minimizes its values, expected one that maximizes a score"
        )
    named = {"pruner": _name_of(pruner), "seed": seed} | ({} if sampler is None else {"sampler": _name_of(sampler)})
    settings = json.loads(json.dumps({**(fingerprint or {}), **named}))
    if "settings" not in study.user_attrs:
        retry(lambda: study.set_user_attr("settings", settings))
    _check_settings(study.user_attrs["settings"], settings, f"study {name!r} in {redact_password(given)}")
    return study


def _check_kind(name: str, value: Any, kind: type, names: tuple[str, ...]) -> None:
    """Validate a pruner or sampler: an object of Optuna, one of the names, or None."""
    if value is None or isinstance(value, kind):
        return
    if not isinstance(value, str) or not names:
        raise TypeError(f"{name} is {value!r}, expected an object of optuna.{name}s" + (" or a name" if names else ""))
    check_name(name, value, names)


def _name_of(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else type(value).__name__


def _new_pruner(name: Any) -> Any:
    if not isinstance(name, str | None):
        return name
    pruners = import_optuna().pruners
    return {"median": pruners.MedianPruner, "hyperband": pruners.HyperbandPruner, None: pruners.NopPruner}[name]()


def _check_settings(recorded: dict[str, Any], given: dict[str, Any], what: str) -> None:
    """Raise unless the settings are equal, naming each nested entry that differs."""
    before, now = _leaves(recorded), _leaves(given)
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if differing:
        shown = "; ".join(
            f"{key} is {now.get(key, 'unset')}, in the study {before.get(key, 'unset')}" for key in differing
        )
        raise ValueError(f"{what} was created with other settings ({shown}); use the same settings or a new study")


def _leaves(value: Any, name: str = "") -> dict[str, Any]:
    """Flatten nested dicts to `{dotted name: value}`."""
    if not isinstance(value, dict) or not value:
        return {name: value}
    return {k: v for key, part in value.items() for k, v in _leaves(part, f"{name}.{key}" if name else key).items()}


def describe_space(space: Space) -> dict[str, Any]:
    """Return a space as plain data, for the fingerprint of `open_study`.

    Raises:
        TypeError: the range of a parameter is not an Optuna distribution.
        ValueError: the space is empty.

    Example:
        >>> from optuna.distributions import FloatDistribution
        >>> describe_space({"lr": FloatDistribution(0.001, 0.1, log=True)})
        {'lr': {'step': None, 'low': 0.001, 'high': 0.1, 'log': True, 'name': 'FloatDistribution'}}
    """
    if not isinstance(space, Mapping):
        return {"function": getattr(space, "__qualname__", type(space).__name__)}
    optuna = import_optuna()
    if not space:
        raise ValueError("the search space is empty, expected at least one parameter")
    for name, distribution in space.items():
        if not isinstance(distribution, optuna.distributions.BaseDistribution):
            raise TypeError(f"range of parameter {name!r} is {distribution!r}, expected an Optuna distribution")
    parsed = {name: json.loads(optuna.distributions.distribution_to_json(space[name])) for name in sorted(space)}
    return {name: {**entry["attributes"], "name": entry["name"]} for name, entry in parsed.items()}


def param_importances(trials: list[optuna.trial.FrozenTrial], seed: int = 0) -> dict[str, float]:
    """Return the share of the score's variance that each parameter explains, 0 to 1, in descending order.

    Computed by functional analysis of variance over a random forest (Hutter et al., 2014) from the candidates that have
    a score.

    Args:
        trials: candidates, as `run_trials` and `candidates` return them.
        seed: random seed of the forest.

    Raises:
        ValueError: there are no two different scores.
        ImportError: scikit-learn is not installed.

    Example:
        >>> from optuna.distributions import FloatDistribution
        >>> from whirl.tuning.worker import run_trials
        >>> space = {name: FloatDistribution(0, 1) for name in ("lr", "dropout")}
        >>> trials = run_trials(open_study(None), space, lambda trial: trial.params["lr"], 20)
        >>> next(iter(param_importances(trials)))
        'lr'
    """
    scored = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if len({trial.value for trial in scored}) < 2:
        raise ValueError(
            f"parameter importances require at least two candidates with different scores, got {len(scored)} with "
            "equal ones"
        )
    optuna = import_optuna()
    study = optuna.create_study(direction="maximize")
    study.add_trials(scored)
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)
