"""Random contiguous spans along an axis: the one mask of signals, patches and spectrograms."""

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
    """Masks that cover random spans, drawn for each row on its own; spans may overlap.

    Args:
        n: number of rows, >= 0.
        length: length of the axis, >= 1.
        max_width: longest span, >= 0; more than the axis counts as the axis. A width is uniform among
            0..max_width, a start among all places where the span fits.
        n_spans: spans of each row, >= 0.
        generator: source of the draws, of the same device; None is torch's own.
        device: where the mask is made.
        fixed_width: every span is `max_width` wide.

    Returns:
        bool `[n, length]`, True where masked.

    Raises:
        ValueError: a number below its range.

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
    """The spans of `span_mask`: starts and widths, int64 `[n, n_spans]` each."""
    if n < 0 or length < 1 or max_width < 0 or n_spans < 0:
        raise ValueError(
            f"{n} rows of length {length} with {n_spans} spans of at most {max_width}: expected a length >= 1 and "
            "nothing below 0"
        )
    longest, size = min(max_width, length), (n, n_spans)
    if fixed_width:
        widths = torch.full(size, longest, device=device)
    else:
        widths = torch.randint(longest + 1, size, generator=generator, device=device)
    return draw_starts(widths, length, generator=generator), widths


def draw_starts(widths: Tensor, length: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Starts of spans of given widths, uniform among the places where each fits on an axis of this length.

    Args:
        widths: int64 of any shape, each in 0..length.
        length: length of the axis.
        generator: source of the draws, of the same device; None is torch's own.

    Returns:
        int64 of the same shape, each in 0..length - width.
    """
    draws = torch.randint(2**62, widths.shape, generator=generator, device=widths.device)
    return draws % (length + 1 - widths)  # uniform to 1e-12 as long as the axis is shorter than 4 million


def mask_of_spans(starts: Tensor, widths: Tensor, length: int) -> Tensor:
    """A mask of the union of given spans.

    Args:
        starts: int64 `[n, n_spans]`.
        widths: int64 `[n, n_spans]`; a span must end within the axis.
        length: length of the axis.

    Returns:
        bool `[n, length]`, True within a span.

    Example:
        >>> mask_of_spans(torch.tensor([[0, 3]]), torch.tensor([[2, 1]]), 5)
        tensor([[ True,  True, False,  True, False]])
    """
    return ~_outside(starts, widths, length).view(torch.bool)


def mask_bands(maps: Tensor, rows: Tensor, columns: Tensor, value: float | Tensor = 0.0) -> Tensor:
    """Maps with whole rows and whole columns overwritten: SpecAugment's step (Park et al. 2019, section 2).

    Args:
        maps: float `[n, C, F, T]`.
        rows: bool `[n, F]`, True where masked, e.g. a `span_mask` of frequencies.
        columns: bool `[n, T]`, e.g. a `span_mask` of times.
        value: what takes the place, to be broadcast to the shape of `maps`.

    Returns:
        As `maps`, what is not masked to the bit; a masked NaN or infinity becomes NaN.

    Example:
        >>> rows, columns = torch.tensor([[True, False]]), torch.tensor([[False, True, False]])
        >>> mask_bands(torch.ones(1, 1, 2, 3), rows, columns)
        tensor([[[[0., 0., 0.],
                  [1., 0., 1.]]]])
    """
    # Two short masks make a weight of 0 or 1 for every cell. On a CPU, weighing is several times as fast as selecting
    # by bool, and in the weights' own memory twice as fast as in new memory.
    kept = (~rows).to(maps.dtype)[:, None, :, None] * (~columns).to(maps.dtype)[:, None, None, :]
    filling = value if isinstance(value, Tensor) else maps.new_full((), value)
    if maps.requires_grad or kept.shape != maps.shape:
        return filling.lerp(maps, kept)
    return torch.lerp(filling, maps, kept, out=kept)


def mask_out(values: Tensor, mask: Tensor) -> Tensor:
    """Values with zeros where the mask is True; what is masked gets no gradient.

    Args:
        values: float of any shape.
        mask: bool, to be broadcast to the shape of `values`.

    Returns:
        As `values`. On a CPU a masked NaN or infinity becomes NaN.
    """
    if not values.is_cpu:
        return values.masked_fill(mask, 0)
    return _keep(values, (~mask).view(torch.uint8))


def zero_spans(values: Tensor, starts: Tensor, widths: Tensor) -> Tensor:
    """Values with zeros in given spans of their last axis: `mask_out` by `mask_of_spans`, in fewer steps.

    Args:
        values: float `[n, C, length]`.
        starts: int64 `[n, n_spans]`.
        widths: int64 `[n, n_spans]`; a span must end within the axis.

    Returns:
        As `values`; see `mask_out`.

    Example:
        >>> zero_spans(torch.ones(1, 1, 5), torch.tensor([[1]]), torch.tensor([[2]]))
        tensor([[[1., 0., 0., 1., 1.]]])
    """
    outside = _outside(starts, widths, values.shape[-1])[:, None]
    return _keep(values, outside) if values.is_cpu else values.masked_fill(~outside.view(torch.bool), 0)


def _keep(values: Tensor, kept: Tensor) -> Tensor:
    """Values where `kept` is 1, zeros where it is 0; much faster on a CPU than selecting by bool, one by one."""
    weights = kept.to(values.dtype)
    return values * weights if values.requires_grad or weights.shape != values.shape else weights.mul_(values)


def _outside(starts: Tensor, widths: Tensor, length: int) -> Tensor:
    """uint8 `[n, length]`: 0 within one of the spans of a row, 1 outside."""
    n, n_spans = starts.shape
    if n_spans == 0:
        return torch.ones(n, length, dtype=torch.uint8, device=starts.device)
    # Copying rows of a table is faster than comparing positions: row i is 1 up to length - i, row length + i is 1
    # from there.
    table = _edges(length, starts.device)
    before = table.index_select(0, (length - starts).view(-1))
    behind = table.index_select(0, (2 * length - starts - widths).view(-1))
    outside = before.bitwise_or_(behind)
    return outside if n_spans == 1 else outside.view(n, n_spans, length).amin(1)


@functools.lru_cache(maxsize=16)
def _edges(length: int, device: torch.device) -> Tensor:
    """A view of 3 · length numbers as `[2 · length + 1, length]`, made once for a length."""
    steps = torch.ones(3 * length, dtype=torch.uint8, device=device)
    steps[length : 2 * length] = 0
    return steps.unfold(0, length, 1)
