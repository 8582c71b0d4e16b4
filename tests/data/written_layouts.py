"""Writers of generated layouts, one for each kind of file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.data.generated_layouts import Layout


def vectors(layout: Layout) -> bool:
    """Return whether all arrays are real vectors of one length, as in a table."""
    arrays = [v for v in layout.variables.values() if isinstance(v, np.ndarray)]
    real = all(array.dtype.kind != "c" and array.size == max(array.shape) for array in arrays)
    return real and len({array.size for array in arrays}) == 1


def write_npz(path: Path, layout: Layout, rng: np.random.Generator) -> None:
    np.savez(path, **layout.variables)


def write_hdf5(path: Path, layout: Layout, rng: np.random.Generator) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for name, value in layout.variables.items():
            group, _, leaf = name.rpartition("/") if "[" not in name else split_path(name)
            place = file.require_group(group) if group else file
            leaf, _, unit = leaf.partition(" [") if "/" in leaf else (leaf, "", "")
            if isinstance(value, (str, float)) and rng.random() < 0.5:
                place.attrs[leaf] = value
                continue
            place[leaf] = value
            if unit:  # a name cannot contain a slash
                place[leaf].attrs["unit"] = unit.rstrip("]")


def split_path(name: str) -> tuple[str, str, str]:
    head, _, unit = name.partition(" [")
    group, _, leaf = head.rpartition("/")
    return group, "/", f"{leaf} [{unit}"


def write_mat(path: Path, layout: Layout, rng: np.random.Generator) -> None:
    """Write nested structures; names of MATLAB contain no spaces and units."""
    from scipy.io import savemat

    tree: dict[str, Any] = {}
    for name, value in layout.variables.items():
        group, _, leaf = split_path(name) if "[" in name else name.rpartition("/")
        place = tree
        for part in filter(None, group.split("/")):
            place = place.setdefault(part.replace(" ", "_"), {})
        place[leaf.replace(" ", "_").replace("µ", "u")] = value
    savemat(path, tree, do_compression=bool(rng.random() < 0.3))


def write_parquet(path: Path, layout: Layout, rng: np.random.Generator) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {name: value.ravel() for name, value in layout.variables.items() if isinstance(value, np.ndarray)}
    facts = {name: str(value) for name, value in layout.variables.items() if not isinstance(value, np.ndarray)}
    pq.write_table(pa.table(arrays).replace_schema_metadata(facts), path)


def write_csv(path: Path, layout: Layout, rng: np.random.Generator) -> None:
    arrays = {name: value.ravel() for name, value in layout.variables.items() if isinstance(value, np.ndarray)}
    separator, decimal = [(",", "."), (";", "."), (";", ","), ("\t", ".")][int(rng.integers(4))]
    mark = str(rng.choice(["", "# ", "; ", "% "]))
    lines = [f"{mark}{name}: {value}" for name, value in layout.variables.items() if not isinstance(value, np.ndarray)]
    lines.append(separator.join(arrays))
    rows = zip(*arrays.values(), strict=True)
    lines += [separator.join(repr(value.item()).replace(".", decimal) for value in row) for row in rows]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def write_tdms(path: Path, layout: Layout, rng: np.random.Generator) -> None:
    from nptdms import ChannelObject, GroupObject, RootObject, TdmsWriter

    groups: dict[str, dict[str, Any]] = {}
    for name, value in layout.variables.items():
        group, _, leaf = split_path(name) if "[" in name else name.rpartition("/")
        group = group.removesuffix("/info")  # groups are not nested
        groups.setdefault(group, {})[leaf] = value
    objects: list[Any] = []
    for group, values in groups.items():
        facts = {leaf: value for leaf, value in values.items() if not isinstance(value, np.ndarray)}
        objects.append(GroupObject(group.replace("/", " ") or "all", facts))
        for leaf, value in values.items():
            if isinstance(value, np.ndarray):
                objects.append(
                    ChannelObject(group.replace("/", " ") or "all", leaf, np.ascontiguousarray(value.ravel()), {})
                )
    with TdmsWriter(path) as writer:
        writer.write_segment([RootObject({"title": "x"}), *objects])


def write_gz(path: Path, layout: Layout, rng: np.random.Generator) -> None:
    import gzip

    write_csv(path, layout, rng)
    path.write_bytes(gzip.compress(path.read_bytes(), 1))


def write_npy(path: Path, layout: Layout, rng: np.random.Generator) -> None:
    """Write a structured array; its fields are the columns of a table."""
    arrays = {name: value.ravel() for name, value in layout.variables.items()}
    table = np.zeros(len(next(iter(arrays.values()))), dtype=[(name, each.dtype) for name, each in arrays.items()])
    for name, each in arrays.items():
        table[name] = each
    np.save(path, table)


def write_wav(path: Path, layout: Layout, rng: np.random.Generator) -> None:
    from scipy.io import wavfile

    layout.truth.is_rate_stated = True
    rows = np.stack([samples.astype(np.float32) for samples in layout.truth.channels.values()])
    wavfile.write(path, int(layout.truth.rate), rows.T)


def write_uff(path: Path, layout: Layout, rng: np.random.Generator) -> None:
    from pyuff import UFF, prepare_58

    truth, binary = layout.truth, int(rng.integers(2))
    truth.is_rate_stated = True
    sets = [
        prepare_58(
            binary=binary, func_type=1, rsp_node=int(rng.integers(1, 3)), rsp_dir=int(rng.integers(-3, 4)), ref_node=0,
            ref_dir=0, data=samples.astype(float), x=np.arange(samples.size) / truth.rate, id1="run", id2="", id3="",
            id4="", id5="", abscissa_spacing=1, abscissa_min=0.0, abscissa_inc=1 / truth.rate,
            abscissa_spec_data_type=17, ordinate_spec_data_type=12, ordinate_axis_units_lab=truth.unit or "NONE",
            orddenom_spec_data_type=0, z_axis_spec_data_type=0, ver_num=0, load_case_id=0, rsp_ent_name="NONE",
            ref_ent_name="NONE", num_pts=samples.size, ord_data_type=4,
        )
        for samples in truth.channels.values()
    ]  # fmt: skip
    UFF(str(path)).write_sets(sets, "add")


def write_mdf(path: Path, layout: Layout, rng: np.random.Generator) -> None:
    """Write one group with the channels, and groups of other rates before or after it."""
    from asammdf import MDF, Signal

    truth = layout.truth
    truth.is_rate_stated = True
    times = np.arange(next(iter(truth.channels.values())).size) / truth.rate
    groups = [[Signal(samples.ravel(), times, name=name, unit=truth.unit) for name, samples in truth.channels.items()]]
    if rng.random() < 0.3:
        groups[0].append(Signal(np.arange(times.size), times, name="counter"))
    for rate in rng.choice([0.5, 1.0, 10.0], size=int(rng.integers(0, 3)), replace=False):
        slow = rng.normal(size=int(rng.choice([40, 300, times.size])))
        groups.append([Signal(slow, np.arange(slow.size) / rate, name="temperature", unit="°C")])
    with MDF(version="4.10") as file:
        for index in rng.permutation(len(groups)):
            file.append(groups[index])
        saved = file.save(path.with_suffix(".tmp"), overwrite=True)
    Path(saved).replace(path)


def write_lvm(path: Path, layout: Layout, rng: np.random.Generator) -> None:
    truth, decimal, n = layout.truth, str(rng.choice([".", ","])), next(iter(layout.truth.channels.values())).size
    truth.is_rate_stated = True
    per_channel = {"Samples": n, "Y_Unit_Label": truth.unit, "X_Dimension": "Time", "Delta_X": repr(1 / truth.rate)}
    lines = ["LabVIEW Measurement\t", "Separator\tTab", f"Decimal_Separator\t{decimal}", "X_Columns\tOne",
             "***End_of_Header***\t", "\t", f"Channels\t{len(truth.channels)}\t",
             *("\t".join([key, *[str(value).replace(".", decimal)] * len(truth.channels)])
               for key, value in per_channel.items()),
             "***End_of_Header***\t", "\t".join(["X_Value", *truth.channels, "Comment"])]  # fmt: skip
    for index, row in enumerate(zip(*truth.channels.values(), strict=True)):
        cells = [repr(index / truth.rate), *(repr(value.item()) for value in row), ""]
        lines.append("\t".join(cells).replace(".", decimal))
    path.write_text("\n".join([*lines, ""]))


def fits_plain(layout: Layout) -> bool:
    """Return whether there is nothing but the channels."""
    return not layout.decoys and layout.truth.rpm is None


def fits_tdms(layout: Layout) -> bool:
    arrays = [value for value in layout.variables.values() if isinstance(value, np.ndarray)]
    return all(array.size == max(array.shape) and array.dtype.kind != "c" for array in arrays)


CONTAINERS: dict[str, tuple[Callable[[Path, Layout, np.random.Generator], None], bool, Callable[[Layout], bool]]] = {
    # suffix: (writer, nested, layouts that it can hold)
    ".npz": (write_npz, True, lambda layout: True),
    ".h5": (write_hdf5, True, lambda layout: True),
    ".mat": (write_mat, True, lambda layout: True),
    ".parquet": (write_parquet, False, vectors),
    ".csv": (write_csv, False, vectors),
    ".tdms": (write_tdms, True, fits_tdms),
    ".csv.gz": (write_gz, False, vectors),
    ".npy": (write_npy, False, lambda layout: vectors(layout) and all(
        isinstance(value, np.ndarray) for value in layout.variables.values())),
    ".wav": (write_wav, False, lambda layout: (
        fits_plain(layout) and not layout.truth.unit and layout.truth.rate % 1 == 0)),
    ".uff": (write_uff, False, fits_plain),
    ".mf4": (write_mdf, False, fits_plain),
    ".lvm": (write_lvm, False, fits_plain),
}  # fmt: skip
