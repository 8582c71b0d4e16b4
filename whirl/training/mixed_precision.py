"""Training in mixed precision with an accessible `GradScaler`, and TensorFloat-32 as a reversible setting."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

import torch
from torch import nn

from whirl.engine.device import parse_device, resolve_device
from whirl.engine.precision import LossScaling, choose_precision, cpu_has_bfloat16
from whirl.training.trainer import Trainer

logger = logging.getLogger(__name__)

_TF32_OPERATIONS = ("cuda.matmul", "cudnn.conv", "cudnn.rnn")


class MixedPrecisionTrainer(Trainer):
    """A `Trainer` in mixed precision, with explicit control of the loss scale.

    With float16 the history has `scale` and `skipped_steps` (so far) at the end of each epoch. A skipped step changes
    no weight, does not count in `state.global_step` and does not step a schedule.

    Args:
        model: see `Trainer`, as for all arguments not listed here.
        precision: `'auto'` is float16 with loss scaling on CUDA, bfloat16 on a CPU with instructions for it, else
            single precision with one warning; `'fp16'`, `'bf16'` and `'32'` select one.
        init_scale: initial scale of the float16 loss, > 0; see `LossScaling` for this and the next three.
        growth_factor: > 1.
        backoff_factor: in (0, 1).
        growth_interval: steps, >= 1.
        **options: further keyword arguments of `Trainer`: `val_loader`, `callbacks`, `max_grad_norm`, ...

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> data = torch.utils.data.TensorDataset(torch.randn(32, 1, 64), torch.arange(32) % 2)
        >>> loader = torch.utils.data.DataLoader(data, batch_size=16)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> trainer = MixedPrecisionTrainer(
        ...     model, loader, optimizer, nn.CrossEntropyLoss(), "cpu", precision="fp16", init_scale=1024
        ... )
        >>> history = trainer.fit(2)
        >>> trainer.scaler.get_scale()
        1024.0
    """

    def __init__(
        self,
        model: nn.Module,
        train_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer | None,
        criterion: nn.Module | Callable[..., torch.Tensor] | None,
        device: str | torch.device = "cuda",
        *,
        precision: str = "auto",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        **options: Any,
    ) -> None:
        if precision not in ("auto", "fp16", "bf16", "32"):
            raise ValueError(f"precision is {precision!r}, expected 'auto', 'fp16', 'bf16' or '32'")
        scaling = LossScaling(init_scale, growth_factor, backoff_factor, growth_interval)
        device = resolve_device(device)
        super().__init__(
            model,
            train_loader,
            optimizer=optimizer,
            criterion=criterion,
            device=device,
            mixed_precision=choose_precision(precision == "auto" or precision, device, scaling),
            **options,
        )

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The `GradScaler`, or None if the precision does not use one."""
        return self.precision.scaler

    @property
    def skipped_steps(self) -> int:
        """Number of optimizer steps skipped so far because a gradient overflowed."""
        return int(self.precision.logs().get("skipped_steps", 0))


class ChangedSettings:
    """Settings of torch that were changed, and a context manager that restores them at the end of its block.

    Attributes:
        changed: `{setting: (before, now)}` of the settings not restored yet.
    """

    def __init__(self, changed: dict[str, tuple[str, str]]) -> None:
        self.changed = changed

    def undo(self) -> None:
        """Restore all settings."""
        while self.changed:
            name, (before, _) = self.changed.popitem()
            _set(name, before)

    def __enter__(self) -> ChangedSettings:
        return self

    def __exit__(self, *error: object) -> None:
        self.undo()

    def __str__(self) -> str:
        return ", ".join(f"{name}: {old} -> {new}" for name, (old, new) in self.changed.items()) or "nothing changed"


def enable_mixed_precision() -> ChangedSettings:
    """Enable TensorFloat-32 for float32 products, convolutions and recurrent cells on CUDA (Ampere and later).

    TensorFloat-32 has the range of float32 and rounds inputs to 10 bits of mantissa. The settings are torch's
    `fp32_precision`; while they differ from the defaults, torch raises an error if its older flags (`allow_tf32`,
    `get_float32_matmul_precision`) are read. They apply to the process and have no effect without CUDA.

    Returns:
        The changed settings; `undo()`, or leaving the block of a context manager, restores them.

    Example:
        >>> with enable_mixed_precision():
        ...     torch.backends.cuda.matmul.fp32_precision
        'tf32'
        >>> print(ChangedSettings({"torch.backends.cuda.matmul.fp32_precision": ("none", "tf32")}))
        torch.backends.cuda.matmul.fp32_precision: none -> tf32
    """
    names = [f"torch.backends.{operation}.fp32_precision" for operation in _TF32_OPERATIONS]
    before = {name: _get(name) for name in names}
    settings = ChangedSettings({name: (value, "tf32") for name, value in before.items() if value != "tf32"})
    for name in settings.changed:
        _set(name, "tf32")
    logger.info("TensorFloat-32 on CUDA: %s", settings)
    return settings


def check_mixed_precision_support(device: str | torch.device | None = None) -> bool:
    """Return whether the device supports mixed precision: CUDA does, and a CPU with instructions for bfloat16.

    Nothing is allocated on the device.

    Args:
        device: as for a trainer; None is an accelerator if there is one.

    Raises:
        ValueError: the name is not the name of a device.

    Example:
        >>> check_mixed_precision_support("mps")
        False
    """
    wanted = resolve_device("auto") if device in (None, "auto") else parse_device(device)
    if wanted.type == "cuda":
        return (wanted.index or 0) < torch.cuda.device_count()
    return wanted.type == "cpu" and cpu_has_bfloat16()


def _get(name: str) -> str:
    return attrgetter(name.removeprefix("torch."))(torch)


def _set(name: str, value: str) -> None:
    owner, _, attribute = name.removeprefix("torch.").rpartition(".")
    setattr(attrgetter(owner)(torch), attribute, value)
