"""Chance in short spectra: lines at places that have nothing to do with one another.

Between harmonics of the shaft and lines of the bearing, the spectrum of a few turns has room for few combs of three
harmonics, but for many single lines. Three of them together are as high as a comb is in noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from whirl.physics.chance_combs import LOWEST_ORDER, RELATED_SHARE
from whirl.physics.comb_search import (
    MAX_LEVEL_DB,
    N_SLIPS,
    SEARCHED_BINS,
    SLIP_RANGE,
    levels_at,
    mean_over_usable,
)
from whirl.physics.fault_families import HARMONICS, HIDDEN_BINS, OTHERS_HARMONICS

_N_PLACES = 192
_RELATED_BINS = 2.0


def scattered_scores(
    level_db: Tensor, orders: Tensor, usable: Tensor, bins_per_order: Tensor, max_order: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the scores of groups of scattered lines, each line searched over as many bins as a family's harmonic is.

    Places within 1.5 bins of whole orders, or within 3.5 % and 2 bins of one of the first four harmonics of a family,
    are left out.

    Args:
        level_db: levels above the noise for each family, `[B, F, K]`, as from `without_sidebands`.
        orders: fundamentals of the families, `[B, F]`.
        usable: harmonics that count, bool `[B, F, H]`.
        bins_per_order: `[B]`.
        max_order: highest order of each spectrum, `[B]`.

    Returns:
        Scores in dB `[B, F, J]`, which of them count, bool `[B, F, J]`, and how many independent groups they amount to,
        `[B, F]`.

    Example:
        >>> usable = torch.ones(1, 1, 3, dtype=torch.bool)
        >>> level_db = torch.full((1, 1, 480), 2.0)
        >>> turns, max_order = torch.tensor([12.0]), torch.tensor([39.0])
        >>> scores, counts, n_draws = scattered_scores(level_db, torch.tensor([[3.5]]), usable, turns, max_order)
        >>> scores[counts].unique(), n_draws.item() > 20
        (tensor([2.]), True)
    """
    top = max_order / (1 + SLIP_RANGE[1]) - SEARCHED_BINS / bins_per_order
    share = (torch.arange(_N_PLACES, device=orders.device, dtype=orders.dtype) + 0.5) / _N_PLACES
    places = LOWEST_ORDER + (top[:, None] - LOWEST_ORDER) * share  # [B, C]
    is_free = _is_free(places, orders, bins_per_order)
    slips = torch.linspace(*SLIP_RANGE, N_SLIPS, device=orders.device, dtype=orders.dtype)
    harmonics = torch.tensor(HARMONICS, device=orders.device, dtype=orders.dtype)
    shifts = (orders[:, :, None, None] * harmonics[:, None] * slips)[:, :, None]  # [B, F, 1, H, D]
    chosen = _shuffled(is_free)  # [B, H, C]
    lines = places[:, None].expand(-1, len(HARMONICS), -1).gather(-1, chosen).mT  # [B, C, H]
    where = (lines[:, None, ..., None] + shifts).mT.flatten(0, 1)  # [B F, C, D, H]
    resolution = bins_per_order.repeat_interleave(orders.shape[1])
    heights = levels_at(level_db.flatten(0, 1), where, resolution).clamp(max=MAX_LEVEL_DB)
    counted = usable.flatten(0, 1)[:, None].expand(-1, _N_PLACES, -1)
    scores = mean_over_usable(heights, counted).amax(-1).unflatten(0, orders.shape)
    counts = torch.arange(_N_PLACES, device=orders.device) < is_free.sum(-1, keepdim=True)
    free_orders = (is_free.float().mean(-1) * (top - LOWEST_ORDER)).clamp(min=0)
    return scores, counts[:, None].expand_as(scores), _n_groups(free_orders, orders, usable, bins_per_order)


def _n_groups(free_orders: Tensor, orders: Tensor, usable: Tensor, bins_per_order: Tensor) -> Tensor:
    """Return how many independent groups, `[B, F]`, fit into the free part `[B]` of the spectrum (Satterthwaite)."""
    harmonics = torch.tensor(HARMONICS, device=orders.device, dtype=orders.dtype)
    widths = orders[..., None] * harmonics * (SLIP_RANGE[1] - SLIP_RANGE[0])
    widths = widths + SEARCHED_BINS / bins_per_order[:, None, None]
    return (free_orders[:, None] * usable.sum(-1) ** 2 / (widths * usable).sum(-1)).nan_to_num(0.0)


def _is_free(places: Tensor, orders: Tensor, bins_per_order: Tensor) -> Tensor:
    """Return which places `[B, C]` are on neither a harmonic of the shaft nor a line of a family."""
    off_shaft = (places - places.round()).abs() * bins_per_order[:, None] > HIDDEN_BINS
    lines = (orders[..., None] * torch.arange(1, OTHERS_HARMONICS + 1, device=orders.device)).flatten(1)
    reach = RELATED_SHARE * lines + _RELATED_BINS / bins_per_order[:, None]
    return off_shaft & ((places[:, :, None] - lines[:, None]).abs() > reach[:, None]).all(-1)


def _shuffled(is_free: Tensor) -> Tensor:
    """Return the indices of the free places first, in an order of its own for each harmonic, `[B, H, C]`."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.rand(len(HARMONICS), is_free.shape[-1], generator=generator).to(is_free.device)
    return (keys + 2.0 * ~is_free[:, None]).argsort(-1)
