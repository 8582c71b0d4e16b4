"""A network that is told what physics sees."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from whirl.models.blocks import check_dropout, initialize
from whirl.models.registry import create_model, register_model
from whirl.physics.evidence import OrderEvidence
from whirl.physics.rolling_bearing import BEARINGS, fault_orders
from whirl.validation import unknown_name

_WIDTH = 512  # of the evidence branch: wider learns faster, and a backbone learns fast
_MIN_DEVIATION_DB = 1.0  # what varies less in training is not worth being made large


@register_model("hybrid_pinn")
class HybridPINN(nn.Module):
    """Two branches: a small network on the evidence of faults that physics expects, and a large one on the signal.

        evidence, known   [B, L + 1] -> standardised -> linear 512; ReLU; dropout; linear -> K ┐
                                                                                               + -> logits K
        signal            [B, C, T]  -> backbone -> K, times a learned share, at first 0.1     ┘

    The sum is what one linear classifier makes of the last features of both branches side by side. The evidence, L
    numbers in dB at the orders of the shaft, is `OrderEvidence`: for rotors in journal bearings, or for a rolling
    bearing if one is named. It is computed in float32 and without gradient, and brought to mean 0 and deviation 1 by
    what all training so far has shown.

    Evidence tells more of a new machine than a waveform does, but a large network learns few windows by heart before a
    small one has found out, and then nothing is left to learn from. So the evidence has the start: its branch is wide,
    the signal's share begins small, and each training window is judged without its signal with a probability of
    `signal_dropout` (after modality dropout; Neverova et al. 2016, IEEE TPAMI 38:1692). A hint of what that is worth,
    not a study: accuracy on unseen simulated machines after learning from 10 windows a class (2 to 3 seeds): 0.87, the
    evidence branch alone 0.88, a plain sum of both with an evidence branch of 64 0.50, the backbone alone 0.17; from
    120 windows a class (1 seed): 0.93, 0.93, 0.83 and 0.70.

    Where the speed is not known, the L + 1 numbers are zero and the signal counts in full: without any speeds this
    trains like its backbone. Where only some evidence is not known, that is zero. To judge windows of unknown speed
    well, a network should have seen some in training.

    Args:
        num_classes: number of classes K, >= 1.
        in_channels: number of signal channels C, >= 1.
        sampling_rate_hz: of the signals, > 0.
        bearing: designation of the rolling bearing, one of `rolling_bearing.BEARINGS`; None: journal bearings.
        max_rpm: fastest speed of the shaft, > 0.
        backbone: name of the network on the signal, see `list_models`.
        dropout: probability in [0, 1) of dropping a hidden number of the evidence branch.
        signal_dropout: probability in [0, 1) of leaving the signal of a window of known speed out.

    Raises:
        TypeError: a count is not an integer.
        ValueError: an argument is out of its range or a name unknown; in `forward`, signals that the backbone cannot
            take (`cnn1d`: T >= 64), or speeds that `OrderEvidence` cannot: out of range, or windows shorter than one
            revolution.

    Example:
        >>> network = HybridPINN(num_classes=4, sampling_rate_hz=12_000, bearing="6205")
        >>> network(torch.randn(2, 1, 16_384), {"rpm": torch.tensor([1797.0, torch.nan])}).shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 1,
        *,
        sampling_rate_hz: float = 20480,
        bearing: str | None = None,
        max_rpm: float = 6000,
        backbone: str = "cnn1d",
        dropout: float = 0.2,
        signal_dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_dropout(dropout)
        check_dropout(signal_dropout)
        self.signal_dropout = signal_dropout
        self.evidence = _order_evidence(sampling_rate_hz, bearing, max_rpm)
        n_features = len(self.evidence.names)
        self.signal_branch = create_model(backbone, num_classes, in_channels)
        self.signal_share = nn.Parameter(torch.tensor(0.1))
        self.standardize = KnownStandardization(n_features)
        self.evidence_branch = nn.Sequential(
            nn.Linear(n_features + 1, _WIDTH), nn.ReLU(), nn.Dropout(dropout), nn.Linear(_WIDTH, num_classes)
        )
        initialize(self.evidence_branch[-1])

    def forward(self, signals: Tensor, metadata: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits of signals and, if known, their speeds.

        Args:
            signals: `[B, C, T]`.
            metadata: may hold `"rpm"`, `[B]`, rev/min, NaN where unknown; the rest is not looked at.

        Returns:
            `[B, K]`.
        """
        from_signal = self.signal_branch(signals)
        evidence = self._evidence(signals, (metadata or {}).get("rpm"))
        known = evidence.isfinite().any(1, keepdim=True)
        from_evidence = self.evidence_branch(torch.cat([self.standardize(evidence), known], dim=1))
        return from_evidence + from_signal * self._share(known)

    def _evidence(self, signals: Tensor, rpm: Tensor | None) -> Tensor:
        if rpm is not None:
            return self.evidence(signals, rpm)
        return signals.new_full((len(signals), len(self.evidence.names)), torch.nan, dtype=torch.float32)

    def _share(self, known: Tensor) -> Tensor:
        """`[B, 1]` how much each window's signal counts."""
        share = self.signal_share.expand(known.shape)
        if self.training:
            share = share * (torch.rand(known.shape, device=known.device) >= self.signal_dropout)
        return share.where(known, 1)


class KnownStandardization(nn.Module):
    """Brings numbers `[B, L]` to mean 0 and deviation 1 of all that training has shown; unknown ones, NaN, become 0.

    In training the batch is first counted in, exactly (Chan, Golub & LeVeque 1979), so that no row of a batch changes
    what becomes of another by more than its share of all rows so far. Deviations below 1 count as 1.

    Args:
        n_features: L, >= 1.

    Example:
        >>> standardize = KnownStandardization(1)
        >>> standardize(torch.tensor([[10.0], [torch.nan], [14.0]])).flatten()
        tensor([-1.,  0.,  1.])
        >>> standardize.eval()(torch.tensor([[16.0]]))
        tensor([[2.]])
    """

    count: Tensor
    mean: Tensor
    squares: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        for name in ("count", "mean", "squares"):  # squares: sum of squared deviations from the mean
            self.register_buffer(name, torch.zeros(n_features))

    def forward(self, values: Tensor) -> Tensor:
        known = values.isfinite()
        if self.training:
            self._count_in(values, known)
        deviation = (self.squares / self.count.clamp_min(1)).sqrt().clamp_min(_MIN_DEVIATION_DB)
        return ((values - self.mean) / deviation).where(known, 0)

    @torch.no_grad()
    def _count_in(self, values: Tensor, known: Tensor) -> None:
        n_new = known.sum(0)
        share = n_new / (self.count + n_new).clamp_min(1)
        new_mean = values.where(known, 0).sum(0) / n_new.clamp_min(1)
        shift = new_mean - self.mean
        self.squares += (values - new_mean).where(known, 0).square().sum(0) + shift.square() * self.count * share
        self.mean += shift * share
        self.count += n_new


def _order_evidence(sampling_rate_hz: float, bearing: str | None, max_rpm: float) -> OrderEvidence:
    if bearing is None:
        return OrderEvidence.journal(sampling_rate_hz, max_rpm=max_rpm)
    if bearing not in BEARINGS:
        raise ValueError(unknown_name("bearing", bearing, BEARINGS))
    return OrderEvidence.rolling(sampling_rate_hz, fault_orders(BEARINGS[bearing]), max_rpm=max_rpm)
