"""Reader of National Instruments TDMS files (.tdms)."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from whirl._distribution import install_hint
from whirl.data.readers.conventions import content_from_variables
from whirl.data.reading import Content, UnreadableError, check_size, register_reader

_TRUNCATED = "file ends in the middle of a segment; copy or export it again"
_LEAD_IN_BYTES = 28
_BIG_ENDIAN = 1 << 6  # in the table of contents, "TDMS File Format Internal Structure", National Instruments


@register_reader(".tdms")
def read_tdms(path: Path) -> Content:
    """Read the channels of all groups; properties count as scalars, `wf_increment` is the sampling interval."""
    try:
        from nptdms import TdmsFile
    except ImportError as error:
        raise ImportError(f"reading .tdms needs npTDMS: {install_hint('tdms')}") from error
    _check_segments(path)
    declared = TdmsFile.read_metadata(path)
    channels = [channel for group in declared.groups() for channel in group.channels()]
    check_size(path, sum(len(channel) * channel.dtype.itemsize for channel in channels))
    file = TdmsFile.read(path)
    if file.file_status.channel_statuses is not None:
        raise UnreadableError(_TRUNCATED)
    variables: dict[str, Any] = dict(file.properties)
    for group in file.groups():
        for channel in group.channels():
            properties = dict(channel.properties)
            unit = properties.pop("unit_string", "")
            variables |= properties
            variables[f"{group.name}/{channel.name} [{unit}]"] = channel[:]
    return content_from_variables(variables)


def _check_segments(path: Path) -> None:
    """Raise if the last segment is incomplete; npTDMS silently skips a segment that ends early."""
    position, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while position < size:
            file.seek(position)
            lead_in = file.read(_LEAD_IN_BYTES)
            if len(lead_in) < _LEAD_IN_BYTES:
                raise UnreadableError(_TRUNCATED)
            (contents,) = struct.unpack_from("<I", lead_in, 4)
            (length,) = struct.unpack_from(">Q" if contents & _BIG_ENDIAN else "<Q", lead_in, 12)
            position += _LEAD_IN_BYTES + length
    if position > size:
        raise UnreadableError(_TRUNCATED)
