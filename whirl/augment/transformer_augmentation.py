"""Augmentation of patches, the tokens of a transformer: `[B, P, D]`, P patches of D numbers in the order of time.

Meant for tokens to which no position has been added yet, as `PatchTransformer.embed` gives them: a shift or a
permutation then really moves content in time, and a patch that is zeroed keeps its position and reads as missing.

Every sample has its own draws, on the patches' device and from `generator`, of that device, or else torch's own. The
input is never changed, gradients flow to what is left of it, and the type stays.
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
    """Patches of which each is zeroed with a probability, independently; the others keep their scale.

    Args:
        patches: float `[B, P, D]`.
        drop_prob: probability of losing a patch, in [0, 1].
        training: False gives the patches back as they are.
        generator: of the patches' device; None is torch's own.

    Returns:
        `[B, P, D]`.

    Raises:
        TypeError: the patches are not floating point.
        ValueError: the patches are not `[B, P, D]`, or the probability is outside [0, 1].

    Example:
        >>> patch_dropout(torch.ones(2, 6, 1), 0.5, generator=torch.Generator().manual_seed(0)).squeeze(-1)
        tensor([[0., 1., 0., 0., 0., 1.],
                [0., 1., 0., 1., 0., 0.]])
    """
    _require_patches(patches)
    check_number("drop_prob", drop_prob, 0, 1)
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
    """Weighted means of pairs of samples, and of their labels (mixup; Zhang et al. 2018), on patches.

    `λ x₁ + (1 - λ) x₂`, with one λ of Beta(alpha, alpha) per pair.

    Args:
        patches1: float `[B, P, D]`.
        patches2: the partners, of the same shape and type.
        labels1: class indices `[B]` or class weights `[B, K]`.
        labels2: those of the partners.
        alpha: > 0; 1 draws λ uniformly, small values keep one of the two nearly whole, large ones halve.
        num_classes: number of classes K, where the labels are indices that may lack the last ones.
        generator: of the patches' device; None is torch's own.

    Returns:
        The mixed patches `[B, P, D]`, and class weights float32 `[B, K]` with exactly the shares of the patches.

    Raises:
        TypeError: the patches are not floating point, or labels are of a wrong type.
        ValueError: shapes do not fit, `alpha` is not positive, or a label is none of the classes.

    Example:
        >>> ones, zeros = torch.ones(2, 3, 1), torch.zeros(2, 3, 1)
        >>> labels = torch.tensor([1, 1]), torch.tensor([0, 0])
        >>> mixed, weights = patch_mixup(ones, zeros, *labels, generator=torch.Generator().manual_seed(0))
        >>> torch.equal(mixed[:, 0, 0], weights[:, 1])
        True
    """
    _require_patches(patches1)
    if patches1.shape != patches2.shape or patches1.dtype != patches2.dtype:
        raise ValueError(
            f"patches1 are {patches1.dtype} {list(patches1.shape)} but patches2 {patches2.dtype} "
            f"{list(patches2.shape)}, expected the same"
        )
    if len(labels1) != len(patches1):
        raise ValueError(f"there are {len(patches1)} samples but {len(labels1)} labels")
    share = beta_weights(len(patches1), alpha, generator=generator, device=patches1.device)
    share = share.to(patches1.dtype)  # before the labels take it, so that they know what half precision keeps
    return patches2.lerp(patches1, share.view(-1, 1, 1)), mix_labels(labels1, labels2, share, num_classes)


def temporal_shift_patches(
    patches: Tensor, max_shift: int = 5, circular: bool = True, *, generator: torch.Generator | None = None
) -> Tensor:
    """Samples moved in time by an integer number of patches, uniform in -`max_shift`..`max_shift`; later is positive.

    Args:
        patches: float `[B, P, D]`.
        max_shift: largest shift in patches, >= 0. Not circular, it counts as P - 1 at most, so that something remains.
        circular: whether what leaves at one end comes in at the other; else zeros come in.
        generator: of the patches' device; None is torch's own.

    Returns:
        `[B, P, D]`.

    Raises:
        TypeError: the patches are not floating point.
        ValueError: the patches are not `[B, P, D]`, or the shift is not an integer >= 0.

    Example:
        >>> patches = torch.arange(1.0, 5).expand(3, 4).unsqueeze(-1)
        >>> generator = torch.Generator().manual_seed(0)
        >>> temporal_shift_patches(patches, 1, circular=False, generator=generator).squeeze(-1)
        tensor([[0., 1., 2., 3.],
                [2., 3., 4., 0.],
                [0., 1., 2., 3.]])
    """
    _require_patches(patches)
    check_count("max_shift", max_shift, 0)
    n, n_patches, _ = patches.shape
    longest = max_shift if circular else min(max_shift, n_patches - 1)
    shifts = torch.randint(-longest, longest + 1, (n, 1), generator=generator, device=patches.device)
    source = torch.arange(n_patches, device=patches.device) - shifts
    moved = _rearrange(patches, source % n_patches)
    return moved if circular else mask_out(moved, ((source < 0) | (source >= n_patches)).unsqueeze(-1))


def patch_cutout(
    patches: Tensor, n_holes: int = 10, hole_size: int = 5, *, generator: torch.Generator | None = None
) -> Tensor:
    """Patches with holes of zeros, each at a uniform place where it fits; holes may overlap.

    At most a quarter of the patches is cut out: a hole is P // 4 patches at most, and no more holes than fit into that.

    Args:
        patches: float `[B, P, D]`.
        n_holes: holes of each sample, >= 0.
        hole_size: patches in a hole, >= 0.
        generator: of the patches' device; None is torch's own.

    Returns:
        `[B, P, D]`.

    Raises:
        TypeError: the patches are not floating point.
        ValueError: the patches are not `[B, P, D]`, or a number is no whole one >= 0.

    Example:
        >>> patch_cutout(torch.ones(2, 12, 1), 1, 3, generator=torch.Generator().manual_seed(0)).squeeze(-1).int()
        tensor([[1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1],
                [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]], dtype=torch.int32)
    """
    _require_patches(patches)
    check_count("n_holes", n_holes, 0)
    check_count("hole_size", hole_size, 0)
    n, n_patches, _ = patches.shape
    most = n_patches // 4
    size = min(hole_size, most)
    count = min(n_holes, most // size) if size else 0
    mask = span_mask(n, n_patches, size, count, generator=generator, device=patches.device, fixed_width=True)
    return mask_out(patches, mask.unsqueeze(-1))


def patch_permutation(
    patches: Tensor, permute_prob: float = 0.1, *, generator: torch.Generator | None = None
) -> Tensor:
    """Samples in which randomly chosen patches change places: each takes the place of the next in a random round.

    A patch is chosen with the probability given, independently. Two or more of a sample all leave their places (two are
    swapped); a single one stays.

    Args:
        patches: float `[B, P, D]`.
        permute_prob: probability of being chosen, in [0, 1].
        generator: of the patches' device; None is torch's own.

    Returns:
        `[B, P, D]`.

    Raises:
        TypeError: the patches are not floating point.
        ValueError: the patches are not `[B, P, D]`, or the probability is outside [0, 1].

    Example:
        >>> patches = torch.arange(6.0).expand(2, 6).unsqueeze(-1)
        >>> patch_permutation(patches, 0.5, generator=torch.Generator().manual_seed(0)).squeeze(-1)
        tensor([[2., 1., 3., 4., 0., 5.],
                [4., 1., 0., 3., 5., 2.]])
    """
    _require_patches(patches)
    check_number("permute_prob", permute_prob, 0, 1)
    draws = torch.rand(patches.shape[:2], generator=generator, device=patches.device)
    chosen = (draws < permute_prob).sum(1, keepdim=True)
    round_ = draws.argsort(1)  # chosen ones first, and in random order
    place = torch.arange(patches.shape[1], device=patches.device).expand_as(round_)
    following = torch.where(place + 1 < chosen, place + 1, torch.where(place < chosen, 0, place))
    source = torch.empty_like(round_).scatter_(1, round_, round_.gather(1, following))
    return _rearrange(patches, source)


def patch_jitter(patches: Tensor, noise_std: float = 0.01, *, generator: torch.Generator | None = None) -> Tensor:
    """Patches with white Gaussian noise added.

    Args:
        patches: float `[B, P, D]`.
        noise_std: standard deviation of the noise, >= 0, in the unit of the patches.
        generator: of the patches' device; None is torch's own.

    Returns:
        `[B, P, D]`.

    Raises:
        TypeError: the patches are not floating point.
        ValueError: the patches are not `[B, P, D]`, or the deviation is negative or no number.

    Example:
        >>> patch_jitter(torch.zeros(8, 100, 64), 0.5).std().round(decimals=1)
        tensor(0.5000)
    """
    _require_patches(patches)
    check_number("noise_std", noise_std, 0)
    noise = torch.randn(patches.shape, generator=generator, dtype=patches.dtype, device=patches.device)
    return torch.add(patches, noise, alpha=noise_std)


@dataclass(frozen=True)
class PatchAugmentation:
    """The patch augmentations one after the other: what moves patches, then noise, then what zeroes them.

    Its order is shift, permutation, jitter, cutout, dropout, so that what is zeroed stays zero. It keeps nothing
    between calls and has nothing to train; `PatchTransformer(..., patch_augmentation=...)` applies it in training.

    Args:
        use_dropout: whether to apply `patch_dropout`.
        dropout_prob: its probability.
        use_cutout: whether to apply `patch_cutout`.
        cutout_holes: its number of holes.
        cutout_size: their size in patches.
        use_shift: whether to apply `temporal_shift_patches`, circular.
        max_shift: its largest shift in patches.
        use_jitter: whether to apply `patch_jitter`.
        jitter_std: its standard deviation.
        use_permutation: whether to apply `patch_permutation`.
        permute_prob: its probability.

    Raises:
        ValueError: a number is out of its range.

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
        """The augmented patches.

        Args:
            patches: float `[B, P, D]`.
            training: False gives the patches back as they are.
            generator: of the patches' device; None is torch's own.

        Returns:
            `[B, P, D]`.

        Raises:
            TypeError: the patches are not floating point.
            ValueError: the patches are not `[B, P, D]`.
        """
        _require_patches(patches)
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
    """Dropout of 5 % and shifts by up to 2 patches."""
    return PatchAugmentation(dropout_prob=0.05, max_shift=2)


def get_medium_augmentation() -> PatchAugmentation:
    """Dropout of 10 %, up to 5 holes of 3 patches and shifts by up to 3: where to begin."""
    return PatchAugmentation(dropout_prob=0.1, use_cutout=True, cutout_holes=5, cutout_size=3, max_shift=3)


def get_heavy_augmentation() -> PatchAugmentation:
    """Dropout of 15 %, up to 10 holes of 5 patches, shifts by up to 5, noise of 0.02 and permutation of 10 %."""
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
    """Patches `[B, P, D]` taken from the places `source`, int64 `[B, P]`, of their own samples."""
    n, n_patches, width = patches.shape
    rows = source + torch.arange(n, device=source.device).unsqueeze(1) * n_patches
    # whole rows are copied, which is faster than a gather of single numbers
    return patches.reshape(n * n_patches, width).index_select(0, rows.flatten()).view(n, n_patches, width)


def _require_patches(patches: Tensor) -> None:
    check_floating("patches", patches)
    if patches.ndim != 3 or patches.shape[1] == 0:
        raise ValueError(f"patches have shape {list(patches.shape)}, expected [batch, patches >= 1, width]")
