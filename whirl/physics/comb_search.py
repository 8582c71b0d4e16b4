"""Search of spectra for families of harmonics that share one slip."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from whirl.physics.fault_families import HARMONICS

SLIP_RANGE = (-0.02, 0.012)
"""Relative deviation of real rates from kinematic ones: slip lowers them, a contact angle under thrust raises them."""

MAX_LEVEL_DB = 30.0
"""Maximum contribution of a single line, so that one line alone is not taken for a family."""

SEARCHED_BINS = 3
"""Number of bins around each line, the highest of which counts."""

N_SLIPS = 65
"""Steps of 0.05 %: no bin is skipped up to order 150, with 40 bins in one order."""


class Comb(NamedTuple):
    """What a search found; B spectra, F families, H harmonics.

    Attributes:
        significance_db: mean level of the usable lines above the noise at the best slip, dB, `[B, F]`.
        depth_db: modulation that the usable lines hold together, dB relative to 100 %, `[B, F]`.
        slip: relative deviation from the kinematic order, `[B, F]`.
        harmonics_db: level of each line, dB, `[B, F, H]`; NaN where it is not usable.
    """

    significance_db: Tensor
    depth_db: Tensor
    slip: Tensor
    harmonics_db: Tensor


def comb_search(level_db: Tensor, excess: Tensor, orders: Tensor, usable: Tensor, bins_per_order: Tensor) -> Comb:
    """Search spectra for families of lines at `h f (1 + d)`, h = 1, 2, 3, with one slip d for all harmonics.

    For each d in -2 % to 1.2 % the score is the mean, over the usable harmonics, of the highest of the 3 bins around
    the line, each at most 30 dB; the best score is the significance. Neighboring d often share it, and the middle one
    counts. The depth adds up, at that d, the power of the highest of the same bins. Gradients flow to the spectra,
    through the bins chosen.

    Args:
        level_db: levels above the noise, `[B, K]`, as from `dsp.above_floor`.
        excess: powers above the noise, relative to a modulation of 100 %, `[B, K]`.
        orders: fundamentals f, `[B, F]`.
        usable: which harmonics count, bool `[B, F, H]`; none gives NaN.
        bins_per_order: resolution of each spectrum, `[B]`.

    Example:
        >>> level_db = torch.zeros(1, 800)
        >>> level_db[0, [140, 280, 420]] = 12.0  # orders 3.5, 7 and 10.5
        >>> usable = torch.ones(1, 1, 3, dtype=torch.bool)
        >>> found = comb_search(level_db, 0.01 * level_db, torch.tensor([[3.53]]), usable, torch.tensor([40.0]))
        >>> found.significance_db, found.harmonics_db
        (tensor([[12.]]), tensor([[[12., 12., 12.]]]))
        >>> round(found.slip.item(), 3)
        -0.009
    """
    slips = torch.linspace(*SLIP_RANGE, N_SLIPS, device=level_db.device, dtype=orders.dtype)
    heights = harmonic_levels(level_db, orders[:, :, None] * (1 + slips), bins_per_order)  # [B, F, D, H]
    scores = mean_over_usable(heights.clamp(max=MAX_LEVEL_DB), usable)
    best = _middle_of_best(scores, slips)
    at_best = best[..., None, None].expand(*best.shape, 1, len(HARMONICS))
    powers = harmonic_levels(excess, orders[:, :, None] * (1 + slips[best][..., None]), bins_per_order)[:, :, 0]
    depth = (powers * usable).sum(-1)
    depth_db = 10 * depth.clamp(min=torch.finfo(depth.dtype).tiny).log10()
    return Comb(
        significance_db=scores.amax(-1),
        depth_db=depth_db.masked_fill(~usable.any(-1), torch.nan),
        slip=slips[best].to(scores.dtype),
        harmonics_db=heights.gather(2, at_best)[:, :, 0].masked_fill(~usable, torch.nan),
    )


def _middle_of_best(scores: Tensor, slips: Tensor) -> Tensor:
    """Return the index of the best score `[..., D]`; of equal ones the nearest to their mean slip."""
    tied = scores >= scores.amax(-1, keepdim=True)
    mean = (tied * slips).sum(-1, keepdim=True) / tied.sum(-1, keepdim=True).clamp(min=1)
    return ((slips - mean).abs() + (~tied)).argmin(-1)


def levels_at(spectra: Tensor, orders: Tensor, bins_per_order: Tensor) -> Tensor:
    """Return the highest of the 3 bins around each order; 0 beyond the spectrum.

    Args:
        spectra: `[B, K]`, >= 0 where there is a line.
        orders: `[B, ...]`, >= 0.
        bins_per_order: `[B]`.

    Returns:
        Of the shape of `orders`.

    Example:
        >>> levels_at(torch.tensor([[0.0, 1.0, 5.0, 2.0]]), torch.tensor([[1.0, 2.9]]), torch.tensor([1.0]))
        tensor([[5., 5.]])
    """
    highest = F.pad(F.max_pool1d(spectra[:, None], SEARCHED_BINS, 1, 1)[:, 0], (0, 1))
    scale = bins_per_order.view(-1, *(1,) * (orders.ndim - 1))
    bins = (orders * scale).round().long().clamp(0, spectra.shape[-1])
    return highest.gather(1, bins.flatten(1)).view(bins.shape)


def harmonic_levels(spectra: Tensor, fundamentals: Tensor, bins_per_order: Tensor) -> Tensor:
    """Return the levels at the harmonics of fundamentals `[B, ...]`, `[B, ..., H]`."""
    harmonics = torch.tensor(HARMONICS, dtype=fundamentals.dtype, device=spectra.device)
    return levels_at(spectra, fundamentals[..., None] * harmonics, bins_per_order)


def mean_over_usable(heights: Tensor, usable: Tensor) -> Tensor:
    """Return the mean over usable harmonics `[B, F, H]` of heights `[B, F, D, H]`; NaN where there are none."""
    weights = usable[:, :, None].to(heights.dtype)
    return (heights * weights).sum(-1) / weights.sum(-1)
