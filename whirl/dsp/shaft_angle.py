"""Signals over the angle of a shaft whose speed may change: from a speed profile, or the pulses of a tachometer."""

from __future__ import annotations

import torch
from torch import Tensor

from whirl.dsp.envelope import amplitude_spectrum
from whirl.dsp.interpolation import read_at
from whirl.validation import check_batch, check_count, check_number

_READ_TWICE = 2  # as often as orders ask for, where the speed changes: what folds then stays clear of them


def turns_from_speed(rpm: Tensor, sampling_rate_hz: float, n_samples: int | None = None) -> Tensor:
    """Turns of the shaft since the first sample, by the trapezoidal rule.

    Args:
        rpm: speed, rev/min, > 0: at every sample, `[B, T]`, or one for a window, `[B]`.
        sampling_rate_hz: > 0.
        n_samples: T; needed where there is one speed for a window.

    Returns:
        float64 `[B, T]`.

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
    """Turns of the shaft since the first pulse, from a channel that rises once or more often a turn.

    A pulse is where the channel rises through the middle between its lowest and highest value, found to a fraction of a
    sample; between two pulses, and before the first and behind the last, the speed is taken as constant.

    Args:
        pulses: `[B, T]`.
        pulses_per_turn: > 0.

    Returns:
        float64 `[B, T]`; negative before the first pulse.

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
    return torch.stack([_turns_of_one(channel.double()) for channel in pulses]) / pulses_per_turn


def _turns_of_one(channel: Tensor) -> Tensor:
    low, middle, high = (torch.lerp(channel.amin(), channel.amax(), share) for share in (1 / 3, 1 / 2, 2 / 3))
    since_low, since_middle, since_high = _last(channel < low), _last(channel < middle), _last(channel > high)
    is_up = since_high > since_low  # until it falls below a third: noise about the middle is no pulse
    rises = (is_up[1:] & ~is_up[:-1] & (since_low[1:] >= 0)).nonzero().flatten() + 1
    if len(rises) < 2:
        raise ValueError(f"the tachometer has {len(rises)} pulses, expected at least 2")
    before = since_middle[rises]
    edges = before + (middle - channel[before]) / (channel[before + 1] - channel[before])  # in samples
    samples = torch.arange(len(channel), device=channel.device, dtype=channel.dtype)
    after = torch.searchsorted(edges, samples).clamp(1, len(edges) - 1)
    return after - 1 + (samples - edges[after - 1]) / (edges[after] - edges[after - 1])


def _last(where: Tensor) -> Tensor:
    """For every sample the last one up to it at which `where` held, -1 if there is none."""
    return torch.arange(len(where), device=where.device).where(where, -1).cummax(0).values


def samples_at(turns: Tensor, angles: Tensor) -> Tensor:
    """Where, in samples, the shaft stands at given angles; beyond the window's ends, in its mirror image.

    Args:
        turns: at every sample, rising, float64 `[B, T]`.
        angles: in turns, float64 `[B, M]`; no farther from an end than the window is long.

    Returns:
        float64 `[B, M]`, in [0, T - 1].
    """
    start, end = turns[:, :1], turns[:, -1:]
    mirrored = end - (end - (start + (angles - start).abs())).abs()
    after = torch.searchsorted(turns, mirrored.contiguous()).clamp(1, turns.shape[1] - 1)
    low, high = turns.gather(1, after - 1), turns.gather(1, after)
    return after - 1 + ((mirrored - low) / (high - low)).clamp(0, 1)


