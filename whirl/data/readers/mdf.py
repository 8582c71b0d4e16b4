"""Reader of ASAM MDF measurement files (.mf4, .mdf)."""

from __future__ import annotations

import gc
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from whirl._distribution import install_hint
from whirl.data.readers.conventions import Unread, content_from_variables, flat_name
from whirl.data.reading import MAX_VARIABLES, Content, UnreadableError, check_size, register_reader


@register_reader(".mf4", ".mdf")
def read_mdf(path: Path) -> Content:
    """Read the channels of all groups in physical units; each group has its own time axis."""
    try:
        from asammdf import MDF
    except ImportError as error:
        raise ImportError(f"reading {path.suffix} needs asammdf: {install_hint('mdf')}") from error
    with _open(MDF, path) as file:
        n_channels = sum(len(group.channels) for group in file.groups)
        if n_channels > MAX_VARIABLES:
            raise UnreadableError(f"contains {n_channels} channels, expected at most {MAX_VARIABLES}")
        check_size(path, sum(8 * len(group.channels) * group.channel_group.cycles_nr for group in file.groups))
        variables: dict[str, Any] = {}
        for index, group in enumerate(file.groups):
            _add_group(file, index, group, variables)
    return content_from_variables(variables)


def _open(mdf: Any, path: Path) -> Any:
    try:
        return mdf(str(path))
    except Exception as error:
        # asammdf's destructor fails for a file that it could not open, which Python would print.
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            traceback.clear_frames(error.__traceback__)
            gc.collect()
        finally:
            sys.unraisablehook = hook
        raise


def _add_group(file: Any, index: int, group: Any, variables: dict[str, Any]) -> None:
    master = file.masters_db.get(index)
    place = f"group {index}"
    for number, channel in enumerate(group.channels):
        if number == master:
            continue
        samples = file.get(group=index, index=number, samples_only=True)[0]
        name = f"{place}/{flat_name(channel.name)}"
        unit = str(file.get_channel_unit(group=index, index=number) or "").strip()
        name = f"{name} [{unit}]" if unit and not set(unit) & set("()[]") else name
        variables[name] = samples if samples.dtype.kind in "fiuUSb" else Unread("a structured channel")
    times = np.asarray(file.get_master(index), dtype=np.float64)
    if len(times) > 1:
        variables[f"{place}/time [s]"] = times
