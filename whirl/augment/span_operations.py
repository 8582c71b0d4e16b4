"""Rolling rows and replacing spans of rows, in the fastest way for the device and the length.

The choice between the implementations was made by measurement, see benchmarks/augmentation.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from whirl.dsp.masks import mask_of_spans, zero_spans

MIN_SPLIT_LENGTH = 8192
"""Length from which, on a CPU, concatenating slices is faster than copying entire rows more than once."""


def roll_rows(batch: Tensor, starts: Tensor) -> Tensor:
    """Roll signals circularly.

    Args:
        batch: `[B, C, T]`.
        starts: int64 `[B, 1]` in 0..T-1, sample of the input that becomes the first one of the output.

    Returns:
        The rolled signals; any shape with `B * C * T` elements in row-major order.
    """
    n, n_channels, length = batch.shape
    if not batch.is_cpu:
        sources = (torch.arange(length, device=batch.device) + starts) % length
        return batch.gather(2, sources[:, None].expand_as(batch))
    if length >= MIN_SPLIT_LENGTH or batch.requires_grad:
        sizes = torch.cat((starts, length - starts), 1)[:, None].expand(-1, n_channels, -1)
        slices = list(batch.reshape(-1).split(sizes.flatten().tolist()))
        slices[0::2], slices[1::2] = slices[1::2], slices[0::2]
        return _concatenate(slices)
    windows = torch.cat((batch, batch), -1).view(-1).unfold(0, length, 1)
    rows = torch.arange(0, 2 * batch.numel(), 2 * length).view(n, n_channels).add_(starts)
    return windows.index_select(0, rows.view(-1))


def replace_spans(
    batch: Tensor, starts: Tensor, widths: Tensor, sources: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Replace spans of signals by zeros, or by the same spans of other signals.

    Args:
        batch: `[B, C, T]`.
        starts: int64 `[B, n_spans]`.
        widths: int64 `[B, n_spans]`; spans must end within the signal.
        sources: signals `[B, C, T]` and a permutation `[B]` of them, from which the spans are taken. None means zeros.

    Returns:
        The signals; any shape with `B * C * T` elements in row-major order.
    """
    if batch.is_cpu and batch.shape[-1] >= MIN_SPLIT_LENGTH:
        slices = _split_at_spans(batch, starts, widths)
        slices[1::2] = _zeros_like(slices[1::2]) if sources is None else _spans_of_sources(*sources, starts, widths)
        return _concatenate(slices)
    if sources is None:
        return zero_spans(batch, starts, widths)
    signals, permutation = sources
    mask = mask_of_spans(starts, widths, batch.shape[-1])[:, None]
    return torch.where(mask, signals.index_select(0, permutation), batch)


def _zeros_like(spans: list[Tensor]) -> Sequence[Tensor]:
    widths = [span.numel() for span in spans]
    return spans[0].new_zeros(sum(widths)).split(widths) if spans else []


def _spans_of_sources(signals: Tensor, permutation: Tensor, starts: Tensor, widths: Tensor) -> list[Tensor]:
    inverse = torch.empty_like(permutation).index_copy_(0, permutation, torch.arange(len(permutation)))
    spans = _split_at_spans(signals, starts[inverse], widths[inverse])[1::2]
    n_spans = signals.shape[1] * starts.shape[1]  # of each signal, over all channels
    return [span for source in permutation.tolist() for span in spans[source * n_spans : (source + 1) * n_spans]]


def _split_at_spans(batch: Tensor, starts: Tensor, widths: Tensor) -> list[Tensor]:
    """Split the concatenated rows where spans start and end, without copying; every second slice is a span."""
    n, n_channels, length = batch.shape
    ends = starts + widths
    if starts.shape[1] > 1:
        starts, order = starts.sort(1)
        ends = ends.gather(1, order).cummax(1).values
        starts[:, 1:] = torch.maximum(starts[:, 1:], ends[:, :-1])  # the overlap of two spans belongs to the first
    rows = torch.arange(0, batch.numel(), length).view(n, n_channels, 1)
    edges = (torch.stack((starts, ends), 2).view(n, 1, -1) + rows).flatten()
    sizes = torch.diff(edges, prepend=edges.new_zeros(1), append=edges.new_full((1,), batch.numel()))
    return list(batch.reshape(-1).split(sizes.tolist()))


def _concatenate(slices: list[Tensor]) -> Tensor:
    return torch.cat([each for each in slices if each.numel()])  # torch.cat is slower with empty tensors
