"""Public data sets by name, from folders that the package `bearing-datasets` built.

`bearing-datasets build cwru` downloads a public data set, checks it and stores it in one layout. Nothing is downloaded
here: `dataset:cwru` reads a folder that is already built. https://github.com/VictorBauler/BearingDatasets
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from whirl._distribution import install_hint
from whirl.data.manifest import Entry
from whirl.data.names import DATASET_PREFIX as PREFIX
from whirl.data.reading import Content, to_recording
from whirl.data.recording import Recording
from whirl.data.units import VIBRATION
from whirl.physics.bearings import ORDER_FIELDS, format_fields
from whirl.validation import unknown_name

logger = logging.getLogger(__name__)

_LABELS = {
    "normal": "healthy", "inner": "inner_race", "outer": "outer_race", "rolling_element": "ball",
    "unbalance": "imbalance", "looseness": "clearance",
}  # fmt: skip
# Columns that describe the storage or single channels.
_STORAGE = {
    "dataset", "signal_id", "recording_id", "channel", "fs", "n_samples", "signal_file", "signal_row_group",
    "signal_row", "unit", "speed_rpm", "load", "load_unit", "bearing_id", *ORDER_FIELDS,
}  # fmt: skip
# Without bearings in the table, recordings that agree in these are taken for one specimen.
_FAULT_COLUMNS = ("fault_type", "fault_location", "fault_origin", "fault_severity", "fault_size_mm", "run_id")
_UNKNOWN = ("unknown", "none", "", "nan")


@dataclass(frozen=True)
class PublicSet:
    """A public data set.

    Attributes:
        name: name for `dataset:NAME`.
        title: description in one line.
        is_built: whether it can be read.
    """

    name: str
    title: str
    is_built: bool


@dataclass(frozen=True)
class _PublicEntry(Entry):
    """A recording of a public data set; its samples are read when it is read."""

    dataset: Any = None
    rows: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    def read_all(self, sampling_rate_hz: float | None = None) -> list[Recording]:
        rows, left_out = _rows_of_one_rate(self.rows)
        signals = [self.dataset.signal(row["signal_id"]) for row in rows]
        shared = min(map(len, signals))
        content = Content(
            np.stack([np.asarray(signal[:shared], dtype=np.float32) for signal in signals]),
            float(rows[0]["fs"]),
            tuple(str(row["channel"]) for row in rows),
            metadata=self.metadata | ({"left_out": left_out} if left_out else {}),
            channel_units=tuple(_unit(row) for row in rows),
        )
        bearing = _bearing(rows)
        return [
            to_recording(
                self.path,
                content,
                content.sampling_rate_hz,
                label=self.label or None,
                specimen=self.specimen,
                rpm=self.rpm,
                load=self.load,
                load_unit=self.load_unit,
                bearing=bearing,
            )
        ]


def list_public(root: str | Path | None = None) -> list[PublicSet]:
    """Return all data sets that the package knows, and private ones that are built.

    Args:
        root: folder of built data sets; None is that of `bearing-datasets root` or `BEARING_DATASETS_ROOT`.

    Raises:
        ImportError: the package is not installed.
    """
    library = _library()
    from bearing_datasets.build import load_spec

    folder = _root(root)
    built = {path.parent.name: path.parent for path in sorted(folder.glob("*/manifest.json"))} if folder else {}
    sets = [PublicSet(name, load_spec(name).get("title", ""), name in built) for name in library.list_datasets()]
    private = [name for name in built if name not in library.list_datasets()]
    return sets + [PublicSet(name, library.open(name, folder).manifest.get("title", ""), True) for name in private]


def public_entries(name: str, where: Mapping[str, Any] | None = None, root: str | Path | None = None) -> list[Entry]:
    """Return the recordings of a built data set; samples are read later.

    The specimen is the `bearing_id` of the data set. Where it has none, recordings of one run, or of the same fault,
    origin and size, count as one specimen, which is logged.

    Args:
        name: name of the data set, with or without `dataset:`.
        where: values of columns of its table, or lists of them, that recordings must have, e.g.
            `{"fault_origin": "real"}`.
        root: folder of built data sets, see `list_public`.

    Raises:
        ImportError: the package is not installed.
        FileNotFoundError: the data set is not built.
        ValueError: the name or a column is unknown, or no recording has the values.
    """
    dataset = _open(name.removeprefix(PREFIX), root)
    table = _selected(dataset.metadata(), where or {}, dataset.name)
    if "bearing_id" not in table.columns:
        logger.info(
            "%s does not state physical bearings; recordings of one run or fault are one specimen", dataset.name
        )
    return [
        _entry(dataset, str(recording), rows.to_dict("records"))
        for recording, rows in table.groupby("recording_id", sort=False)
    ]


def _library() -> Any:
    try:
        import bearing_datasets
    except ImportError as error:
        raise ImportError(f"public data sets need bearing-datasets: {install_hint('datasets')}") from error
    return bearing_datasets


def _root(root: str | Path | None) -> Path | None:
    return Path(root) if root else _library().get_root()[0]


def _open(name: str, root: str | Path | None) -> Any:
    library, folder = _library(), _root(root)
    if folder is not None and (folder / name / "manifest.json").is_file():
        return library.open(name, folder)
    known = library.list_datasets()
    if name not in known:
        raise ValueError(unknown_name("public data set", name, known))
    place = f"in {folder}" if folder else "and no folder is chosen (bearing-datasets root FOLDER)"
    raise FileNotFoundError(
        f"{PREFIX}{name}: is not built {place}; `bearing-datasets build {name}` downloads and builds it"
    )


def _selected(table: Any, where: Mapping[str, Any], name: str) -> Any:
    for column, wanted in where.items():
        if column not in table.columns:
            raise ValueError(f"{name}: {unknown_name('column', column, list(table.columns))}")
        values = wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
        table = table[table[column].astype(str).isin([str(value) for value in values])]
        if table.empty:
            raise ValueError(f"{PREFIX}{name}: no recording has {column} = {', '.join(map(str, values))}")
    return table


def _entry(dataset: Any, recording: str, rows: list[dict[str, Any]]) -> Entry:
    first = rows[0]
    return _PublicEntry(
        path=Path(f"{PREFIX}{dataset.name}/{recording}"),
        label=_label(str(first["fault_type"])),
        specimen=_specimen(dataset.name, first),
        rpm=_positive(first.get("speed_rpm")),
        load=_number(first.get("load")),
        load_unit=_text(first.get("load_unit")),
        metadata={
            key: value for key, value in first.items() if key not in _STORAGE and len({str(r[key]) for r in rows}) == 1
        },
        dataset=dataset,
        rows=tuple(rows),
    )


def _label(fault_type: str) -> str:
    """Return our names of the faults, joined by "+"; empty if the fault is unknown."""
    if fault_type in _UNKNOWN:
        return ""
    return "+".join(_LABELS.get(part, part) for part in fault_type.split("+"))


def _specimen(name: str, row: Mapping[str, Any]) -> str:
    if bearing := _text(row.get("bearing_id")):
        return f"{name}/{bearing}"
    return "/".join([name, *(str(row[column]) for column in _FAULT_COLUMNS if _text(row.get(column)))])


def _rows_of_one_rate(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Return the channels that have the sampling rate of the vibration, and descriptions of the others."""
    vibration = [row for row in rows if row.get("quantity") in VIBRATION] or list(rows)
    rate = max(float(row["fs"]) for row in vibration)
    chosen = [row for row in rows if float(row["fs"]) == rate]
    left_out = [f"{row['channel']} ({float(row['fs']):g} Hz)" for row in rows if float(row["fs"]) != rate]
    return chosen, left_out


def _bearing(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the bearings of the channels, by their fault orders, else by their designations."""
    orders = [tuple(_positive(row.get(name)) for name in ORDER_FIELDS) for row in rows]
    stated = dict.fromkeys(format_fields(ORDER_FIELDS, each) for each in orders if None not in each)  # type: ignore[arg-type]
    models = dict.fromkeys(_text(row.get("bearing_model")) for row in rows if _text(row.get("bearing_model")))
    return "; ".join(stated or models) or None


def _unit(row: Mapping[str, Any]) -> str:
    return {"counts": "", "normalized": "", "degC": "°C"}.get(unit := _text(row.get("unit")), unit)


def _text(value: Any) -> str:
    text = "" if value is None else str(value)
    return "" if text in _UNKNOWN else text


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _positive(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number > 0 else None
