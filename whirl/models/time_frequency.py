"""Composition of a time-frequency representation and a network for maps."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from whirl.dsp.time_frequency import TimeFrequency


class TimeFrequencyNetwork(nn.Module):
    """Network for maps with signals as input: computes the maps, then the logits.

    The state dict contains the weights of the network only; `representation.config` describes the maps.

    Args:
        representation: representation that computes the maps.
        network: network that maps `[B, C, F, T']` to logits `[B, K]`.

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
        """Compute the logits of signals or of precomputed maps.

        Args:
            signals: `[B, C, T]`, or maps `[B, C, F, T']`, which are passed to the network directly.
            metadata: must contain `"rpm"` for order maps, the shaft speed in rev/min, `[B]`.

        Returns:
            `[B, K]`.
        """
        maps = signals if signals.ndim == 4 else self.representation(signals, metadata)
        return self.network(maps)
