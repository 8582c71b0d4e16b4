"""Time-frequency maps of a run: their arguments, and maps stored on disk."""

from __future__ import annotations

from typing import Any

from whirl.data.map_store import MapDataset
from whirl.data.windows import WindowDataset
from whirl.dsp.time_frequency import TimeFrequency
from whirl.runs.config import Config, ResolvedConfig
from whirl.runs.descriptions import OFF
from whirl.runs.methods import MapsMethod


def make_time_frequency(config: Config, kind: str, rate_hz: float | None = None) -> TimeFrequency:
    """Make the transform that computes the configured maps of one kind.

    Args:
        config: the configuration; its method is `MapsMethod`.
        kind: kind of the maps, see `whirl.dsp.time_frequency.KINDS`.
        rate_hz: sampling rate; None uses the configured one.
    """
    method = config.training.method
    arguments = (method.maps or {}).get(kind, {}) if isinstance(method, MapsMethod) else {}  # type: ignore[call-overload]
    return TimeFrequency(kind, rate_hz or config.data.sampling_rate_hz or 0, **arguments)


def resolved_maps(config: Config, representation: Any, rate_hz: float) -> dict[str, dict[str, Any]] | None:
    """Return all arguments of the configured maps, so that a run does not depend on later defaults."""
    if representation is None:
        return None
    kinds = [representation] if isinstance(representation, str) else representation
    configs = {kind: make_time_frequency(config, kind, rate_hz).config for kind in kinds}
    excluded = ("kind", "sampling_rate_hz")
    return {
        kind: {name: value for name, value in arguments.items() if name not in excluded}
        for kind, arguments in configs.items()
    }


def maybe_cache_maps(windows: WindowDataset, config: ResolvedConfig, kind: str) -> WindowDataset | MapDataset:
    """Return the windows, or a data set of their maps stored on disk if so configured.

    Args:
        windows: windows of one part of the recordings.
        config: the resolved configuration.
        kind: kind of the maps; empty if the network takes waveforms.

    Raises:
        OSError: the folder cannot be written to, or its disk is full.
    """
    method = config.training.method
    if not kind or not isinstance(method, MapsMethod) or method.map_cache == OFF:
        return windows
    return MapDataset(windows, make_time_frequency(config, kind), method.map_cache)
