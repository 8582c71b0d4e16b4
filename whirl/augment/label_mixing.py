"""Labels of mixed samples: class weights, and the draws that weigh them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from whirl.validation import check_number


def invalidate_mixed_metadata(metadata: dict[str, Any], n_samples: int) -> dict[str, Any]:
    """Metadata of samples that are two: no speed is theirs, and no recording.

    Floats become NaN, which is "unknown" everywhere; recording ids count below zero, one for each sample.

    Example:
        >>> invalidate_mixed_metadata({"rpm": torch.tensor([1500.0, 3000.0]), "recording": torch.tensor([4, 4])}, 2)
        {'rpm': tensor([nan, nan]), 'recording': tensor([-1, -2])}
    """
    nobody = -1 - torch.arange(n_samples)
    return {
        name: torch.full_like(value, torch.nan)
        if value.is_floating_point()
        else nobody.to(value.device)
        if name in ("recording", "record_ids")
        else value
        for name, value in metadata.items()
    }


def as_distributions(labels: Tensor, num_classes: int | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Labels as class weights.

    Args:
        labels: class indices, integers `[B]`, or class weights, float `[B, K]`.
        num_classes: number of classes K. None takes the width of weights, and for indices the largest index + 1:
            that waits for an accelerator, and is too few where the batch lacks the last classes.
        dtype: of the result.

    Returns:
        Class weights `[B, K]`; indices become rows with a single 1.

    Raises:
        TypeError: labels `[B]` are floats, or labels `[B, K]` are integers.
        ValueError: labels of another shape, weights of another width than `num_classes`, or an index outside
            0..K-1 (on an accelerator torch's own device-side error, as looking would wait for it).

    Example:
        >>> as_distributions(torch.tensor([0, 2]), num_classes=3)
        tensor([[1., 0., 0.],
                [0., 0., 1.]])
    """
    if labels.ndim not in (1, 2):
        raise ValueError(f"labels have shape {list(labels.shape)}, expected indices [B] or class weights [B, K]")
    if labels.is_floating_point() != (labels.ndim == 2) or labels.dtype == torch.bool or labels.is_complex():
        raise TypeError(
            f"labels of shape {list(labels.shape)} are {labels.dtype}: expected integers [B] or floats [B, K]"
        )
    if labels.ndim == 2:
        if num_classes not in (None, labels.shape[1]):
            raise ValueError(f"labels are weights of {labels.shape[1]} classes, but num_classes is {num_classes}")
        return labels.to(dtype)
    return _one_hot(labels.long(), num_classes, dtype)


def _one_hot(labels: Tensor, num_classes: int | None, dtype: torch.dtype) -> Tensor:
    if (num_classes is None or labels.is_cpu) and labels.numel():
        low, high = (int(value) for value in labels.aminmax())
        num_classes = high + 1 if num_classes is None else num_classes
        if low < 0 or high >= num_classes:
            raise ValueError(f"labels run from {low} to {high}, expected 0 to {num_classes - 1}")
    weights = torch.zeros(len(labels), num_classes or 0, dtype=dtype, device=labels.device)
    return weights.scatter_(1, labels[:, None], 1)


def mix_labels(
    labels1: Tensor,
    labels2: Tensor,
    share: Tensor,
    num_classes: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Class weights of samples made of two: `share` of the first and the rest of the second.

    Args:
        labels1: class indices `[B]` or class weights `[B, K]`.
        labels2: the same of the other samples; one may be indices and the other weights.
        share: weight of the first sample, `[B]`, in [0, 1].
        num_classes: as in `as_distributions`.
        dtype: of the result.

    Returns:
        Class weights `[B, K]`.

    Raises:
        TypeError: as `as_distributions`.
        ValueError: as `as_distributions`, or the two differ in number or width.

    Example:
        >>> mix_labels(torch.tensor([0]), torch.tensor([1]), torch.tensor([0.75]))
        tensor([[0.7500, 0.2500]])
    """
    if len(labels1) != len(labels2):
        raise ValueError(f"there are {len(labels1)} first labels but {len(labels2)} second ones")
    if labels1.ndim == labels2.ndim == 1:
        both = as_distributions(torch.cat([labels1, labels2]), num_classes, dtype)
        first, second = both.chunk(2) if len(both) else (both, both)
    else:
        width = next(labels.shape[1] for labels in (labels1, labels2) if labels.ndim == 2)
        first, second = (as_distributions(labels, num_classes or width, dtype) for labels in (labels1, labels2))
    return torch.lerp(second, first, share[:, None].to(dtype))


def beta_weights(
    n: int,
    alpha: float,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draws from Beta(alpha, alpha), the share of the first sample in a mix.

    Args:
        n: number of draws, >= 0.
        alpha: > 0; 1 is uniform, small values keep one of the two nearly whole, large ones halve.
        generator: source of the draws, of the same device; None is torch's own.
        device: where to draw.

    Returns:
        float32 `[n]`, in [0, 1].

    Raises:
        ValueError: `alpha` is not a positive number.

    Example:
        >>> beta_weights(3, 1.0, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([3])
    """
    check_number("alpha", alpha, 0, open_ends=True)
    if alpha == 1:
        return torch.rand(n, generator=generator, device=device)
    alpha = min(max(alpha, 1e-30), 1e30)  # beyond, single precision cannot tell the distribution from its limit
    # G(a) = G(a + 1) U^(1 / a) for gamma variates, and a Beta variate is G1 / (G1 + G2). By logarithms, since the G of
    # a small a underflow; -log U is exponential. Marsaglia and Tsang 2000, ACM Trans. Math. Softw. 26:363.
    log_gamma = torch._standard_gamma(torch.full((2, n), alpha + 1, device=device), generator=generator).log_()
    log_gamma -= torch.empty(2, n, device=device).exponential_(alpha, generator=generator)
    return log_gamma.softmax(0)[0]
