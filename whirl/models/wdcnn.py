"""WDCNN: a wide first kernel, then small ones (Zhang et al. 2017)."""

from __future__ import annotations

from torch import Tensor, nn

from whirl.models.blocks import AddHeightAxis, check_counts, conv, initialize, max_pool, scaled
from whirl.models.registry import register_model

# Below this, nothing is left before the last pooling (16 · 2⁴ samples per step there, 4 steps needed).
MIN_LENGTH = 1024


@register_model("wdcnn")
class WDCNN(nn.Module):
    """Deep convolutional network with wide first-layer kernels.

    W. Zhang, G. Peng, C. Li, Y. Chen, Z. Zhang: "A New Deep Learning Model for Fault Diagnosis with Good Anti-Noise and
    Domain Adaptation Ability on Raw Vibration Signals", Sensors 17(2):425, 2017. At T = 2048 it is the published
    network layer for layer, batch normalisation and all (it has no dropout):

        layer                             out             receptive field, samples
        input                             C × 2048
        conv 64, stride 16; pool 2        16 × 64         80
        conv 3; pool 2                    32 × 32         176
        conv 3; pool 2                    64 × 16         368
        conv 3; pool 2                    64 × 8          752
        conv 3 without padding; pool 2    64 × 3          1520
        linear                            100
        linear                            K

    Windows of another length are averaged down to the same three steps before the linear layers. The small receptive
    field stays: at 20480 Hz the convolutions see 74 ms, a turn or two of a shaft. That is ample for impacts of rolling
    bearings and too little to tell whirl from looseness by their order, whatever the window; `cnn1d` is made for that.

    Weights start as `initialize` describes.

    Args:
        num_classes: number of classes K, >= 1.
        in_channels: number of signal channels C, >= 1.
        width: factor on the size of every hidden layer, > 0; 0.5 leaves about a quarter of the parameters.

    Raises:
        TypeError: a count is not an integer, or the width no number.
        ValueError: an argument is out of its range; in `forward`, signals are not `[B, C, T]` with T >= 1024.

    Example:
        >>> import torch
        >>> network = WDCNN(num_classes=10, in_channels=2)
        >>> network(torch.randn(4, 2, 2048)).shape
        torch.Size([4, 10])
    """

    def __init__(self, num_classes: int, in_channels: int = 1, *, width: float = 1.0) -> None:
        super().__init__()
        check_counts(num_classes=num_classes, in_channels=in_channels)
        n16, n32, n64, n100 = (scaled(channels, width) for channels in (16, 32, 64, 100))
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
