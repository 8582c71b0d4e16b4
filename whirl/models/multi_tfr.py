"""One network for several time-frequency representations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whirl.dsp.time_frequency import TimeFrequency
from whirl.models.registry import create_model, register_model
from whirl.models.time_frequency import TimeFrequencyNetwork
from whirl.validation import unknown_name

KINDS_TOGETHER = ("stft", "cwt", "wvd", "order")
"""Kinds of `multi_tfr`: two that trade time for frequency, one that does not, and one that follows the shaft."""


class MultiTFR(nn.Module):
    """Several representations of the same signals, each with a network, and their common opinion.

    The opinion is the mean of the representations' class probabilities (a linear opinion pool), given as its logarithm,
    so that softmax returns it. Unlike the mean of logits, it lets no representation that is certain and wrong
    veto a class.

    Each representation has weights of its own, for the rows of its maps mean other things, hertz in equal steps
    or in equal ratios, or orders of the shaft; batch normalisation, above all, would learn the statistics of a mixture
    that no batch has. The same network under several names shares its weights.

    Args:
        representations: what makes the maps, by name.
        networks: `[B, C, F, T']` to logits `[B, K]`, by the same names.

    Attributes:
        members: a `TimeFrequencyNetwork` of each name.

    Raises:
        ValueError: no representation, or other names for the networks.

    Example:
        >>> from whirl.models.cnn2d import CNN2d
        >>> representations = {kind: TimeFrequency(kind, 12_000) for kind in ("stft", "cwt")}
        >>> network = MultiTFR(representations, {"stft": CNN2d(4), "cwt": CNN2d(4)})
        >>> probabilities = network(torch.randn(2, 1, 2048)).exp()
        >>> bool(torch.allclose(probabilities.sum(1), torch.ones(2)))
        True
    """

    def __init__(self, representations: Mapping[str, TimeFrequency], networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        if not representations or set(representations) != set(networks):
            raise ValueError(
                f"representations are {sorted(representations)} and networks {sorted(networks)}, expected the same "
                "names, at least one"
            )
        self.members = nn.ModuleDict(
            {name: TimeFrequencyNetwork(made, networks[name]) for name, made in representations.items()}
        )

    @property
    def representation(self) -> dict[str, TimeFrequency]:
        """What makes the maps, by name."""
        return {name: member.representation for name, member in self.members.items()}  # pyright: ignore[reportReturnType]

    def forward(
        self, signals: Tensor, metadata: Mapping[str, Tensor] | None = None, representation: str | None = None
    ) -> Tensor:
        """Logits of signals by all representations, or by one of them.

        Args:
            signals: `[B, C, T]`; for a named representation, its maps `[B, C, F, T']` as well.
            metadata: `"rpm"`, `[B]`, rev/min, for order maps.
            representation: its name; None takes all.

        Returns:
            `[B, K]`; of all representations, logarithms of probabilities, in float32 at least.

        Raises:
            ValueError: an unknown name.
        """
        if representation is not None:
            if representation not in self.members:
                raise ValueError(unknown_name("representation", representation, list(self.members)))
            return self.members[representation](signals, metadata)
        opinions = torch.stack([member(signals, metadata) for member in self.members.values()])
        opinions = opinions.to(torch.promote_types(opinions.dtype, torch.float32))
        return opinions.log_softmax(-1).logsumexp(0) - math.log(len(opinions))


@register_model("multi_tfr")
def multi_tfr(
    num_classes: int,
    in_channels: int = 1,
    *,
    sampling_rate_hz: float = 20480,
    kinds: Sequence[str] | Mapping[str, Mapping[str, Any]] = KINDS_TOGETHER,
    network: str = "cnn2d",
) -> MultiTFR:
    """A `MultiTFR` with one network for each kind of representation.

    Args:
        num_classes: number of classes K, >= 1.
        in_channels: number of signal channels C, >= 1.
        sampling_rate_hz: of the signals, > 0.
        kinds: of representations, in their usual form, or with other arguments of `TimeFrequency` by kind:
            `{"stft": {"n_frequencies": 32}, "cwt": {}}`.
        network: name of the networks behind, see `list_models`.

    Raises:
        ValueError: an unknown kind or network, or a number out of range.
    """
    arguments = kinds if isinstance(kinds, Mapping) else {kind: {} for kind in kinds}
    return MultiTFR(
        {kind: TimeFrequency(kind, sampling_rate_hz, **others) for kind, others in arguments.items()},
        {kind: create_model(network, num_classes, in_channels) for kind in kinds},
    )