def order_spectrum(
    signals: Tensor, turns: Tensor, max_order: float, n_turns: float | None = None
) -> tuple[Tensor, Tensor]:
    """Amplitude spectrum over the shaft's angle: a line that follows the shaft stays sharp while the speed changes.

    Computed order tracking (Fyfe & Munck 1997, MSSP 11:187) with a Hann window. The signal is read so often that
    nothing folds into the orders shown, at the slowest speed either.

    Args:
        signals: float32 or float64 `[B, C, T]`, in any unit.
        turns: of the shaft, at every sample, rising, `[B, T]`: see `turns_from_speed` and `turns_from_tachometer`.
        max_order: highest order shown, > 0.
        n_turns: how many of the first turns count; default as many whole ones as all windows have.

    Returns:
        Amplitudes `[B, C, O]` in the unit of the signals, and their orders, `[O]`, `1 / n_turns` apart.

    Raises:
        TypeError: the signals are not floating point.
        ValueError: a shape is another, or a window has fewer turns.

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
        raise ValueError("turns do not rise from sample to sample: expected a shaft that goes on turning")
    available = float((turns[:, -1] - turns[:, 0]).amin())
    length = int(available) if n_turns is None else n_turns
    if not 0 < length <= available:
        raise ValueError(f"the windows have {available:.3g} turns, expected at least {n_turns or 1:g}")
    per_turn = max(1 / float(steps.amin()), 2 * max_order)  # as many as the signal has at the slowest speed
    n_read = int(length * per_turn)
    angles = turns[:, :1] + torch.arange(n_read, device=turns.device) * (length / n_read)
    over_angle = read_at(signals, samples_at(turns, angles), signals.new_full((len(signals),), 0.9))
    amplitudes, orders = amplitude_spectrum(over_angle, n_read / length)
    shown = int(max_order * length) + 1
    return amplitudes[..., :shown], orders[:shown]


def order_frames(
    signals: Tensor, rpm: Tensor, sampling_rate_hz: float, n_times: int, n_frame: int, per_turn: float
) -> Tensor:
    """Stretches of equal angle about equally spaced times: each as many turns long, read as often in a turn.

    Where the speed changes within a window, orders stay free of what folds as long as it changes by no more than a
    factor of 3 there.

    Args:
        signals: float32 or float64 `[B, C, T]`.
        rpm: speed of the shaft, rev/min, > 0: `[B]`, or at every sample, `[B, T]`.
        sampling_rate_hz: of the signals, > 0.
        n_times: stretches, centred on the middles of as many equal parts of the window.
        n_frame: samples K of each; half of it must not be more turns than there are in the window.
        per_turn: samples in a turn.

    Returns:
        `[B, C, n_times, K]`, or with twice as many samples in a turn, 2K, where the speed is given at every sample.

    Raises:
        ValueError: on a CPU, a speed is not a number > 0 or so low that the window is too short.
    """
    n_samples = signals.shape[-1]
    check_speed(rpm, sampling_rate_hz, n_samples, n_frame / per_turn / 2)
    fastest = rpm if rpm.ndim == 1 else rpm.amax(1)
    step = 60 * sampling_rate_hz / (fastest * per_turn)
    parts = torch.arange(n_times, device=signals.device, dtype=torch.float64)
    centres = (parts + 0.5) * (n_samples / n_times) - 0.5
    n_read = n_frame if rpm.ndim == 1 else _READ_TWICE * n_frame
    offsets = (torch.arange(n_read, device=signals.device, dtype=torch.float64) / n_read - 0.5) * (n_frame / per_turn)
    if rpm.ndim == 1:
        positions = centres[:, None] + offsets * (60 * sampling_rate_hz / rpm.double())[:, None, None]
        positions = (n_samples - 1) - ((n_samples - 1) - positions.abs()).abs()  # beyond the ends lies the mirror image
    else:
        turns = turns_from_speed(rpm, sampling_rate_hz)
        at = torch.lerp(turns[:, centres.floor().long()], turns[:, centres.ceil().long()], centres.frac())
        positions = samples_at(turns, (at[..., None] + offsets).flatten(1))
    return read_at(signals, positions.flatten(1), step).unflatten(-1, (n_times, n_read))


def check_speed(rpm: Tensor, sampling_rate_hz: float, n_samples: int, least_turns: float) -> None:
    """Refuses speeds that are unknown or too low for the window; looks on a CPU only, others are not halted."""
    if rpm.device.type != "cpu":
        return
    if not bool(((rpm > 0) & rpm.isfinite()).all()):
        wrong = rpm[~((rpm > 0) & rpm.isfinite())][0].item()
        raise ValueError(f"rpm is {wrong:g}, expected the speed of every window, > 0")
    slowest = (rpm if rpm.ndim == 1 else rpm.mean(1)).amin().item()
    turns = slowest / 60 * n_samples / sampling_rate_hz
    if turns < least_turns:
        raise ValueError(
            f"windows of {n_samples} samples have {turns:.3g} turns at {slowest:g} rpm, expected {least_turns:g}"
        )
