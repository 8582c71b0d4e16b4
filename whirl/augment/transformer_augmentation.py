"""Augmentation of patches, the tokens of a transformer: `[B, P, D]` for P patches of D features in temporal order.

Apply these functions to tokens without positional encoding, as returned by `PatchTransformer.embed`. A shift or a
permutation then moves content in time, and a zeroed patch keeps its position and appears as missing.

Random draws are independent for every sample. Inputs are never modified, gradients are propagated to all values that
remain, and dtype and device are preserved.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whirl.augment.label_mixing import beta_weights, mix_labels
from whirl.dsp.masks import mask_out, span_mask
from whirl.validation import check_count, check_floating, check_number


def patch_dropout(
    patches: Tensor, drop_prob: float = 0.1, training: bool = True, *, generator: torch.Generator | None = None
) -> Tensor:
    """Set each patch to zero with a given probability, independently; the other patches are not rescaled.

    Args:
        patches: float `[B, P, D]`.
        drop_prob: probability of dropping a patch, in [0, 1].
        training: if False, the patches are returned unchanged.
        generator: random generator on the device of the patches. None means torch's global generator.

    Returns:
        Patches `[B, P, D]`.

    Raises:
        TypeError: the patches are not a floating-point tensor.
        ValueError: the patches are not `[B, P, D]`, or the probability is outside [0, 1].

    Example:
        >>> patch_dropout(torch.ones(2, 6, 1), 0.5, generator=torch.Generator().manual_seed(0)).squeeze(-1)
        tensor([[0., 1., 0., 0., 0., 1.],
                [0., 1., 0., 1., 0., 0.]])
    """
    _check_patches(patches)
    drop_prob = check_number("drop_prob", drop_prob, 0, 1)
    if not training:
        return patches
    dropped = torch.rand(patches.shape[:2], generator=generator, device=patches.device) < drop_prob
    return mask_out(patches, dropped.unsqueeze(-1))


def patch_mixup(
    patches1: Tensor,
    patches2: Tensor,
    labels1: Tensor,
    labels2: Tensor,
    alpha: float = 0.4,
    *,
    num_classes: int | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute weighted means of pairs of samples and of their labels (mixup; Zhang et al. 2018).

    The result is `λ x₁ + (1 - λ) x₂`, with one λ from Beta(alpha, alpha) per pair.

    Args:
        patches1: float `[B, P, D]`.
        patches2: the partners, of the same shape and dtype.
        labels1: class indices `[B]` or class weights `[B, K]`.
        labels2: the labels of the partners.
        alpha: parameter of the Beta distribution, > 0. 1 is the uniform distribution; small values leave one of the two
            samples almost unchanged, large values average them.
        num_classes: number of classes K, if the labels are indices. None means the largest index plus 1.
        generator: random generator on the device of the patches. None means torch's global generator.

    Returns:
        The mixed patches `[B, P, D]`, and class weights float32 `[B, K]` with exactly the same λ.

    Raises:
        TypeError: the patches are not a floating-point tensor, or the labels have an invalid dtype.
        ValueError: the shapes do not match, `alpha` is not positive, or a label is outside 0..K-1.

    Example:
        >>> ones, zeros = torch.ones(2, 3, 1), torch.zeros(2, 3, 1)
        >>> labels = torch.tensor([1, 1]), torch.tensor([0, 0])
        >>> mixed, weights = patch_mixup(ones, zeros, *labels, generator=torch.Generator().manual_seed(0))
        >>> torch.equal(mixed[:, 0, 0], weights[:, 1])
        True
    """
    _check_patches(patches1)
    if patches1.shape != patches2.shape or patches1.dtype != patches2.dtype:
        raise ValueError(
            f"patches1 are {patches1.dtype} {list(patches1.shape)} and patches2 are {patches2.dtype} "
            f"{list(patches2.shape)}, expected equal dtypes and shapes"
        )
    if len(labels1) != len(patches1):
        raise ValueError(f"there are {len(patches1)} samples, but {len(labels1)} labels")
    share = beta_weights(len(patches1), alpha, generator=generator, device=patches1.device)
    share = share.to(patches1.dtype)  # round first, so that the labels use the same weight
    return patches2.lerp(patches1, share.view(-1, 1, 1)), mix_labels(labels1, labels2, share, num_classes)


