"""Windows as the network's maps, made once and kept on a disk, where the configuration wants that."""

from __future__ import annotations

from whirl.data.map_store import MapDataset
from whirl.data.windows import WindowDataset
from whirl.runs.config import RunConfig, make_time_frequency


def maybe_cache_maps(windows: WindowDataset, config: RunConfig, kind: str) -> WindowDataset | MapDataset:
    """What a loader of a run should read: the windows, or with `map_cache` their maps of one kind from its files.

    Args:
        windows: of one part of the recordings.
        config: of the run, resolved.
        kind: of the maps, see `time_frequency.KINDS`; the empty string where the network sees waveforms.

    Raises:
        OSError: the folder cannot be written to, or its disk is full.
    """
    if config.map_cache is None or not kind:
        return windows
    return MapDataset(windows, make_time_frequency(config, kind), config.map_cache)
