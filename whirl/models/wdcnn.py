"""WDCNN: a CNN with a wide first kernel followed by small kernels (Zhang et al. 2017)."""

from __future__ import annotations

from torch import Tensor, nn

from whirl.models.blocks import AddHeightAxis, check_counts, conv, initialize, max_pool, scale_channels
from whirl.models.registry import register_model

# The last pooling needs 4 steps of 16 · 2⁴ samples each.
MIN_LENGTH = 1024


@register_model("wdcnn")
class WDCNN(nn.Module):
    """Deep convolutional network with wide first-layer kernels.

    W. Zhang, G. Peng, C. Li, Y. Chen, Z. Zhang: "A New Deep Learning Model for Fault Diagnosis with Good Anti-Noise and
    Domain Adaptation Ability on Raw Vibration Signals", Sensors 17(2):425, 2017. At T = 2048 it equals the published
    network layer by layer, including batch normalization (it has no dropout):

        layer                             out             receptive field, samples
        input                             C × 2048
        conv 64, stride 16; pool 2        16 × 64         80
        conv 3; pool 2                    32 × 32         176
        conv 3; pool 2                    64 × 16         368
        conv 3; pool 2                    64 × 8          752
        conv 3 without padding; pool 2    64 × 3          1520
        linear                            100
        linear                            K

    Windows of other lengths are averaged to the same three steps before the linear layers. The receptive field does not
    depend on the window: at 20480 Hz it is 74 ms, one or two revolutions of a shaft. This is sufficient for impacts of
    rolling bearings but too short to distinguish whirl from looseness by their orders; use `cnn1d` for these.

    Weights are initialized by `blocks.initialize`.

    Args:
        num_classes: number of classes K, >= 1.
        in_channels: number of signal channels C, >= 1.
        width: factor for the size of every hidden layer, > 0; 0.5 gives about a quarter of the parameters.

    Raises:
        TypeError: a count is not an integer, or the width is not a number.
        ValueError: an argument is out of range; in `forward`, the signals are not `[B, C, T]` with T >= 1024.

    Example:
        >>> import torch
        >>> network = WDCNN(num_classes=10, in_channels=2)
        >>> network(torch.randn(4, 2, 2048)).shape
        torch.Size([4, 10])
    """

    def __init__(self, num_classes: int, in_channels: int = 1, *, width: float = 1.0) -> None:
        super().__init__()
        check_counts(num_classes=num_classes, in_channels=in_channels)
        n16, n32, n64, n100 = (scale_channels(channels, width) for channels in (16, 32, 64, 100))
        self.features = nn.Sequential(
            AddHeightAxis(in_channels, MIN_LENGTH),
            *_stage(conv(in_channels, n16, kernel=64, stride=16, padding=24)),
            *_stage(conv(n16, n32, kernel=3, padding=1)),
            *_stage(conv(n32, n64, kernel=3, padding=1)),
            *_stage(conv(n64, n64, kernel=3, padding=1)),
            *_stage(conv(n64, n64, kernel=3)),
            nn.AdaptiveAvgPool2d((1, 3)),
            nn.Flatten(),
        )
        self.classifier = nn.Sequential(
            nn.Linear(3 * n64, n100),
            nn.BatchNorm1d(n100),
            nn.ReLU(),
            nn.Linear(n100, num_classes),
        )
        initialize(self)

    def forward(self, signals: Tensor) -> Tensor:
        return self.classifier(self.features(signals))


def _stage(convolution: nn.Conv2d) -> tuple[nn.Module, ...]:
    return convolution, nn.BatchNorm2d(convolution.out_channels), max_pool(2), nn.ReLU(inplace=True)
