"""Arms of the physics ablation: each trains on the windows of a task and predicts its test windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from whirl.data.features import evidence_features
from whirl.data.loaders import make_loader
from whirl.evaluation.prediction import predict_windows
from whirl.experiments.ablation_tasks import AblationSetting, Task, WindowSubset
from whirl.losses.physics_loss_functions import PhysicalConstraintLoss
from whirl.models.registry import create_model
from whirl.optim.cnn_optimizer import create_optimizer
from whirl.optim.scheduler_factory import create_training_scheduler
from whirl.physics.compatibility import (
    class_probabilities,
    default_calibration,
    expectation_table,
    log_compatibility,
    presence_probability,
)
from whirl.physics.evidence import OrderEvidence
from whirl.physics.faults import signature
from whirl.training.pinn_trainer import PINNTrainer
from whirl.training.trainer import Trainer

MIN_HEALTHY = 3  # healthy windows required to calibrate the normal level of a line

Arm = Callable[[Task, AblationSetting, int], np.ndarray]
"""Function of a task, the setting and a seed that returns the predicted class of each test window."""


def _trained_arm(
    network: str | None = None, physics: str | None = None, weight: float | None = None, **options: Any
) -> Arm:
    """Create an arm that trains a network.

    Args:
        network: name of the network; None for that of the setting.
        physics: windows with a physics loss: `'labeled'` only, or also `'unlabeled'`; None for none.
        weight: weight of the physics loss; None for that of the setting.
        **options: arguments of `PhysicalConstraintLoss`.
    """

    def predict(task: Task, setting: AblationSetting, seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        model = _new_network(network or setting.network, task, setting)
        n_windows = max(len(task.unlabeled), len(task.labeled))
        loader = _loader(task.labeled.repeat(n_windows), setting, seed)
        optimizer = create_optimizer("adamw", model, lr=setting.lr, weight_decay=1e-2)
        schedule = create_training_scheduler("onecycle", optimizer, setting.epochs, len(loader))
        common = {"optimizer": optimizer, "device": setting.device, "lr_scheduler": schedule}
        if physics is None:
            trainer = Trainer(model, loader, **common)
        else:
            trainer = PINNTrainer(
                model,
                loader,
                **common,
                lambda_freq=setting.weight if weight is None else weight,
                lambda_sommerfeld=0,
                lambda_temporal=0,
                lambda_schedule=setting.schedule,
                physics_loss=_physics_loss(task, setting, seed, **options),
                unlabeled_loader=_loader(task.unlabeled, setting, seed + 1) if physics == "unlabeled" else None,
            )
        trainer.fit(setting.epochs)
        return predict_windows(model, _loader(task.test, setting, None)).predicted

    return predict


def _new_network(name: str, task: Task, setting: AblationSetting) -> nn.Module:
    arguments: dict[str, Any] = {}
    if name in ("hybrid_pinn", "order_cnn"):
        arguments |= {"sampling_rate_hz": task.sampling_rate_hz, "backbone": setting.network}
    if name == "hybrid_pinn" and setting.bearing is not None:
        arguments["bearing"] = setting.bearing
    if name == "order_cnn":
        min_rpm = min(windows.tensors()[2].min().item() for windows in (task.labeled, task.unlabeled))
        arguments["samples_per_revolution"] = 60 * task.sampling_rate_hz / min_rpm
    return create_model(name, len(task.classes), task.test.dataset.n_channels, **arguments)


def _physics_loss(task: Task, setting: AblationSetting, seed: int, **options: Any) -> PhysicalConstraintLoss:
    """Create the frequency term, calibrated on labeled healthy windows if there are enough."""
    arguments: dict[str, Any] = {"form": setting.form} | options
    loss = PhysicalConstraintLoss(
        setting.weight,
        0,
        0,
        classes=task.classes,
        sample_rate=task.sampling_rate_hz,
        orders=setting.orders,
        control_seed=seed,
        **arguments,
    )
    signals, targets, rpm = task.labeled.tensors()
    healthy = torch.tensor([signature(label) == signature("healthy") for label in task.classes])[targets]
    if healthy.sum() >= MIN_HEALTHY:
        loss.fit_calibration(signals[healthy], rpm[healthy])
    # Trust learns which class a signature belongs to, which would undo the scrambling of a control.
    if setting.trust and "control" not in options:
        loss.fit_trust(signals, targets, {"rpm": rpm})
    return loss


def _loader(windows: WindowSubset, setting: AblationSetting, seed: int | None) -> Any:
    """Create a loader, shuffled by the seed; without a seed in order, including the last incomplete batch."""
    shuffle = seed is not None
    return make_loader(windows, setting.batch_size, shuffle, seed or 0, drop_last=shuffle)  # type: ignore[arg-type]


def _order_evidence(task: Task, setting: AblationSetting) -> OrderEvidence:
    if setting.orders is None:
        return OrderEvidence.journal(task.sampling_rate_hz)
    return OrderEvidence.rolling(task.sampling_rate_hz, setting.orders)


def _logistic_regression(task: Task, setting: AblationSetting, seed: int) -> np.ndarray:
    """Fit a logistic regression to the evidence of the labeled windows, without a network."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    evidence = _order_evidence(task, setting)
    model.fit(evidence_features(task.labeled, evidence).numpy(), task.labeled.targets.numpy())
    return model.predict(evidence_features(task.test, evidence).numpy())


def _rule(task: Task, setting: AblationSetting, seed: int) -> np.ndarray:
    """Predict the class that is most compatible with the evidence, without training."""
    evidence = _order_evidence(task, setting)
    values = evidence_features(task.test, evidence, unknown_db=math.nan)
    presence = presence_probability(values, task.test.tensors()[2], default_calibration(evidence.features))
    table = expectation_table(task.classes, evidence.features, setting.orders)
    return class_probabilities(log_compatibility(presence, table)).argmax(1).numpy()


CONTROL_ARM = "ce"

ARMS: dict[str, Arm] = {
    CONTROL_ARM: _trained_arm(),
    "physics": _trained_arm(physics="unlabeled"),
    "unlabeled": _trained_arm(physics="unlabeled", weight=1e-9),
    "random_bands": _trained_arm(physics="unlabeled", control="random_bands"),
    "scrambled": _trained_arm(physics="unlabeled", control="scrambled"),
    "kl": _trained_arm(physics="unlabeled", form="kl", temperature=1.0),
    "labeled_only": _trained_arm(physics="labeled"),
    "features": _trained_arm("hybrid_pinn"),
    "features+physics": _trained_arm("hybrid_pinn", physics="unlabeled"),
    "order": _trained_arm("order_cnn"),
    "order+physics": _trained_arm("order_cnn", physics="unlabeled"),
    "evidence": _logistic_regression,
    "rule": _rule,
}
"""Arms by name.

- `ce`: cross entropy only, the control of all comparisons.
- `physics`: with the physics loss on unlabeled windows.
- `unlabeled`, `random_bands`, `scrambled`: negative controls on the same windows, with a weight near 0, with bands at
  random positions, or with permuted class signatures.
- `kl`: the form that imitates the class probabilities of the physics.
- `labeled_only`: the physics loss on labeled windows only.
- `features`, `features+physics`: evidence as input of the network, without and with the physics loss.
- `order`, `order+physics`: input resampled to orders, without and with the physics loss.
- `evidence`: logistic regression on the evidence.
- `rule`: the class that is most compatible with the evidence, without training.
"""
