"""What the search for a family of lines finds by chance: the same search at fundamentals that belong to no family."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from whirl.physics.comb_search import (
    MAX_LEVEL_DB,
    N_SLIPS,
    SEARCHED_BINS,
    SLIP_RANGE,
    harmonic_levels,
    mean_over_usable,
)
from whirl.physics.fault_families import HARMONICS, HIDDEN_BINS

MIN_DRAWS = 4
"""Fewer independent combs of no family say nothing about chance."""

ENOUGH_DRAWS = 16
"""With fewer, Student's t demands so much that clear lines look like chance."""

LOWEST_ORDER = 1.6
"""Lowest order of lines that are compared with those of a bearing."""

RELATED_SHARE = 0.035
"""Relative distance up to which lines may be those of a family: a little more than the width of the slip range."""

_HIGHEST_FUNDAMENTAL = 13.0  # bearings beyond widen the range
_STEP = 0.008  # relative
_RELATED = sorted({own / other for own in HARMONICS for other in HARMONICS})  # combs that share a line with a family
_RELATED_ORDERS = 0.1  # of sidebands
_N_SIDEBANDS = 3  # on each side of a line
_SIDEBAND_BINS = 2.0  # half-width
_SMEAR = 0.004  # of a harmonic's order, to be added: the jitter of impacts widens higher harmonics


def chance_fundamentals(max_order: float) -> Tensor:
    """Return fundamentals of combs to search for by chance: 0.8 % apart, their lines off whole orders.

    Args:
        max_order: highest order in the spectrum.

    Returns:
        `[G]`, float64, rising from 1.6.

    Example:
        >>> chance_fundamentals(40)[:3]
        tensor([1.6000, 1.6129, 1.6258], dtype=torch.float64)
    """
    n = int(_n_fundamentals(torch.tensor(max_order)))
    return LOWEST_ORDER * torch.exp(_STEP * torch.arange(n, dtype=torch.float64))


def _n_fundamentals(max_order: Tensor) -> Tensor:
    """Return how many fundamentals a spectrum has room for."""
    top = (max_order / HARMONICS[-1]).clamp(min=_HIGHEST_FUNDAMENTAL) / (1 + SLIP_RANGE[1])
    return ((top / LOWEST_ORDER).log() / _STEP).long()


def belongs_to_no_family(
    fundamentals: Tensor, orders: Tensor, sidebands: Tensor, usable: Tensor, bins_per_order: Tensor, max_order: Tensor
) -> Tensor:
    """Return which combs share no lines with any family of a bearing, nor with the family's own sidebands.

    Left out are fundamentals within 3.5 % of 1/3, 1/2, 2/3, 1, 3/2, 2 and 3 times that of any family; within 0.1 order
    of a fundamental of the family compared with, plus or minus whole orders, or its mirror image at zero (combs that
    lie on sidebands of the shaft); likewise plus or minus one and two sideband distances; and those with a line on a
    whole order or beyond the spectrum. So are those that `chance_fundamentals` would not return for the spectrum alone.

    Args:
        fundamentals: `[G]`, as from `chance_fundamentals` for the highest of the spectra.
        orders: fundamentals of the bearing's families, `[B, F]`.
        sidebands: their sideband distances, `[B, F]`, 0 for none.
        usable: harmonics that count, bool `[B, F, H]`.
        bins_per_order: resolution, `[B]`.
        max_order: highest order of each spectrum, `[B]`.

    Returns:
        bool `[B, F, G]`.

    Example:
        >>> one = torch.ones(1)
        >>> found = belongs_to_no_family(
        ...     torch.tensor([2.7, 3.6, 4.6, 3.2]), torch.tensor([[3.58]]), torch.zeros(1, 1),
        ...     torch.ones(1, 1, 3, dtype=torch.bool), 40 * one, 40 * one,
        ... )
        >>> found  # 3.6 is the family, 4.6 its sideband
        tensor([[[ True, False, False,  True]]])
    """
    harmonics = torch.tensor(HARMONICS, dtype=fundamentals.dtype, device=fundamentals.device)
    lines = fundamentals[:, None] * harmonics  # [G, H]
    off_shaft = _distance(lines) * bins_per_order[:, None, None] > HIDDEN_BINS  # [B, G, H]
    in_band = lines * (1 + SLIP_RANGE[1]) <= max_order[:, None, None]
    clear = ((off_shaft & in_band)[:, None] | ~usable[:, :, None]).all(-1)  # [B, F, G]
    clear &= (torch.arange(len(fundamentals), device=max_order.device) < _n_fundamentals(max_order)[:, None])[:, None]
    ratios = torch.tensor(_RELATED, dtype=fundamentals.dtype, device=fundamentals.device)
    related = (fundamentals / (orders[:, :, None, None] * ratios[:, None]) - 1).abs() < RELATED_SHARE
    clear &= ~related.any(2).any(1, keepdim=True)
    own = orders[:, :, None]
    for image in (fundamentals - own, fundamentals + own):
        clear &= _distance(image) > _RELATED_ORDERS
    for multiple in (1, 2):
        distance = ((fundamentals - own).abs() - multiple * sidebands[:, :, None]).abs()
        clear &= (distance > _RELATED_ORDERS) | (sidebands[:, :, None] == 0)
    return clear


