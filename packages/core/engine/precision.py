"""Arithmetic precision of a training step, as an object: the loop never asks which."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


class FullPrecision:
    """Single precision, and the interface of the others.

    Example:
        >>> precision = FullPrecision()
        >>> weight = torch.nn.Parameter(torch.ones(()))
        >>> with precision.context():
        ...     loss = weight * 2
        >>> precision.backward(loss)
        >>> weight.grad
        tensor(2.)
    """

    name = "32"

    def context(self) -> AbstractContextManager[Any]:
        """The context in which forward pass and loss are computed."""
        return nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of `loss` to the parameters, scaled where the precision needs it."""
        loss.backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Bring the gradients back to their true size, before they are looked at."""

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the optimizer take its step."""
        optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """What has to survive an interruption."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""


class BFloat16(FullPrecision):
    """Autocast to bfloat16: the range of float32 with 8 bits of mantissa, so no scaling is needed."""

    name = "bf16"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def context(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


class Float16(FullPrecision):
    """Autocast to float16 with the loss scaled up so that small gradients do not vanish.

    Attributes:
        scaler: torch's `GradScaler`; it skips steps whose gradients overflow and adapts its scale.
    """

    name = "fp16"

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type)

    def context(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.float16)

    def backward(self, loss: torch.Tensor) -> None:
        self.scaler.scale(loss).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        self.scaler.step(optimizer)
        self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scaler.load_state_dict(state)


def cpu_has_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16, without which it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def choose_precision(mixed_precision: bool | str, device: torch.device) -> FullPrecision:
    """The precision object for what the user asked.

    Args:
        mixed_precision: False for single precision; True for the best the device has: float16 with
            scaling on CUDA, bfloat16 on a CPU with instructions for it, else single precision with one
            warning; `'fp16'` and `'bf16'` insist.
        device: where the training runs.

    Raises:
        ValueError: another value.

    Example:
        >>> choose_precision(False, torch.device("cpu")).name
        '32'
    """
    if mixed_precision is False:
        return FullPrecision()
    if mixed_precision == "bf16":
        return BFloat16(device)
    if mixed_precision == "fp16":
        return Float16(device)
    if mixed_precision is not True:
        raise ValueError(f"mixed_precision is {mixed_precision!r}, expected True, False, 'fp16' or 'bf16'")
    if device.type == "cuda":
        return Float16(device)
    if device.type == "cpu" and cpu_has_bfloat16():
        return BFloat16(device)
    warnings.warn(f"no mixed precision on this {device.type} device; training in single precision", stacklevel=3)
    return FullPrecision()
