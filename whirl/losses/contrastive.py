"""Supervised contrastive loss with a closed-form gradient, which needs memory for a single N×N matrix.

Let z_1 … z_N be unit vectors, A(i) all indices except i, and P(i) the indices in A(i) that share the label of i. The
loss of anchor i is

    L_i = log Σ_{a ∈ A(i)} exp(z_i·z_a / T) − 1/|P(i)| Σ_{p ∈ P(i)} z_i·z_p / T

(Khosla et al., *Supervised Contrastive Learning*, NeurIPS 2020, equation 2, "L_out"). The second sum is linear in z_p:
it equals z_i times (the sum over its class minus z_i), so neither the loss nor the gradient needs a mask of pairs. With
w_ia the softmax of z_i·z_a / T over A(i),

    ∂L_i/∂z_a = (w_ia − [a ∈ P(i)] / |P(i)|) z_i / T        ∂L_i/∂z_i = Σ_a (w_ia − [a ∈ P(i)] / |P(i)|) z_a / T

which takes two matrix products with w and one sum per class.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import distributed as dist
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from whirl._precision import at_least_float32
from whirl.losses.checks import Reduction, check_reduction, check_temperature

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def supervised_contrastive_loss(
    features: Tensor,
    labels: Tensor,
    temperature: float = 0.1,
    reduction: Reduction = "mean",
    *,
    ignore_index: int | None = None,
) -> Tensor:
    """Compute the supervised contrastive loss (Khosla et al. 2020, equation 2).

    It pulls samples of one class together and pushes samples of different classes apart. Features are normalized to
    unit length here; a zero vector counts as orthogonal to all others. Every row is an anchor and is compared with all
    other rows; anchors without a positive are excluded. Half precision is computed in float32, also under autocast.

    In a process group of several ranks, anchors are compared with the rows of all ranks, whose batches may differ in
    length. Each rank returns the contribution of its own anchors, scaled so that for `'mean'` and `'sum'` the mean over
    the ranks, and therefore the gradient averaged by `DistributedDataParallel`, equals that of the concatenated batch.
    All ranks must call this function and its backward pass the same number of times. Exchanging the batch lengths
    forces a synchronization; in a single process there is none. Second derivatives exist in a single process only.

    Args:
        features: `[B, D]`, or `[B, V, D]` for V views of every sample, which count as B·V rows.
        labels: integers `[B]`, of any range.
        temperature: T > 0, finite; divisor of the cosine similarities.
        reduction: `'mean'` over the anchors with a positive (0 if there are none), their `'sum'`, or `'none'`.
        ignore_index: label of windows without a label, which are neither anchors nor compared with others; None if
            there are none.

    Returns:
        A scalar >= 0; for `'none'` the loss of every anchor of this rank, `[B]` or `[B, V]`, which is 0 for anchors
        without a positive. float64 for float64 features, else float32.

    Raises:
        TypeError: the features are not real floating-point numbers, the labels are not integers, or the temperature is
            not a number.
        ValueError: the temperature or the reduction is invalid, the features are empty or have another number of
            dimensions, or the number of labels is not B.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
        >>> supervised_contrastive_loss(features, torch.tensor([4, 4, 7]), temperature=1.0)  # log(e + 1) - 1
        tensor(0.3133)
    """
    temperature = check_temperature(temperature)
    check_reduction(reduction)
    _check(features, labels)
    rows = features.flatten(0, -2)
    embeddings = _unit_rows(at_least_float32(rows))
    labels = labels.repeat_interleave(len(rows) // len(labels))
    first, n_ranks = 0, _n_ranks()
    if n_ranks > 1:
        lengths = _gather_lengths(len(rows), rows.device)
        first = sum(lengths[: dist.get_rank()])
        embeddings, labels = _GatherRows.apply(embeddings, lengths), _gather_rows(labels, lengths)
    ordered = labels.sort().values
    groups = torch.searchsorted(ordered, labels)  # first position of the class: its id in 0..N-1
    n_positives = torch.searchsorted(ordered, labels, right=True) - groups - 1
    ignored = None if ignore_index is None else labels == ignore_index
    if ignored is not None:
        n_positives = n_positives.masked_fill(ignored, 0)
    anchors = slice(first, first + len(rows))
    losses, *_ = _AnchorLosses.apply(embeddings, groups, n_positives, ignored, anchors, temperature)
    if reduction == "none":
        return losses.view(features.shape[:-1])
    total = losses.sum() * n_ranks
    return total if reduction == "sum" else total / n_positives.count_nonzero().clamp_(min=1)


def _check(features: Tensor, labels: Tensor) -> None:
    if not isinstance(features, Tensor) or not features.is_floating_point():
        raise TypeError(f"features are {_type_of(features)}, expected a tensor of real floating-point numbers")
    if not isinstance(labels, Tensor) or labels.dtype not in _INTEGERS:
        raise TypeError(f"labels are {_type_of(labels)}, expected a tensor of integers")
    if features.ndim not in (2, 3) or not features.numel():
        raise ValueError(f"features have shape {tuple(features.shape)}, expected [B, D] or [B, V, D], none empty")
    if labels.shape != features.shape[:1]:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, expected one label per sample, ({len(features)},), "
            f"for features of shape {tuple(features.shape)}"
        )


def _type_of(value: Any) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _unit_rows(rows: Tensor) -> Tensor:
    """Normalize rows to unit length, leaving zero rows unchanged."""
    # With the largest entry scaled to 1, squares cannot over- or underflow, and the norm is >= 1 unless the row is 0.
    largest = rows.detach().abs().amax(1, keepdim=True)
    rows = rows / largest.masked_fill_(largest == 0, 1)
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(1)


def _similarities(
    embeddings: Tensor, groups: Tensor, n_positives: Tensor, ignored: Tensor | None, anchors: slice, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the mean of P(i) `[n, D]`, exp(z_i·z_a / T - m_i) `[n, N]`, its sums over A(i) and m_i, both `[n, 1]`."""
    queries, counts = embeddings[anchors], n_positives[anchors, None]
    class_sums = torch.zeros_like(embeddings).index_add_(0, groups, embeddings)
    positives = class_sums[groups[anchors]].sub_(queries).div_(counts.clamp(min=1))
    with torch.autocast(embeddings.device.type, enabled=False):
        weights = (queries / temperature) @ embeddings.T
    weights.diagonal(anchors.start).fill_(-torch.inf)  # exclude each anchor from A(i)
    if ignored is not None:
        weights.masked_fill_(ignored, -torch.inf)
    largest = weights.detach().amax(1, keepdim=True).clamp_min_(torch.finfo(weights.dtype).min)  # finite for N = 1
    weights = weights.sub_(largest).exp_()
    return positives, weights, weights.sum(1, keepdim=True), largest


