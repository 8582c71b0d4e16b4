"""A search for augmentation policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from whirl._distribution import install_hint
from whirl.augment.policies import OPERATIONS, SEARCHED, AutoAugment, Policy
from whirl.training.trainer import Trainer

STEPS_PER_SUB_POLICY = 2


def search_policy(
    new_model: Callable[[], nn.Module],
    train_loader: Iterable[Any],
    val_loader: Iterable[Any],
    *,
    epochs: int = 5,
    n_trials: int = 30,
    n_sub_policies: int = 3,
    operations: Sequence[str] = SEARCHED,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> Policy:
    """Search a policy: Optuna's TPE over short trainings, each judged by its lowest validation loss.

    Every trial trains a new network from the same weights and order. The first one trains without augmentation, so
    that what is returned is no worse than that by validation; what it is worth on unseen machines, only a test on
    specimens that the search never saw can tell.

    Args:
        new_model: makes an untrained network.
        train_loader: the data of the proxy training; a part of all is enough.
        val_loader: what trials are judged on; share no specimen with `train_loader`.
        epochs: length of a trial, >= 1.
        n_trials: trials, >= 1.
        n_sub_policies: sub-policies of two operations each, >= 1.
        operations: what to draw from.
        seed: of the search, the weights and the order.
        device: where to train.

    Returns:
        The best policy, for `AutoAugment`; `[[]]`, which changes nothing, where none was better than nothing.

    Raises:
        ValueError: a number out of its range, an unknown operation.
        ImportError: Optuna is missing.
    """
    _check(operations, epochs=epochs, n_trials=n_trials, n_sub_policies=n_sub_policies)
    optuna = _import_optuna()
    slots = [f"{i}.{j}" for i in range(n_sub_policies) for j in range(STEPS_PER_SUB_POLICY)]

    def validation_loss(trial: Any) -> float:
        for slot in slots:
            trial.suggest_categorical(f"{slot}.operation", list(operations))
            trial.suggest_float(f"{slot}.probability", 0.0, 1.0)
            trial.suggest_float(f"{slot}.magnitude", 0.05, 1.0)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            trainer = Trainer(
                new_model(), train_loader, val_loader, device=device, augmentation=AutoAugment(_policy(trial.params))
            )
            return min(trainer.fit(epochs)["val_loss"])

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    nothing = {"operation": operations[0], "probability": 0.0, "magnitude": 0.05}
    study.enqueue_trial({f"{slot}.{name}": value for slot in slots for name, value in nothing.items()})
    study.optimize(validation_loss, n_trials=n_trials)
    return _policy(study.best_params)


def _policy(params: Mapping[str, Any]) -> Policy:
    """Sub-policies from a trial's parameters, without operations that never happen."""
    sub_policies: dict[str, list[tuple[str, float, float]]] = {}
    for slot in dict.fromkeys(name.rsplit(".", 1)[0] for name in params):
        steps = sub_policies.setdefault(slot.split(".")[0], [])
        name, probability, magnitude = (params[f"{slot}.{part}"] for part in ("operation", "probability", "magnitude"))
        if probability > 0:
            steps.append((name, probability, magnitude))
    found = list(sub_policies.values())
    return found if any(found) else [[]]


def _check(operations: Sequence[str], **counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}, expected >= 1")
    unknown = [name for name in operations if name not in OPERATIONS]
    if unknown or not operations:
        raise ValueError(f"operations are {list(operations)}, expected some of {', '.join(OPERATIONS)}")


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ImportError(f"searching a policy needs Optuna: {install_hint('search')}") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
