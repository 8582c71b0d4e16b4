"""Folder layouts of well-known public data sets: what the names of folders and files say about a recording."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from whirl.data.manifest import Entry
from whirl.physics.bearings import GEOMETRY_FIELDS, format_fields

# Folders that split a data set into parts, in lower case without separators. They are not classes.
_PARTS = {
    "train", "training", "trainset", "trainingset", "learningset", "test", "testing", "testset", "fulltestset", "val",
    "valid", "validation", "validationset", "dev", "eval",
}  # fmt: skip
# A speed, a load or both: "35Hz12kN", "1500rpm_2hp", "900", "load 3".
_NUMBER = r"\d+(?:[.,]\d+)?"
_CONDITION = re.compile(
    rf"(?:(?:(?:load|speed|rpm)[-_ ]?{_NUMBER}|[nmf]\d\d+|{_NUMBER}[ _]?(?:rpm|hz|kn|n|nm|hp|kw|w|lbs))[-_ ]*)+", re.I
)


@dataclass(frozen=True)
class Layout:
    """A public data set that is recognized by the names of its folders and files.

    Attributes:
        name: short name of the data set.
        pattern: full match of the end of a recording's path, with named groups.
        facts: function of the groups that returns fields of `Entry`.
        skip: paths that are not vibration recordings of the data set.
    """

    name: str
    pattern: re.Pattern[str]
    facts: Callable[[Mapping[str, str]], dict[str, Any]]
    skip: re.Pattern[str] | None = None


def recognize_layout(folder: Path, paths: Sequence[Path]) -> list[Entry] | None:
    """Return the entries of a public data set; None if the files are not named like any of them.

    Every file must be named like a recording of the data set, or be one that it has besides.

    Args:
        folder: folder of the data set.
        paths: its files.

    Example:
        >>> paths = [Path("jnu/ib600_2.csv"), Path("jnu/n1000_3_2.csv")]
        >>> [(entry.label, entry.rpm) for entry in recognize_layout(Path("jnu"), paths)]
        [('inner_race', 600.0), ('healthy', 1000.0)]
    """
    for layout in LAYOUTS:
        entries = _entries(layout, folder, paths)
        if entries:
            return entries
    return None


def _entries(layout: Layout, folder: Path, paths: Sequence[Path]) -> list[Entry]:
    entries = []
    for path in paths:
        # The folder's own name is part of some layouts.
        place = PurePosixPath(folder.resolve().name) / PurePosixPath(path.relative_to(folder).as_posix())
        match = re.search(rf"(?:^|/)(?:{layout.pattern.pattern})$", str(place), layout.pattern.flags)
        if match:
            facts = layout.facts({key: value or "" for key, value in match.groupdict().items()})
            metadata = {"data_set": layout.name} | facts.get("metadata", {})
            fields: Any = facts | {"metadata": metadata}
            entries.append(replace(Entry(path, label=""), **fields))
        elif layout.skip is None or not layout.skip.search(str(place)):
            return []
    return entries


def part_of(name: str) -> bool:
    """Return whether a folder name is that of a part of a data set, such as `train` or `Learning_set`.

    Example:
        >>> part_of("Learning_set"), part_of("inner_race")
        (True, False)
    """
    return re.sub(r"[\W_]", "", name).lower() in _PARTS


def is_condition(name: str) -> bool:
    """Return whether a folder name states an operating condition only, such as `35Hz12kN`.

    Example:
        >>> is_condition("35Hz12kN"), is_condition("1500 rpm"), is_condition("ball_07")
        (True, True, False)
    """
    return len(name) <= 40 and _CONDITION.fullmatch(name) is not None


def _geometry(n_elements: int, ball_mm: float, pitch_mm: float, angle_deg: float = 0.0) -> str:
    return format_fields(GEOMETRY_FIELDS, (n_elements, ball_mm, pitch_mm, angle_deg))


_LETTERS = {
    "H": "healthy", "N": "healthy", "I": "inner_race", "O": "outer_race", "B": "ball", "C": "combined",
    "IB": "inner_race_ball", "IO": "inner_race_outer_race", "OB": "outer_race_ball",
}  # fmt: skip


def _paderborn(found: Mapping[str, str]) -> dict[str, Any]:
    label = {"K0": "healthy", "KA": "outer_race", "KI": "inner_race", "KB": "combined"}[found["bearing"][:2]]
    return {
        "label": label,
        "specimen": found["bearing"],
        "load": int(found["torque"]) / 10,
        "load_unit": "Nm",
        "bearing": "6203",
        "metadata": {
            "radial_force_n": int(found["force"]) * 100,
            "nominal_rpm": int(found["speed"]) * 100,
            "repetition": int(found["repetition"]),
        },
    }


def _mfpt(found: Mapping[str, str]) -> dict[str, Any]:
    kind = found["kind"].lower()
    label = "healthy" if kind == "baseline" else "outer_race" if kind.startswith("outer") else "inner_race"
    return {"label": label, "bearing": _geometry(8, 5.9690, 31.6230)}


def _xjtu(found: Mapping[str, str]) -> dict[str, Any]:
    rpm, load = {"35": (2100, 12), "37.5": (2250, 11), "40": (2400, 10)}[found["hz"]]
    return {
        "specimen": found["run"],
        "rpm": float(rpm),
        "load": float(load),
        "load_unit": "kN",
        "sampling_rate_hz": 25_600.0,
        "unit": "g",
        "channels": ("horizontal", "vertical"),
        "bearing": _geometry(8, 7.92, 34.55),
        "metadata": {"snapshot": int(found["snapshot"]), "time_s": 60.0 * (int(found["snapshot"]) - 1)},
    }


def _ims(found: Mapping[str, str]) -> dict[str, Any]:
    time = datetime.strptime(found["time"], "%Y.%m.%d.%H.%M.%S")
    channels = [f"bearing{b}_{axis}" for b in range(1, 5) for axis in "xy"] if found["test"] == "1" else []
    return {
        "specimen": f"test{found['test']}",
        "rpm": 2000.0,
        "load": 6000.0,
        "load_unit": "lbs",
        "sampling_rate_hz": 20_000.0,
        "channels": tuple(channels or [f"bearing{b}" for b in range(1, 5)]),
        "bearing": _geometry(16, 8.4074, 71.501, 15.17),
        "metadata": {"time": time.isoformat()},
    }


def _femto(found: Mapping[str, str]) -> dict[str, Any]:
    rpm, load = {"1": (1800, 4000), "2": (1650, 4200), "3": (1500, 5000)}[found["condition"]]
    return {
        "specimen": found["run"],
        "rpm": float(rpm),
        "load": float(load),
        "load_unit": "N",
        "sampling_rate_hz": 25_600.0,
        "unit": "g",
        "channels": ("horizontal", "vertical"),
        "bearing": _geometry(13, 3.5, 25.6),
        "metadata": {
            "part": found["part"],
            "snapshot": int(found["snapshot"]),
            "time_s": 10.0 * (int(found["snapshot"]) - 1),
        },
    }


def _jnu(found: Mapping[str, str]) -> dict[str, Any]:
    label = {"n": "healthy", "ib": "inner_race", "ob": "outer_race", "tb": "ball"}[found["fault"].lower()]
    return {"label": label, "rpm": float(found["rpm"]), "sampling_rate_hz": 50_000.0, "channels": ("vertical",)}


_SEU_LABELS = {
    "health": "healthy", "ball": "ball", "inner": "inner_race", "outer": "outer_race", "comb": "combined",
    "chipped": "gear_chipped", "miss": "gear_missing_tooth", "root": "gear_root_crack", "surface": "gear_wear",
}  # fmt: skip
_SEU_CHANNELS = (
    "motor_vibration", "planetary_x", "planetary_y", "planetary_z", "motor_torque", "parallel_x", "parallel_y",
    "parallel_z",
)  # fmt: skip


def _seu(found: Mapping[str, str]) -> dict[str, Any]:
    return {
        "label": _SEU_LABELS[found["state"].lower()],
        "rpm": 60.0 * int(found["hz"]),
        "load": float(found["load"]),
        "load_unit": "V",
        "sampling_rate_hz": 5_120.0,
        "unit": "V",
        "channels": _SEU_CHANNELS,
        "metadata": {"subset": found["subset"]},
    }


_HUST_GEOMETRY = {
    "4": (8, 7.6, 33.5), "5": (9, 7.8, 38.5), "6": (9, 9.0, 46.0), "7": (9, 11.0, 53.5), "8": (9, 12.0, 60.0),
}  # fmt: skip


def _hust(found: Mapping[str, str]) -> dict[str, Any]:
    return {
        "label": _LETTERS[found["fault"]],
        "specimen": found["fault"] + found["type"],
        "load": 100.0 * int(found["load"]),
        "load_unit": "W",
        "bearing": _geometry(*_HUST_GEOMETRY[found["type"]]),
    }


def _ottawa(found: Mapping[str, str]) -> dict[str, Any]:
    profile = {"A": "increasing", "B": "decreasing", "C": "inc_dec", "D": "dec_inc"}[found["profile"]]
    return {
        "label": _LETTERS[found["fault"]],
        "bearing": _geometry(9, 7.94, 38.52),
        "metadata": {"speed_profile": profile, "trial": int(found["trial"])},
    }


def _uored(found: Mapping[str, str]) -> dict[str, Any]:
    label = "cage" if found["fault"] == "C" else _LETTERS[found["fault"]]
    stage = ("healthy", "developing", "faulty")[int(found["stage"])]
    return {
        # The first recording of each bearing was made before the damage.
        "label": "healthy" if found["stage"] == "0" else label,
        "specimen": f"bearing {found['bearing']}",
        "bearing": _geometry(8, 6.77, 28.5),
        "metadata": {"severity": stage},
    }


_MAFAULDA_CHANNELS = (
    "tachometer", "underhang_axial", "underhang_radial", "underhang_tangential", "overhang_axial", "overhang_radial",
    "overhang_tangential", "microphone",
)  # fmt: skip
_MAFAULDA_LABELS = {
    "normal": "healthy", "imbalance": "imbalance", "horizontal-misalignment": "misalignment",
    "vertical-misalignment": "misalignment", "ball_fault": "ball", "cage_fault": "cage", "outer_race": "outer_race",
}  # fmt: skip


def _mafaulda(found: Mapping[str, str]) -> dict[str, Any]:
    kind = found["fault"] or found["kind"]
    severity = found["severity"]
    metadata = {"position": found["kind"]} if found["fault"] else {}
    return {
        "label": _MAFAULDA_LABELS[kind],
        "rpm": 60.0 * float(found["hz"]),
        "sampling_rate_hz": 50_000.0,
        "unit": "V",
        "channels": _MAFAULDA_CHANNELS,
        "bearing": "bpfo=2.998, bpfi=5.002, bsf=1.871, ftf=0.375",
        "metadata": metadata | ({"severity": severity} if severity else {}) | {"kind": kind},
    }


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "paderborn",
        re.compile(
            r"N(?P<speed>\d\d)_M(?P<torque>\d\d)_F(?P<force>\d\d)_"
            r"(?P<bearing>K(?:[AIB]\d\d|0\d\d))_(?P<repetition>\d+)\.mat"
        ),
        _paderborn,
    ),
    Layout(
        "mfpt",
        re.compile(r"(?P<kind>baseline|OuterRaceFault|OuterRaceFault_vload|InnerRaceFault_vload)_\d+\.mat", re.I),
        _mfpt,
        skip=re.compile(r"(?:^|/)(?:5 - |6 - |7 - )"),
    ),
    Layout(
        "xjtu_sy",
        re.compile(r"(?P<hz>35|37\.5|40)Hz(?:12|11|10)kN/(?P<run>Bearing[1-3]_[1-5])/(?P<snapshot>\d+)\.csv"),
        _xjtu,
    ),
    Layout(
        "ims",
        re.compile(r"(?P<test>[1-4])(?:st|nd|rd|th)_test/(?:4th_test/)?(?:txt/)?(?P<time>\d{4}(?:\.\d\d){5})"),
        _ims,
    ),
    Layout(
        "femto",
        re.compile(r"(?P<part>\w*set)/(?P<run>Bearing(?P<condition>[1-3])_[1-7])/acc_(?P<snapshot>\d{5})\.csv", re.I),
        _femto,
        skip=re.compile(r"/temp_\d{5}\.csv$"),
    ),
    Layout("jnu", re.compile(r"(?P<fault>n|ib|ob|tb)(?P<rpm>600|800|1000)_\d+(?:_\d+)?\.csv", re.I), _jnu),
    Layout(
        "seu",
        re.compile(r"(?P<subset>bearingset|gearset)/(?P<state>[A-Za-z]+)_(?P<hz>20|30)_(?P<load>[02])\.csv"),
        _seu,
    ),
    Layout("hust", re.compile(r"(?P<fault>N|I|O|B|IB|IO|OB)(?P<type>[4-8])0(?P<load>[024])\.mat"), _hust),
    Layout("ottawa_2018", re.compile(r"(?P<fault>[HIOBC])-(?P<profile>[ABCD])-(?P<trial>\d)\.mat"), _ottawa),
    Layout("ottawa_uored", re.compile(r"(?P<fault>[HIOBC])_(?P<bearing>\d+)_(?P<stage>[012])\.mat"), _uored),
    Layout(
        "mafaulda",
        re.compile(
            r"(?P<kind>normal|imbalance|horizontal-misalignment|vertical-misalignment|underhang|overhang)"
            r"(?:/(?P<fault>ball_fault|cage_fault|outer_race))?(?:/(?P<severity>[\d.]+(?:g|mm)))?/(?P<hz>\d+\.\d+)\.csv"
        ),
        _mafaulda,
    ),
)
"""Known layouts, in the order in which they are tried."""