def without_sidebands(
    level_db: Tensor,
    lines: Tensor,
    sidebands: Tensor,
    alternates: Tensor,
    bins_per_order: Tensor,
    max_order: Tensor,
) -> Tensor:
    """Replace the levels beside and between the lines of each family, which belong to it and are not due to chance.

    Half a sideband distance further on there are none, so the levels there take their place. A constant instead would
    make combs due to chance too weak, and false-alarm probabilities too low.

    Args:
        level_db: levels above the noise, `[B, K]`.
        lines: fundamentals f as found, slip included, `[B, F]`.
        sidebands: sideband distances q, `[B, F]`; a family with 0 has none.
        alternates: which families have faint lines halfway between, with sidebands of their own, bool `[B, F]`.
        bins_per_order: resolution, `[B]`.
        max_order: highest order of each spectrum, `[B]`; levels beyond are padding.

    Returns:
        A spectrum for each family, `[B, F, K]`; replaced within 2 bins plus 0.4 % of h f of `h f + k q`, k = -3 to 3,
        where h is 0, 1, 2, ..., or 0, 1/2, 1, ... for families that alternate. The lines `h f` with whole h stay.

    Example:
        >>> levels = torch.zeros(1, 401)
        >>> levels[0, [180, 220]] = 9.0  # orders 4.5 and 5.5
        >>> one = torch.ones(1, 1)
        >>> found = without_sidebands(levels, 4.5 * one, one, one == 0, 40 * one[0], 10 * one[0])
        >>> found[0, 0, [180, 220]]
        tensor([9., 0.])
    """
    order = torch.arange(level_db.shape[-1], device=level_db.device) / bins_per_order[:, None]
    multiples = torch.arange(-_N_SIDEBANDS, _N_SIDEBANDS + 1, device=level_db.device)[:, None]
    spacing = torch.where(alternates, lines / 2, lines)[:, :, None, None]
    shifted = order[:, None, None] - sidebands[:, :, None, None] * multiples  # [B, F, 2 k + 1, K]
    number = (shifted / spacing).round()
    half_width = _SIDEBAND_BINS / bins_per_order[:, None, None, None] + _SMEAR * number * spacing
    is_own = (multiples == 0) & (number % (1 + alternates.long()[:, :, None, None]) == 0)
    covered = (number >= 0) & ~is_own & ((shifted - number * spacing).abs() <= half_width)
    last = (max_order * bins_per_order).round().long()
    between = _further_on(level_db, (sidebands * bins_per_order[:, None] / 2).round().long(), last)
    return torch.where(covered.any(2) & (sidebands[:, :, None] > 0), between, level_db[:, None])


def _further_on(level_db: Tensor, n_bins: Tensor, last: Tensor) -> Tensor:
    """Return the levels `n_bins` `[B, F]` further on, or as many before where that is after bin `last` `[B]`."""
    place = torch.arange(level_db.shape[-1], device=level_db.device) + n_bins[..., None]
    place = torch.where(place > last[:, None, None], place - 2 * n_bins[..., None], place).clamp_min(0)
    return level_db[:, None].expand(-1, n_bins.shape[1], -1).gather(-1, place)


def chance_scores(
    level_db: Tensor, orders: Tensor, usable: Tensor, bins_per_order: Tensor, fundamentals: Tensor
) -> Tensor:
    """Compute the scores of combs at other fundamentals, each searched over as many bins as the family is.

    Args:
        level_db: levels above the noise for each family, `[B, F, K]`, as from `without_sidebands`.
        orders: fundamentals of the families, `[B, F]`.
        usable: harmonics that count, bool `[B, F, H]`.
        bins_per_order: `[B]`.
        fundamentals: `[G]`.

    Returns:
        Scores in dB, `[B, F, G]`.

    Example:
        >>> usable = torch.ones(1, 1, 3, dtype=torch.bool)
        >>> level_db = torch.full((1, 1, 800), 2.0)
        >>> chance_scores(level_db, torch.tensor([[3.5]]), usable, torch.tensor([40.0]), torch.tensor([2.2, 2.7]))
        tensor([[[2., 2.]]])
    """
    slips = torch.linspace(*SLIP_RANGE, N_SLIPS, device=level_db.device, dtype=orders.dtype)
    places = fundamentals[:, None] + orders.flatten()[:, None, None] * slips  # [B F, G, D]
    resolution = bins_per_order.repeat_interleave(orders.shape[1])
    heights = harmonic_levels(level_db.flatten(0, 1), places, resolution).clamp(max=MAX_LEVEL_DB)
    counted = usable.flatten(0, 1)[:, None].expand(-1, len(fundamentals), -1)
    return mean_over_usable(heights, counted).amax(-1).unflatten(0, orders.shape)


