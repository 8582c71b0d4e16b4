"""The search for a family of lines, and its results in noise."""

import numpy as np
import pytest
import torch

from whirl.dsp.envelope_orders import whole_orders
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
from whirl.physics.comb_search import comb_search, levels_at
from whirl.physics.fault_families import HARMONICS, FaultFamily, usable_lines
from whirl.physics.scattered_lines import scattered_scores

TURNS = torch.tensor([40.0])
MAX_ORDER = torch.tensor([42.0])
ALL = torch.ones(1, 1, 3, dtype=torch.bool)


def spectrum(lines, n_bins=1700):
    """Levels in dB at given orders; 0 elsewhere."""
    level_db = torch.zeros(1, n_bins)
    for order, level in lines.items():
        level_db[0, round(40 * order)] = level
    return level_db


def search(level_db, order, usable=ALL):
    return comb_search(level_db, 10 ** (level_db / 10) - 1, torch.tensor([[order]]), usable, TURNS)


@pytest.mark.parametrize("slip", [-0.018, -0.006, 0.0, 0.004, 0.010])
@pytest.mark.parametrize("order", [2.8, 5.4152, 11.7])
def test_finds_lines_at_their_slip(order, slip):
    lines = {h * order * (1 + slip): 12.0 for h in (1, 2, 3)}
    found = search(spectrum(lines), order)
    assert found.significance_db.item() == 12
    assert found.slip.item() == pytest.approx(slip, abs=1.5 / (3 * order * 40))


def test_slip_is_shared_by_the_harmonics():
    """Lines that deviate in opposite directions are not one family."""
    order = 5.4
    found = search(spectrum({order * 0.985: 12.0, 2 * order * 1.01: 12.0, 3 * order * 0.985: 12.0}), order)
    assert found.significance_db.item() == 8


def test_a_single_line_counts_at_most_30_db():
    assert search(spectrum({5.4: 90.0}), 5.4).significance_db.item() == 10


def test_depth_adds_up_the_power_of_the_lines():
    found = search(spectrum({5.4: 10.0, 10.8: 10.0, 16.2: 10.0}), 5.4)
    assert found.depth_db.item() == pytest.approx(10 * np.log10(3 * 9))


def test_unusable_harmonics_are_left_out_of_the_mean():
    usable = torch.tensor([[[True, False, True]]])
    found = search(spectrum({5.4: 12.0, 16.2: 6.0}), 5.4, usable)
    assert found.significance_db.item() == 9
    assert torch.isnan(found.harmonics_db[0, 0, 1])
    none = search(spectrum({5.4: 12.0}), 5.4, torch.zeros_like(ALL))
    assert torch.isnan(none.significance_db).all()
    assert torch.isnan(none.depth_db).all()


def test_a_batch_equals_its_rows():
    levels = torch.rand(3, 1700, generator=torch.Generator().manual_seed(0)) * 10
    orders = torch.tensor([[3.6, 5.4], [2.9, 5.1], [8.3, 10.7]])
    turns = torch.tensor([40.0, 25.0, 40.03])
    usable = ALL.expand(3, 2, 3)
    together = comb_search(levels, levels, orders, usable, turns)
    for row in range(3):
        one = slice(row, row + 1)
        alone = comb_search(levels[one], levels[one], orders[one], usable[one], turns[one])
        for whole, part in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[one], part)


def test_gradients_flow_to_the_lines():
    level_db = spectrum({5.4: 12.0, 10.8: 12.0, 16.2: 12.0}).requires_grad_()
    comb_search(level_db, level_db, torch.tensor([[5.4]]), ALL, TURNS).significance_db.sum().backward()
    torch.testing.assert_close(level_db.grad[0, [216, 432, 648]], torch.full((3,), 1 / 3))


def test_lines_beyond_the_spectrum_have_no_level():
    assert levels_at(torch.ones(1, 10), torch.tensor([[3.0, 50.0]]), torch.ones(1)).tolist() == [[1, 0]]


