"""Continuity in time: the state of a machine does not change between neighbouring windows of one recording."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from whirl.losses.physics_inputs import Metadata, WarnOnce, first_known, full_precision, per_window

_RECORDING = ("recording", "record_ids")


class TemporalSmoothnessLoss(nn.Module):
    """Predictions that jump between neighbouring windows of one recording: lambda mean w |p_i - p_j|^2.

    w = exp(-dt / tau) for windows dt apart, 1 where no time is known. At most 2 lambda; least for constant
    predictions, so a classification loss must stand beside it.

    Args:
        lambda_smooth: factor of the loss, >= 0.
        tau_s: > 0, seconds in which a machine's state may change.
        sample_rate: in Hz, of `metadata["start"]`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> loss = TemporalSmoothnessLoss(lambda_smooth=1.0)
        >>> loss(100 * torch.eye(2)[[0, 1, 1]], {"recording": torch.tensor([0, 0, 1])})  # one pair, far apart
        tensor(2.)
    """

    def __init__(self, lambda_smooth: float = 0.1, *, tau_s: float = 1.0, sample_rate: float = 20480) -> None:
        super().__init__()
        if not (0 <= lambda_smooth < math.inf and 0 < tau_s < math.inf and 0 < sample_rate < math.inf):
            given = f"lambda_smooth is {lambda_smooth}, tau_s {tau_s}, sample_rate {sample_rate}"
            raise ValueError(f"{given}: expected >= 0, > 0, > 0, and finite")
        self.lambda_smooth, self.tau_s, self.sample_rate = lambda_smooth, tau_s, sample_rate
        self._warn = WarnOnce("temporal")

    def forward(self, predictions: Tensor, metadata: Metadata | None = None) -> Tensor:
        """The loss, a scalar in 0 to 2 lambda; 0 where no two windows are of one recording.

        Args:
            predictions: logits `[T, B, C]` of T consecutive windows, or `[B, C]` in any order.
            metadata: for `[B, C]`: `recording` (or `record_ids`), and `start` in samples or `time` in s if known.

        Raises:
            ValueError: shapes do not fit.
        """
        self._warn(self._missing(metadata or {}) if predictions.ndim == 2 else None)
        return self.term(predictions, metadata)

    def term(self, predictions: Tensor, metadata: Metadata | None = None) -> Tensor:
        """As `forward`, without a warning where nothing is known."""
        if predictions.ndim not in (2, 3):
            raise ValueError(f"predictions have shape {tuple(predictions.shape)}, expected logits [T, B, C] or [B, C]")
        p = full_precision(predictions).softmax(-1)
        if p.ndim == 3:
            steps = p.diff(dim=0).square().sum(-1)
            return self.lambda_smooth * steps.sum() / max(steps.numel(), 1)
        if self._missing(metadata or {}):
            return p.sum() * 0
        order, pairs, weights = self._neighbours(metadata or {}, p)
        steps = p.index_select(0, order).diff(dim=0).square().sum(1)
        return torch.dot(steps, weights) * self.lambda_smooth / pairs.sum().clamp_min(1)

    def why_inert(self, metadata: Metadata | None) -> str:
        """Why the loss has no gradient on a batch, in words."""
        metadata = metadata or {}
        reason = self._missing(metadata)
        if reason:
            return reason
        ids = torch.as_tensor(metadata[first_known(_RECORDING, metadata)])
        if len(ids.unique()) == ids.numel():
            return "no two windows of the batch are of one recording"
        return "windows of one recording are too far apart in time, or lambda_smooth is 0"

    def _missing(self, metadata: Metadata) -> str | None:
        if first_known(_RECORDING, metadata):
            return None
        return f"no record ids ('recording' or 'record_ids') in the metadata, which have {sorted(metadata)}"

    def _neighbours(self, metadata: Metadata, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Order [B] of the windows by recording and time; which neighbours are pairs [B - 1], and their weights."""
        ids = per_window(metadata, first_known(_RECORDING, metadata), len(p), p.device)
        clock = first_known(("time", "start"), metadata)
        if not clock:
            ids, order = ids.sort(stable=True)
            pairs = ids[1:] == ids[:-1]
            return order, pairs, pairs.to(p.dtype)
        time, by_time = per_window(metadata, clock, len(p), p.device).sort(stable=True)
        ids, by_id = ids[by_time].sort(stable=True)
        pairs = ids[1:] == ids[:-1]
        tau = self.tau_s * self.sample_rate if clock == "start" else self.tau_s
        weights = torch.exp(time[by_id].diff().to(p.dtype) / -tau)
        return by_time[by_id], pairs, weights.masked_fill(~pairs, 0)
