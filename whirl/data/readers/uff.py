"""Reader of Universal File Format files (.uff, .unv), data set 58."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from whirl._distribution import install_hint
from whirl.data.readers.facts import round_if_close
from whirl.data.readers.selection import distinct
from whirl.data.reading import Content, UnreadableError, register_reader
from whirl.data.units import normalize_unit

_TIME_RESPONSE = 1
_DIRECTIONS = {0: "", 1: "+X", 2: "+Y", 3: "+Z", -1: "-X", -2: "-Y", -3: "-Z"}


@register_reader(".uff", ".unv")
def read_uff(path: Path) -> Content:
    """Read time responses as channels, named by node and direction (`1+Z`)."""
    try:
        from pyuff import UFF
    except ImportError as error:
        raise ImportError(f"reading {path.suffix} needs pyuff: {install_hint('uff')}") from error
    # A data set is enclosed by two lines "    -1"; pyuff silently skips one without its closing line.
    if not path.read_bytes().rstrip().endswith(b"    -1"):
        raise UnreadableError("file ends in the middle of a data set; copy or export it again")
    file = UFF(str(path))
    functions = [index for index, kind in enumerate(file.get_set_types()) if kind == 58]
    found = file.read_sets(functions) if functions else []
    sets = found if isinstance(found, list) else [found]
    responses = [item for item in sets if item["func_type"] == _TIME_RESPONSE]
    if not responses:
        raise UnreadableError("contains no time response (data set 58, function type 1); export the time signal")
    return _to_content(responses)


def _to_content(responses: list[dict[str, Any]]) -> Content:
    shapes = {(item["num_pts"], item["abscissa_inc"]) for item in responses}
    if len(shapes) > 1 or any(item["abscissa_spacing"] != 1 for item in responses):
        raise UnreadableError("channels differ in length or time step; export evenly sampled channels of equal length")
    if any(len(item["data"]) < item["num_pts"] for item in responses):
        raise UnreadableError("contains fewer samples than it declares; copy or export it again")
    step = responses[0]["abscissa_inc"]
    units = tuple(normalize_unit(item["ordinate_axis_units_lab"]) for item in responses)
    return Content(
        signal=np.stack([item["data"] for item in responses]),
        sampling_rate_hz=round_if_close(1 / step) if step > 0 else None,
        channels=distinct([_channel_name(item) for item in responses]),
        channel_units=units,
    )


def _channel_name(item: dict[str, Any]) -> str:
    return f"{item['rsp_node']}{_DIRECTIONS.get(item['rsp_dir'], item['rsp_dir'])}"