class _AnchorLosses(Function):
    """Losses `[n]` of the unit vectors `embeddings[anchors]` relative to all `embeddings [N, D]`.

    `groups` are class ids in 0..N-1 and `n_positives` are class sizes minus one, both `[N]`.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        embeddings: Tensor,
        groups: Tensor,
        n_positives: Tensor,
        ignored: Tensor | None,
        anchors: slice,
        temperature: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the losses, and for the backward pass positives, unnormalized weights and their sums."""
        positives, weights, normalizers, largest = _similarities(
            embeddings, groups, n_positives, ignored, anchors, temperature
        )
        queries, counts = embeddings[anchors], n_positives[anchors, None]
        attraction = (queries * positives).sum(1, keepdim=True) / temperature
        losses = torch.where(counts > 0, normalizers.log() + largest - attraction, 0).squeeze(1)
        return losses, positives, weights, normalizers

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        embeddings, groups, n_positives, ignored, ctx.anchors, ctx.temperature = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # else the gradient of the weights would be an N×N matrix of zeros
        ctx.save_for_backward(embeddings, groups, n_positives, ignored, *output[1:])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if grad_outputs[0] is None:
            return None, None, None, None, None, None
        embeddings, groups, n_positives, ignored, positives, weights, normalizers = ctx.saved_tensors
        anchors = ctx.anchors
        if torch.is_grad_enabled():  # for second derivatives, what is saved must depend on the embeddings
            saved = (embeddings, groups, n_positives, ignored, anchors, ctx.temperature)
            positives, weights, normalizers, _ = _similarities(*saved)
        queries, counts = embeddings[anchors], n_positives[anchors, None]
        scale = torch.where(counts > 0, grad_outputs[0].unsqueeze(1) / ctx.temperature, 0)  # [n, 1]
        push = torch.where(counts > 0, scale / normalizers, 0)
        pulls = queries * (scale / counts.clamp(min=1))  # contribution of each anchor to each of its positives
        with torch.autocast(embeddings.device.type, enabled=False):
            grad = weights.T @ (queries * push)
            own = (weights @ embeddings).mul_(push)
        class_pulls = torch.zeros_like(embeddings).index_add_(0, groups[anchors], pulls)
        grad.sub_(class_pulls[groups])
        # the class sums of `class_pulls` contain the anchor itself, which `pulls` adds back
        grad[anchors].add_(own).addcmul_(positives, scale, value=-1).add_(pulls)
        return grad, None, None, None, None, None


class _GatherRows(Function):
    """Gathers the rows of all ranks in rank order; the backward pass sums the gradients of all ranks."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, lengths: list[int]) -> Tensor:
        ctx.lengths = lengths
        return _gather_rows(rows, lengths)

    @staticmethod
    @once_differentiable  # all_reduce is not differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad_outputs[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad.split(ctx.lengths)[dist.get_rank()], None


def _gather_rows(rows: Tensor, lengths: list[int]) -> Tensor:
    padding = [0, 0] * (rows.ndim - 1) + [0, max(lengths) - len(rows)]
    padded = F.pad(rows, padding).contiguous()
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])


def _gather_lengths(length: int, device: torch.device) -> list[int]:
    own = torch.tensor([length], device=device)
    lengths = [torch.empty_like(own) for _ in range(_n_ranks())]
    dist.all_gather(lengths, own)
    return torch.cat(lengths).tolist()


def _n_ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
