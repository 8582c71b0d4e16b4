"""Batches of signals read between their samples, each at times of its own: for speed, jitter, and the shaft's angle.

One length for all, over the same stretch of time, takes no more than an FFT and its inverse: that is `resize`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_HALF_TAPS = 3  # of the interpolation kernel, on a grid of twice the rate: images are 90 dB down
_SHAPE = 1.5 * math.pi  # of the same kernel, best for twice the rate
_ROLL_OFF = 0.02  # of half the new rate: without it, what is cut off there would ring through the whole window
_ONE = 2**32  # one step of that grid in fixed point: float32 could not tell 0.01 sample apart at 100 000


def interpolate(signals: Tensor, start: Tensor, step: Tensor, n_samples_out: int) -> Tensor:
    """Signals at the times `start + step m`, m = 0 to M - 1, in samples of the input.

    Band-limited, by a non-uniform FFT of the mirrored window (Keiner, Kunis & Potts 2009, ACM TOMS 36:19): amplitudes
    are kept to 0.01 %, images are 80 dB down. Where step > 1, what lies above half the new rate is removed, over the
    last 2 % below it gradually, not folded back. Before and behind the window its mirror image is read, back and forth;
    of what ends there in mid-wave, a removed line included, a trace of some percent rings within the next few samples.
    Gradients flow to the signals, not to the times.

    Args:
        signals: float32 or float64 `[B, C, T]`.
        start: first time of each row, `[B]`, in samples; any finite number.
        step: from one time to the next, `[B]`, in samples; > 0, and so that no time exceeds 10⁹.
        n_samples_out: number of times M, >= 1.

    Returns:
        `[B, C, M]` of the signals' type.

    Example:
        >>> tone = torch.sin(0.5 * torch.arange(4096.0)).expand(2, 1, -1)
        >>> read = interpolate(tone, torch.tensor([0.0, 10.5]), torch.tensor([1.0, 2.5]), 1000)
        >>> error = read[1, 0] - torch.sin(0.5 * (10.5 + 2.5 * torch.arange(1000)))
        >>> bool(error[200:800].abs().max() < 1e-3)
        True
    """
    index = torch.arange(n_samples_out, device=signals.device)
    position = _fixed_point(2 * start) + _fixed_point(2 * step) * index  # [B, 1, M]
    fraction = (position & (_ONE - 1)).to(signals.dtype) / _ONE
    return _read_grid(_grid(signals, step), position >> 32, fraction)


def read_at(signals: Tensor, positions: Tensor, step: Tensor) -> Tensor:
    """Signals at any positions, band-limited as `interpolate` reads them at equal steps.

    Args:
        signals: float32 or float64 `[B, C, T]`.
        positions: in samples, `[B, M]`; beyond the window lies its mirror image, back and forth.
        step: what lies above half a cycle in so many samples is removed, `[B]`, > 0; 0.9 and less removes nothing.

    Returns:
        `[B, C, M]` of the signals' type.

    Example:
        >>> tone = torch.sin(0.5 * torch.arange(4096.0)).expand(1, 1, -1)
        >>> read_at(tone, torch.tensor([[1000.0, 1000.5]]), torch.tensor([0.9]))  # sin 500 and sin 500.25
        tensor([[[-0.4678, -0.6719]]])
    """
    doubled = 2 * positions.double()[:, None]
    first = doubled.floor()
    return _read_grid(_grid(signals, step.to(signals)), first.long(), (doubled - first).to(signals.dtype))


def raised_cosine(rise: Tensor) -> Tensor:
    """The smooth step `(1 - cos(pi r)) / 2`: 0 up to r = 0, 1 from r = 1 on.

    Args:
        rise: r, float of any shape.

    Returns:
        As `rise`, in [0, 1].

    Example:
        >>> raised_cosine(torch.tensor([-3.0, 0.0, 0.5, 1.0, 3.0]))
        tensor([0.0000, 0.0000, 0.5000, 1.0000, 1.0000])
    """
    return 0.5 - 0.5 * torch.cos(math.pi * rise.clamp(0, 1))


def _grid(signals: Tensor, step: Tensor) -> Tensor:
    """`[B, C, 4 T]` mirrored signals at twice the rate, divided by what the kernel will do to their spectrum."""
    n_samples = signals.shape[-1]
    bins = torch.arange(n_samples + 1, device=signals.device, dtype=signals.dtype)
    where_it_goes = bins * step[:, None] / n_samples  # in units of half the new rate
    gain = raised_cosine((1 - where_it_goes) / _ROLL_OFF) * (2 / _kernel_spectrum(bins * (math.pi / (2 * n_samples))))
    mirrored = torch.cat((signals, signals.flip(-1)), -1)  # has no jump between its ends
    return torch.fft.irfft(torch.fft.rfft(mirrored) * gain[:, None], n=4 * n_samples)


def _read_grid(grid: Tensor, first: Tensor, fraction: Tensor) -> Tensor:
    """`[B, C, M]` between the steps `first` and `first + 1` of a grid `[B, C, 4 T]`; both `[B, 1, M]`."""
    first = first.remainder(grid.shape[-1]).expand(-1, grid.shape[1], -1)
    # the grid comes round again behind its end, and the kernel reads over either end
    grid = torch.cat((grid[..., 1 - _HALF_TAPS :], grid, grid[..., :_HALF_TAPS]), -1)
    read = grid.new_zeros(first.shape)
    for tap in range(2 * _HALF_TAPS):
        read = torch.addcmul(read, grid.gather(-1, first + tap), _kernel(fraction + (_HALF_TAPS - 1 - tap)))
    return read


def _fixed_point(values: Tensor) -> Tensor:
    return (values * _ONE).round().long()[:, None, None]


def _kernel(distance: Tensor) -> Tensor:
    """The interpolation kernel at distances of at most `_HALF_TAPS` grid steps (Keiner, Kunis & Potts, app. B)."""
    root = (_HALF_TAPS**2 - distance.square()).clamp(min=1e-6).sqrt()
    return (_SHAPE * root).sinh() / (math.pi * root)


def _kernel_spectrum(angular_frequency: Tensor) -> Tensor:
    """Fourier transform of `_kernel` at radians per grid step, 0 to pi / 2."""
    return torch.special.i0(_HALF_TAPS * (_SHAPE**2 - angular_frequency.square()).sqrt())
