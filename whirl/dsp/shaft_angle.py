"""Order analysis at variable speed: shaft angle from a speed profile or tachometer pulses, and order spectra."""

from __future__ import annotations

import torch
from torch import Tensor

from whirl.dsp.envelope import amplitude_spectrum
from whirl.dsp.interpolation import read_at
from whirl.validation import check_batch, check_count, check_number

_BLOCK = 2**18  # samples that are interpolated at once
_MARGIN = 64  # samples that are read beyond both ends of a block
_OVERSAMPLING = 2  # of frames at variable speed, so that aliased components stay clear of the orders of interest


def turns_from_speed(rpm: Tensor, sampling_rate_hz: float, n_samples: int | None = None) -> Tensor:
    """Integrate the shaft speed to the number of turns since the first sample, by the trapezoidal rule.

    Args:
        rpm: shaft speed in rev/min, > 0: at every sample, `[B, T]`, or one per window, `[B]`.
        sampling_rate_hz: sampling rate, > 0.
        n_samples: T; required for one speed per window.

    Returns:
        Shaft angle in revolutions, float64 `[B, T]`.

    Example:
        >>> turns_from_speed(torch.tensor([[60.0, 120.0, 180.0]]), sampling_rate_hz=1.0)
        tensor([[0.0000, 1.5000, 4.0000]], dtype=torch.float64)
    """
    check_number("sampling_rate_hz", sampling_rate_hz, 0, open_ends=True)
    rate = rpm.double() / (60 * sampling_rate_hz)  # turns per sample
    if rate.ndim == 1:
        return rate[:, None] * torch.arange(check_count("n_samples", n_samples or 0), device=rpm.device)
    steps = (rate[:, 1:] + rate[:, :-1]) / 2
    return torch.cat((torch.zeros_like(rate[:, :1]), steps.cumsum(1)), 1)


def turns_from_tachometer(pulses: Tensor, pulses_per_turn: float = 1.0) -> Tensor:
    """Convert a tachometer channel to the number of turns of the shaft since the first pulse.

    A pulse is located, to a fraction of a sample, where the channel rises through the middle of its range. The speed is
    assumed constant between two pulses, and extrapolated before the first and after the last.

    Args:
        pulses: tachometer channels, `[B, T]`.
        pulses_per_turn: number of pulses per revolution, > 0.

    Returns:
        Shaft angle in revolutions, float64 `[B, T]`; negative before the first pulse.

    Raises:
        ValueError: a channel has fewer than two pulses.

    Example:
        >>> time_s = torch.arange(4000) / 1000
        >>> pulses = (torch.sin(2 * torch.pi * 10 * time_s) > 0.9).float()
        >>> turns = turns_from_tachometer(pulses[None])
        >>> round((turns[0, 3000] - turns[0, 1000]).item(), 3)
        20.0
    """
    check_number("pulses_per_turn", pulses_per_turn, 0, open_ends=True)
    return torch.stack([_pulse_counts(channel.double()) for channel in pulses]) / pulses_per_turn


def _pulse_counts(channel: Tensor) -> Tensor:
    """Return the fractional number of pulses since the first at every sample, `[T]`."""
    low, middle, high = (torch.lerp(channel.amin(), channel.amax(), level) for level in (1 / 3, 1 / 2, 2 / 3))
    since_low, since_middle, since_high = (
        _last_index(channel < low),
        _last_index(channel < middle),
        _last_index(channel > high),
    )
    is_up = since_high > since_low  # with hysteresis, so that noise around the middle does not count as a pulse
    rises = (is_up[1:] & ~is_up[:-1] & (since_low[1:] >= 0)).nonzero().flatten() + 1
    if len(rises) < 2:
        raise ValueError(f"the tachometer has {len(rises)} pulses, expected at least 2")
    before = since_middle[rises]
    edges = before + (middle - channel[before]) / (channel[before + 1] - channel[before])  # in samples
    samples = torch.arange(len(channel), device=channel.device, dtype=channel.dtype)
    after = torch.searchsorted(edges, samples).clamp(1, len(edges) - 1)
    return after - 1 + (samples - edges[after - 1]) / (edges[after] - edges[after - 1])


def _last_index(condition: Tensor) -> Tensor:
    """Return for every sample the last index up to it at which the condition is True, or -1."""
    return torch.arange(len(condition), device=condition.device).where(condition, -1).cummax(0).values


