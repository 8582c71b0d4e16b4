"""Training in mixed precision with the scaler in sight, and TensorFloat-32 as a setting that can be undone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

import torch
from torch import nn

from whirl.engine.device import resolve_device
from whirl.engine.precision import LossScaling, choose_precision, cpu_has_bfloat16
from whirl.training.trainer import Trainer

logger = logging.getLogger(__name__)

_TF32_OPERATIONS = ("cuda.matmul", "cudnn.conv", "cudnn.rnn")


class MixedPrecisionTrainer(Trainer):
    """A `Trainer` in mixed precision, with explicit control of the loss scale.

    With float16 the history has `scale` and `skipped_steps` (so far) at each epoch's end. A skipped step changes no
    weight, is no step of `state.global_step` and moves no schedule.

    Args:
        model: see `Trainer`, as for every argument not named here.
        precision: `'auto'` is float16 with scaling on CUDA, bfloat16 on a CPU with instructions for it, else single
            precision with one warning; `'fp16'`, `'bf16'` and `'32'` insist.
        init_scale: of the float16 loss, > 0; see `LossScaling` for this and the next three.
        growth_factor: > 1.
        backoff_factor: in (0, 1).
        growth_interval: steps, >= 1.
        **options: further keyword arguments of `Trainer`: `val_loader`, `callbacks`, `max_grad_norm`, ...

    Raises:
        ValueError: an argument out of its range.

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
        """The `GradScaler`; None where there is none."""
        return self.precision.scaler

    @property
    def skipped_steps(self) -> int:
        """Optimizer steps not taken so far because a gradient overflowed."""
        return int(self.precision.logs().get("skipped_steps", 0))


class ChangedSettings:
    """Settings of torch that were changed; a context manager that changes them back at its end.

    Attributes:
        changed: `{setting: (before, now)}` of those not changed back yet.
    """

    def __init__(self, changed: dict[str, tuple[str, str]]) -> None:
        self.changed = changed

    def undo(self) -> None:
        """Change everything back."""
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
    """Let CUDA compute float32 products, convolutions and recurrent cells in TensorFloat-32 (Ampere and later).

    TensorFloat-32 keeps float32's range and rounds inputs to 10 bits of mantissa. The settings are torch's
    `fp32_precision`; while they differ from the defaults, torch raises where its older flags (`allow_tf32`,
    `get_float32_matmul_precision`) are read. They hold for the process and do nothing without CUDA.

    Returns:
        What changed; its `undo()`, or leaving it as a context manager, changes it back.

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
    """Whether `MixedPrecisionTrainer` would train in a lower precision there: on CUDA, or on a CPU with bfloat16.

    Nothing is allocated on the device.

    Args:
        device: as for a trainer; None is the fastest there is.

    Raises:
        ValueError: the name is no device's.

    Example:
        >>> check_mixed_precision_support("mps")
        False
    """
    wanted = resolve_device("auto") if device in (None, "auto") else _parse(device)
    if wanted.type == "cuda":
        return (wanted.index or 0) < torch.cuda.device_count()
    return wanted.type == "cpu" and cpu_has_bfloat16()


def _parse(device: str | torch.device) -> torch.device:
    try:
        return torch.device(device)
    except RuntimeError:
        raise ValueError(f"device {device!r} is unknown: expected 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'") from None


def _get(name: str) -> str:
    return attrgetter(name.removeprefix("torch."))(torch)


def _set(name: str, value: str) -> None:
    owner, _, attribute = name.removeprefix("torch.").rpartition(".")
    setattr(attrgetter(owner)(torch), attribute, value)
