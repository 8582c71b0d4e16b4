"""The search behind `AutoAugment.search`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from packages.core.training.policies import OPERATIONS, AutoAugment, Policy
from packages.core.training.trainer import Trainer

STEPS_PER_SUB_POLICY = 2


def search_policy(
    new_model: Callable[[], nn.Module],
    train_loader: Iterable[Any],
    val_loader: Iterable[Any],
    *,
    epochs: int,
    n_trials: int,
    n_sub_policies: int,
    operations: Sequence[str],
    seed: int,
    device: str | torch.device,
) -> Policy:
    """See `AutoAugment.search`."""
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
        raise ImportError("searching a policy needs Optuna: pip install 'whirl[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
