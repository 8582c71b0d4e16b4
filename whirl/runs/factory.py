"""What a resolved configuration builds: its network, and the physics of its classes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from whirl.data.recording import Recording
from whirl.losses.physics_loss_functions import EvidenceConsistencyLoss, PhysicalConstraintLoss
from whirl.models.registry import create_model
from whirl.models.time_frequency import TimeFrequencyNetwork
from whirl.physics.faults import signature
from whirl.physics.rolling_bearing import BEARINGS, FaultOrders, fault_orders
from whirl.runs.config import PHYSICAL_MODELS, RunConfig, make_time_frequency
from whirl.runs.data import PreparedData

MIN_WINDOWS, MAX_WINDOWS = 3, 512  # windows from which the normal level of a line is told

_USUAL_MAX_RPM = 6000.0
_HEADROOM = 1.1  # augmentation changes the speed by up to a tenth


def new_model(config: RunConfig) -> nn.Module:
    """The configured network with fresh weights, drawn from torch's global generator."""
    network = create_model(
        config.model, len(config.classes or ()), len(config.channels or ()), **model_arguments(config)
    )
    if isinstance(config.representation, str):
        return TimeFrequencyNetwork(make_time_frequency(config, config.representation), network)
    return network


def model_arguments(config: RunConfig) -> dict[str, Any]:
    """What the configured network is told besides its numbers of classes and channels, as plain data."""
    arguments: dict[str, Any] = {}
    if config.model in (*PHYSICAL_MODELS, "multi_tfr"):
        arguments["sampling_rate_hz"] = config.sampling_rate_hz
    if config.model == "multi_tfr":
        arguments["kinds"] = {kind: (config.maps or {}).get(kind, {}) for kind in config.representations}
    if config.width != 1:
        arguments["width"] = config.width
    if config.model == "hybrid_pinn":
        arguments |= {"bearing": config.bearing, "max_rpm": max_rpm(config)}
    if config.model == "order_cnn" and config.rpm_range:
        # The speed at which resampling changes nothing is the slowest: nothing is cut off, nothing mirrored.
        arguments["samples_per_revolution"] = 60 * (config.sampling_rate_hz or 0) / config.rpm_range[0]
    return arguments


def max_rpm(config: RunConfig) -> float:
    """Fastest speed of the shaft that physics looks for."""
    return max(_USUAL_MAX_RPM, _HEADROOM * config.rpm_range[1] if config.rpm_range else 0.0)


def bearing_orders(config: RunConfig) -> FaultOrders | None:
    """Kinematics of the configured rolling bearing."""
    return None if config.bearing is None else fault_orders(BEARINGS[config.bearing])


def new_physics_loss(data: PreparedData, trust: bool = False) -> PhysicalConstraintLoss:
    """The physics terms for the classes of a run; healthy training windows, if there are any, say what is normal.

    Args:
        data: recordings of the run.
        trust: correct the physics by what the training windows say of it.
    """
    config = data.config
    loss = PhysicalConstraintLoss(
        config.lambda_freq,
        config.lambda_sommerfeld,
        config.lambda_temporal,
        classes=data.classes,
        sample_rate=config.sampling_rate_hz or 0,
        orders=bearing_orders(config),
        max_rpm=max_rpm(config),
    )
    healthy = _some_windows(data, [r for r in data.split.train if signature(r.label or "") == signature("healthy")])
    if healthy is not None:
        signals, _, rpm = healthy
        loss.fit_calibration(signals, rpm)
    labelled = _some_windows(data, data.split.train) if trust and config.lambda_freq > 0 else None
    if labelled is not None:
        signals, targets, rpm = labelled
        loss.fit_trust(signals, targets, {"rpm": rpm})
    return loss


def _some_windows(data: PreparedData, recordings: Sequence[Recording]) -> tuple[Tensor, Tensor, Tensor] | None:
    """Signals `[M, C, T]`, targets `[M]` and speeds `[M]`, where a window holds a turn of the shaft."""
    duration_s = (data.config.window or 0) / (data.config.sampling_rate_hz or 1)
    usable = [recording for recording in recordings if (recording.rpm or 0) * duration_s >= 60]
    if not usable:
        return None
    windows = data.windows(usable)
    if len(windows) < MIN_WINDOWS:
        return None
    signals, targets, metadata = windows[:: math.ceil(len(windows) / MAX_WINDOWS)]
    return signals, targets, metadata["rpm"]


class PhysicsBaseline(nn.Module):
    """Judges windows by the evidence in them, as if physics were a network.

    Args:
        loss: whose distribution over the judged classes it gives; the other classes get none of the probability.
    """

    def __init__(self, loss: EvidenceConsistencyLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, signals: Tensor, metadata: Mapping[str, Tensor]) -> Tensor:
        """Logits `[B, K]` of signals `[B, C, T]`; equal ones where the evidence cannot be had at the speed `rpm`."""
        search = self.loss.search
        if search is None:
            raise ValueError("no class has expected lines to judge by")
        rpm, slowest = metadata["rpm"], 60 * search.sampling_rate_hz / signals.shape[-1]
        rpm = rpm.masked_fill((rpm < slowest) | (rpm > search.max_rpm), torch.nan)
        logits = signals.new_full((len(signals), self.loss.n_classes), -torch.inf)
        with suppress_user_warnings():
            logits[:, self.loss.judged] = self.loss.probabilities(signals, {"rpm": rpm}).log()
        return logits


def physics_baseline(data: PreparedData) -> PhysicsBaseline | None:
    """Physics as a judge of the run's classes; None where it can tell none of them from another."""
    with suppress_user_warnings():
        loss = new_physics_loss(data).frequency
    return PhysicsBaseline(loss) if loss.search is not None and len(loss.judged) > 1 else None


@contextmanager
def suppress_user_warnings() -> Iterator[None]:
    """Which lines the windows are too short for concerns who trains with physics, and is said there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
