"""Order tracking: resampling to equal steps of the shaft angle, so that orders do not depend on the speed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from whirl._precision import at_least_float32
from whirl.dsp.interpolation import interpolate
from whirl.validation import check_batch, check_count, check_number


def to_orders(
    signals: Tensor, rpm: Tensor, sampling_rate_hz: float, samples_per_revolution: float, n_samples_out: int
) -> Tensor:
    """Resample signals to equal steps of the shaft angle (computed order tracking; Fyfe & Munck 1997, MSSP 11:187).

    Sample m lies m / S revolutions after the first, with S samples per revolution; the speed is assumed constant within
    a window. A line of order o then has o / S cycles per sample at any speed. Orders above S / 2 are removed instead of
    aliased, with a gradual transition over the 2 % below; images are 80 dB down. See `interpolate` for the method.

    A window of T samples contains `T rpm / (60 sampling rate)` revolutions. If M / S, the requested number, is larger,
    the window is extended by its mirror image, repeatedly if necessary; if it is smaller, the end is discarded.

    Computed in float32 or higher precision. Gradients flow to the signals.

    Args:
        signals: float `[B, C, T]`, in any unit.
        rpm: shaft speed in rev/min, `[B]`, at least one revolution per window; NaN if unknown.
        sampling_rate_hz: sampling rate of the signals, > 0.
        samples_per_revolution: S, > 0. At a speed of `60 sampling_rate_hz / S` rev/min only the highest 2 % of
            frequencies change.
        n_samples_out: M, >= 1.

    Returns:
        `[B, C, M]` with the dtype of the signals; NaN where the speed is unknown.

    Raises:
        TypeError: the signals are not floating point.
        ValueError: a shape or number is invalid. On a CPU also if a speed is zero, negative or infinite, or so low
            that the window is shorter than one revolution; on other devices, where this check would force a
            synchronization, such rows are NaN.

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
    work = at_least_float32(signals)
    rpm = rpm.to(work)
    slowest, unchanged = 60 * sampling_rate_hz / signals.shape[-1], 60 * sampling_rate_hz / samples_per_revolution
    known = (rpm >= slowest) & rpm.isfinite()
    if signals.device.type == "cpu" and not bool((known | rpm.isnan()).all()):
        _raise_speed_error(rpm[~known & ~rpm.isnan()][0].item(), slowest, signals.shape[-1])
    step = unchanged / rpm.where(known, unchanged)
    over_angle = interpolate(work, torch.zeros_like(step), step, n_samples_out)
    return over_angle.masked_fill(~known[:, None, None], torch.nan).to(signals.dtype)


def _raise_speed_error(rpm: float, slowest: float, n_samples: int) -> None:
    if 0 < rpm < slowest:
        raise ValueError(
            f"windows of {n_samples} samples are shorter than one revolution at {rpm:g} rpm: "
            f"expected at least {math.ceil(n_samples * slowest / rpm)} samples"
        )
    raise ValueError(f"rpm is {rpm:g}, expected a finite number > 0, or NaN if unknown")
