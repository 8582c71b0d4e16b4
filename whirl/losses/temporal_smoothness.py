"""Temporal smoothness: the state of a machine hardly changes between adjacent windows of a recording."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from whirl._display import format_attributes
from whirl.losses.physics_inputs import Metadata, WarnOnce, first_available, full_precision, per_window
from whirl.validation import check_number

_RECORDING = ("recording", "record_ids")


class TemporalSmoothnessLoss(nn.Module):
    """Penalizes predictions that change between adjacent windows of a recording: lambda mean w |p_i - p_j|^2.

    p are the predicted probabilities, and w = exp(-dt / tau) for windows dt apart, 1 if their times are unknown. The
    loss is at most 2 lambda. It is minimized by constant predictions, so it must be combined with a classification
    loss.

    Args:
        lambda_smooth: factor by which the loss is multiplied, >= 0.
        tau_s: time in seconds after which the state of a machine may have changed, > 0.
        sample_rate: sampling rate in Hz, to which `metadata["start"]` refers.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> loss = TemporalSmoothnessLoss(lambda_smooth=1.0)
        >>> loss(100 * torch.eye(2)[[0, 1, 1]], {"recording": torch.tensor([0, 0, 1])})  # one pair
        tensor(2.)
    """

    def __init__(self, lambda_smooth: float = 0.1, *, tau_s: float = 1.0, sample_rate: float = 20480) -> None:
        super().__init__()
        self.lambda_smooth = check_number("lambda_smooth", lambda_smooth, 0)
        self.tau_s = check_number("tau_s", tau_s, 0, open_ends=True)
        self.sample_rate = check_number("sample_rate", sample_rate, 0, open_ends=True)
        self._warn = WarnOnce("temporal")

    def extra_repr(self) -> str:
        return format_attributes(self, "lambda_smooth", "tau_s", "sample_rate")

    def forward(self, predictions: Tensor, metadata: Metadata | None = None) -> Tensor:
        """Compute the loss, a scalar between 0 and 2 lambda; 0 if no two windows belong to the same recording.

        Args:
            predictions: logits `[T, B, C]` of T consecutive windows, or `[B, C]` in any order.
            metadata: for `[B, C]`: `recording` (or `record_ids`), and `start` in samples or `time` in s if known, NaN
                for windows of unknown time.

        Raises:
            ValueError: the shapes do not match.
        """
        self._warn(self._missing_input(metadata or {}) if predictions.ndim == 2 else None)
        return self.term(predictions, metadata)

    def term(self, predictions: Tensor, metadata: Metadata | None = None) -> Tensor:
        """Compute the loss as `forward` does, without warning if it is 0 for lack of inputs."""
        if predictions.ndim not in (2, 3):
            raise ValueError(f"predictions have shape {tuple(predictions.shape)}, expected logits [T, B, C] or [B, C]")
        p = full_precision(predictions).softmax(-1)
        if p.ndim == 3:
            steps = p.diff(dim=0).square().sum(-1)
            return self.lambda_smooth * steps.sum() / max(steps.numel(), 1)
        if self._missing_input(metadata or {}):
            return p.sum() * 0
        order, pairs, weights = self._adjacent(metadata or {}, p)
        steps = p.index_select(0, order).diff(dim=0).square().sum(1)
        return torch.dot(steps, weights) * self.lambda_smooth / pairs.sum().clamp_min(1)

    def explain_zero_gradient(self, metadata: Metadata | None) -> str:
        """Return the reason why the loss has no gradient on a batch, as text."""
        metadata = metadata or {}
        reason = self._missing_input(metadata)
        if reason:
            return reason
        ids = torch.as_tensor(metadata[first_available(_RECORDING, metadata)])
        if len(ids.unique()) == ids.numel():
            return "no two windows of the batch belong to the same recording"
        return "windows of the same recording are too far apart in time, or lambda_smooth is 0"

    def _missing_input(self, metadata: Metadata) -> str | None:
        if first_available(_RECORDING, metadata):
            return None
        return f"the metadata have no 'recording' or 'record_ids', only {sorted(metadata)}"

    def _adjacent(self, metadata: Metadata, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the order [B] by recording and time, which neighbors in it are pairs [B - 1], and their weights."""
        ids = per_window(metadata, first_available(_RECORDING, metadata), len(p), p.device)
        clock = first_available(("time", "start"), metadata)
        if not clock:
            ids, order = ids.sort(stable=True)
            pairs = ids[1:] == ids[:-1]
            return order, pairs, pairs.to(p.dtype)
        time, by_time = per_window(metadata, clock, len(p), p.device).sort(stable=True)
        ids, by_id = ids[by_time].sort(stable=True)
        pairs = ids[1:] == ids[:-1]
        tau = self.tau_s * self.sample_rate if clock == "start" else self.tau_s
        intervals = time[by_id].diff().nan_to_num(0)  # as without any times
        weights = torch.exp(intervals.to(p.dtype) / -tau)
        return by_time[by_id], pairs, weights.masked_fill(~pairs, 0)
