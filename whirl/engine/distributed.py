"""Training with several processes that `torchrun` started.

Gradients are exchanged in one message per optimizer step, together with the number of samples, so that accumulation,
batches of unequal size and clipping are as exact as in one process. With a single process every function here does
nothing, or returns the value of that process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from whirl._precision import at_least_float32
from whirl.engine.batch import n_batches_of

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others; rank 0 may be reading or evaluating recordings."""


def rank() -> int:
    """Return the number of this process, 0 to `world_size() - 1`."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main_process() -> bool:
    """Return whether this process writes files and reports to trackers: rank 0."""
    return rank() == 0


def is_launched() -> bool:
    """Return whether `torchrun` started this process as one of several."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def job_id() -> str | None:
    """Return the identifier of the `torchrun` job, the same in every process and after every restart, or None."""
    return os.environ.get("TORCHELASTIC_RUN_ID", "torchrun") if is_launched() else None


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Join the process group of `torchrun` for the block: NCCL on CUDA, gloo otherwise.

    Args:
        device: where to train; `cuda` becomes the GPU of this process.

    Yields:
        The device of this process.

    Example:
        >>> with process_group(torch.device("cpu")) as device:
        ...     device, world_size()
        (device(type='cpu'), 1)
    """
    if not is_launched() or dist.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    _init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield device
    # Not after a failure: the others would report a lost connection before this process reports the cause.
    dist.destroy_process_group()


def _init_process_group(backend: str) -> None:
    """Join the other processes of the same start, not those of an earlier one.

    `torchrun` keeps its store over restarts, with the addresses of processes that have exited
    (https://github.com/pytorch/pytorch/issues/135712). On one host the restart count separates them; each host counts
    its own restarts.
    """
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        dist.init_process_group(backend, timeout=TIMEOUT)
        return
    store, number, size = next(rendezvous("env://", timeout=TIMEOUT))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        backend, store=dist.PrefixStore(f"start {start}", store), rank=number, world_size=size, timeout=TIMEOUT
    )


def sum_gradients(parameters: Sequence[nn.Parameter], numbers: Sequence[float | Tensor]) -> Tensor:
    """Replace every gradient by its sum over all processes, in one message.

    A parameter without a gradient counts as zero; it stays without one if no process has one.

    Args:
        parameters: the same in every process, in the same order.
        numbers: further numbers to sum over the processes, e.g. samples or flags; tensors are 0-dimensional.

    Returns:
        The sums of `numbers`, `[len(numbers)]`, on the device of the parameters.
    """
    present = [p.grad is not None for p in parameters]
    parts = [p.new_zeros(p.numel()) if p.grad is None else p.grad.reshape(-1) for p in parameters]
    # Half precision cannot represent the counts.
    dtype, device = torch.promote_types(parts[0].dtype, torch.float32), parts[0].device
    values = [0.0 if isinstance(number, Tensor) else number for number in numbers]
    extra = torch.tensor([*map(float, present), *values], dtype=dtype).to(device, non_blocking=True)
    for index, number in enumerate(numbers, start=len(present)):
        if isinstance(number, Tensor):
            extra[index] = number
    flat = torch.cat([*parts, extra])
    dist.all_reduce(flat)
    *sums, flags, totals = flat.split([*(p.numel() for p in parameters), len(parameters), len(numbers)])
    if not all(present):  # otherwise no wait for the device is needed
        present = (flags > 0).tolist()
    for parameter, total, has_gradient in zip(parameters, sums, present, strict=True):
        parameter.grad = total.view_as(parameter).to(parameter.dtype) if has_gradient else None
    return totals


def check_same_number_of_batches(loader: Iterable[Any]) -> None:
    """Raise unless the loaders of all processes have the same length; otherwise they would wait for each other forever.

    Raises:
        ValueError: the lengths differ, or a loader has no length.
    """
    if world_size() == 1:
        return
    counts = gather(n_batches_of(loader))
    if None in counts:
        raise ValueError("train_loader has no length, which several processes need to have the same number of batches")
    if len(set(counts)) > 1:
        raise ValueError(
            f"train_loader has {', '.join(map(str, counts))} batches in processes 0 to {len(counts) - 1}, expected the "
            "same number in each: use make_loader(..., shard=rank(), n_shards=world_size())"
        )


def gather(value: T) -> list[T]:
    """Return the `value` of every process, in the order of ranks; plain data or tensors."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def all_reduce_any(flag: bool) -> bool:
    """Return whether `flag` is set in at least one process."""
    if world_size() == 1:
        return flag
    flags = torch.tensor(float(flag), device=_message_device())
    dist.all_reduce(flags)
    return flags.item() > 0


def broadcast_from_rank0(value: T) -> T:
    """Return the value of the main process, in every process."""
    return gather(value)[0]


def all_reduce_mean(values: Sequence[Tensor]) -> list[Tensor]:
    """Return the mean of each tensor over all processes, in one message; unchanged with a single process."""
    if world_size() == 1 or not values:
        return list(values)
    flat = torch.cat([value.reshape(-1) for value in values])
    dist.all_reduce(flat)
    parts = (flat / world_size()).split([value.numel() for value in values])
    return [part.view_as(value) for part, value in zip(parts, values, strict=True)]


def barrier() -> None:
    """Wait until every process has reached this call."""
    all_reduce_any(False)


def _message_device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def broadcast_buffers(module: nn.Module) -> None:
    """Copy the buffers of rank 0, e.g. running statistics of batch normalization, to every process."""
    if world_size() == 1:
        return
    for buffer in module.buffers():
        dist.broadcast(buffer, src=0)


def broadcast_weights(module: nn.Module) -> None:
    """Copy the parameters and buffers of rank 0 to every process."""
    if world_size() > 1:
        for parameter in module.parameters():
            dist.broadcast(parameter.data, src=0)
        broadcast_buffers(module)


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over all processes; as every process uses the sum, gradients are summed too."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class _SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalization with statistics over the samples of all processes in training.

    Unlike torch's `SyncBatchNorm` it also runs on CPUs and in double precision. Each process contributes a row with its
    number of values, mean and sum of squared deviations; the rows are combined by the formula of Chan, Golub & LeVeque
    (1983), which avoids the cancellation of sums of squares.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"input has shape {list(input.shape)}, expected [B, C, ...] for batch normalization")

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and world_size() > 1):
            return super().forward(input)
        axes = [0, *range(2, input.ndim)]
        wide = at_least_float32(input)
        count = torch.full((1,), input.numel() / input.shape[1], dtype=wide.dtype, device=wide.device)
        mean = wide.mean(axes)
        squares = (wide - _per_channel(mean, wide)).square().sum(axes)
        rows = torch.zeros(world_size(), 2 * len(mean) + 1, dtype=wide.dtype, device=wide.device)
        place = torch.tensor([rank()], device=rows.device)
        rows = _SumOverProcesses.apply(rows.index_copy(0, place, torch.cat((count, mean, squares))[None]))
        counts, means, squares = rows.split([1, len(mean), len(mean)], dim=1)
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        squares = (squares + counts * (means - mean).square()).sum(0)
        self._update_running_stats(mean.detach(), squares.detach() / (total.detach() - 1))
        scale = (squares / total + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        output = (wide - _per_channel(mean, wide)) * _per_channel(scale, wide)
        if self.affine:
            output = output + _per_channel(self.bias, wide)
        return output.to(input.dtype)

    def _update_running_stats(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.ndim - 2))


def synchronize_batch_norm(module: nn.Module) -> nn.Module:
    """Replace batch normalization layers by ones that compute statistics over the samples of all processes.

    Use it if each process has too few samples for reliable statistics. Parameters, buffers and their names are kept, so
    checkpoints fit both forms. The network is changed in place and returned; a network that is itself a batch
    normalization layer is returned as a new object.

    Example:
        >>> network = nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4))
        >>> synchronize_batch_norm(network)[1].running_var.tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and type(module) is not _SyncBatchNorm:
        synced = _SyncBatchNorm(
            module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
        )
        for name, value in (*module._parameters.items(), *module._buffers.items()):
            setattr(synced, name, value)
        synced.train(module.training)
        return synced
    for name, child in module.named_children():
        setattr(module, name, synchronize_batch_norm(child))
    return module
