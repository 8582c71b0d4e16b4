"""National Instruments' TDMS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from packages.core.signals.read import Content, UnreadableError, register_reader
from packages.core.signals.readers.conventions import content_from_variables


@register_reader(".tdms")
def read_tdms(path: Path) -> Content:
    """Channels of all groups; properties count as single values, `wf_increment` gives the rate."""
    try:
        from nptdms import TdmsFile
    except ImportError as error:
        raise ImportError("reading .tdms needs npTDMS: pip install 'whirl[tdms]'") from error
    file = TdmsFile.read(path)
    if file.file_status.incomplete_final_segment:
        raise UnreadableError("it breaks off in the middle of a segment; copy or export it again")
    variables: dict[str, Any] = dict(file.properties)
    for group in file.groups():
        for channel in group.channels():
            properties = dict(channel.properties)
            unit = properties.pop("unit_string", "")
            variables |= properties
            variables[f"{group.name}/{channel.name} [{unit}]"] = channel[:]
    return content_from_variables(variables)