def test_chance_combs_share_no_lines_with_a_family():
    orders = torch.tensor([[5.4152, 3.5848, 4.7135]])
    fundamentals = chance_fundamentals(42).float()
    kept = belongs_to_no_family(
        fundamentals, orders, torch.tensor([[1.0, 0.0, 0.398]]), ALL.expand(1, 3, 3), TURNS, MAX_ORDER
    )
    for family in range(3):
        used = fundamentals[kept[0, family]]
        assert len(used) > 50
        ratios = used[:, None] / orders
        for related in (1 / 3, 1 / 2, 2 / 3, 1, 3 / 2, 2, 3):
            assert ((ratios / related - 1).abs() >= 0.035).all()
        for harmonic in (1, 2, 3):
            lines = harmonic * used
            assert ((lines - lines.round()).abs() * 40 > 1.5).all()


def test_sidebands_of_a_family_are_not_chance():
    """An inner race is modulated by its load zone; combs on its sidebands do not raise the probability of chance."""
    lines = {h * 5.4: 15.0 for h in (1, 2, 3, 4, 5, 6)}
    beside = {h * 5.4 + k: 12.0 for h in (1, 2, 3, 4, 5, 6) for k in (-2, -1, 1, 2)}
    level_db = spectrum(lines | beside)
    orders, sideband = torch.tensor([[5.4]]), torch.tensor([[1.0]])
    steady = torch.zeros(1, 1, dtype=torch.bool)
    cleared = without_sidebands(level_db, orders, sideband, steady, TURNS, MAX_ORDER)[0, 0]
    assert all(cleared[round(40 * order)] == 0 for order in beside)  # as half an order further on
    assert all(cleared[round(40 * order)] == 15 for order in lines)
    stationary = without_sidebands(level_db, orders, torch.zeros(1, 1), steady, TURNS, MAX_ORDER)
    torch.testing.assert_close(stationary[:, 0], level_db)


def test_lines_between_those_of_an_element_are_not_chance():
    """An element strikes one race harder: lines at odd multiples of BSF, with sidebands at FTF, and FTF itself."""
    line, cage = 4.7, 0.4
    own = {h * line: 15.0 for h in (1, 2, 3)}
    other = {k * cage: 9.0 for k in (1, 2, 3)}
    other |= {h * line + k * cage: 9.0 for h in (0.5, 1.5, 2.5) for k in (-2, -1, 0, 1, 2)}
    level_db = spectrum(own | other)
    arguments = (level_db, torch.tensor([[line]]), torch.tensor([[cage]]))
    cleared = without_sidebands(*arguments, torch.tensor([[True]]), TURNS, MAX_ORDER)[0, 0]
    assert all(cleared[round(40 * order)] == 0 for order in other)
    assert all(cleared[round(40 * order)] == 15 for order in own)
    steady = without_sidebands(*arguments, torch.tensor([[False]]), TURNS, MAX_ORDER)[0, 0]
    assert steady[round(40 * line / 2)] == 9


def noise_levels(n_spectra, n_segments, seed=0):
    """Levels of averaged spectra of Gaussian noise behind a Hann window, in dB over their median."""
    rng = torch.Generator().manual_seed(seed)
    bins = torch.randn(n_spectra, n_segments, 1702, dtype=torch.complex64, generator=rng)
    smeared = bins[..., 1:-1] - (bins[..., :-2] + bins[..., 2:]) / 2
    power = smeared.abs().square().mean(1)
    return 10 * (power / power.median(-1, keepdim=True).values).log10()


