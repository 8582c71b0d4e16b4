"""Evidence of each family of lines in envelope spectra, for many channels and bearings at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from whirl.diagnosis.front_end import EnvelopeOrders
from whirl.diagnosis.results import FamilyEvidence
from whirl.dsp.envelope_orders import above_floor
from whirl.physics.chance_combs import (
    ENOUGH_DRAWS,
    ChanceScores,
    belongs_to_no_family,
    chance_fundamentals,
    chance_of,
    chance_scores,
    independent_draws,
    without_sidebands,
)
from whirl.physics.comb_search import SLIP_RANGE, comb_search, levels_at
from whirl.physics.fault_families import HARMONICS, FaultFamily, UsableLines, usable_lines
from whirl.physics.scattered_lines import scattered_scores

RACES_AND_BALLS = ("BPFI", "BPFO", "2BSF")
"""Families that decide on a verdict, and share one false-alarm rate."""

_ROWS = 32  # evaluated at once


class _Row(NamedTuple):
    """One band of one channel, compared with one bearing."""

    item: int
    spectrum: EnvelopeOrders
    families: Sequence[FaultFamily]
    usable: list[UsableLines]


class _Found(NamedTuple):
    """What a row shows, `[F]` each, harmonics `[F, H]`."""

    significance_db: np.ndarray
    depth_db: np.ndarray
    slip: np.ndarray
    harmonics_db: np.ndarray
    sidebands_db: np.ndarray
    chance: np.ndarray


def family_evidence(
    items: Sequence[tuple[Sequence[EnvelopeOrders], Sequence[FaultFamily]]],
) -> list[dict[str, FamilyEvidence]]:
    """Evaluate the families of bearings in the envelope spectra of channels.

    Each family is described by the band in which it is most significant. The false-alarm probability holds for the
    best of all bands and of the three families of races and elements together.

    Args:
        items: for each channel and bearing, the spectra of the bands and the families; F is the same for all items.

    Returns:
        For each item the evidence by name of the family.

    Example:
        >>> from whirl.diagnosis.front_end import envelope_orders
        >>> from whirl.physics.fault_families import fault_families
        >>> from whirl.physics.rolling_bearing import BEARINGS, fault_orders
        >>> orders = fault_orders(BEARINGS["6205"])
        >>> generator = torch.Generator().manual_seed(0)
        >>> swell = 1 + 0.5 * torch.cos(2 * torch.pi * orders.bpfo * 30 * torch.arange(120_000) / 12_000)
        >>> bands = envelope_orders(swell * torch.randn(120_000, generator=generator), 12_000, rpm=1800)
        >>> (found,) = family_evidence([(bands, fault_families(orders))])
        >>> found["BPFO"].harmonics_db[0] > 15, found["BPFI"].significance_db < 5
        (True, True)
    """
    rows = [
        _Row(item, spectrum, families, _usable(families, spectrum))
        for item, (spectra, families) in enumerate(items)
        for spectrum in spectra
    ]
    by_item: list[list[tuple[_Row, _Found]]] = [[] for _ in items]
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        for row, found in zip(part, _evaluate(part), strict=True):
            by_item[row.item].append((row, found))
    return [_best_bands(found) for found in by_item]


def _usable(families: Sequence[FaultFamily], spectrum: EnvelopeOrders) -> list[UsableLines]:
    max_order = spectrum.max_order / (1 + SLIP_RANGE[1])
    others = [family for family in families if family.name in RACES_AND_BALLS]
    return [usable_lines(family, others, spectrum.bins_per_order, max_order) for family in families]


def _evaluate(rows: Sequence[_Row]) -> Iterator[_Found]:
    """Search all rows at once."""
    levels = [above_floor(row.spectrum.power, row.spectrum.bins_per_order) for row in rows]
    level_db, excess = (pad_sequence(list(part), batch_first=True) for part in zip(*levels, strict=True))
    make = level_db.new_tensor
    orders = make([[family.order for family in row.families] for row in rows])
    sidebands = make([[family.sideband for family in row.families] for row in rows])
    bins_per_order = make([row.spectrum.bins_per_order for row in rows])
    max_order = make([row.spectrum.max_order for row in rows])
    usable = torch.tensor(
        [[[h in lines.harmonics and lines.is_judged for h in HARMONICS] for lines in row.usable] for row in rows],
        device=level_db.device,
    )
    comb = comb_search(level_db, excess, orders, usable, bins_per_order)
    fundamentals = chance_fundamentals(float(max_order.max())).to(level_db)
    is_chance = belongs_to_no_family(fundamentals, orders, sidebands, usable, bins_per_order, max_order)
    lines = orders * (1 + comb.slip)
    alternates = torch.tensor([[family.alternates for family in row.families] for row in rows], device=level_db.device)
    unrelated = without_sidebands(level_db, lines, sidebands, alternates, bins_per_order, max_order)
    by_chance = chance_scores(unrelated, orders, usable, bins_per_order, fundamentals)
    n_draws = independent_draws(fundamentals, is_chance, orders, bins_per_order)
    draws = ChanceScores.of(*(_numpy(each) for each in (by_chance, is_chance, n_draws)))
    if (draws.n < ENOUGH_DRAWS).any():
        scattered = scattered_scores(unrelated, orders, usable, bins_per_order, max_order)
        draws = draws.filled_up(ChanceScores.of(*map(_numpy, scattered)))
    chance = chance_of(_numpy(comb.significance_db), draws)
    beside = _sideband_levels(level_db, lines, sidebands, usable, bins_per_order)
    parts = [_numpy(each) for each in (*comb, beside)]
    return (_Found(*(part[row] for part in (*parts, chance))) for row in range(len(rows)))


def _sideband_levels(
    level_db: Tensor, orders: Tensor, sidebands: Tensor, usable: Tensor, bins_per_order: Tensor
) -> Tensor:
    """Return the mean level of the first sidebands on both sides of the usable lines, `[B, F]`; NaN without any."""
    lines = orders[..., None] * torch.tensor(HARMONICS, dtype=orders.dtype, device=orders.device)
    distance = sidebands[..., None]
    both = levels_at(level_db, torch.cat((lines - distance, lines + distance), -1), bins_per_order)
    weights = (usable & (distance > 0)).to(level_db.dtype)
    return (both.unflatten(-1, (2, -1)).mean(-2) * weights).sum(-1) / weights.sum(-1)


def _best_bands(found: Sequence[tuple[_Row, _Found]]) -> dict[str, FamilyEvidence]:
    """Return the evidence of each family in the band in which it is most significant."""
    families = found[0][0].families
    n_judged = sum(
        lines.is_judged
        for row, _ in found
        for family, lines in zip(row.families, row.usable, strict=True)
        if family.name in RACES_AND_BALLS
    )
    best = {}
    for place, family in enumerate(families):
        judged = [(row, numbers) for row, numbers in found if row.usable[place].is_judged]
        if not judged:
            reason = found[0][0].usable[place].reason
            best[family.name] = FamilyEvidence(family.name, family.part, family.order, reason=reason)
            continue
        row, numbers = max(judged, key=lambda pair: pair[1].significance_db[place])
        best[family.name] = FamilyEvidence(
            family.name,
            family.part,
            family.order,
            significance_db=float(numbers.significance_db[place]),
            depth_db=float(numbers.depth_db[place]),
            slip=float(numbers.slip[place]),
            harmonics_db=tuple(_number(level) for level in numbers.harmonics_db[place]),
            sidebands_db=_number(numbers.sidebands_db[place]),
            false_alarm_probability=_any_of(max(n_judged, 1), _number(numbers.chance[place])),
            band_hz=row.spectrum.band_hz,
            reason=row.usable[place].reason,
        )
    return best


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _any_of(n_trials: int, probability: float | None) -> float | None:
    """Return the probability that at least one of several trials succeeds."""
    return None if probability is None else float(-np.expm1(n_trials * np.log1p(-min(probability, 1 - 1e-12))))
