"""A network behind a time-frequency representation."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from whirl.dsp.time_frequency import TimeFrequency


class TimeFrequencyNetwork(nn.Module):
    """Signals to maps to logits: a network for maps that takes signals.

    Its state holds the network's weights only; `representation.config` says how the maps are made.

    Args:
        representation: makes the maps.
        network: `[B, C, F, T']` to logits `[B, K]`.

    Example:
        >>> import torch
        >>> from whirl.models.cnn2d import CNN2d
        >>> network = TimeFrequencyNetwork(TimeFrequency("stft", sampling_rate_hz=12_000), CNN2d(num_classes=4))
        >>> signals = torch.randn(2, 1, 2048)
        >>> network(signals).shape, network(network.representation(signals)).shape
        (torch.Size([2, 4]), torch.Size([2, 4]))
    """

    def __init__(self, representation: TimeFrequency, network: nn.Module) -> None:
        super().__init__()
        self.representation = representation
        self.network = network

    def forward(self, signals: Tensor, metadata: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits of signals, or of maps that the representation made of them.

        Args:
            signals: `[B, C, T]`, or maps `[B, C, F, T']`, which go to the network as they are.
            metadata: `"rpm"`, `[B]`, rev/min, for order maps.

        Returns:
            `[B, K]`.
        """
        maps = signals if signals.ndim == 4 else self.representation(signals, metadata)
        return self.network(maps)