def independent_draws(fundamentals: Tensor, is_chance: Tensor, orders: Tensor, bins_per_order: Tensor) -> Tensor:
    """Return how many independent combs a set of overlapping ones amounts to.

    Neighboring combs are 0.8 % apart and search a range of 3.2 % of the family's order and 3 bins, so each holds only
    a share of an independent draw: its own distance over that range.

    Args:
        fundamentals: `[G]`.
        is_chance: which are used, bool `[B, F, G]`.
        orders: `[B, F]`.
        bins_per_order: `[B]`.

    Returns:
        `[B, F]`.

    Example:
        >>> fundamentals = chance_fundamentals(40)
        >>> used = torch.ones(1, 1, len(fundamentals), dtype=torch.bool)
        >>> independent_draws(fundamentals, used, torch.tensor([[5.0]]), torch.tensor([40.0])).round()
        tensor([[49.]], dtype=torch.float64)
    """
    apart = (fundamentals * is_chance).sum(-1) * _STEP
    return apart / (orders * (SLIP_RANGE[1] - SLIP_RANGE[0]) + SEARCHED_BINS / bins_per_order[:, None])


class ChanceScores(NamedTuple):
    """Scores that combs of no family reach: mean and variance of n independent draws, `[...]` each."""

    mean: np.ndarray
    variance: np.ndarray
    n: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, counts: np.ndarray, n_draws: np.ndarray) -> ChanceScores:
        """Summarize scores `[..., G]`; those that count `[..., G]` amount to `n_draws` `[...]` independent ones."""
        n = np.maximum(counts.sum(-1), 1)
        mean = np.where(counts, scores, 0).sum(-1) / n
        variance = np.square(np.where(counts, scores - mean[..., None], 0)).sum(-1) / n
        return cls(mean, variance, np.minimum(n_draws, counts.sum(-1)))

    def filled_up(self, others: ChanceScores) -> ChanceScores:
        """Add other draws where there are fewer than 16, so that spread and mean are known well enough.

        Example:
            >>> few, many = (ChanceScores(*np.array(numbers)) for numbers in ([6.0, 4.0, 5.0], [2.0, 4.0, 80.0]))
            >>> found = few.filled_up(many)
            >>> [float(each) for each in found]
            [3.25, 7.4375, 16.0]
        """
        added = np.minimum(others.n, np.maximum(ENOUGH_DRAWS - self.n, 0))
        n = self.n + added
        share = added / np.maximum(n, 1)
        mean = (1 - share) * self.mean + share * others.mean
        within = (1 - share) * self.variance + share * others.variance
        return ChanceScores(mean, within + share * (1 - share) * np.square(self.mean - others.mean), n)


def chance_of(scores: np.ndarray, draws: ChanceScores) -> np.ndarray:
    """Compute the probability that chance gives such a score.

    The scores of chance are close to normal, so the probability is that of Student's t for a new draw from a normal
    population whose mean and spread are estimated from n independent draws.

    Args:
        scores: `[...]`, dB.
        draws: what combs of no family reach.

    Returns:
        Probabilities `[...]`; NaN where there are fewer than 4 independent draws, or the score is NaN.

    Example:
        >>> by_chance = np.random.default_rng(0).normal(3, 1, size=40)
        >>> draws = ChanceScores.of(by_chance, np.ones(40, dtype=bool), np.array(40))
        >>> chance_of(np.array([3.0, 7.0]), draws).round(3)
        array([0.47, 0.  ])
    """
    from scipy.special import stdtr

    n = np.maximum(draws.n, MIN_DRAWS)
    spread = np.sqrt(draws.variance * (n / (n - 1)) * (1 + 1 / n))
    t = (scores - draws.mean) / np.maximum(spread, np.finfo(np.float32).tiny)
    return np.where(draws.n < MIN_DRAWS, np.nan, stdtr(n - 1, -t))


def _distance(orders: Tensor) -> Tensor:
    """Return the distance to the nearest whole order."""
    return (orders - orders.round()).abs()
