"""Masks of random contiguous spans along an axis, for signals, patches and spectrograms."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


def span_mask(
    n: int,
    length: int,
    max_width: int,
    n_spans: int = 1,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    fixed_width: bool = False,
) -> Tensor:
    """Draw masks of random spans, independently for each row; spans may overlap.

    Args:
        n: number of rows, >= 0.
        length: length of the axis, >= 1.
        max_width: maximum width of a span, >= 0, limited to the length of the axis. Widths are uniform in
            0..max_width, starts are uniform among all positions where the span fits.
        n_spans: number of spans per row, >= 0.
        generator: random generator on the same device; None uses torch's global generator.
        device: device of the mask.
        fixed_width: use `max_width` as the width of every span.

    Returns:
        bool `[n, length]`, True where masked.

    Raises:
        ValueError: a number is below its range.

    Example:
        >>> span_mask(2, 8, 3, fixed_width=True, generator=torch.Generator().manual_seed(0)).int()
        tensor([[0, 0, 0, 1, 1, 1, 0, 0],
                [1, 1, 1, 0, 0, 0, 0, 0]], dtype=torch.int32)
    """
    starts, widths = draw_spans(
        n, length, max_width, n_spans, generator=generator, device=device, fixed_width=fixed_width
    )
    return mask_of_spans(starts, widths, length)


def draw_spans(
    n: int,
    length: int,
    max_width: int,
    n_spans: int = 1,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    fixed_width: bool = False,
) -> tuple[Tensor, Tensor]:
    """Draw the spans of `span_mask`: starts and widths, int64 `[n, n_spans]` each.

    Example:
        >>> starts, widths = draw_spans(100, length=8, max_width=3)
        >>> widths.shape, bool((widths <= 3).all() and (starts + widths <= 8).all())
        (torch.Size([100, 1]), True)
    """
    if n < 0 or length < 1 or max_width < 0 or n_spans < 0:
        raise ValueError(
            f"n is {n}, length {length}, max_width {max_width} and n_spans {n_spans}, expected a length >= 1 and the "
            "others >= 0"
        )
    max_width, size = min(max_width, length), (n, n_spans)
    if fixed_width:
        widths = torch.full(size, max_width, device=device)
    else:
        widths = torch.randint(max_width + 1, size, generator=generator, device=device)
    return draw_starts(widths, length, generator=generator), widths


def draw_starts(widths: Tensor, length: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw starts for spans of given widths, uniform among the positions where each fits on the axis.

    Args:
        widths: int64 of any shape, each in 0..length.
        length: length of the axis.
        generator: random generator on the same device; None uses torch's global generator.

    Returns:
        int64 of the same shape, each in 0..length - width.

    Example:
        >>> draw_starts(torch.tensor([8]), length=8)
        tensor([0])
    """
    draws = torch.randint(2**62, widths.shape, generator=generator, device=widths.device)
    return draws % (length + 1 - widths)  # uniform to 1e-12 for axes shorter than 4 million


def mask_of_spans(starts: Tensor, widths: Tensor, length: int) -> Tensor:
    """Return the mask of the union of given spans.

    Args:
        starts: int64 `[n, n_spans]`.
        widths: int64 `[n, n_spans]`; spans must end within the axis.
        length: length of the axis.

    Returns:
        bool `[n, length]`, True within a span.

    Example:
        >>> mask_of_spans(torch.tensor([[0, 3]]), torch.tensor([[2, 1]]), 5)
        tensor([[ True,  True, False,  True, False]])
    """
    return ~_outside(starts, widths, length).view(torch.bool)


