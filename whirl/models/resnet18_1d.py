"""ResNet-18 for signals (after He et al. 2016)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from whirl.models.blocks import AddHeightAxis, check_counts, conv, initialize, max_pool, scale_channels
from whirl.models.registry import register_model

# The stem and the stages halve the length five times.
MIN_LENGTH = 32


@register_model("resnet18_1d")
class ResNet18(nn.Module):
    """1-D residual network with 18 layers.

    K. He, X. Zhang, S. Ren, J. Sun: "Deep Residual Learning for Image Recognition", CVPR 2016, table 1, with every
    `k × k` kernel replaced by a 1-D kernel of size k; 3.85 million parameters. Like the original it has no dropout.

        layer                              out, T = 4096    receptive field, samples
        conv 7, stride 2; max-pool 3 / 2   64 × 1024        11
        2 residual blocks                  64 × 1024        43
        2 residual blocks, stride 2        128 × 512        99
        2 residual blocks, stride 2        256 × 256        211
        2 residual blocks, stride 2        512 × 128        435
        average over time; linear          K

    Weights are initialized by `blocks.initialize`, except for the last normalization of every block, whose weight is
    zero, so that each block is initially the identity (Goyal et al. 2017).

    Args:
        num_classes: number of classes K, >= 1.
        in_channels: number of signal channels C, >= 1.
        width: factor for the channels of every layer, > 0; 0.5 gives about a quarter of the parameters.

    Raises:
        TypeError: a count is not an integer, or the width is not a number.
        ValueError: an argument is out of range; in `forward`, the signals are not `[B, C, T]` with T >= 32.

    Example:
        >>> import torch
        >>> network = ResNet18(num_classes=11)
        >>> network(torch.randn(2, 1, 1000)).shape
        torch.Size([2, 11])
    """

    def __init__(self, num_classes: int, in_channels: int = 1, *, width: float = 1.0) -> None:
        super().__init__()
        check_counts(num_classes=num_classes, in_channels=in_channels)
        n64, n128, n256, n512 = (scale_channels(channels, width) for channels in (64, 128, 256, 512))
        self.stem = nn.Sequential(
            AddHeightAxis(in_channels, MIN_LENGTH),
            conv(in_channels, n64, kernel=7, stride=2, padding=3),
            nn.BatchNorm2d(n64),
            max_pool(3, stride=2, padding=1),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.Sequential(
            *_stage(n64, n64, stride=1),
            *_stage(n64, n128, stride=2),
            *_stage(n128, n256, stride=2),
            *_stage(n256, n512, stride=2),
        )
        self.classifier = nn.Linear(n512, num_classes)
        initialize(self)

    def forward(self, signals: Tensor) -> Tensor:
        features = self.stages(self.stem(signals))
        return self.classifier(features.flatten(2).mean(-1))


class _ResidualBlock(nn.Module):
    """`relu(x + residual(x))`; x passes through a convolution with kernel size 1 where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        last_norm = nn.BatchNorm2d(out_channels)
        nn.init.zeros_(last_norm.weight)
        self.residual = nn.Sequential(
            conv(in_channels, out_channels, kernel=3, stride=stride, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            conv(out_channels, out_channels, kernel=3, padding=1),
            last_norm,
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                conv(in_channels, out_channels, kernel=1, stride=stride), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x), inplace=True)


def _stage(in_channels: int, out_channels: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return _ResidualBlock(in_channels, out_channels, stride), _ResidualBlock(out_channels, out_channels, 1)
