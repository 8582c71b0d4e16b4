"""Network on angularly resampled signals, for variable shaft speeds."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from whirl.dsp.angular import to_orders
from whirl.models.registry import create_model, register_model
from whirl.validation import check_number


@register_model("order_cnn")
class OrderCNN(nn.Module):
    """Angular resampling followed by a network, whose filters then respond to orders of the shaft at any speed.

    Components that are synchronous with the shaft (unbalance, misalignment, whirl, passages of rolling elements) keep
    their position when the speed changes, whereas a network on the time axis must learn them for each speed. In return,
    components of constant frequency (resonances, mains hum, whip) move.

    A window is resampled to T samples with S samples per revolution. It covers T / S revolutions at any speed, see
    `to_orders`: at low speed it is extended by its mirror image, at high speed its end is not used. Samples of unknown
    speed are treated as having the reference speed, `60 sampling_rate_hz / S` rev/min (1200 by default), at which
    resampling changes nothing. Without any speeds the module equals its backbone.

    Args:
        num_classes: number of classes K, >= 1.
        in_channels: number of signal channels C, >= 1.
        sampling_rate_hz: sampling rate of the signals, > 0.
        samples_per_revolution: S, > 0; orders up to S / 2 are preserved. Choose S so that the reference speed equals
            that of the slowest machines: then no high frequencies are removed and no window is mirrored.
        backbone: name of the network, see `list_models`.

    Raises:
        TypeError: a count is not an integer.
        ValueError: an argument is out of range; in `forward`, the signals or speeds are invalid for `to_orders` or the
            backbone (`cnn1d`: T >= 64), or a window is shorter than one revolution.

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
        """Compute the logits of signals.

        Args:
            signals: `[B, C, T]`.
            metadata: may contain `"rpm"`, the shaft speed in rev/min, `[B]`, NaN if unknown; other entries are ignored.

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
