"""Building blocks of the networks: 1-D convolutions that are fast on a CPU, and shared weight initialization.

Signals `[B, C, T]` pass through a network as images of height one, `[B, C, 1, T]` in channels-last memory, so that
every 1-D convolution is a `Conv2d` with a `1 × k` kernel: numerically equal to a `Conv1d`, with about half the time of
a training step. `AddHeightAxis` sets the layout once, as the first layer; converting in every layer would lose the
speed-up, and so would a `k × 1` kernel. Max-pooling comes before the ReLU, which gives the same result with less work.
"""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor, nn

from whirl._precision import at_least_float32
from whirl.validation import check_count, check_number


class AddHeightAxis(nn.Module):
    """First layer of a convolutional network: validates the signals and adds a height axis.

    `[B, C, T] -> [B, C, 1, T]` in channels-last memory.

    Args:
        in_channels: number of signal channels C of the network.
        min_length: smallest number of samples T that the network supports.

    Raises:
        ValueError: in `forward`, the signals are not `[B, C, T]` with this C and T >= `min_length`.

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
        _check_signals(signals, self.in_channels, self.min_length)
        return signals.unsqueeze(2).contiguous(memory_format=torch.channels_last)

    def extra_repr(self) -> str:
        return f"in_channels={self.in_channels}, min_length={self.min_length}"


def _check_signals(signals: Tensor, in_channels: int, min_length: int) -> None:
    if signals.ndim != 3:
        raise ValueError(f"signals have shape {list(signals.shape)}, expected [batch, channels, samples]")
    if signals.shape[1] != in_channels:
        raise ValueError(f"signals have {signals.shape[1]} channels, but this network was built for {in_channels}")
    if signals.shape[2] < min_length:
        raise ValueError(
            f"signals have {signals.shape[2]} samples, but this network needs windows of at least {min_length}"
        )


def check_counts(**counts: int) -> None:
    """Validate arguments that are positive integers.

    Args:
        **counts: names and values of the arguments.

    Raises:
        TypeError: a value is not an integer.
        ValueError: a value is smaller than 1.

    Example:
        >>> check_counts(num_classes=0)
        Traceback (most recent call last):
        ValueError: num_classes is 0, expected an integer >= 1
    """
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool):
            raise TypeError(f"{name} is {count!r}, expected an integer >= 1")
        check_count(name, count)


def check_dropout(dropout: float) -> None:
    """Validate a dropout probability.

    Args:
        dropout: the probability.

    Raises:
        ValueError: it is negative, 1 or more, or NaN.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}, expected a number in [0, 1)")


def scale_channels(channels: int, width: float) -> int:
    """Return the number of channels of a layer multiplied by a width factor, at least 1.

    Args:
        channels: number of channels at full width, >= 1.
        width: the factor, > 0; the number of parameters is proportional to its square.

    Raises:
        TypeError: the width is not a number.
        ValueError: the width is not finite and > 0.

    Example:
        >>> [scale_channels(64, width) for width in (1.0, 0.25, 0.001)]
        [64, 16, 1]
    """
    if isinstance(width, bool) or not isinstance(width, Real):
        raise TypeError(f"width is {width!r}, expected a number")
    return max(1, round(channels * check_number("width", float(width), 0, open_ends=True)))


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """Create a 1-D convolution over rows `[B, C, 1, T]`, without a bias, which a following normalization would cancel.

    Args:
        in_channels: number of input channels C.
        out_channels: number of output channels.
        kernel: kernel size; the weight has shape `[out, in, 1, kernel]`.
        stride: stride in samples.
        padding: number of zeros at each end. `"same"` is not supported: for an even kernel it copies the input.

    Returns:
        The layer, `[B, C, 1, T] -> [B, out_channels, 1, (T + 2 padding - kernel) // stride + 1]`.

    Example:
        >>> conv(1, 16, kernel=64, stride=16, padding=24)(torch.zeros(4, 1, 1, 2048)).shape
        torch.Size([4, 16, 1, 128])
    """
    return nn.Conv2d(in_channels, out_channels, (1, kernel), (1, stride), (0, padding), bias=False)


def max_pool(kernel: int, stride: int | None = None, padding: int = 0) -> nn.MaxPool2d:
    """Create a max-pooling layer along rows `[B, C, 1, T]`.

    Args:
        kernel: kernel size in samples.
        stride: stride in samples; default `kernel`.
        padding: number of samples with minus infinity at each end.

    Example:
        >>> max_pool(2)(torch.tensor([[[[1.0, 3.0, 2.0, 0.0]]]]))
        tensor([[[[3., 2.]]]])
    """
    return nn.MaxPool2d((1, kernel), (1, stride or kernel), (0, padding))


def initialize(network: nn.Module) -> None:
    """Initialize the weights of a convolutional network and convert them to channels-last memory.

    Convolutions: normal with variance `2 / (out_channels · kernel)` (He et al. 2015, fan-out mode), which preserves the
    magnitude of gradients in the backward pass through ReLUs. Linear layers: normal with standard deviation 0.01 and
    zero biases, so that the initial predictions are almost uniform. Normalization layers keep torch's defaults.

    Random numbers are drawn from torch's global generator.

    Args:
        network: network to modify in place.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class StatisticsPooling(nn.Module):
    """Pooling to mean and standard deviation over time: `[B, C, ..., T] -> [B, 2 C]`, means first, in fp32 or higher.

    The standard deviation is `sqrt(mean((x - mean)²) + 1e-5)`, so that a single step or a constant gives a value close
    to zero with a finite gradient.

    Example:
        >>> StatisticsPooling()(torch.tensor([[[1.0, 3.0, 1.0, 3.0]]]))
        tensor([[2.0000, 1.0000]])
    """

    def forward(self, features: Tensor) -> Tensor:
        features = at_least_float32(features.flatten(2))
        mean = features.mean(-1, keepdim=True)
        deviation = ((features - mean).square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return torch.cat([mean, deviation], dim=1).squeeze(-1)
