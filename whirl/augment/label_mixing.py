"""Labels of mixed samples: class weights, and draws of partners and of weights from the Beta distribution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from whirl.engine.objective import SAMPLE_WEIGHT
from whirl.validation import check_number, implied_num_classes


def mix_metadata(metadata: dict[str, Any], partners: Tensor, share: Tensor) -> dict[str, Any]:
    """Return the metadata of mixed samples, which belong to no single recording or speed.

    Floats become NaN, which means unknown throughout the package; recording ids become unique negative numbers. Weights
    of samples in the loss are mixed as their labels are; one that is NaN counts as 1. Everything else stays.

    Args:
        metadata: tensors `[B]` by name, or anything else, e.g. lists of names.
        partners: index of the sample that each is mixed with, `[B]`.
        share: weight of each sample itself in the mix, `[B]`, in [0, 1].

    Example:
        >>> metadata = {"rpm": torch.tensor([1500.0, 3000.0]), "sample_weight": torch.tensor([1.0, 3.0])}
        >>> mix_metadata(metadata, torch.tensor([1, 0]), torch.tensor([0.5, 1.0]))
        {'rpm': tensor([nan, nan]), 'sample_weight': tensor([2., 3.])}
    """

    def mix(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if name == SAMPLE_WEIGHT:
            weights = value.to(torch.promote_types(value.dtype, torch.float32)).nan_to_num(nan=1.0)
            return weights.index_select(0, partners).lerp(weights, share.to(weights.dtype))
        if value.is_floating_point():
            return torch.full_like(value, torch.nan)
        return (-1 - torch.arange(len(partners))).to(value.device) if name in ("recording", "record_ids") else value

    return {name: mix(name, value) for name, value in metadata.items()}


def as_distributions(labels: Tensor, num_classes: int | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Convert labels to class weights.

    Args:
        labels: class indices, integers `[B]`, or class weights, float `[B, K]`.
        num_classes: number of classes K. None means the number of columns of class weights, or the largest index
            plus 1. The latter forces a synchronization with an accelerator, and is too small if the batch does not
            contain the last class.
        dtype: dtype of the result.

    Returns:
        Class weights `[B, K]`; indices are one-hot encoded.

    Raises:
        TypeError: labels `[B]` are floats, or labels `[B, K]` are integers.
        ValueError: the labels have another shape, the number of columns is not `num_classes`, or an index is outside
            0..K-1 (on an accelerator, torch's device-side error instead, to avoid a synchronization).

    Example:
        >>> as_distributions(torch.tensor([0, 2]), num_classes=3)
        tensor([[1., 0., 0.],
                [0., 0., 1.]])
    """
    if labels.ndim not in (1, 2):
        raise ValueError(f"labels have shape {list(labels.shape)}, expected indices [B] or class weights [B, K]")
    if labels.is_floating_point() != (labels.ndim == 2) or labels.dtype == torch.bool or labels.is_complex():
        raise TypeError(
            f"labels of shape {list(labels.shape)} have dtype {labels.dtype}, expected integers [B] or floats [B, K]"
        )
    if labels.ndim == 2:
        if num_classes not in (None, labels.shape[1]):
            raise ValueError(f"labels have weights for {labels.shape[1]} classes, but num_classes is {num_classes}")
        return labels.to(dtype)
    return _one_hot(labels.long(), num_classes, dtype)


def _one_hot(labels: Tensor, num_classes: int | None, dtype: torch.dtype) -> Tensor:
    if (num_classes is None or labels.is_cpu) and labels.numel():
        low, high = (int(value) for value in labels.aminmax())
        num_classes = implied_num_classes(high) if num_classes is None else num_classes
        if low < 0 or high >= num_classes:
            raise ValueError(f"labels range from {low} to {high}, expected 0..{num_classes - 1}")
    weights = torch.zeros(len(labels), num_classes or 0, dtype=dtype, device=labels.device)
    return weights.scatter_(1, labels[:, None], 1)


def mix_labels(
    labels1: Tensor,
    labels2: Tensor,
    share: Tensor,
    num_classes: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Mix labels of pairs of samples.

    Args:
        labels1: class indices `[B]` or class weights `[B, K]` of the first samples.
        labels2: the same for the second samples; one may be indices and the other class weights.
        share: weight of the first sample `[B]`, in [0, 1]; that of the second is 1 minus `share`.
        num_classes: number of classes K. None means the number of columns of class weights, or the largest
            index plus 1.
        dtype: dtype of the result.

    Returns:
        Class weights `[B, K]`.

    Raises:
        TypeError: see `as_distributions`.
        ValueError: see `as_distributions`, or the labels differ in number or in the number of classes.

    Example:
        >>> mix_labels(torch.tensor([0]), torch.tensor([1]), torch.tensor([0.75]))
        tensor([[0.7500, 0.2500]])
    """
    if len(labels1) != len(labels2):
        raise ValueError(f"there are {len(labels1)} first labels, but {len(labels2)} second labels")
    if labels1.ndim == labels2.ndim == 1:
        both = as_distributions(torch.cat([labels1, labels2]), num_classes, dtype)
        first, second = both.chunk(2) if len(both) else (both, both)
    else:
        width = next(labels.shape[1] for labels in (labels1, labels2) if labels.ndim == 2)
        first, second = (as_distributions(labels, num_classes or width, dtype) for labels in (labels1, labels2))
    return torch.lerp(second, first, share[:, None].to(dtype))


def draw_partners(
    n: int, *, generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Draw a partner for each sample of a batch: the batch is rolled by a random number of places.

    Unlike a random permutation, no sample is its own partner (except in a batch of one).

    Returns:
        Indices of the partners, int64 `[n]`.

    Example:
        >>> draw_partners(2)
        tensor([1, 0])
    """
    places = torch.arange(n, device=device)
    if n < 2:
        return places
    return (places - torch.randint(1, n, (1,), generator=generator, device=device)) % n


def beta_weights(
    n: int,
    alpha: float,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw from Beta(alpha, alpha), for the weight of the first sample in a mix.

    Args:
        n: number of draws, >= 0.
        alpha: parameter of the distribution, > 0. 1 is the uniform distribution; small values give weights close to 0
            or 1, large values give weights close to 1/2.
        generator: random generator on `device`. None means torch's global generator.
        device: device of the result.

    Returns:
        float32 `[n]`, in [0, 1].

    Raises:
        ValueError: `alpha` is not a positive number.

    Example:
        >>> beta_weights(3, 1.0, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([3])
    """
    alpha = check_number("alpha", alpha, 0, open_ends=True)
    if alpha == 1:
        return torch.rand(n, generator=generator, device=device)
    alpha = min(max(alpha, 1e-30), 1e30)  # beyond, the limits are reached in single precision
    # A Beta variate is G1 / (G1 + G2) with gamma variates G(a) = G(a + 1) U^(1 / a). Computed with logarithms, since G
    # underflows for small a; -log U is exponential. Marsaglia and Tsang 2000, ACM Trans. Math. Softw. 26:363.
    log_gamma = torch._standard_gamma(torch.full((2, n), alpha + 1, device=device), generator=generator).log_()
    log_gamma -= torch.empty(2, n, device=device).exponential_(alpha, generator=generator)
    return log_gamma.softmax(0)[0]
