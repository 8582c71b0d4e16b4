"""Training as several processes that `torchrun` started: who one is, and what all agree on.

Gradients go round in one message per optimizer step, with the number of samples behind them, so that accumulation,
ragged batches and clipping stay as exact as in one process. Without such processes every function here does nothing,
or answers for the one there is.
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

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others: rank 0 may read and judge recordings meanwhile."""


def rank() -> int:
    """Number of this process, 0 to `world_size() - 1`."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main_process() -> bool:
    """Whether this process is the one that writes files and talks to trackers: rank 0."""
    return rank() == 0


def is_launched() -> bool:
    """Whether `torchrun` started this process as one of several."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def job_id() -> str | None:
    """What names the job of `torchrun`, the same for every process and after every restart; None alone."""
    return os.environ.get("TORCHELASTIC_RUN_ID", "torchrun") if is_launched() else None


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Within the block, this process and the others that `torchrun` started train together.

    They talk over NCCL on CUDA and over gloo otherwise.

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
    # Not after a failure: the others would hear of a lost connection before this process has told the cause.
    dist.destroy_process_group()


def _init_process_group(backend: str) -> None:
    """Join the others, and not those that `torchrun` had started before these.

    It keeps its store over restarts, addresses of the dead included (https://github.com/pytorch/pytorch/issues/135712).
    The count of restarts tells them apart on one host; hosts count for themselves.
    """
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        dist.init_process_group(backend, timeout=TIMEOUT)
        return
    store, number, size = next(rendezvous("env://", timeout=TIMEOUT))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        backend, store=dist.PrefixStore(f"start {start}", store), rank=number, world_size=size, timeout=TIMEOUT
    )


def sum_gradients(parameters: Sequence[nn.Parameter], numbers: Sequence[float]) -> Tensor:
    """Replace every gradient by its sum over all processes, in one message.

    A parameter without a gradient counts as zero, and stays without one where no process has one.

    Args:
        parameters: the same on every process, in the same order.
        numbers: added up over the processes on the way, e.g. samples or flags.

    Returns:
        Their sums, `[len(numbers)]`, on the parameters' device.
    """
    present = [p.grad is not None for p in parameters]
    parts = [p.new_zeros(p.numel()) if p.grad is None else p.grad.reshape(-1) for p in parameters]
    # Counts need more digits than half precision has.
    beside = torch.tensor([*map(float, present), *numbers], dtype=torch.promote_types(parts[0].dtype, torch.float32))
    flat = torch.cat([*parts, beside.to(parts[0].device, non_blocking=True)])
    dist.all_reduce(flat)
    *sums, flags, totals = flat.split([*(p.numel() for p in parameters), len(parameters), len(numbers)])
    if not all(present):  # only then may the processes differ, and is a wait for the device needed
        present = (flags > 0).tolist()
    for parameter, total, has_gradient in zip(parameters, sums, present, strict=True):
        parameter.grad = total.view_as(parameter).to(parameter.dtype) if has_gradient else None
    return totals


def check_same_number_of_batches(loader: Iterable[Any]) -> None:
    """Refuse a loader that does not give every process as many batches: they would wait for one another for ever.

    Raises:
        ValueError: it does not, or does not tell.
    """
    if world_size() == 1:
        return
    counts = gather(_number_of_batches(loader))
    if None in counts:
        raise ValueError(
            "train_loader has no length, so several processes cannot know that theirs have as many batches"
        )
    if len(set(counts)) > 1:
        raise ValueError(
            f"train_loader has {', '.join(map(str, counts))} batches in processes 0 to {len(counts) - 1}, expected as "
            "many in each: make_loader(..., shard=rank(), n_shards=world_size()) parts them so"
        )


def _number_of_batches(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None


def gather(value: T) -> list[T]:
    """The `value` of every process, in the order of ranks; plain data or tensors."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def all_reduce_any(flag: bool) -> bool:
    """Whether `flag` is set in at least one process."""
    if world_size() == 1:
        return flag
    flags = torch.tensor(float(flag), device=_device_of_messages())
    dist.all_reduce(flags)
    return flags.item() > 0


def broadcast_from_rank0(value: T) -> T:
    """The value of the main process, in every process."""
    return gather(value)[0]


def all_reduce_mean(values: Sequence[Tensor]) -> list[Tensor]:
    """The mean of each tensor over all processes, in one message; they themselves where there is one."""
    if world_size() == 1 or not values:
        return list(values)
    flat = torch.cat([value.reshape(-1) for value in values])
    dist.all_reduce(flat)
    parts = (flat / world_size()).split([value.numel() for value in values])
    return [part.view_as(value) for part, value in zip(parts, values, strict=True)]


def barrier() -> None:
    """Wait until every process has come here."""
    all_reduce_any(False)


def _device_of_messages() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def broadcast_buffers(module: nn.Module) -> None:
    """Give every process the buffers of rank 0, e.g. the running statistics of batch normalisation."""
    if world_size() == 1:
        return
    for buffer in module.buffers():
        dist.broadcast(buffer, src=0)


def broadcast_weights(module: nn.Module) -> None:
    """Give every process the parameters and buffers of rank 0."""
    if world_size() > 1:
        for parameter in module.parameters():
            dist.broadcast(parameter.data, src=0)
        broadcast_buffers(module)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes, which each of them may use: so gradients are added up too."""

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
    """Batch normalisation whose statistics in training are those of all processes' samples together.

    Unlike torch's `SyncBatchNorm` it also runs on CPUs and in double precision. Each process adds a row with its
    number of values, mean and sum of squared deviations; Chan, Golub & LeVeque (1983) combine rows without the
    cancellation of sums of squares.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batch normalisation needs [B, C, ...], got shape {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and world_size() > 1):
            return super().forward(input)
        axes = [0, *range(2, input.ndim)]
        wide = input if input.dtype == torch.float64 else input.float()
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
        self._remember(mean.detach(), squares.detach() / (total.detach() - 1))
        scale = (squares / total + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        output = (wide - _per_channel(mean, wide)) * _per_channel(scale, wide)
        if self.affine:
            output = output + _per_channel(self.bias, wide)
        return output.to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (like.ndim - 2))


def synchronize_batch_norm(module: nn.Module) -> nn.Module:
    """The same network with batch normalisation over the samples of all processes.

    Needed where each process has so few samples that their own statistics are noise. Parameters, buffers and their
    names stay, so checkpoints fit both forms.

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
