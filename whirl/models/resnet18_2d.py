"""ResNet-18 for time-frequency maps (after He et al. 2016)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from whirl.models.blocks import check_counts, initialize
from whirl.models.cnn2d import ToChannelsLast2d, conv_2d
from whirl.models.registry import register_model


@register_model("resnet18_2d")
class ResNet18Maps(nn.Module):
    """2-D residual network with 18 layers.

    K. He, X. Zhang, S. Ren, J. Sun: "Deep Residual Learning for Image Recognition", CVPR 2016, table 1; 11.2 million
    parameters. Only the stem differs: the original stem, 7 × 7 with stride 2 and max-pooling, is designed for images of
    224 × 224; a 3 × 3 kernel with stride 2 keeps four times as many positions of a 64 × 64 map in every stage.

        layer                          out, 64 × 64 map
        conv 3 × 3, stride 2           64 × 32 × 32
        2 residual blocks              64 × 32 × 32
        2 residual blocks, stride 2    128 × 16 × 16
        2 residual blocks, stride 2    256 × 8 × 8
        2 residual blocks, stride 2    512 × 4 × 4
        average; linear                K

    Weights are initialized by `blocks.initialize`, except for the last normalization of every block, whose weight is
    zero, so that each block is initially the identity (Goyal et al. 2017).

    Args:
        num_classes: number of classes K, >= 1.
        in_channels: number of signal channels C, >= 1.

    Raises:
        TypeError: an argument is not an integer.
        ValueError: an argument is smaller than 1; in `forward`, the maps are not `[B, C, F, T]` with F >= 16 and
            T >= 16.

    Example:
        >>> import torch
        >>> network = ResNet18Maps(num_classes=11)
        >>> network(torch.randn(2, 1, 32, 40)).shape
        torch.Size([2, 11])
    """

    def __init__(self, num_classes: int, in_channels: int = 1) -> None:
        super().__init__()
        check_counts(num_classes=num_classes, in_channels=in_channels)
        self.stem = nn.Sequential(
            ToChannelsLast2d(in_channels),
            conv_2d(in_channels, 64, kernel=3, stride=2),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.Sequential(
            *_stage(64, 64, stride=1),
            *_stage(64, 128, stride=2),
            *_stage(128, 256, stride=2),
            *_stage(256, 512, stride=2),
        )
        self.classifier = nn.Linear(512, num_classes)
        initialize(self)

    def forward(self, maps: Tensor) -> Tensor:
        return self.classifier(self.stages(self.stem(maps)).mean((2, 3)))


class _ResidualBlock(nn.Module):
    """`relu(x + residual(x))`; x passes through a 1 × 1 convolution where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        last_norm = nn.BatchNorm2d(out_channels)
        nn.init.zeros_(last_norm.weight)
        self.residual = nn.Sequential(
            conv_2d(in_channels, out_channels, kernel=3, stride=stride),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            conv_2d(out_channels, out_channels, kernel=3),
            last_norm,
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                conv_2d(in_channels, out_channels, kernel=1, stride=stride), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x), inplace=True)


def _stage(in_channels: int, out_channels: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return _ResidualBlock(in_channels, out_channels, stride), _ResidualBlock(out_channels, out_channels, 1)
