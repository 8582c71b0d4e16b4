"""Ensemble of networks on several time-frequency representations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whirl._precision import at_least_float32
from whirl.dsp.time_frequency import TimeFrequency
from whirl.models.registry import create_model, register_model
from whirl.models.time_frequency import TimeFrequencyNetwork
from whirl.validation import check_name

DEFAULT_KINDS = ("stft", "cwt", "wvd", "order")
"""Default kinds of `multi_tfr`: two with a trade-off between time and frequency resolution, one without, and one that
is synchronous with the shaft."""


class MultiTFR(nn.Module):
    """Ensemble of networks, each on its own representation of the same signals.

    The class probabilities of the members are averaged (a linear opinion pool). The result is returned as log
    probabilities, so that softmax restores it. Unlike an average of logits, a member that is confident and wrong cannot
    veto a class.

    Each member has its own weights, since the rows of its maps have a different meaning: frequencies on a linear or
    logarithmic scale, or orders of the shaft. In particular, shared batch normalization would estimate statistics of a
    mixture that does not occur in any batch. A network that is passed under several names shares its weights.

    Args:
        representations: representations by name.
        networks: networks from maps `[B, C, F, T']` to logits `[B, K]`, by the same names.

    Attributes:
        members: a `TimeFrequencyNetwork` for each name.

    Raises:
        ValueError: there is no representation, or the names differ.

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
                "names and at least one"
            )
        self.members = nn.ModuleDict(
            {name: TimeFrequencyNetwork(each, networks[name]) for name, each in representations.items()}
        )

    @property
    def representation(self) -> dict[str, TimeFrequency]:
        """Representations by name."""
        return {name: member.representation for name, member in self.members.items()}  # pyright: ignore[reportReturnType]

    def forward(
        self, signals: Tensor, metadata: Mapping[str, Tensor] | None = None, representation: str | None = None
    ) -> Tensor:
        """Compute the logits of signals, by all members or by one of them.

        Args:
            signals: `[B, C, T]`; if a representation is named, also its maps `[B, C, F, T']`.
            metadata: must contain `"rpm"` for order maps, the shaft speed in rev/min, `[B]`.
            representation: name of the member to use; None uses all.

        Returns:
            `[B, K]`; for all members log probabilities, in float32 or higher precision.

        Raises:
            ValueError: the name is unknown.
        """
        if representation is not None:
            check_name("representation", representation, list(self.members))
            return self.members[representation](signals, metadata)
        logits = at_least_float32(torch.stack([member(signals, metadata) for member in self.members.values()]))
        return logits.log_softmax(-1).logsumexp(0) - math.log(len(logits))


@register_model("multi_tfr")
def multi_tfr(
    num_classes: int,
    in_channels: int = 1,
    *,
    sampling_rate_hz: float = 20480,
    kinds: Sequence[str] | Mapping[str, Mapping[str, Any]] = DEFAULT_KINDS,
    network: str = "cnn2d",
) -> MultiTFR:
    """Create a `MultiTFR` with one network for each kind of representation.

    Args:
        num_classes: number of classes K, >= 1.
        in_channels: number of signal channels C, >= 1.
        sampling_rate_hz: sampling rate of the signals, > 0.
        kinds: kinds of representations with default settings, or a mapping from kinds to arguments of `TimeFrequency`:
            `{"stft": {"n_frequencies": 32}, "cwt": {}}`.
        network: name of the networks for maps, see `list_models`.

    Raises:
        ValueError: a kind or network is unknown, or a number is out of range.
    """
    arguments = kinds if isinstance(kinds, Mapping) else {kind: {} for kind in kinds}
    return MultiTFR(
        {kind: TimeFrequency(kind, sampling_rate_hz, **others) for kind, others in arguments.items()},
        {kind: create_model(network, num_classes, in_channels) for kind in kinds},
    )
