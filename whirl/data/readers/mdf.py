"""Reader of ASAM MDF measurement files (.mf4, .mdf)."""

from __future__ import annotations

import contextlib
import gc
import re
import sys
import traceback
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from whirl._distribution import install_hint
from whirl.data.readers.conventions import Unread, content_from_variables, flat_name
from whirl.data.readers.hdf5 import MAX_DEFLATE_RATIO
from whirl.data.reading import (
    ALWAYS_ALLOWED_BYTES,
    MAX_VARIABLES,
    Content,
    UnreadableError,
    check_size,
    register_reader,
)


@register_reader(".mf4", ".mdf")
def read_mdf(path: Path) -> Content:
    """Read the channels of all groups in physical units; each group has its own time axis."""
    try:
        from asammdf import MDF
    except ImportError as error:
        raise ImportError(f"reading {path.suffix} needs asammdf: {install_hint('mdf')}") from error
    _check_blocks(path)
    with _open(MDF, path) as file:
        n_channels = sum(len(group.channels) for group in file.groups)
        if n_channels > MAX_VARIABLES:
            raise UnreadableError(f"contains {n_channels} channels, expected at most {MAX_VARIABLES}")
        check_size(path, sum(8 * len(group.channels) * group.channel_group.cycles_nr for group in file.groups))
        variables: dict[str, Any] = {}
        for index, group in enumerate(file.groups):
            _add_group(file, index, group, variables)
    return content_from_variables(variables)


def _check_blocks(path: Path) -> None:
    """Raise if compressed blocks declare much more data than their size, or decompress to more than they declare.

    A compressed block is "##DZ", 4 bytes, its length and number of links, types and a parameter, the sizes of the
    original and the compressed data (ASAM MDF 4.1, chapter 4.26), and the data. asammdf decompresses without a limit.
    """
    data = np.memmap(path, np.uint8, "r").data
    total = 0
    for match in re.finditer(rb"##DZ.{28}(.{8})(.{8})", data, re.DOTALL):
        declared, stored = (int.from_bytes(size, "little") for size in match.groups())
        total += declared
        position = match.end()
        if stored * MAX_DEFLATE_RATIO > ALWAYS_ALLOWED_BYTES and position + stored <= len(data):
            _check_block(data[position : position + stored], declared)
    check_size(path, total)


def _check_block(stored: memoryview, declared: int) -> None:
    with contextlib.suppress(zlib.error):  # asammdf reports what is corrupt
        if len(zlib.decompressobj().decompress(stored, declared + 1)) > declared:
            raise UnreadableError("a block decompresses to more than it declares; copy or export it again")


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
