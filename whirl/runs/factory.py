"""The network of a configuration, and the physics of its classes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from whirl.data.recording import Recording
from whirl.engine.checkpoint import load_weights
from whirl.losses.physics_loss_functions import EvidenceConsistencyLoss, PhysicalConstraintLoss
from whirl.models.heads import with_head
from whirl.models.registry import create_model
from whirl.models.time_frequency import TimeFrequencyNetwork
from whirl.physics.bearings import parse_bearings
from whirl.physics.faults import signature
from whirl.physics.rolling_bearing import FaultOrders
from whirl.runs.config import PHYSICAL_MODELS, Config
from whirl.runs.data import PreparedData
from whirl.runs.descriptors import is_descriptor_model
from whirl.runs.maps import make_time_frequency
from whirl.runs.methods import MapsMethod, PhysicsMethod
from whirl.runs.run_folder import RunFolder

MIN_WINDOWS, MAX_WINDOWS = 3, 512  # windows to estimate the normal level of a line

_DEFAULT_MAX_RPM = 6000.0
_HEADROOM = 1.1  # augmentation changes the speed by up to a tenth


def new_model(config: Config) -> nn.Module:
    """Create the configured network; weights are drawn from torch's global generator.

    Raises:
        ValueError: the configured model is not a network.
    """
    if is_descriptor_model(config.model_name):
        raise ValueError(
            f"model {config.model_name!r} is a model of descriptors and not a network: it can be applied, evaluated, "
            "compared and bundled, but not be a teacher or a graph of another format"
        )
    n_channels, arguments = len(config.data.channels), model_arguments(config)
    network = with_head(
        config.training.task,
        config.data.classes,
        lambda n_outputs: create_model(config.model_name, n_outputs, n_channels, **arguments),
    )
    kinds = config.representations
    if len(kinds) == 1 and not config.has_several_maps:
        return TimeFrequencyNetwork(make_time_frequency(config, kinds[0]), network)
    return network


def load_run_network(folder: RunFolder) -> tuple[Config, nn.Module]:
    """Load the configuration of a run and its network with the best weights.

    Raises:
        FileNotFoundError: the run has no checkpoint.
        ValueError: the folder is not a run folder, or its checkpoint is damaged.
    """
    config = folder.read_config()
    network = new_model(config)
    load_weights(network, folder.best_checkpoint)
    return config, network


def model_arguments(config: Config) -> dict[str, Any]:
    """Return the network's arguments except the numbers of classes and channels, as plain data."""
    arguments: dict[str, Any] = {}
    method = config.training.method
    if config.model_name in (*PHYSICAL_MODELS, "multi_tfr"):
        arguments["sampling_rate_hz"] = config.data.sampling_rate_hz
    if config.model_name == "multi_tfr" and isinstance(method, MapsMethod):
        maps: Any = method.maps or {}
        arguments["kinds"] = {kind: maps.get(kind, {}) for kind in method.kinds}
    if config.model.width != 1:
        arguments["width"] = config.model.width
    if config.model_name == "hybrid_pinn":
        arguments |= {"bearing": config.bearing, "max_rpm": max_rpm(config)}
    if config.model_name == "order_cnn" and config.speed_range:
        # The samples per revolution at the slowest speed, so that resampling neither cuts off the band nor aliases.
        arguments["samples_per_revolution"] = 60 * config.data.sampling_rate_hz / config.speed_range[0]
    return arguments


def max_rpm(config: Config) -> float:
    """Return the highest shaft speed (rpm) for which physics evaluates lines."""
    return max(_DEFAULT_MAX_RPM, _HEADROOM * config.speed_range[1] if config.speed_range else 0.0)


def bearing_orders(config: Config) -> FaultOrders | None:
    """Return the fault orders of the configured rolling bearing; None if it is unknown."""
    return None if config.bearing is None else parse_bearings(config.bearing)[0].orders


def new_physics_loss(data: PreparedData, trust: bool = False) -> PhysicalConstraintLoss:
    """Make the physics terms for the classes of a run, calibrated with healthy training windows if there are any.

    Args:
        data: recordings of the run.
        trust: correct the physics by its agreement with the labels of the training windows.
    """
    config, method = data.config, data.config.training.method
    terms = method if isinstance(method, PhysicsMethod) else PhysicsMethod()
    loss = PhysicalConstraintLoss(
        terms.lambda_freq,
        terms.lambda_sommerfeld,
        terms.lambda_temporal,
        classes=data.classes,
        sample_rate=config.data.sampling_rate_hz,
        orders=bearing_orders(config),
        max_rpm=max_rpm(config),
    )
    healthy = _some_windows(data, [r for r in data.split.train if signature(r.label or "") == signature("healthy")])
    if healthy is not None:
        signals, _, rpm = healthy
        loss.fit_calibration(signals, rpm)
    labeled = _some_windows(data, data.split.train) if trust and terms.lambda_freq > 0 else None
    if labeled is not None:
        signals, targets, rpm = labeled
        loss.fit_trust(signals, targets, {"rpm": rpm})
    return loss


def _some_windows(data: PreparedData, recordings: Sequence[Recording]) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return signals `[M, C, T]`, targets `[M]` and speeds `[M]` of windows that cover a revolution of the shaft."""
    duration_s = data.config.input.window / data.config.data.sampling_rate_hz
    usable = [recording for recording in recordings if (recording.rpm or 0) * duration_s >= 60]
    if not usable:
        return None
    windows = data.windows(usable)
    if len(windows) < MIN_WINDOWS:
        return None
    signals, targets, metadata = windows[:: math.ceil(len(windows) / MAX_WINDOWS)]
    return signals, targets, metadata["rpm"]


class PhysicsBaseline(nn.Module):
    """Classifies windows by their physical evidence, with the interface of a network.

    Args:
        loss: computes the distribution over the classes with expected lines; the others get probability 0.
    """

    def __init__(self, loss: EvidenceConsistencyLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, signals: Tensor, metadata: Mapping[str, Tensor]) -> Tensor:
        """Return logits `[B, K]` of signals `[B, C, T]`; uniform ones if the speed `rpm` is unknown or out of range."""
        search = self.loss.search
        if search is None:
            raise ValueError("no class has expected lines")
        rpm, slowest = metadata["rpm"], 60 * search.sampling_rate_hz / signals.shape[-1]
        rpm = rpm.masked_fill((rpm < slowest) | (rpm > search.max_rpm), torch.nan)
        logits = signals.new_full((len(signals), self.loss.n_classes), -torch.inf)
        with suppress_user_warnings():
            logits[:, self.loss.constrained] = self.loss.probabilities(signals, {"rpm": rpm}).log()
        return logits


def physics_baseline(data: PreparedData) -> PhysicsBaseline | None:
    """Make the physics baseline for the classes of a run; None if physics cannot distinguish any of them."""
    with suppress_user_warnings():
        loss = new_physics_loss(data).frequency
    return PhysicsBaseline(loss) if loss.search is not None and len(loss.constrained) > 1 else None


@contextmanager
def suppress_user_warnings() -> Iterator[None]:
    """Suppress warnings about windows that are too short for some lines; training with physics shows them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
