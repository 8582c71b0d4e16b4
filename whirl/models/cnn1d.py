"""The default network, a 1-D CNN on raw waveforms."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from whirl.models.blocks import (
    AddHeightAxis,
    StatisticsPooling,
    check_counts,
    check_dropout,
    conv,
    initialize,
    scale_channels,
)
from whirl.models.registry import register_model

# Kernel size of the first convolution.
MIN_LENGTH = 64


@register_model("cnn1d")
class CNN1d(nn.Module):
    """1-D CNN with a filter bank, rectification and a pyramid of strided convolutions that covers many revolutions.

    Rotor faults show at two time scales: low orders of the shaft, with periods of hundreds of samples, and bursts or
    noise at structural resonances, a few samples long, that are modulated by the rotation. The first layer therefore
    filters the waveform at the full sampling rate, rectifies and averages: a filter that passes a resonance gives its
    envelope, a filter that passes a low order gives the order itself. Seven convolutions then process both from a
    sixteenth of the rate on, each with stride 2, until one step covers half a second. The mean and standard deviation
    over time of the last features (level and variability) are classified, so the window length is not fixed.

        layer                                    out, T = 16384   receptive field   at 20480 Hz
        conv 64, stride 8; ReLU; average 2       32 × 1024        72 samples        3.5 ms
        conv 7, stride 2                         32 × 512         168               8.2 ms
        conv 7, stride 2                         64 × 256         360               18 ms
        conv 7, stride 2                         64 × 128         744               36 ms
        conv 7, stride 2                         96 × 64          1512              74 ms
        conv 7, stride 2                         128 × 32         3048              0.15 s
        conv 7, stride 2                         128 × 16         6120              0.30 s
        conv 7, stride 2                         128 × 8          12264             0.60 s
        mean, standard deviation over time       256
        dropout; linear                          K

    Every convolution is followed by batch normalization and ReLU; 415 thousand parameters. Windows should contain many
    revolutions (16384 samples at 20480 Hz are 16 revolutions at 1200 rpm); shorter windows are supported.

    Weights are initialized by `blocks.initialize`.

    Args:
        num_classes: number of classes K, >= 1.
        in_channels: number of signal channels C, >= 1.
        dropout: probability in [0, 1) of dropping a pooled feature.
        width: factor for the channels of every layer, > 0; 0.5 gives about a quarter of the parameters.

    Raises:
        TypeError: a count is not an integer, or the width is not a number.
        ValueError: an argument is out of range; in `forward`, the signals are not `[B, C, T]` with T >= 64.

    Example:
        >>> import torch
        >>> network = CNN1d(num_classes=11)
        >>> network(torch.randn(2, 1, 16384)).shape
        torch.Size([2, 11])
    """

    def __init__(self, num_classes: int, in_channels: int = 1, *, dropout: float = 0.2, width: float = 1.0) -> None:
        super().__init__()
        check_counts(num_classes=num_classes, in_channels=in_channels)
        check_dropout(dropout)
        n32, n64, n96, n128 = (scale_channels(channels, width) for channels in (32, 64, 96, 128))
        self.envelopes = nn.Sequential(
            AddHeightAxis(in_channels, MIN_LENGTH),
            *_layer(conv(in_channels, n32, kernel=64, stride=8, padding=28)),
            nn.AvgPool2d((1, 2)),
        )
        self.pyramid = nn.Sequential(
            *_halving(n32, n32),
            *_halving(n32, n64),
            *_halving(n64, n64),
            *_halving(n64, n96),
            *_halving(n96, n128),
            *_halving(n128, n128),
            *_halving(n128, n128),
        )
        self.classifier = nn.Sequential(StatisticsPooling(), nn.Dropout(dropout), nn.Linear(2 * n128, num_classes))
        initialize(self)

    def forward(self, signals: Tensor) -> Tensor:
        return self.classifier(self.pyramid(self.envelopes(signals)))


def _halving(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return _layer(_HalvingConv(in_channels, out_channels, (1, 7), (1, 2), (0, 3), bias=False))


class _HalvingConv(nn.Conv2d):
    """Convolution with stride 2, also for inputs of length 1.

    For such an input torch 2.13 leaves the bfloat16 gradient of the weights on a CPU uninitialized unless the zero
    padding is explicit.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[-1] > 1:
            return super().forward(input)
        return F.conv2d(F.pad(input, (3, 3)), self.weight, self.bias, self.stride)


def _layer(convolution: nn.Conv2d) -> tuple[nn.Module, ...]:
    return convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True)
