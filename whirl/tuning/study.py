"""A search's study: where its trials are stored, under which settings, and what its parameters explain.

Every candidate is one trial that has a score, was pruned, or failed for a stated reason. A trial whose worker died is
marked as failed by the worker that notices, and a further trial gets its parameters (`retry_of`), so a study can be
continued wherever a worker was killed. Everything is stored in Optuna's own terms: its dashboard and importances read
it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whirl._distribution import install_hint
from whirl.engine.distributed import is_main_process
from whirl.tuning.storage import import_optuna, open_storage, redact_password, retry
from whirl.validation import unknown_name

if TYPE_CHECKING:
    import optuna

Space = Mapping[str, Any] | Callable[[Any], Any]

PRUNERS = ("median", "hyperband")


def open_study(
    storage: str | Path | None,
    name: str = "search",
    *,
    pruner: str | None = "median",
    seed: int = 0,
    fingerprint: Mapping[str, Any] | None = None,
) -> optuna.Study | None:
    """Make a study, or join the one of that name.

    Args:
        storage: as `study_storage.open_storage` takes it.
        name: of the study in its storage.
        pruner: who ends bad trials early: `'median'`, `'hyperband'`, or None for nobody.
        seed: of all that is drawn.
        fingerprint: what makes scores comparable (the space, the data, the model), as plain data; who joins must give
            the same.

    Returns:
        The study, whose scores are maximised; None on all ranks but the first, of several.

    Raises:
        ValueError: the pruner is unknown or `seed` negative; the study was made with other settings, or minimises.
        OSError: the storage cannot be used, see `study_storage.open_storage`.

    Example:
        >>> study = open_study(None, seed=3, fingerprint={"model": "wdcnn"})
        >>> study.user_attrs["settings"]
        {'model': 'wdcnn', 'pruner': 'median', 'seed': 3}
    """
    if pruner is not None and pruner not in PRUNERS:
        raise ValueError(unknown_name("pruner", pruner, PRUNERS))
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if not is_main_process():
        return None
    optuna, kept_in = import_optuna(), open_storage(storage)
    study = retry(
        lambda: optuna.create_study(
            storage=kept_in, study_name=name, direction="maximize", pruner=_new_pruner(pruner),
            sampler=optuna.samplers.RandomSampler(), load_if_exists=True,
        )
    )  # fmt: skip
    if study.direction.name != "MAXIMIZE":
        raise ValueError(
            f"study {name!r} in {redact_password(storage)} minimises its values, expected one that maximises a score"
        )
    settings = json.loads(json.dumps({**(fingerprint or {}), "pruner": pruner, "seed": seed}))
    if "settings" not in study.user_attrs:
        retry(lambda: study.set_user_attr("settings", settings))
    _check_settings(study.user_attrs["settings"], settings, f"study {name!r} in {redact_password(storage)}")
    return study


def _new_pruner(name: str | None) -> Any:
    pruners = import_optuna().pruners
    return {"median": pruners.MedianPruner, "hyperband": pruners.HyperbandPruner, None: pruners.NopPruner}[name]()


def _check_settings(recorded: dict[str, Any], given: dict[str, Any], what: str) -> None:
    """Raise unless they are equal, naming each that is not, down to a single parameter."""
    before, now = _leaves(recorded), _leaves(given)
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if differing:
        shown = "; ".join(
            f"{key}: {before.get(key, 'nothing')} there, {now.get(key, 'nothing')} here" for key in differing
        )
        raise ValueError(f"{what} was made with other settings ({shown}); take those, or another study")


def _leaves(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {name: value}
    return {k: v for key, part in value.items() for k, v in _leaves(part, f"{name}.{key}" if name else key).items()}


def describe_space(space: Space) -> dict[str, Any]:
    """A space as plain data, for the fingerprint of `open_study`.

    Raises:
        TypeError: a parameter's range is not an Optuna distribution.
        ValueError: there is no parameter.

    Example:
        >>> from optuna.distributions import FloatDistribution
        >>> describe_space({"lr": FloatDistribution(0.001, 0.1, log=True)})
        {'lr': {'step': None, 'low': 0.001, 'high': 0.1, 'log': True, 'name': 'FloatDistribution'}}
    """
    if not isinstance(space, Mapping):
        return {"function": getattr(space, "__qualname__", type(space).__name__)}
    optuna = import_optuna()
    if not space:
        raise ValueError("the space of a search has no parameter")
    for name, distribution in space.items():
        if not isinstance(distribution, optuna.distributions.BaseDistribution):
            raise TypeError(f"parameter {name!r}: expected an Optuna distribution, got {distribution!r}")
    texts = {name: json.loads(optuna.distributions.distribution_to_json(space[name])) for name in sorted(space)}
    return {name: {**text["attributes"], "name": text["name"]} for name, text in texts.items()}


def param_importances(trials: list[optuna.trial.FrozenTrial], seed: int = 0) -> dict[str, float]:
    """Share of the score's variation that each parameter explains, 0 to 1, the largest first.

    By functional analysis of variance over a random forest (Hutter et al., 2014), from candidates with a score.

    Args:
        trials: candidates, as `run_trials` and `candidates` return them.
        seed: of the forest.

    Raises:
        ValueError: there are not two different scores.
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
            f"the importance of parameters needs at least two candidates with different scores, got {len(scored)} "
            "that differ in nothing"
        )
    optuna = import_optuna()
    study = optuna.create_study(direction="maximize")
    study.add_trials(scored)
    try:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    except ImportError as error:
        raise ImportError(f"importances need scikit-learn: {install_hint('search')}") from error
    return optuna.importance.get_param_importances(study, evaluator=evaluator)
