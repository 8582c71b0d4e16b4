"""The parts of a trainer as attributes that can be replaced, and checks that they belong together."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from whirl._display import Displayed
from whirl.augment.base import Augmentation, as_augmentation
from whirl.engine.callbacks import CallbackList
from whirl.engine.loss_guard import LossGuard, remedy_for
from whirl.engine.objective import Objective
from whirl.engine.precision import FullPrecision, choose_precision
from whirl.engine.replay import EpochReplay
from whirl.engine.schedule import scheduler_unit
from whirl.engine.updater import Updater
from whirl.engine.wrappers import unwrap


class TrainerParts(Displayed):
    """Base of trainers: each part is stored once, where it is used, so that a replacement takes effect.

    A part may be replaced between two calls of `fit`, or by a callback.
    """

    device: torch.device
    compile: bool | Mapping[str, Any]
    updater: Updater
    replay: EpochReplay
    _guard: LossGuard

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self._model

    @model.setter
    def model(self, model: nn.Module) -> None:
        self._model = model.to(self.device)
        if self.compile:
            self._model.compile(**({} if self.compile is True else self.compile))
        if hasattr(self, "_guard"):
            self._guard.model = unwrap(self._model)

    @property
    def criterion(self) -> Any:
        """Mean loss of `(outputs, targets)`."""
        return self._objective.criterion

    @criterion.setter
    def criterion(self, criterion: Any) -> None:
        self._set_objective(criterion, "auto")

    def _set_objective(self, criterion: Any, task: str) -> None:
        self._objective = Objective(criterion, task)
        if isinstance(self._objective.criterion, nn.Module):
            self._objective.criterion.to(self.device)

    @property
    def task(self) -> str | None:
        """The task, see `Objective`: `'auto'` until it is known, None if it cannot be known."""
        return self._objective.task

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer."""
        return self.updater.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        check_optimizer(optimizer, self._trained_modules())
        self.updater.optimizer = optimizer

    @property
    def lr_scheduler(self) -> Any:
        """The learning-rate scheduler, or None."""
        return self._lr_scheduler

    @lr_scheduler.setter
    def lr_scheduler(self, scheduler: Any) -> None:
        self._schedule_unit = None if scheduler is None else scheduler_unit(scheduler)
        self._lr_scheduler = scheduler

    @property
    def gradient_accumulation_steps(self) -> int:
        """Micro-batches per optimizer step."""
        return self.updater.accumulation_steps

    @gradient_accumulation_steps.setter
    def gradient_accumulation_steps(self, steps: int) -> None:
        self.updater.accumulation_steps = steps

    @property
    def max_grad_norm(self) -> float | None:
        """Bound of the gradient's 2-norm; None if clipping is disabled."""
        return self.updater.max_grad_norm

    @max_grad_norm.setter
    def max_grad_norm(self, bound: float | None) -> None:
        self.updater.max_grad_norm = bound

    @property
    def precision(self) -> FullPrecision:
        """How a step is computed."""
        return self.updater.precision

    @precision.setter
    def precision(self, precision: FullPrecision) -> None:
        self.updater.precision = precision
        self._guard.remedy = remedy_for(precision)

    @property
    def mixed_precision(self) -> str:
        """Name of the precision: `'32'`, `'fp16'` or `'bf16'`; takes the values of the constructor's argument."""
        return self.precision.name

    @mixed_precision.setter
    def mixed_precision(self, mixed_precision: bool | str | FullPrecision) -> None:
        self.precision = choose_precision(mixed_precision, self.device)

    @property
    def augmentation(self) -> Augmentation | None:
        """What changes training batches, or None."""
        return self._augmentation

    @augmentation.setter
    def augmentation(self, augmentation: Augmentation | Callable[..., Any] | None) -> None:
        self._augmentation = None if augmentation is None else as_augmentation(augmentation)
        self.replay.parts.pop("augmentation", None)
        if self._augmentation is not None:
            self.replay.parts["augmentation"] = self._augmentation  # each process draws its own

    @property
    def callbacks(self) -> CallbackList:
        """The callbacks; a list is converted."""
        return self._callbacks

    @callbacks.setter
    def callbacks(self, callbacks: Iterable[Any]) -> None:
        self._callbacks = self._hooks = CallbackList(callbacks)
        self._callbacks.set_trainer(self)

    def _trained_modules(self) -> list[nn.Module]:
        """Return the network, and the criterion if it is a module, which may have parameters."""
        return [self.model, *(part for part in [self.criterion] if isinstance(part, nn.Module))]


def trainable(modules: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    """Yield the parameters of modules that require a gradient."""
    for module in modules:
        yield from (parameter for parameter in module.parameters() if parameter.requires_grad)


def default_optimizer(modules: list[nn.Module], device: torch.device) -> torch.optim.Optimizer:
    """Return AdamW with a learning rate of 1e-3 for all parameters of the modules."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return torch.optim.AdamW(parameters, lr=1e-3, fused=device.type in ("cpu", "cuda", "mps"))


def check_optimizer(optimizer: Any, modules: list[nn.Module]) -> None:
    """Validate that an optimizer can be used by the training loop, for these modules.

    Raises:
        TypeError: it is not an optimizer.
        ValueError: it needs a closure, or holds no parameter of the modules.

    Example:
        >>> check_optimizer("adam", [nn.Linear(2, 1)])
        Traceback (most recent call last):
        TypeError: optimizer is 'adam', expected a torch.optim.Optimizer, e.g. create_optimizer('adam', model), or None
    """
    if not all(hasattr(optimizer, name) for name in ("param_groups", "step", "zero_grad", "state_dict")):
        name = optimizer if isinstance(optimizer, str) else "adamw"
        raise TypeError(
            f"optimizer is {optimizer!r}, expected a torch.optim.Optimizer, e.g. create_optimizer({name!r}, model), "
            "or None"
        )
    kind = type(optimizer).__name__
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if hasattr(optimizer, "first_step") or (closure is not None and closure.default is closure.empty):
        raise ValueError(
            f"{kind} computes the loss several times per step, which the training loop does not support: choose an "
            "optimizer that uses one gradient per step, e.g. AdamW or SGD, or whirl.optim.SAM around one"
        )
    expected = {id(parameter) for parameter in trainable(modules)}
    given = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if expected and not expected & given:
        raise ValueError(
            f"{kind} holds no parameter of {type(unwrap(modules[0])).__name__}: it was created for another network"
        )
