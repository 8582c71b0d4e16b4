"""Arithmetic precision of a training step, as an object, so that the loop is the same for all."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch


class FullPrecision:
    """Single precision, and the interface of the other precisions.

    Example:
        >>> precision = FullPrecision()
        >>> weight = torch.nn.Parameter(torch.ones(()))
        >>> with precision.context():
        ...     loss = weight * 2
        >>> precision.backward(loss)
        >>> weight.grad
        tensor(2.)
        >>> precision.step(torch.optim.SGD([weight], lr=0.25))
        True
    """

    name = "32"
    scaler: torch.amp.GradScaler | None = None

    def context(self) -> AbstractContextManager[Any]:
        """Return the context in which forward pass and loss are computed."""
        return nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of `loss` to the parameters, scaled if the precision needs it."""
        loss.backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the loss scale, before they are used."""

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Take the optimizer step; return whether it was taken."""
        optimizer.step()
        return True

    def logs(self) -> dict[str, float]:
        """Return numbers for the logs of an epoch."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class BFloat16(FullPrecision):
    """Autocast to bfloat16: the range of float32 with 8 bits of mantissa, so no scaling is needed."""

    name = "bf16"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def context(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


@dataclass(frozen=True)
class LossScaling:
    """How the scale of a float16 loss adapts.

    Attributes:
        init_scale: initial scale, > 0.
        growth_factor: factor on the scale after `growth_interval` consecutive steps without an overflow, > 1.
        backoff_factor: factor on the scale after an overflow, in (0, 1).
        growth_interval: number of steps, >= 1.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> LossScaling(init_scale=1024).backoff_factor
        0.5
    """

    init_scale: float = 2.0**16
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    growth_interval: int = 2000

    def __post_init__(self) -> None:
        if not 0 < self.init_scale < math.inf:
            raise ValueError(f"init_scale is {self.init_scale!r}, expected a number > 0")
        if not 1 < self.growth_factor < math.inf:
            raise ValueError(f"growth_factor is {self.growth_factor!r}, expected a number > 1")
        if not 0 < self.backoff_factor < 1:
            raise ValueError(f"backoff_factor is {self.backoff_factor!r}, expected a number between 0 and 1")
        if type(self.growth_interval) is not int or self.growth_interval < 1:
            raise ValueError(f"growth_interval is {self.growth_interval!r}, expected an integer >= 1")


class Float16(FullPrecision):
    """Autocast to float16 with loss scaling, so that small gradients do not vanish.

    A step whose gradients overflow is skipped, and the scale is reduced (Micikevicius et al. 2018, "Mixed precision
    training").

    Attributes:
        scaler: torch's `GradScaler`, which holds the scale.
        skipped_steps: number of skipped steps so far.
        last_step_skipped: whether the last step was skipped.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(()))
        >>> precision, optimizer = Float16(torch.device("cpu")), torch.optim.SGD([weight], lr=0.25)
        >>> precision.backward(weight * torch.inf)
        >>> precision.step(optimizer)
        False
        >>> weight.item(), precision.logs()
        (1.0, {'scale': 32768.0, 'skipped_steps': 1})
    """

    name = "fp16"

    def __init__(self, device: torch.device, scaling: LossScaling | None = None) -> None:
        self.device = device
        self.scaler: torch.amp.GradScaler = torch.amp.GradScaler(device.type, **asdict(scaling or LossScaling()))
        self.skipped_steps = 0
        self.last_step_skipped = False

    def context(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.float16)

    def backward(self, loss: torch.Tensor) -> None:
        self.scaler.scale(loss).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Take the optimizer step unless a gradient overflowed; return whether it was taken.

        The host waits for the gradients once, because schedules count the steps that were taken. `GradScaler.step`
        waits itself and does not call an ordinary optimizer after an overflow; it always calls a fused one, which skips
        on the device.
        """
        taken: list[bool] = []

        def on_call(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            taken.append(not getattr(optimizer, "found_inf", False))

        hook = optimizer.register_step_post_hook(on_call)
        try:
            self.scaler.step(optimizer)
        finally:
            hook.remove()
        self.scaler.update()
        self.last_step_skipped = not any(taken)
        self.skipped_steps += self.last_step_skipped
        return not self.last_step_skipped

    def logs(self) -> dict[str, float]:
        """Return `scale`, and `skipped_steps` so far."""
        return {"scale": self.scaler.get_scale(), "skipped_steps": self.skipped_steps}

    def state_dict(self) -> dict[str, Any]:
        return self.scaler.state_dict() | {"skipped_steps": self.skipped_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scaler.load_state_dict(state)
        self.skipped_steps = state.get("skipped_steps", 0)  # not in format 1
        self.last_step_skipped = False


BF16_CAPABILITIES = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""Names in `torch.cpu.get_capabilities` of instructions for bfloat16."""


def cpu_has_bfloat16() -> bool:
    """Return whether this CPU has instructions for bfloat16; without them bfloat16 is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in BF16_CAPABILITIES)


def choose_precision(
    mixed_precision: bool | str | FullPrecision,
    device: torch.device,
    scaling: LossScaling | None = None,
    on_unsupported: Callable[[str], None] | None = None,
) -> FullPrecision:
    """Return the precision object for a setting.

    Args:
        mixed_precision: False or `'32'`: single precision. True: the best that the device supports, which is float16
            with scaling on CUDA, bfloat16 on a CPU with instructions for it, else single precision. `'fp16'`, `'bf16'`:
            that one, with a warning if it is slow. A precision object is returned unchanged.
        device: where the training runs.
        scaling: how the scale of float16 adapts; None uses torch's defaults.
        on_unsupported: called with a message when True falls back to single precision; None warns.

    Raises:
        ValueError: `mixed_precision` has another value.

    Example:
        >>> choose_precision(False, torch.device("cpu")).name
        '32'
    """
    if isinstance(mixed_precision, FullPrecision):
        return mixed_precision
    if mixed_precision is False or mixed_precision == "32":
        return FullPrecision()
    if mixed_precision == "bf16":
        _warn_if_slow("bfloat16", device, device.type == "cpu" and not cpu_has_bfloat16())
        return BFloat16(device)
    if mixed_precision == "fp16":
        _warn_if_slow("float16", device, device.type == "cpu")
        return Float16(device, scaling)
    if mixed_precision is not True:
        raise ValueError(f"mixed_precision is {mixed_precision!r}, expected True, False, '32', 'fp16' or 'bf16'")
    if device.type == "cuda":
        return Float16(device, scaling)
    if device.type == "cpu" and cpu_has_bfloat16():
        return BFloat16(device)
    message = f"this {device.type} device does not support mixed precision; training in single precision"
    if on_unsupported is None:
        warnings.warn(message, stacklevel=3)
    else:
        on_unsupported(message)
    return FullPrecision()


def _warn_if_slow(dtype: str, device: torch.device, is_slow: bool) -> None:
    if is_slow:
        warnings.warn(f"{dtype} is slower than single precision on this {device.type} device", stacklevel=4)