@pytest.mark.parametrize("n_segments", [1, 3, 14])
def test_the_probability_of_chance_matches_its_frequency_in_noise(n_segments):
    """200 spectra of noise: the probabilities are as stated within the sampling error."""
    orders, turns = torch.tensor([[5.4152, 3.5848, 4.7135]]).expand(200, 3), TURNS.expand(200)
    usable, sidebands = ALL.expand(200, 3, 3), torch.tensor([[1.0, 0.0, 0.398]]).expand(200, 3)
    levels = noise_levels(200, n_segments)
    fundamentals = chance_fundamentals(42).float()
    found = comb_search(levels, levels.clamp(min=0), orders, usable, turns)
    kept = belongs_to_no_family(fundamentals, orders, sidebands, usable, turns, MAX_ORDER.expand(200))
    alternates = torch.tensor([[False, False, True]]).expand(200, 3)
    unrelated = without_sidebands(
        levels, orders * (1 + found.slip), sidebands, alternates, turns, MAX_ORDER.expand(200)
    )
    scores = chance_scores(unrelated, orders, usable, turns, fundamentals)
    draws = independent_draws(fundamentals, kept, orders, turns)
    stated = chance_of(found.significance_db.numpy(), ChanceScores.of(scores.numpy(), kept.numpy(), draws.numpy()))
    for probability in (0.2, 0.05, 0.01):
        counted = (stated < probability).mean()
        assert abs(counted - probability) < 4 * np.sqrt(probability / 600)


@pytest.mark.parametrize("bins_per_order", [10.0, 12.5, 16.0])
def test_in_short_spectra_scattered_lines_tell_the_probability_of_chance(bins_per_order):
    """Few combs fit into the spectrum of 10 to 16 turns; with scattered lines the probabilities are as stated."""
    levels = noise_levels(400, 1, seed=1)[:, : round(41 * bins_per_order)]
    orders, turns = torch.tensor([[5.4152, 3.5848, 4.7135]]).expand(400, 3), torch.tensor([bins_per_order]).expand(400)
    max_order = torch.full((400,), 40.9)
    levels = levels.masked_fill(whole_orders(levels.shape[-1], bins_per_order), 0.0)
    families = [FaultFamily(name, name, order) for name, order in zip("abc", orders[0].tolist(), strict=True)]
    lines = [usable_lines(each, families, bins_per_order, 40.0) for each in families]
    usable = torch.tensor([[h in each.harmonics and each.is_judged for h in HARMONICS] for each in lines])
    found = comb_search(levels, levels.clamp(min=0), orders, usable.expand(400, 3, 3), turns)
    scattered = scattered_scores(levels[:, None].expand(-1, 3, -1), orders, usable.expand(400, 3, 3), turns, max_order)
    draws = ChanceScores.of(*(each.numpy() for each in scattered))
    stated = chance_of(found.significance_db.numpy(), draws)[:, usable.any(-1).numpy()]
    assert stated.size >= 400
    for probability in (0.2, 0.05, 0.01):
        counted = (stated < probability).mean()
        assert counted < probability + 4 * np.sqrt(probability / stated.size)
        assert counted > probability / 4


def test_scattered_lines_avoid_those_of_the_families_and_of_the_shaft():
    own = {h * order: 20.0 for h in (1, 2, 3, 4) for order in (5.4, 3.6)} | {float(k): 20.0 for k in range(1, 40)}
    orders, usable = torch.tensor([[5.4, 3.6]]), ALL.expand(1, 2, 3)
    level_db = spectrum(own).expand(2, -1)[None]
    scores, counts, n_draws = scattered_scores(level_db, orders, usable, TURNS, torch.tensor([40.0]))
    assert scores[counts].min() == 0  # of 40 bins in an order, most hold nothing
    assert scores[counts].max() < 20
    assert (n_draws > 20).all()


def test_draws_are_filled_up_where_there_are_few():
    few, many = (ChanceScores(np.array(mean), np.array(4.0), np.array(n)) for mean, n in ((6.0, 4.0), (2.0, 100.0)))
    found = few.filled_up(many)
    assert found.n == ENOUGH_DRAWS
    assert found.mean == pytest.approx((4 * 6 + (ENOUGH_DRAWS - 4) * 2) / ENOUGH_DRAWS)
    assert found.variance > 4  # they disagree
    assert many.filled_up(few) == many


def test_too_few_combs_give_no_probability_of_chance():
    everything = np.ones(50, dtype=bool)
    assert np.isnan(chance_of(np.array(9.0), ChanceScores.of(np.ones(3), everything[:3], np.array(3.0))))
    assert np.isnan(chance_of(np.array(9.0), ChanceScores.of(np.ones(50), everything, np.array(2.0))))
