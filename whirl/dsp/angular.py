"""Order tracking: signals over the shaft's angle instead of time, so that a line stays put when the speed changes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from whirl.dsp.interpolation import interpolate
from whirl.validation import check_batch, check_count, check_number


def to_orders(
    signals: Tensor, rpm: Tensor, sampling_rate_hz: float, samples_per_revolution: float, n_samples_out: int
) -> Tensor:
    """Signals resampled to equal steps of the shaft's angle (computed order tracking; Fyfe & Munck 1997, MSSP 11:187).

    Sample m lies at the angle of m / S revolutions from the first, S samples in a revolution; the speed is taken as
    constant within a window. A line of order o then has o / S cycles per sample at any speed. Orders above S / 2 are
    removed, over the last 2 % below gradually, not folded back; images are 80 dB down. `interpolate` says how.

    A window of T samples holds `T rpm / (60 sampling rate)` revolutions. Where M / S, those asked for, are more, the
    rest is the window's mirror image, back and forth; where they are fewer, its end is left out.

    Computed in float32 at least. Gradients flow to the signals.

    Args:
        signals: float `[B, C, T]`, in any unit.
        rpm: speed of the shaft, `[B]`, rev/min, at least one revolution in a window; NaN where it is not known.
        sampling_rate_hz: of the signals, > 0.
        samples_per_revolution: S, > 0. At `60 sampling_rate_hz / S` rev/min nothing changes but the highest 2 % of
            frequencies.
        n_samples_out: M, >= 1.

    Returns:
        `[B, C, M]` of the signals' type; NaN where the speed is not known.

    Raises:
        TypeError: the signals are not floating point.
        ValueError: a shape or number is another; on a CPU also a speed that is zero, negative, infinite, or so slow
            that the window is shorter than one revolution. Other devices are not halted for a look at numbers: there
            such rows are NaN.

    Example:
        >>> rpm = torch.tensor([1200.0, 3000.0])
        >>> time_s = torch.arange(4096) / 2048
        >>> second_order = torch.sin(2 * torch.pi * 2 * (rpm[:, None] / 60) * time_s)[:, None]
        >>> over_angle = to_orders(second_order, rpm, 2048, samples_per_revolution=64, n_samples_out=1024)
        >>> torch.fft.rfft(over_angle).abs().argmax(-1).flatten() / (1024 / 64)  # order
        tensor([2., 2.])
    """
    check_batch(signals, rpm)
    check_number("sampling_rate_hz", sampling_rate_hz, 0, open_ends=True)
    check_number("samples_per_revolution", samples_per_revolution, 0, open_ends=True)
    check_count("n_samples_out", n_samples_out)
    work = signals if signals.dtype == torch.float64 else signals.float()
    rpm = rpm.to(work)
    slowest, unchanged = 60 * sampling_rate_hz / signals.shape[-1], 60 * sampling_rate_hz / samples_per_revolution
    known = (rpm >= slowest) & rpm.isfinite()
    if signals.device.type == "cpu" and not bool((known | rpm.isnan()).all()):
        _refuse(rpm[~known & ~rpm.isnan()][0].item(), slowest, signals.shape[-1])
    step = unchanged / rpm.where(known, unchanged)
    over_angle = interpolate(work, torch.zeros_like(step), step, n_samples_out)
    return over_angle.masked_fill(~known[:, None, None], torch.nan).to(signals.dtype)


def _refuse(rpm: float, slowest: float, n_samples: int) -> None:
    if 0 < rpm < slowest:
        raise ValueError(
            f"windows of {n_samples} samples are shorter than one revolution at {rpm:g} rpm: "
            f"expected at least {math.ceil(n_samples * slowest / rpm)} samples"
        )
    raise ValueError(f"rpm is {rpm:g}, expected a finite number > 0, or NaN if it is not known")
