"""The default network: from the raw waveform to the state of a machine."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from whirl.models.blocks import AddHeightAxis, MeanAndDeviation, check_counts, check_dropout, conv, initialize, scaled
from whirl.models.registry import register_model

# The length of the first filters.
MIN_LENGTH = 64


@register_model("cnn1d")
class CNN1d(nn.Module):
    """Filters, their envelopes, and a pyramid of strided convolutions that grows to many turns of the shaft.

    Rotor faults write into two places at once: low orders of the shaft, with periods of hundreds of samples, and bursts
    or noise of structural resonances, a few samples long, that come and go with the turning shaft. So the first layer
    filters the waveform at its full rate, rectifies, and averages: where a filter passes a resonance, that leaves the
    resonance's envelope; where it passes a low order, the order itself. Both go on at a sixteenth of the rate through
    seven convolutions that halve it each time, until one step sees half a second. Mean and standard deviation over time
    of the last features (how much, how variable) are classified; they need no fixed window length.

        layer                                    out, T = 16384   receptive field   at 20480 Hz
        conv 64, stride 8; ReLU; average 2       32 × 1024        72 samples        3.5 ms
        conv 7, stride 2                         32 × 512         168               8.2 ms
        conv 7, stride 2                         64 × 256         360               18 ms
        conv 7, stride 2                         64 × 128         744               36 ms
        conv 7, stride 2                         96 × 64          1512              74 ms
        conv 7, stride 2                         128 × 32         3048              0.15 s
        conv 7, stride 2                         128 × 16         6120              0.30 s
        conv 7, stride 2                         128 × 8          12264             0.60 s
        mean and deviation over time             256
        dropout; linear                          K

    Every convolution is followed by batch normalisation and ReLU; 415 thousand parameters. Windows should hold
    many turns of the shaft (16384 samples at 20480 Hz are 16 turns at 1200 rpm); shorter ones are taken as well.

    Weights start as `initialize` describes.

    Args:
        num_classes: number of classes K, >= 1.
        in_channels: number of signal channels C, >= 1.
        dropout: probability in [0, 1) of dropping a pooled feature.
        width: factor on the channels of every layer, > 0; 0.5 leaves about a quarter of the parameters.

    Raises:
        TypeError: a count is not an integer, or the width no number.
        ValueError: an argument is out of its range; in `forward`, signals are not `[B, C, T]` with T >= 64.

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
        n32, n64, n96, n128 = (scaled(channels, width) for channels in (32, 64, 96, 128))
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
        self.classifier = nn.Sequential(MeanAndDeviation(), nn.Dropout(dropout), nn.Linear(2 * n128, num_classes))
        initialize(self)

    def forward(self, signals: Tensor) -> Tensor:
        return self.classifier(self.pyramid(self.envelopes(signals)))


def _halving(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return _layer(_Halving(in_channels, out_channels, (1, 7), (1, 2), (0, 3), bias=False))


class _Halving(nn.Conv2d):
    """A convolution that halves the length, also of an input 1 long.

    For such an input torch 2.13 leaves the gradient of the weights in bfloat16 on a CPU uninitialised, unless the zeros
    beside it are really there.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[-1] > 1:
            return super().forward(input)
        return F.conv2d(F.pad(input, (3, 3)), self.weight, self.bias, self.stride)


def _layer(convolution: nn.Conv2d) -> tuple[nn.Module, ...]:
    return convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True)