def samples_at(turns: Tensor, angles: Tensor) -> Tensor:
    """Return the positions, in samples, at which the shaft reaches given angles.

    Args:
        turns: shaft angle at every sample in revolutions, increasing, float64 `[B, T]`.
        angles: angles in revolutions, float64 `[B, M]`. Angles outside the window are mirrored at its ends; they must
            be no farther from an end than the length of the window.

    Returns:
        float64 `[B, M]`, in [0, T - 1].
    """
    start, end = turns[:, :1], turns[:, -1:]
    mirrored = end - (end - (start + (angles - start).abs())).abs()
    after = torch.searchsorted(turns, mirrored.contiguous()).clamp(1, turns.shape[1] - 1)
    low, high = turns.gather(1, after - 1), turns.gather(1, after)
    return after - 1 + ((mirrored - low) / (high - low)).clamp(0, 1)


def at_constant_speed(signals: Tensor, turns: Tensor, sampling_rate_hz: float) -> tuple[Tensor, float]:
    """Resample signals to equal steps of the shaft angle, as if the shaft had turned at its mean speed.

    Args:
        signals: float32 or float64 `[C, N]`, in any unit.
        turns: shaft angle at every sample in revolutions, increasing, `[1, N]`; see `turns_from_speed`.
        sampling_rate_hz: sampling rate in Hz.

    Returns:
        Signals `[C, N]` and the mean speed in rev/min. Frequencies that exceed half the sampling rate where the shaft
        was slower than at its mean speed are removed.

    Example:
        >>> time_s = torch.arange(20_001) / 10_000
        >>> turns = turns_from_speed(600 + 1200 * time_s[None], 10_000)  # 600 to 3000 rev/min in two seconds
        >>> run_up = torch.cos(2 * torch.pi * 3.5 * turns).float()
        >>> steady, rpm = at_constant_speed(run_up, turns, 10_000)
        >>> round(rpm), round(torch.fft.rfft(steady).abs().argmax().item() / 2 / (rpm / 60), 3)  # order of the line
        (1800, 3.5)
    """
    n_samples = signals.shape[1]
    length = float(turns[0, -1] - turns[0, 0])
    angles = turns[:, :1] + torch.arange(n_samples, device=turns.device, dtype=torch.float64) * (
        length / (n_samples - 1)
    )
    positions = samples_at(turns, angles)
    step = positions.diff(dim=1).amax().clamp(min=0.9).to(signals.dtype)[None]
    steady = torch.empty_like(signals)
    for start in range(0, n_samples, _BLOCK):
        block = positions[:, start : start + _BLOCK]
        low = max(0, int(block[0, 0]) - _MARGIN)
        part = signals[None, :, low : int(block[0, -1]) + _MARGIN]
        steady[:, start : start + _BLOCK] = read_at(part, block - low, step)[0]
    return steady, 60 * sampling_rate_hz * length / (n_samples - 1)


