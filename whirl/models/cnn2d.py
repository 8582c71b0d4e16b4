"""The default network for time-frequency maps, and the parts that networks for maps share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whirl.models.blocks import MeanAndDeviation, check_counts, check_dropout, initialize
from whirl.models.registry import register_model

MIN_SIZE = 16
"""Fewest rows and columns of a map: what the networks for maps reduce to one."""

_N_BANDS = 4


class ToChannelsLast2d(nn.Module):
    """The entrance of a network for maps: checks them, brings their level and spread to 0 and 1, and lays them out.

    Level and spread are those of each channel over all maps (batch normalisation without weights), so decibels,
    magnitudes and powers of any unit may come, and how loud one map is beside another stays to be seen. The layout is
    channels-last, in which a training step of `cnn2d` takes 0.8 times as long on a CPU.

    Args:
        in_channels: number of signal channels C that the network was built for.

    Raises:
        ValueError: in `forward`, maps that are not `[B, C, F, T]` with that C, F >= 16 and T >= 16.

    Example:
        >>> import torch
        >>> ToChannelsLast2d(in_channels=1)(torch.zeros(8, 1, 64, 10))
        Traceback (most recent call last):
        ValueError: maps have 64 frequencies and 10 times, but this network needs at least 16 of each
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.norm = nn.BatchNorm2d(in_channels, affine=False)

    def forward(self, maps: Tensor) -> Tensor:
        if maps.ndim != 4:
            raise ValueError(f"maps have shape {list(maps.shape)}, expected [batch, channels, frequencies, times]")
        _, n_channels, n_frequencies, n_times = maps.shape
        if n_channels != self.in_channels:
            raise ValueError(f"maps have {n_channels} channels, but this network was built for {self.in_channels}")
        if min(n_frequencies, n_times) < MIN_SIZE:
            raise ValueError(
                f"maps have {n_frequencies} frequencies and {n_times} times, but this network needs at least "
                f"{MIN_SIZE} of each"
            )
        return self.norm(maps.contiguous(memory_format=torch.channels_last))

    def extra_repr(self) -> str:
        return f"in_channels={self.in_channels}"


def conv_2d(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A square convolution over maps `[B, C, F, T]`, padded by half its kernel; without a bias, see `blocks.conv`."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)


@register_model("cnn2d")
class CNN2d(nn.Module):
    """A small convolutional network for maps of any size.

    In a photograph it does not matter where the cat sits; in a map it matters at which frequency something happens and
    hardly when. So the last features are averaged within four bands of frequency, and over time their mean (how
    much) and standard deviation (how variable) are classified.

        layer                                        out, 64 × 64 map
        conv 7 × 7, stride 4                         32 × 16 × 16
        conv 3 × 3, stride 2                         64 × 8 × 8
        conv 3 × 3, stride 2                         96 × 4 × 4
        average within bands; mean and deviation     768
        dropout; linear                              K

    Every convolution is followed by batch normalisation and ReLU; 76 thousand parameters without the last layer.
    Weights start as `initialize` describes.

    Args:
        num_classes: number of classes K, >= 1.
        in_channels: number of signal channels C, >= 1.
        dropout: probability in [0, 1) of dropping a pooled feature.

    Raises:
        TypeError: a count is not an integer.
        ValueError: an argument is out of its range; in `forward`, maps that are not `[B, C, F, T]` with F >= 16 and
            T >= 16.

    Example:
        >>> import torch
        >>> network = CNN2d(num_classes=11)
        >>> network(torch.randn(2, 1, 64, 100)).shape
        torch.Size([2, 11])
    """

    def __init__(self, num_classes: int, in_channels: int = 1, *, dropout: float = 0.2) -> None:
        super().__init__()
        check_counts(num_classes=num_classes, in_channels=in_channels)
        check_dropout(dropout)
        self.features = nn.Sequential(
            ToChannelsLast2d(in_channels),
            *_layer(conv_2d(in_channels, 32, kernel=7, stride=4)),
            *_layer(conv_2d(32, 64, kernel=3, stride=2)),
            *_layer(conv_2d(64, 96, kernel=3, stride=2)),
        )
        self.classifier = nn.Sequential(
            MeanAndDeviation(), nn.Dropout(dropout), nn.Linear(2 * 96 * _N_BANDS, num_classes)
        )
        initialize(self)

    def forward(self, maps: Tensor) -> Tensor:
        features = self.features(maps)
        bands = F.adaptive_avg_pool2d(features, (_N_BANDS, features.shape[-1]))
        return self.classifier(bands.flatten(1, 2))


def _layer(convolution: nn.Conv2d) -> tuple[nn.Module, ...]:
    return convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True)
