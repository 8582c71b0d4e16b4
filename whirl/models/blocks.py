"""Parts that the networks share: 1-D convolution in the form that is fast on a CPU, and one way to start the weights.

Signals `[B, C, T]` travel through a network as images of height one, `[B, C, 1, T]` in channels-last memory, so that
every 1-D convolution is a `Conv2d` with a `1 × k` kernel: the same numbers as a `Conv1d`, at about half of the time of
a training step. The layout is chosen once, by `AddHeightAxis` at the entrance; converting at every layer would lose the
gain, and so would a `k × 1` kernel. Max-pooling stands before the ReLU, which gives the same result for less work.
"""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor, nn


class AddHeightAxis(nn.Module):
    """The entrance of a convolutional network: checks the signals and lays them out as rows.

    `[B, C, T] -> [B, C, 1, T]`, channels-last.

    Args:
        in_channels: number of signal channels C that the network was built for.
        min_length: fewest samples T that the network can reduce to an output.

    Raises:
        ValueError: the signals are not `[B, C, T]` with that C and T >= `min_length`.

    Example:
        >>> AddHeightAxis(in_channels=2, min_length=64)(torch.zeros(8, 2, 100)).shape
        torch.Size([8, 2, 1, 100])
        >>> AddHeightAxis(in_channels=1, min_length=64)(torch.zeros(8, 1, 50))
        Traceback (most recent call last):
        ValueError: signals have 50 samples, but this network needs windows of at least 64
    """

    def __init__(self, in_channels: int, min_length: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.min_length = min_length

    def forward(self, signals: Tensor) -> Tensor:
        check_signals(signals, self.in_channels, self.min_length)
        return signals.unsqueeze(2).contiguous(memory_format=torch.channels_last)

    def extra_repr(self) -> str:
        return f"in_channels={self.in_channels}, min_length={self.min_length}"


def check_signals(signals: Tensor, in_channels: int, min_length: int) -> None:
    """Refuses signals that a network cannot take.

    Args:
        signals: should be `[B, C, T]`.
        in_channels: the C expected.
        min_length: the smallest T that will do.

    Raises:
        ValueError: another number of axes or channels, or too few samples.
    """
    if signals.ndim != 3:
        raise ValueError(f"signals have shape {list(signals.shape)}, expected [batch, channels, samples]")
    if signals.shape[1] != in_channels:
        raise ValueError(f"signals have {signals.shape[1]} channels, but this network was built for {in_channels}")
    if signals.shape[2] < min_length:
        raise ValueError(
            f"signals have {signals.shape[2]} samples, but this network needs windows of at least {min_length}"
        )


def check_counts(**counts: int) -> None:
    """Refuses arguments that are not positive integers.

    Args:
        **counts: argument name and value.

    Raises:
        TypeError: a value is not an integer.
        ValueError: a value is smaller than 1.

    Example:
        >>> check_counts(num_classes=0)
        Traceback (most recent call last):
        ValueError: num_classes is 0, expected at least 1
    """
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool):
            raise TypeError(f"{name} is {count!r}, expected an integer")
        if count < 1:
            raise ValueError(f"{name} is {count}, expected at least 1")


def check_dropout(dropout: float) -> None:
    """Refuses a dropout probability outside [0, 1).

    Args:
        dropout: the probability.

    Raises:
        ValueError: it is negative, 1 or more, or NaN.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}, expected 0 <= dropout < 1")


def scaled(channels: int, width: float) -> int:
    """Channels of a layer in a network whose layers are `width` times as wide, at least 1.

    Args:
        channels: of the network as published, >= 1.
        width: the factor, > 0; parameters go with its square.

    Raises:
        TypeError: the width is no number.
        ValueError: it is not finite and above 0.

    Example:
        >>> [scaled(64, width) for width in (1.0, 0.25, 0.001)]
        [64, 16, 1]
    """
    if isinstance(width, bool) or not isinstance(width, Real):
        raise TypeError(f"width is {width!r}, expected a number")
    if not 0 < width < math.inf:
        raise ValueError(f"width is {width!r}, expected a number > 0")
    return max(1, round(channels * float(width)))


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """A 1-D convolution over rows `[B, C, 1, T]`; without a bias, which the normalisation behind it would cancel.

    Args:
        in_channels: channels C of the input.
        out_channels: channels of the output.
        kernel: taps; the weight is `[out, in, 1, kernel]`.
        stride: samples from one output to the next.
        padding: zeros put before and behind the row. Never `"same"`: for an even kernel that copies the whole input.

    Returns:
        The layer, `[B, C, 1, T] -> [B, out_channels, 1, (T + 2 padding - kernel) // stride + 1]`.

    Example:
        >>> conv(1, 16, kernel=64, stride=16, padding=24)(torch.zeros(4, 1, 1, 2048)).shape
        torch.Size([4, 16, 1, 128])
    """
    return nn.Conv2d(in_channels, out_channels, (1, kernel), (1, stride), (0, padding), bias=False)


def max_pool(kernel: int, stride: int | None = None, padding: int = 0) -> nn.MaxPool2d:
    """Max-pooling along rows `[B, C, 1, T]`; the stride is the kernel unless given.

    Args:
        kernel: samples of which the largest is kept.
        stride: samples from one output to the next.
        padding: samples of minus infinity put before and behind the row.

    Example:
        >>> max_pool(2)(torch.tensor([[[[1.0, 3.0, 2.0, 0.0]]]]))
        tensor([[[[3., 2.]]]])
    """
    return nn.MaxPool2d((1, kernel), (1, stride or kernel), (0, padding))


def initialize(network: nn.Module) -> None:
    """Starts the weights of a network of convolutions and lays them out for rows; draws from torch's global generator.

    Convolutions: normal with variance `2 / (out_channels · kernel)` (He et al. 2015, fan-out mode), so that gradients
    keep their size on the way back through ReLUs. Linear layers: normal with standard deviation 0.01, biases zero, so
    that the first predictions are almost uniform. Normalisation keeps torch's ones and zeros.

    Args:
        network: changed in place.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class MeanAndDeviation(nn.Module):
    """Mean and standard deviation over time, in fp32 at least: `[B, C, ..., T] -> [B, 2 C]`, means first.

    The deviation is that of the population, `sqrt(mean((x - mean)²) + 1e-5)`, so that one step or a constant gives a
    number close to zero with a finite gradient.

    Example:
        >>> MeanAndDeviation()(torch.tensor([[[1.0, 3.0, 1.0, 3.0]]]))
        tensor([[2.0000, 1.0000]])
    """

    def forward(self, features: Tensor) -> Tensor:
        features = features.flatten(2).to(torch.promote_types(features.dtype, torch.float32))
        mean = features.mean(-1, keepdim=True)
        deviation = ((features - mean).square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return torch.cat([mean, deviation], dim=1).squeeze(-1)
