"""Band-limited interpolation of batches, each row at its own times: for speed changes, jitter and order tracking.

To resample all rows to one length over the same duration, `resizing.resize` is faster.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_HALF_TAPS = 3  # half-width of the interpolation kernel on a grid at twice the rate; images are 90 dB down
_SHAPE = 1.5 * math.pi  # shape parameter of the kernel, optimal for twice the rate
_ROLL_OFF = 0.02  # transition band relative to half the new rate; a sharp cut-off would ring through the entire window
_FIXED_POINT_ONE = 2**32  # one grid step in fixed point: float32 cannot resolve 0.01 samples at sample 100 000


def interpolate(signals: Tensor, start: Tensor, step: Tensor, n_samples_out: int) -> Tensor:
    """Interpolate signals at the times `start + step m`, m = 0 to M - 1, in samples of the input.

    Band-limited, by a non-uniform FFT of the mirrored window (Keiner, Kunis & Potts 2009, ACM TOMS 36:19): amplitudes
    are accurate to 0.01 %, images are 80 dB down. If step > 1, frequencies above half the new rate are removed instead
    of aliased, with a gradual transition over the 2 % below. Outside the window its mirror image is read, repeatedly if
    necessary. A sinusoid that the mirror breaks in mid-wave, also a removed one, leaves ringing of a few percent within
    the next few samples. Gradients flow to the signals, not to the times.

    Args:
        signals: float32 or float64 `[B, C, T]`.
        start: first time of each row, `[B]`, in samples; any finite number.
        step: time step of each row, `[B]`, in samples; > 0, and small enough that no time exceeds 10⁹.
        n_samples_out: number of times M, >= 1.

    Returns:
        `[B, C, M]` with the dtype of the signals.

    Example:
        >>> tone = torch.sin(0.5 * torch.arange(4096.0)).expand(2, 1, -1)
        >>> values = interpolate(tone, torch.tensor([0.0, 10.5]), torch.tensor([1.0, 2.5]), 1000)
        >>> error = values[1, 0] - torch.sin(0.5 * (10.5 + 2.5 * torch.arange(1000)))
        >>> bool(error[200:800].abs().max() < 1e-3)
        True
    """
    index = torch.arange(n_samples_out, device=signals.device)
    position = _fixed_point(2 * start) + _fixed_point(2 * step) * index  # [B, 1, M]
    fraction = (position & (_FIXED_POINT_ONE - 1)).to(signals.dtype) / _FIXED_POINT_ONE
    return _read_grid(_grid(signals, step), position >> 32, fraction)


def read_at(signals: Tensor, positions: Tensor, step: Tensor) -> Tensor:
    """Interpolate signals at arbitrary positions, band-limited in the same way as `interpolate`.

    Args:
        signals: float32 or float64 `[B, C, T]`.
        positions: positions in samples, `[B, M]`; outside the window its mirror image is read, repeatedly if necessary.
        step: mean distance of the positions that sets the cut-off, `[B]`, > 0: frequencies above half a cycle per
            `step` samples are removed; 0.9 and less removes nothing.

    Returns:
        `[B, C, M]` with the dtype of the signals.

    Example:
        >>> tone = torch.sin(0.5 * torch.arange(4096.0)).expand(1, 1, -1)
        >>> read_at(tone, torch.tensor([[1000.0, 1000.5]]), torch.tensor([0.9]))  # sin 500 and sin 500.25
        tensor([[[-0.4678, -0.6719]]])
    """
    doubled = 2 * positions.double()[:, None]
    first = doubled.floor()
    return _read_grid(_grid(signals, step.to(signals)), first.long(), (doubled - first).to(signals.dtype))


def raised_cosine(rise: Tensor) -> Tensor:
    """Compute the smooth step `(1 - cos(pi r)) / 2`: 0 for r <= 0, 1 for r >= 1.

    Args:
        rise: r, float of any shape.

    Returns:
        Tensor of the same shape in [0, 1].

    Example:
        >>> raised_cosine(torch.tensor([-3.0, 0.0, 0.5, 1.0, 3.0]))
        tensor([0.0000, 0.0000, 0.5000, 1.0000, 1.0000])
    """
    return 0.5 - 0.5 * torch.cos(math.pi * rise.clamp(0, 1))


def _grid(signals: Tensor, step: Tensor) -> Tensor:
    """Return the mirrored signals at twice the rate, `[B, C, 4 T]`, with the spectrum divided by the kernel's."""
    n_samples = signals.shape[-1]
    bins = torch.arange(n_samples + 1, device=signals.device, dtype=signals.dtype)
    frequency = bins * step[:, None] / n_samples  # in units of half the new rate
    gain = raised_cosine((1 - frequency) / _ROLL_OFF) * (2 / _kernel_spectrum(bins * (math.pi / (2 * n_samples))))
    mirrored = torch.cat((signals, signals.flip(-1)), -1)  # periodic without a jump
    return torch.fft.irfft(torch.fft.rfft(mirrored) * gain[:, None], n=4 * n_samples)


def _read_grid(grid: Tensor, first: Tensor, fraction: Tensor) -> Tensor:
    """Interpolate a grid `[B, C, 4 T]` at `first + fraction`, both `[B, 1, M]`, and return `[B, C, M]`."""
    first = first.remainder(grid.shape[-1]).expand(-1, grid.shape[1], -1)
    # the grid is periodic, and the kernel reads beyond both ends
    grid = torch.cat((grid[..., 1 - _HALF_TAPS :], grid, grid[..., :_HALF_TAPS]), -1)
    values = grid.new_zeros(first.shape)
    for tap in range(2 * _HALF_TAPS):
        values = torch.addcmul(values, grid.gather(-1, first + tap), _kernel(fraction + (_HALF_TAPS - 1 - tap)))
    return values


def _fixed_point(values: Tensor) -> Tensor:
    return (values * _FIXED_POINT_ONE).round().long()[:, None, None]


def _kernel(distance: Tensor) -> Tensor:
    """Evaluate the kernel at distances of at most `_HALF_TAPS` grid steps (Keiner, Kunis & Potts, app. B)."""
    root = (_HALF_TAPS**2 - distance.square()).clamp(min=1e-6).sqrt()
    return (_SHAPE * root).sinh() / (math.pi * root)


def _kernel_spectrum(angular_frequency: Tensor) -> Tensor:
    """Evaluate the Fourier transform of `_kernel` at radians per grid step, 0 to pi / 2."""
    return torch.special.i0(_HALF_TAPS * (_SHAPE**2 - angular_frequency.square()).sqrt())