def temporal_shift_patches(
    patches: Tensor, max_shift: int = 5, circular: bool = True, *, generator: torch.Generator | None = None
) -> Tensor:
    """Shift each sample in time by a number of patches drawn uniformly from -`max_shift`..`max_shift`.

    Args:
        patches: float `[B, P, D]`.
        max_shift: maximum shift in patches, >= 0. Without `circular` it is limited to P - 1, so that at least one patch
            remains.
        circular: if True, patches shifted out at one end are inserted at the other end, otherwise zeros are inserted.
        generator: random generator on the device of the patches. None means torch's global generator.

    Returns:
        Patches `[B, P, D]`.

    Raises:
        TypeError: the patches are not a floating-point tensor.
        ValueError: the patches are not `[B, P, D]`, or `max_shift` is not an integer >= 0.

    Example:
        >>> patches = torch.arange(1.0, 5).expand(3, 4).unsqueeze(-1)
        >>> generator = torch.Generator().manual_seed(0)
        >>> temporal_shift_patches(patches, 1, circular=False, generator=generator).squeeze(-1)
        tensor([[0., 1., 2., 3.],
                [2., 3., 4., 0.],
                [0., 1., 2., 3.]])
    """
    _check_patches(patches)
    max_shift = check_count("max_shift", max_shift, 0)
    n, n_patches, _ = patches.shape
    max_shift = max_shift if circular else min(max_shift, n_patches - 1)
    shifts = torch.randint(-max_shift, max_shift + 1, (n, 1), generator=generator, device=patches.device)
    source = torch.arange(n_patches, device=patches.device) - shifts
    shifted = _rearrange(patches, source % n_patches)
    return shifted if circular else mask_out(shifted, ((source < 0) | (source >= n_patches)).unsqueeze(-1))