def mask_bands(maps: Tensor, rows: Tensor, columns: Tensor, value: float | Tensor = 0.0) -> Tensor:
    """Overwrite entire rows and columns of maps, as in SpecAugment (Park et al. 2019, section 2).

    Args:
        maps: float `[n, C, F, T]`.
        rows: bool `[n, F]`, True where masked, e.g. a `span_mask` of frequencies.
        columns: bool `[n, T]`, e.g. a `span_mask` of times.
        value: replacement, broadcastable to the shape of `maps`.

    Returns:
        Tensor like `maps`, bitwise equal where not masked; a masked NaN or infinity becomes NaN.

    Example:
        >>> rows, columns = torch.tensor([[True, False]]), torch.tensor([[False, True, False]])
        >>> mask_bands(torch.ones(1, 1, 2, 3), rows, columns)
        tensor([[[[0., 0., 0.],
                  [1., 0., 1.]]]])
    """
    # Interpolating with weights of 0 and 1 is several times as fast on a CPU as selecting by a bool mask, and writing
    # the result to the memory of the weights is twice as fast as allocating.
    kept = (~rows).to(maps.dtype)[:, None, :, None] * (~columns).to(maps.dtype)[:, None, None, :]
    filling = value if isinstance(value, Tensor) else maps.new_full((), value)
    if maps.requires_grad or kept.shape != maps.shape:
        return filling.lerp(maps, kept)
    return torch.lerp(filling, maps, kept, out=kept)


def mask_out(values: Tensor, mask: Tensor) -> Tensor:
    """Set values to zero where the mask is True; masked values get no gradient.

    Args:
        values: float of any shape.
        mask: bool, broadcastable to the shape of `values`.

    Returns:
        Tensor like `values`. On a CPU a masked NaN or infinity becomes NaN.

    Example:
        >>> mask_out(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([False, True, False]))
        tensor([[1., 0., 3.]])
    """
    if not values.is_cpu:
        return values.masked_fill(mask, 0)
    return _multiply(values, (~mask).view(torch.uint8))


def zero_spans(values: Tensor, starts: Tensor, widths: Tensor) -> Tensor:
    """Set values to zero in given spans of their last axis.

    Equal to `mask_out` with `mask_of_spans`, with fewer operations.

    Args:
        values: float `[n, C, length]`.
        starts: int64 `[n, n_spans]`.
        widths: int64 `[n, n_spans]`; spans must end within the axis.

    Returns:
        Tensor like `values`; see `mask_out`.

    Example:
        >>> zero_spans(torch.ones(1, 1, 5), torch.tensor([[1]]), torch.tensor([[2]]))
        tensor([[[1., 0., 0., 1., 1.]]])
    """
    outside = _outside(starts, widths, values.shape[-1])[:, None]
    return _multiply(values, outside) if values.is_cpu else values.masked_fill(~outside.view(torch.bool), 0)


def _multiply(values: Tensor, kept: Tensor) -> Tensor:
    """Multiply values by a uint8 mask, which is much faster on a CPU than selecting by a bool mask."""
    weights = kept.to(values.dtype)
    return values * weights if values.requires_grad or weights.shape != values.shape else weights.mul_(values)


def _outside(starts: Tensor, widths: Tensor, length: int) -> Tensor:
    """Return uint8 `[n, length]`, 0 within the spans of a row and 1 outside."""
    n, n_spans = starts.shape
    if n_spans == 0:
        return torch.ones(n, length, dtype=torch.uint8, device=starts.device)
    # Copying rows of a table is faster than comparing positions: row i is 1 before position length - i, and row
    # length + i is 1 from position length - i on.
    table = _edges(length, starts.device)
    before = table.index_select(0, (length - starts).view(-1))
    after = table.index_select(0, (2 * length - starts - widths).view(-1))
    outside = before.bitwise_or_(after)
    return outside if n_spans == 1 else outside.view(n, n_spans, length).amin(1)


@functools.lru_cache(maxsize=16)
def _edges(length: int, device: torch.device) -> Tensor:
    """Return the table `[2 · length + 1, length]`, a view of 3 · length numbers, cached per length."""
    steps = torch.ones(3 * length, dtype=torch.uint8, device=device)
    steps[length : 2 * length] = 0
    return steps.unfold(0, length, 1)
