"""A network that looks at the turning shaft instead of the clock."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from whirl.dsp.angular import to_orders
from whirl.models.registry import create_model, register_model
from whirl.validation import check_number


@register_model("order_cnn")
class OrderCNN(nn.Module):
    """Angular resampling in front of a network, so that its filters see orders of the shaft at any speed.

    A fault that follows the shaft (unbalance, misalignment, whirl, a bearing's passing elements) keeps its place when
    the speed changes; a network on the time axis must learn it anew at each speed. The price: resonances, mains hum and
    whip, which keep their frequency, now move.

    The window becomes T samples again, S in each revolution. It is T / S revolutions long whatever the speed, see
    `to_orders`: a slow shaft's window is continued by its mirror image, of a fast one's the end is not used. Samples
    of unknown speed are taken as turning at the reference speed, `60 sampling_rate_hz / S` rev/min (1200 by default),
    at which resampling changes nothing; without any speed this is the plain network.

    Args:
        num_classes: number of classes K, >= 1.
        in_channels: number of signal channels C, >= 1.
        sampling_rate_hz: of the signals, > 0.
        samples_per_revolution: S, > 0. Orders up to S / 2 are seen. Best is the S whose reference speed is that of the
            slowest machines: then nothing is cut off at the top, and nothing mirrored.
        backbone: name of the network behind, see `list_models`.

    Raises:
        TypeError: a count is not an integer.
        ValueError: an argument is out of its range; in `forward`, signals or speeds that `to_orders` or the network
            behind cannot take (`cnn1d`: T >= 64), or windows shorter than one revolution.

    Example:
        >>> import torch
        >>> network = OrderCNN(num_classes=11, sampling_rate_hz=12_000, samples_per_revolution=400)
        >>> network(torch.randn(2, 1, 4096), {"rpm": torch.tensor([1797.0, torch.nan])}).shape
        torch.Size([2, 11])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 1,
        *,
        sampling_rate_hz: float = 20480,
        samples_per_revolution: float = 1024,
        backbone: str = "cnn1d",
    ) -> None:
        super().__init__()
        check_number("sampling_rate_hz", sampling_rate_hz, 0, open_ends=True)
        check_number("samples_per_revolution", samples_per_revolution, 0, open_ends=True)
        self.sampling_rate_hz, self.samples_per_revolution = sampling_rate_hz, samples_per_revolution
        self.network = create_model(backbone, num_classes, in_channels)

    def forward(self, signals: Tensor, metadata: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits of signals and, if known, their speeds.

        Args:
            signals: `[B, C, T]`.
            metadata: may hold `"rpm"`, `[B]`, rev/min, NaN where unknown; the rest is not looked at.

        Returns:
            `[B, K]`.
        """
        rpm = (metadata or {}).get("rpm")
        if rpm is None:
            return self.network(signals)
        over_angle = to_orders(signals, rpm, self.sampling_rate_hz, self.samples_per_revolution, signals.shape[-1])
        return self.network(over_angle.where(~rpm.isnan()[:, None, None], signals))

    def extra_repr(self) -> str:
        return f"sampling_rate_hz={self.sampling_rate_hz:g}, samples_per_revolution={self.samples_per_revolution:g}"
