"""A transformer over patches of the signal."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whirl.models.blocks import AddHeightAxis, check_counts, check_dropout, conv
from whirl.models.registry import register_model


@register_model("patch_transformer")
class PatchTransformer(nn.Module):
    """Transformer encoder over patches of the signal, as the vision transformer is over patches of an image.

    A. Dosovitskiy et al.: "An Image is Worth 16x16 Words", ICLR 2021; patches of a time series after Y. Nie et al.: "A
    Time Series is Worth 64 Words", ICLR 2023. The signal is cut into P = T // patch_length patches without overlap (a
    shorter rest is left out), each is mapped linearly to a token of `width` numbers, sinusoids mark the positions
    (Vaswani et al. 2017), and `depth` blocks of attention and a two-layer perceptron follow, each normalising its input
    (pre-norm). The tokens' mean is classified. Every token sees the whole window.

        step                     out, T = 2048
        patches of 64 samples    32 × 64 · C
        tokens and positions     32 × 128
        4 blocks                 32 × 128
        mean over tokens         128
        linear                   K

    The time of attention grows with P²: for long windows take longer patches.

    Weights start normal with standard deviation 0.02, cut at two of them, as the vision transformer's; biases zero.

    Args:
        num_classes: number of classes K, >= 1.
        in_channels: number of signal channels C, >= 1.
        patch_length: samples in a patch, >= 1; also the shortest window.
        width: length D of a token; a multiple of 2 · n_heads.
        depth: number of blocks, >= 1.
        n_heads: attention heads, >= 1.
        dropout: probability in [0, 1) of dropping a token's number after the positions and after each half of a block.
        patch_augmentation: changes the tokens in training, called as `(tokens, training)` and returning tokens, all
            `[B, P, D]`; an attribute that may be set later and is no part of the state.

    Raises:
        TypeError: a count is not an integer, or the augmentation cannot be called.
        ValueError: an argument is out of its range; in `forward`, signals are not `[B, C, T]` with T >= patch_length.

    Example:
        >>> network = PatchTransformer(num_classes=11, patch_length=128)
        >>> network(torch.randn(2, 1, 4096)).shape
        torch.Size([2, 11])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 1,
        *,
        patch_length: int = 64,
        width: int = 128,
        depth: int = 4,
        n_heads: int = 4,
        dropout: float = 0.1,
        patch_augmentation: Callable[[Tensor, bool], Tensor] | None = None,
    ) -> None:
        super().__init__()
        check_counts(num_classes=num_classes, in_channels=in_channels, patch_length=patch_length)
        check_counts(width=width, depth=depth, n_heads=n_heads)
        check_dropout(dropout)
        if width % (2 * n_heads):
            raise ValueError(f"width is {width}, expected a multiple of 2 · n_heads = {2 * n_heads}")
        if patch_augmentation is not None and not callable(patch_augmentation):
            raise TypeError(f"patch_augmentation is {patch_augmentation!r}, expected a function of (tokens, training)")
        self.patch_augmentation = patch_augmentation
        self.patches = nn.Sequential(
            AddHeightAxis(in_channels, min_length=patch_length),
            conv(in_channels, width, kernel=patch_length, stride=patch_length),
        )
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(_Block(width, n_heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, num_classes)
        self.apply(_initialize)

    def forward(self, signals: Tensor) -> Tensor:
        tokens = self.embed(signals)
        if self.training and self.patch_augmentation is not None:
            # before the positions are added: after them attention could not see that patches were moved
            tokens = self.patch_augmentation(tokens, True)
        return self.classify(tokens)

    def embed(self, signals: Tensor) -> Tensor:
        """The tokens of the signals, without positions: what patch augmentation works on.

        Args:
            signals: `[B, C, T]`.

        Returns:
            `[B, P, D]`.
        """
        return self.patches(signals).flatten(2).transpose(1, 2)

    def classify(self, tokens: Tensor) -> Tensor:
        """The logits of signals given as tokens; `forward` is `classify(embed(signals))`, but for augmentation.

        Args:
            tokens: `[B, P, D]`.

        Returns:
            Logits `[B, K]`.
        """
        positions = sinusoids(tokens.shape[1], tokens.shape[2], device=tokens.device)
        encoded = self.blocks(self.dropout(tokens + positions))
        return self.classifier(self.norm(encoded).mean(1))


def sinusoids(n_positions: int, width: int, device: torch.device | None = None) -> Tensor:
    """Position marks: sines and cosines of wavelengths from 2π to 2π · 10000 patches (Vaswani et al. 2017, sec. 3.5).

    Args:
        n_positions: number of positions P.
        width: length D of a mark, even.
        device: where the result lies.

    Returns:
        `[P, D]` in [-1, 1]: all sines, then all cosines.

    Example:
        >>> sinusoids(3, 4)[0]
        tensor([0., 0., 1., 1.])
    """
    rates = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10_000) / width))
    angles = torch.arange(n_positions, device=device).unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class _Block(nn.Module):
    """`x + attention(norm(x))`, then `x + perceptron(norm(x))`."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_perceptron = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.dropout(self._attend(self.norm_attention(tokens)))
        return tokens + self.dropout(self.perceptron(self.norm_perceptron(tokens)))

    def _attend(self, tokens: Tensor) -> Tensor:
        # [B, P, 3 · D] -> query, key and value, each [B, heads, P, D / heads]
        query, key, value = self.query_key_value(tokens).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.project(_attention(query, key, value).transpose(1, 2).flatten(2))


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`softmax(query · keyᵀ / sqrt(D)) · value`, all `[B, heads, P, D]`."""
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        # torch's fused kernel takes 2 to 7 times as long as the formula here: its backward has no fast bf16 form
        weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
        return weights.to(value.dtype) @ value
    return F.scaled_dot_product_attention(query, key, value)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
