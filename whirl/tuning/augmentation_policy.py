"""Search for augmentation policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from whirl.augment.policies import OPERATIONS, SEARCH_OPERATIONS, AutoAugment, Policy
from whirl.training.trainer import Trainer
from whirl.tuning.storage import import_optuna
from whirl.validation import check_count, check_name

STEPS_PER_SUB_POLICY = 2


def search_policy(
    new_model: Callable[[], nn.Module],
    train_loader: Iterable[Any],
    val_loader: Iterable[Any],
    *,
    epochs: int = 5,
    n_trials: int = 30,
    n_sub_policies: int = 3,
    operations: Sequence[str] = SEARCH_OPERATIONS,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> Policy:
    """Search for an augmentation policy with Optuna's TPE over short trainings.

    Every trial trains a new network from the same initial weights and data order, and is scored by its lowest
    validation loss. The first trial trains without augmentation, so the returned policy is never worse than no
    augmentation on the validation data. Its benefit on unseen machines can only be measured on specimens that were
    not used in the search.

    Args:
        new_model: function that creates an untrained network.
        train_loader: training data of each trial; a subset of the full training data is enough.
        val_loader: data that trials are scored on; it must share no specimen with `train_loader`.
        epochs: epochs per trial, >= 1.
        n_trials: number of trials, >= 1.
        n_sub_policies: number of sub-policies of two operations each, >= 1.
        operations: names of the operations to draw from.
        seed: random seed for the search, the weights and the data order.
        device: device to train on.

    Returns:
        The best policy, for `AutoAugment`; `[[]]`, which changes nothing, if no policy beat training without
        augmentation.

    Raises:
        ValueError: a number is out of range, or an operation is unknown.
        ImportError: Optuna is not installed.
    """
    _check(operations, epochs=epochs, n_trials=n_trials, n_sub_policies=n_sub_policies)
    optuna = import_optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
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
    identity = {"operation": operations[0], "probability": 0.0, "magnitude": 0.05}
    study.enqueue_trial({f"{slot}.{name}": value for slot in slots for name, value in identity.items()})
    study.optimize(validation_loss, n_trials=n_trials)
    return _policy(study.best_params)


def _policy(params: Mapping[str, Any]) -> Policy:
    """Build the sub-policies of a trial's parameters, without operations of probability 0."""
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
        check_count(name, count)
    if not operations:
        raise ValueError(f"operations is empty, expected some of: {', '.join(OPERATIONS)}")
    for name in operations:
        check_name("operation", name, OPERATIONS)
