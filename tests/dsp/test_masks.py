"""Span masks: distribution of positions and widths, and independence of rows."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from whirl.dsp.masks import draw_spans, mask_bands, mask_of_spans, mask_out, span_mask, zero_spans


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def masks_by_loop(starts, widths, length):
    mask = np.zeros((len(starts), length), dtype=bool)
    for row, row_starts, row_widths in zip(mask, starts.tolist(), widths.tolist(), strict=True):
        for start, width in zip(row_starts, row_widths, strict=True):
            row[start : start + width] = True
    return torch.from_numpy(mask)


@pytest.mark.parametrize("length", [1, 2, 17, 300])
@pytest.mark.parametrize("n_spans", [0, 1, 4])
def test_union_of_spans(length, n_spans):
    starts, widths = draw_spans(50, length, length, n_spans, generator=seeded())
    assert ((starts >= 0) & (starts + widths <= length)).all()
    mask = mask_of_spans(starts, widths, length)
    expected = masks_by_loop(starts, widths, length)
    assert torch.equal(mask, expected)
    values = torch.randn(50, 3, length)
    for zeroed in (zero_spans(values, starts, widths), mask_out(values, mask[:, None])):
        assert torch.equal(zeroed, torch.where(expected[:, None], torch.zeros(()), values))


def test_widths_and_starts_are_uniform():
    mask = span_mask(60_000, 12, 5, generator=seeded(1))
    widths = mask.sum(1)
    assert chisquare(torch.bincount(widths, minlength=6)).pvalue > 0.01
    for width in range(1, 6):  # positions where a span of this width fits
        starts = mask[widths == width].int().argmax(1)
        assert chisquare(torch.bincount(starts, minlength=12 - width + 1)).pvalue > 0.01


def test_rows_are_independent():
    mask = span_mask(20_000, 10, 10, generator=seeded(2))
    both = (mask[0::2, 4] & mask[1::2, 4]).float().mean()
    assert both == pytest.approx(mask[:, 4].float().mean().item() ** 2, abs=0.01)


def test_fixed_width_and_limits():
    assert (span_mask(100, 8, 3, fixed_width=True).sum(1) == 3).all()
    assert span_mask(3, 8, 100, fixed_width=True).all()
    assert not span_mask(3, 8, 0).any()
    assert span_mask(0, 8, 3).shape == (0, 8)


def test_equal_seeds_give_equal_masks():
    draw = [span_mask(9, 50, 20, 2, generator=seeded(seed)) for seed in (3, 3, 4)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])


@pytest.mark.parametrize("value", [0.0, -3.5, "mean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bands_are_overwritten_and_other_cells_are_bitwise_equal(value, dtype):
    maps = torch.randn(4, 2, 16, 32).to(dtype)
    replacement = maps.mean((2, 3), keepdim=True) if value == "mean" else value
    rows, columns = span_mask(4, 16, 8, 2, generator=seeded()), span_mask(4, 32, 8, 2, generator=seeded())
    masked = rows[:, None, :, None] | columns[:, None, None, :]
    before = maps.clone()
    expected = torch.where(masked, torch.as_tensor(replacement, dtype=dtype), maps)
    assert torch.equal(mask_bands(maps, rows, columns, replacement), expected)
    assert torch.equal(maps, before)


def test_gradient_of_unmasked_cells_passes():
    maps = torch.randn(1, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    rows, columns = torch.tensor([[True, False]]), torch.tensor([[False, True, False]])
    (gradient,) = torch.autograd.grad(mask_bands(maps, rows, columns, 0.5).sum(), maps)
    assert gradient.tolist() == [[[[0, 0, 0], [1, 0, 1]]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_mask_out_keeps_dtype_and_gradient(dtype):
    values = torch.randn(2, 1, 8, dtype=dtype, requires_grad=True)
    mask = span_mask(2, 8, 4, fixed_width=True)[:, None]
    masked = mask_out(values, mask)
    assert masked.dtype == dtype
    (gradient,) = torch.autograd.grad(masked.float().sum(), values)
    assert torch.equal(gradient, (~mask).to(dtype))


@pytest.mark.parametrize(("n", "length", "width", "spans"), [(-1, 8, 2, 1), (1, 0, 2, 1), (1, 8, -1, 1), (1, 8, 2, -1)])
def test_rejects_numbers_out_of_range(n, length, width, spans):
    with pytest.raises(ValueError, match="expected a length >= 1"):
        span_mask(n, length, width, spans)