def patch_cutout(
    patches: Tensor, n_holes: int = 10, hole_size: int = 5, *, generator: torch.Generator | None = None
) -> Tensor:
    """Set runs of patches (holes) to zero, at uniformly distributed positions; holes may overlap.

    At most a quarter of the patches is removed: the size of a hole is limited to P // 4, and the number of holes
    accordingly.

    Args:
        patches: float `[B, P, D]`.
        n_holes: number of holes per sample, >= 0.
        hole_size: number of patches in a hole, >= 0.
        generator: random generator on the device of the patches. None means torch's global generator.

    Returns:
        Patches `[B, P, D]`.

    Raises:
        TypeError: the patches are not a floating-point tensor.
        ValueError: the patches are not `[B, P, D]`, or `n_holes` or `hole_size` is not an integer >= 0.

    Example:
        >>> patch_cutout(torch.ones(2, 12, 1), 1, 3, generator=torch.Generator().manual_seed(0)).squeeze(-1).int()
        tensor([[1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1],
                [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]], dtype=torch.int32)
    """
    _check_patches(patches)
    n_holes = check_count("n_holes", n_holes, 0)
    hole_size = check_count("hole_size", hole_size, 0)
    n, n_patches, _ = patches.shape
    max_removed = n_patches // 4
    size = min(hole_size, max_removed)
    count = min(n_holes, max_removed // size) if size else 0
    mask = span_mask(n, n_patches, size, count, generator=generator, device=patches.device, fixed_width=True)
    return mask_out(patches, mask.unsqueeze(-1))


def patch_permutation(
    patches: Tensor, permute_prob: float = 0.1, *, generator: torch.Generator | None = None
) -> Tensor:
    """Permute randomly chosen patches of each sample by a random cyclic permutation.

    Each patch is chosen independently with the given probability. If two or more patches of a sample are chosen, all of
    them change their positions (two are swapped); a single one stays.

    Args:
        patches: float `[B, P, D]`.
        permute_prob: probability of choosing a patch, in [0, 1].
        generator: random generator on the device of the patches. None means torch's global generator.

    Returns:
        Patches `[B, P, D]`.

    Raises:
        TypeError: the patches are not a floating-point tensor.
        ValueError: the patches are not `[B, P, D]`, or the probability is outside [0, 1].

    Example:
        >>> patches = torch.arange(6.0).expand(2, 6).unsqueeze(-1)
        >>> patch_permutation(patches, 0.5, generator=torch.Generator().manual_seed(0)).squeeze(-1)
        tensor([[2., 1., 3., 4., 0., 5.],
                [4., 1., 0., 3., 5., 2.]])
    """
    _check_patches(patches)
    permute_prob = check_number("permute_prob", permute_prob, 0, 1)
    draws = torch.rand(patches.shape[:2], generator=generator, device=patches.device)
    chosen = (draws < permute_prob).sum(1, keepdim=True)
    cycle = draws.argsort(1)  # chosen patches first, in random order
    position = torch.arange(patches.shape[1], device=patches.device).expand_as(cycle)
    successor = torch.where(position + 1 < chosen, position + 1, torch.where(position < chosen, 0, position))
    source = torch.empty_like(cycle).scatter_(1, cycle, cycle.gather(1, successor))
    return _rearrange(patches, source)


def patch_jitter(patches: Tensor, noise_std: float = 0.01, *, generator: torch.Generator | None = None) -> Tensor:
    """Add white Gaussian noise to the patches.

    Args:
        patches: float `[B, P, D]`.
        noise_std: standard deviation of the noise in the unit of the patches, >= 0.
        generator: random generator on the device of the patches. None means torch's global generator.

    Returns:
        Patches `[B, P, D]`.

    Raises:
        TypeError: the patches are not a floating-point tensor.
        ValueError: the patches are not `[B, P, D]`, or `noise_std` is negative or not finite.

    Example:
        >>> patch_jitter(torch.zeros(8, 100, 64), 0.5).std().round(decimals=1)
        tensor(0.5000)
    """
    _check_patches(patches)
    noise_std = check_number("noise_std", noise_std, 0)
    noise = torch.randn(patches.shape, generator=generator, dtype=patches.dtype, device=patches.device)
    return torch.add(patches, noise, alpha=noise_std)


@dataclass(frozen=True)
class PatchAugmentation:
    """Applies several patch augmentations in sequence.

    The order is shift, permutation, jitter, cutout, dropout, so that zeroed patches remain zero. The object has no
    state and no parameters. `PatchTransformer(..., patch_augmentation=...)` applies it in training mode.

    Args:
        use_dropout: whether to apply `patch_dropout`.
        dropout_prob: probability of dropping a patch.
        use_cutout: whether to apply `patch_cutout`.
        cutout_holes: number of holes.
        cutout_size: size of the holes in patches.
        use_shift: whether to apply `temporal_shift_patches`, circularly.
        max_shift: maximum shift in patches.
        use_jitter: whether to apply `patch_jitter`.
        jitter_std: standard deviation of the noise.
        use_permutation: whether to apply `patch_permutation`.
        permute_prob: probability of choosing a patch for the permutation.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> augment = PatchAugmentation(dropout_prob=0.2, use_jitter=True)
        >>> patches = torch.randn(4, 32, 128)
        >>> augment(patches).shape
        torch.Size([4, 32, 128])
        >>> augment(patches, training=False) is patches
        True
    """

    use_dropout: bool = True
    dropout_prob: float = 0.1
    use_cutout: bool = False
    cutout_holes: int = 5
    cutout_size: int = 3
    use_shift: bool = True
    max_shift: int = 3
    use_jitter: bool = False
    jitter_std: float = 0.01
    use_permutation: bool = False
    permute_prob: float = 0.05

    def __post_init__(self) -> None:
        for name in ("dropout_prob", "permute_prob"):
            check_number(name, getattr(self, name), 0, 1)
        for name in ("cutout_holes", "cutout_size", "max_shift"):
            check_count(name, getattr(self, name), 0)
        check_number("jitter_std", self.jitter_std, 0)

    def __call__(self, patches: Tensor, training: bool = True, *, generator: torch.Generator | None = None) -> Tensor:
        """Augment patches.

        Args:
            patches: float `[B, P, D]`.
            training: if False, the patches are returned unchanged.
            generator: random generator on the device of the patches. None means torch's global generator.

        Returns:
            Patches `[B, P, D]`.

        Raises:
            TypeError: the patches are not a floating-point tensor.
            ValueError: the patches are not `[B, P, D]`.
        """
        _check_patches(patches)
        if not training:
            return patches
        if self.use_shift:
            patches = temporal_shift_patches(patches, self.max_shift, generator=generator)
        if self.use_permutation:
            patches = patch_permutation(patches, self.permute_prob, generator=generator)
        if self.use_jitter:
            patches = patch_jitter(patches, self.jitter_std, generator=generator)
        if self.use_cutout:
            patches = patch_cutout(patches, self.cutout_holes, self.cutout_size, generator=generator)
        if self.use_dropout:
            patches = patch_dropout(patches, self.dropout_prob, generator=generator)
        return patches


def get_light_augmentation() -> PatchAugmentation:
    """Return the light preset: dropout of 5 % and shifts by up to 2 patches.

    Example:
        >>> get_light_augmentation().max_shift
        2
    """
    return PatchAugmentation(dropout_prob=0.05, max_shift=2)


def get_medium_augmentation() -> PatchAugmentation:
    """Return the medium preset, a good starting point.

    Dropout of 10 %, up to 5 holes of 3 patches, and shifts by up to 3 patches.

    Example:
        >>> get_medium_augmentation().use_cutout
        True
    """
    return PatchAugmentation(dropout_prob=0.1, use_cutout=True, cutout_holes=5, cutout_size=3, max_shift=3)


def get_heavy_augmentation() -> PatchAugmentation:
    """Return the heavy preset.

    Dropout of 15 %, up to 10 holes of 5 patches, shifts by up to 5, noise of standard deviation 0.02, and permutation
    of 10 %.

    Example:
        >>> get_heavy_augmentation().jitter_std
        0.02
    """
    return PatchAugmentation(
        dropout_prob=0.15,
        use_cutout=True,
        cutout_holes=10,
        cutout_size=5,
        max_shift=5,
        use_jitter=True,
        jitter_std=0.02,
        use_permutation=True,
        permute_prob=0.1,
    )


def _rearrange(patches: Tensor, source: Tensor) -> Tensor:
    """Return patches `[B, P, D]` taken from the positions `source`, int64 `[B, P]`, of the same sample."""
    n, n_patches, width = patches.shape
    rows = source + torch.arange(n, device=source.device).unsqueeze(1) * n_patches
    # copying rows is faster than a gather of single elements
    return patches.reshape(n * n_patches, width).index_select(0, rows.flatten()).view(n, n_patches, width)


def _check_patches(patches: Tensor) -> None:
    check_floating("patches", patches)
    if patches.ndim != 3 or patches.shape[1] == 0:
        raise ValueError(f"patches have shape {list(patches.shape)}, expected [batch, patches >= 1, width]")