def order_spectrum(
    signals: Tensor, turns: Tensor, max_order: float, n_turns: float | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the amplitude spectrum over the shaft angle, in which shaft orders stay sharp at variable speed.

    Computed order tracking (Fyfe & Munck 1997, MSSP 11:187) with a Hann window. The resampling rate is high enough to
    prevent aliasing into the returned orders, also at the lowest speed.

    Args:
        signals: float32 or float64 `[B, C, T]`, in any unit.
        turns: shaft angle at every sample in revolutions, increasing, `[B, T]`; see `turns_from_speed` and
            `turns_from_tachometer`.
        max_order: highest order of the result, > 0.
        n_turns: number of revolutions to use, from the first sample on; by default the largest integer that all
            windows contain.

    Returns:
        Amplitudes `[B, C, O]` in the unit of the signals, and their orders, `[O]`, with a spacing of `1 / n_turns`.

    Raises:
        TypeError: the signals are not floating point.
        ValueError: a shape is invalid, the angle does not increase, or a window has fewer turns.

    Example:
        >>> time_s = torch.arange(20_001) / 10_000
        >>> turns = turns_from_speed(600 + 1200 * time_s[None], 10_000)  # 600 to 3000 rev/min in two seconds
        >>> run_up = 2 * torch.cos(2 * torch.pi * 3.5 * turns).float()
        >>> amplitude, orders = order_spectrum(run_up[:, None], turns, max_order=10)
        >>> orders[amplitude.argmax()], round(amplitude.max().item(), 3)
        (tensor(3.5000), 2.0)
    """
    check_batch(signals)
    check_number("max_order", max_order, 0, open_ends=True)
    if turns.shape != (len(signals), signals.shape[-1]):
        raise ValueError(f"turns have shape {list(turns.shape)}, expected {[len(signals), signals.shape[-1]]}")
    turns = turns.double()
    steps = turns.diff(dim=1)
    if not bool((steps > 0).all()):
        raise ValueError("turns do not increase from sample to sample, expected strictly increasing angles")
    available = float((turns[:, -1] - turns[:, 0]).amin())
    length = int(available) if n_turns is None else n_turns
    if not 0 < length <= available:
        raise ValueError(f"the windows have {available:.3g} turns, expected at least {n_turns or 1:g}")
    per_turn = max(
        1 / float(steps.amin()), 2 * max_order
    )  # at least the sampling rate of the signal at the lowest speed
    n_samples = int(length * per_turn)
    angles = turns[:, :1] + torch.arange(n_samples, device=turns.device, dtype=torch.float64) * (length / n_samples)
    over_angle = read_at(signals, samples_at(turns, angles), signals.new_full((len(signals),), 0.9))
    amplitudes, orders = amplitude_spectrum(over_angle, n_samples / length)
    n_orders = int(max_order * length) + 1
    return amplitudes[..., :n_orders], orders[:n_orders]


def order_frames(
    signals: Tensor, rpm: Tensor, sampling_rate_hz: float, n_times: int, n_frame: int, per_turn: float
) -> Tensor:
    """Cut frames of equal shaft angle, centered at equally spaced times.

    If the speed changes within a window, the orders are free of aliasing up to a change by a factor of 3.

    Args:
        signals: float32 or float64 `[B, C, T]`.
        rpm: shaft speed in rev/min, > 0: `[B]`, or at every sample, `[B, T]`.
        sampling_rate_hz: sampling rate of the signals, > 0.
        n_times: number of frames, centered on as many equal parts of the window.
        n_frame: number of samples K of a frame; half a frame must not span more turns than the window.
        per_turn: samples per revolution.

    Returns:
        `[B, C, n_times, K]`; if the speed is given at every sample, 2K samples at twice the samples per revolution.

    Raises:
        ValueError: on a CPU, a speed is not a number > 0 or too low for the length of the window.
    """
    n_samples = signals.shape[-1]
    _check_speed(rpm, sampling_rate_hz, n_samples, n_frame / per_turn / 2)
    fastest = rpm if rpm.ndim == 1 else rpm.amax(1)
    step = 60 * sampling_rate_hz / (fastest * per_turn)
    parts = torch.arange(n_times, device=signals.device, dtype=torch.float64)
    centers = (parts + 0.5) * (n_samples / n_times) - 0.5
    n_out = n_frame if rpm.ndim == 1 else _OVERSAMPLING * n_frame
    offsets = (torch.arange(n_out, device=signals.device, dtype=torch.float64) / n_out - 0.5) * (n_frame / per_turn)
    if rpm.ndim == 1:
        positions = centers[:, None] + offsets * (60 * sampling_rate_hz / rpm.double())[:, None, None]
        positions = (n_samples - 1) - ((n_samples - 1) - positions.abs()).abs()  # mirrored at the ends
    else:
        turns = turns_from_speed(rpm, sampling_rate_hz)
        at = torch.lerp(turns[:, centers.floor().long()], turns[:, centers.ceil().long()], centers.frac())
        positions = samples_at(turns, (at[..., None] + offsets).flatten(1))
    return read_at(signals, positions.flatten(1), step).unflatten(-1, (n_times, n_out))


def _check_speed(rpm: Tensor, sampling_rate_hz: float, n_samples: int, min_turns: float) -> None:
    """Validate that speeds are known and high enough for the window; on a CPU only, to avoid a synchronization."""
    if rpm.device.type != "cpu":
        return
    if not bool(((rpm > 0) & rpm.isfinite()).all()):
        invalid = rpm[~((rpm > 0) & rpm.isfinite())][0].item()
        raise ValueError(f"rpm is {invalid:g}, expected a finite speed > 0 for every window")
    slowest = (rpm if rpm.ndim == 1 else rpm.mean(1)).amin().item()
    turns = slowest / 60 * n_samples / sampling_rate_hz
    if turns < min_turns:
        raise ValueError(
            f"windows of {n_samples} samples have {turns:.3g} turns at {slowest:g} rpm, expected at least {min_turns:g}"
        )
