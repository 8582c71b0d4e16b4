"""The settings of the training.

To keep the start of the command fast, validators that need torch import it when they run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import field_validator, model_validator

from whirl.runs.descriptions import OFF, About, Folder, Names, Section, one_of, setting
from whirl.runs.methods import Method, PlainMethod


def _losses() -> Sequence[str]:
    from whirl.losses.registry import LOSSES

    return LOSSES.names()


def _losses_of_numbers() -> Sequence[str]:
    from whirl.losses.values import VALUE_LOSSES

    return list(VALUE_LOSSES)


def _optimizers() -> Sequence[str]:
    from whirl.optim.cnn_optimizer import optimizer_names

    return [name for name in optimizer_names() if name != "muon"]  # muon takes matrices only, not biases


def _schedules() -> Sequence[str]:
    from whirl.optim.scheduler_factory import schedule_names

    return [name for name in schedule_names() if name != "warmup"]  # warmup requires another schedule


class TrainingSection(Section):
    """Training."""

    method: Method = setting(PlainMethod(), "Training method.", About(flag="", kind="method"))
    task: Literal["multiclass", "binary", "multilabel", "ordinal", "regression"] = setting(
        "multiclass",
        "What labels mean: classes; two classes, for one logit; faults that may occur together, e.g. inner_race+ball; "
        "levels in an order; or numbers.",
        About(synonyms=("objective", "problem_type")),
    )
    epochs: int = setting(
        None,
        "Passes over the training windows.",
        About(auto="about 1000 steps, at least 6 and at most 40 epochs", synonyms=("n_epochs", "num_epochs")),
        ge=1,
        le=1_000_000,
    )
    batch_size: int = setting(64, "Windows per step.", About(synonyms=("batch", "bs")), ge=2, le=2**20)
    loss: str = setting(
        "ce",
        "Loss function, e.g. ce or focal; for task regression mse (the default there), mae or huber.",
        About(choices=lambda: [*_losses(), *_losses_of_numbers()], synonyms=("criterion",)),
    )
    class_weights: bool = setting(False, "Weight each class by the inverse of its number of training windows.")
    balance: Literal["off", "class", "specimen", "recording"] = setting(
        OFF,
        "Draw training windows so that all classes, specimens or recordings have the same share of an epoch.",
        About(synonyms=("sampler", "oversampling", "weighted_sampler")),
    )
    label_smoothing: float = setting(0.0, "Probability spread over all classes, for cross entropy.", ge=0, lt=1)
    optimizer: str = setting("adamw", "Optimizer, e.g. adamw, sgd, rmsprop.", About(choices=_optimizers))
    lr: float = setting(
        3e-3, "Peak learning rate.", About(synonyms=("learning_rate", "step_size", "eta", "max_lr")), gt=0, le=1e3
    )
    sam_rho: float = setting(
        0.0,
        "Length of the perturbation of sharpness-aware minimization, e.g. 0.05; steps take twice as long. 0 is off.",
        About(synonyms=("sam",)),
        ge=0,
        le=1e3,
    )
    weight_decay: float = setting(1e-2, "Weight decay of the optimizer.", About(synonyms=("l2", "wd")), ge=0, le=1e3)
    schedule: str = setting(
        "onecycle",
        "Learning-rate schedule; see whirl schedule.",
        About(choices=_schedules, synonyms=("scheduler", "lr_scheduler")),
    )
    early_stopping: int | Literal["off"] = setting(
        OFF,
        "Stop when the validation loss has not improved for this many epochs.",
        About(synonyms=("patience", "early_stop"), kind="INT"),
    )

    pretrained: Folder = setting(
        OFF,
        "Start from the network of this run; classes may differ, other settings of the network are taken from it.",
        About(flag="--from", synonyms=("fine_tune", "init_from", "checkpoint", "weights"), kind="folder"),
    )
    freeze: Names | Literal["off"] = setting(
        OFF,
        "Parts of a pretrained network that are not trained: features (all but the last layer) or names of modules.",
        About(kind="names", synonyms=("frozen",)),
    )
    unfreeze_every: int | Literal["off"] = setting(
        OFF, "Train one more frozen layer after this many epochs each, starting at the logits.", About(kind="INT")
    )
    layer_decay: float = setting(
        1.0, "Learning rate of each layer relative to that of the next one, for fine-tuning.", gt=0, le=1
    )

    @model_validator(mode="before")
    @classmethod
    def _default_loss(cls, stated: Any) -> Any:
        is_number = isinstance(stated, dict) and stated.get("task") == "regression"
        return {"loss": "mse", **stated} if is_number else stated

    @field_validator("early_stopping", "unfreeze_every")
    @classmethod
    def _at_least_one(cls, n_epochs: Any) -> Any:
        if n_epochs != OFF and not 1 <= n_epochs <= 1_000_000:
            raise ValueError("expected a number of epochs >= 1 or off")
        return n_epochs

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, name: str) -> str:
        return one_of("loss", name, [*_losses(), *_losses_of_numbers()])

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, name: str) -> str:
        return one_of("optimizer", name.lower(), _optimizers())

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, name: str) -> str:
        return one_of("schedule", name, _schedules())

    @model_validator(mode="after")
    def _loss_fits(self) -> TrainingSection:
        fitting = _losses_of_numbers() if self.task == "regression" else ["ce"] if self.loss == "ce" else _losses()
        if self.loss not in fitting:
            raise ValueError(f"loss {self.loss!r} is not for task {self.task!r}; expected one of: {', '.join(fitting)}")
        return self

    @model_validator(mode="after")
    def _freezing_fits(self) -> TrainingSection:
        if self.freeze != OFF and self.pretrained == OFF:
            raise ValueError("freeze requires pretrained, the run to start from (--from)")
        if self.unfreeze_every != OFF and self.freeze == OFF:
            raise ValueError("unfreeze_every requires freeze, e.g. freeze features")
        return self

    @model_validator(mode="after")
    def _smoothing_fits(self) -> TrainingSection:
        if self.label_smoothing and self.loss != "ce":
            raise ValueError(f"label_smoothing requires loss 'ce' (got {self.loss!r})")
        return self
