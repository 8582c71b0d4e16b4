"""Impacts that repeat, as those of a fault do, and isolated knocks, which do not."""

from __future__ import annotations

from torch import Tensor

_PARTS = 10  # of an envelope: each holds several turns of the shaft, so impacts of a fault reach most of them
_HEADROOM = 4.0  # 6 dB above the usual peak: the peaks of noise and of repeated impacts vary by less


def limit_knocks(power: Tensor) -> Tensor:
    """Limit the isolated peaks of squared envelopes to four times the usual peak.

    The usual peak is the median over ten equal parts of the largest value in each. Impacts of a fault repeat, so they
    reach it and stay as they are. A single knock, such as a load that shifts or an electrical spike, does not repeat;
    unlimited it would hide all lines in the envelope's spectrum, since the spectrum of one impact is flat.

    Args:
        power: `[..., M]`, >= 0.

    Returns:
        `[..., M]`. Gradients flow to what is not limited.

    Example:
        >>> import torch
        >>> power = torch.ones(40)
        >>> power[17] = 1000.0
        >>> limit_knocks(power)[16:19]
        tensor([1., 4., 1.])
    """
    length = max(1, power.shape[-1] // _PARTS)
    peaks = power.detach().unfold(-1, length, length).amax(-1)
    return power.minimum(_HEADROOM * peaks.median(-1, keepdim=True).values)
