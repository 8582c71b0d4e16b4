"""Reader of National Instruments TDMS files (.tdms)."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

from whirl._distribution import install_hint
from whirl.data.readers.conventions import content_from_variables, flat_name
from whirl.data.reading import Content, UnreadableError, check_size, register_reader

_TRUNCATED = "file ends in the middle of a segment; copy or export it again"
_LEAD_IN_BYTES = 28
_BIG_ENDIAN = 1 << 6  # in the table of contents, "TDMS File Format Internal Structure", National Instruments
# Scale types that npTDMS applies; with any other it returns raw values.
_SCALE_TYPES = {
    "Polynomial", "Linear", "RTD", "Strain", "Table", "Thermistor", "Thermocouple", "Add", "Subtract", "AdvancedAPI",
}  # fmt: skip
_SCALE_TYPE = re.compile(r"NI_Scale\[\d+\]_Scale_Type")


@register_reader(".tdms")
def read_tdms(path: Path) -> Content:
    """Read the channels of all groups; properties count as scalars, `wf_increment` is the sampling interval.

    A property belongs to its channel, its group or the file. The index beside the file (`.tdms_index`) is not used.
    """
    try:
        from nptdms import TdmsFile
    except ImportError as error:
        raise ImportError(f"reading .tdms needs npTDMS: {install_hint('tdms')}") from error
    _check_segments(path)
    # Opened here, because npTDMS given a path reads an index file beside it, which may be older than the file.
    with path.open("rb") as data:
        declared = TdmsFile.read_metadata(data)
        channels = [channel for group in declared.groups() for channel in group.channels()]
        check_size(path, sum(len(channel) * channel.dtype.itemsize for channel in channels))
        data.seek(0)
        file = TdmsFile.read(data)
    if file.file_status.channel_statuses is not None:
        raise UnreadableError(_TRUNCATED)
    return content_from_variables(_variables(file))


def _variables(file: Any) -> dict[str, Any]:
    variables: dict[str, Any] = {flat_name(name): value for name, value in file.properties.items()}
    for group in file.groups():
        place = flat_name(group.name)
        variables |= {f"{place}/{flat_name(name)}": value for name, value in group.properties.items()}
        for channel in group.channels():
            _check_scaling(channel.name, {**file.properties, **group.properties, **channel.properties})
            path = f"{place}/{flat_name(channel.name)}"
            properties = {name: value for name, value in channel.properties.items() if not name.startswith("NI_")}
            unit = properties.pop("unit_string", "") or channel.properties.get("NI_UnitDescription", "")
            unit = re.sub(r"[()\[\]]", "", str(unit)).strip()
            if not len(channel):  # a property holder
                continue
            variables |= {f"{path}/{flat_name(name)}": value for name, value in properties.items()}
            variables[f"{path} [{unit}]" if unit else path] = channel[:]
    return variables


def _check_scaling(channel: str, properties: dict[str, Any]) -> None:
    if properties.get("NI_Scaling_Status") == "scaled":
        return
    kinds = {str(value) for name, value in properties.items() if _SCALE_TYPE.fullmatch(name)}
    if unknown := sorted(kinds - _SCALE_TYPES):
        raise UnreadableError(
            f"channel {channel!r} has the scaling {unknown[0]!r}, which npTDMS cannot apply; export the scaled samples"
        )


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
