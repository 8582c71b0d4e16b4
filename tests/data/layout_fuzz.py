"""Generated file layouts with a known signal: what is read must be that signal, its rate and its unit, or an error.

    python -m tests.data.layout_fuzz --seconds 600

Everything varies independently: container, nesting, names, order, shapes, number types, how the rate is stated and in
which unit, what else is in the file (counters, labels, time axes, slow and long arrays, spectra, limits of the speed,
facts of other arrays). An error is a correct answer; the share of errors is reported by container.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

RATES = (200.0, 512.0, 1000.0, 2048.0, 5120.0, 12_000.0, 25_600.0, 48_000.0, 51_200.0, 97_656.0, 200_000.0)
UNITS = ("", "g", "m/s^2", "mm/s", "V")
NAMES = ("DE", "FE", "acc_x", "acc z", "ch1", "sensor", "Bearing 1 Y", "Drive End", "A", "p", "Vertical", "motor")
SHARED_NAMES = ("signal", "vibration", "data", "samples")
RATE_NAMES = ("fs", "Fs", "sampling_rate", "Sampling Frequency", "sample rate", "sr", "SampleRate")
STEP_NAMES = ("dt", "wf_increment", "sample_interval", "Ts", "delta t")
TIME_NAMES = ("time", "t", "Time", "timestamp", "elapsed time")
GROUPS = ("run", "bearing", "measurement", "Test 1", "raw", "channel_A", "X7")


@dataclass
class Truth:
    """What was written."""

    channels: dict[str, np.ndarray]
    unit: str
    rate: float
    rpm: float | None = None
    is_rate_stated: bool = True
    companions: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Layout:
    """Variables of a file by path, in order."""

    variables: dict[str, Any]
    truth: Truth
    decoys: tuple[str, ...]


# ------------------------------------------------------------------------------------------------ generation


def make_layout(rng: np.random.Generator, *, nested: bool, with_decoys: bool = True) -> Layout:
    """Draw the variables of one file."""
    n = int(rng.integers(300, 4000))
    names = list(rng.permutation(NAMES)[: int(rng.integers(1, 4))])
    rate = float(rng.choice(RATES)) if rng.random() < 0.7 else float(np.round(rng.uniform(150, 2e5), 1))
    truth = Truth({name: noise(rng, n) for name in names}, str(rng.choice(UNITS)), rate)
    group = "/".join(rng.permutation(GROUPS)[: int(rng.integers(0, 4))]) if nested else ""
    prefix = f"{group}/" if group else ""
    variables = signal_variables(rng, truth, prefix, nested)
    variables |= rate_variables(rng, truth, prefix, n)
    if rng.random() < 0.4:
        truth.rpm = float(rng.integers(300, 6000))
        variables[prefix + str(rng.choice(["rpm", "shaft_rpm", "Motor RPM"]))] = truth.rpm
    decoys = []
    if with_decoys:
        for name, decoy in rng.permutation(np.array(list(DECOYS.items()), dtype=object))[: int(rng.integers(0, 4))]:
            found = decoy(rng, truth, prefix, n, nested)
            if found and not set(found) & set(variables):
                variables |= found
                decoys.append(name)
    order = rng.permutation(np.array(list(variables), dtype=object))
    return Layout({name: variables[name] for name in order}, truth, tuple(decoys))


def noise(rng: np.random.Generator, n: int) -> np.ndarray:
    samples = rng.normal(size=n)
    kind = rng.random()
    if kind < 0.2:
        return np.round(10.0 ** rng.integers(1, 4) * samples).astype(np.int32)
    samples = samples * 10.0 ** rng.integers(-3, 3) + rng.choice([0.0, 1.0])
    return samples if kind < 0.6 else samples.astype(np.float32)


def signal_variables(rng: np.random.Generator, truth: Truth, prefix: str, nested: bool) -> dict[str, Any]:
    """Return the channels as vectors or as one matrix, with their unit in the name, beside them, or for all."""
    unit = truth.unit
    if rng.random() < 0.6 or not nested:
        in_name = bool(unit) and rng.random() < 0.5
        variables = {f"{prefix}{name}{f' [{unit}]' if in_name else ''}": shaped(rng, samples)
                     for name, samples in truth.channels.items()}  # fmt: skip
        if unit and not in_name:
            variables |= {f"{prefix}unit": unit}
        return variables
    matrix = np.stack([samples.astype(np.float64) for samples in truth.channels.values()])
    truth.channels = dict(zip(truth.channels, matrix, strict=True))
    name = str(rng.choice(SHARED_NAMES))
    variables = {f"{prefix}{name}": matrix if rng.random() < 0.5 else matrix.T}
    return variables | ({f"{prefix}unit": unit} if unit else {})


def shaped(rng: np.random.Generator, samples: np.ndarray) -> np.ndarray:
    return samples[:, None] if rng.random() < 0.2 else samples[None] if rng.random() < 0.2 else samples


def rate_variables(rng: np.random.Generator, truth: Truth, prefix: str, n: int) -> dict[str, Any]:
    """Return how the sampling rate is stated; nothing if it is not."""
    place = prefix if rng.random() < 0.7 else f"{prefix}info/" if prefix else prefix
    rate = truth.rate
    rate_name, step_name, time_name = (str(rng.choice(each)) for each in (RATE_NAMES, STEP_NAMES, TIME_NAMES))
    ways: list[Callable[[], dict[str, Any]]] = [
        lambda: {place + rate_name: rate},
        lambda: {place + rate_name: f"{rate:g} Hz" if rate == float(f"{rate:g}") else f"{rate} Hz"},
        lambda: {place + rate_name: f"{rate / 1000:.10g} kHz"},
        lambda: {place + rate_name: f"{rate / 1000:.10g} kS/s"},
        lambda: {place + f"{rate_name} [kHz]": rate / 1000},
        lambda: {place + step_name: 1 / rate},
        lambda: {place + f"{step_name} [ms]": 1e3 / rate},
        lambda: {place + f"{step_name} (us)": 1e6 / rate},
        lambda: {place + rate_name: np.full(n, rate)},
        lambda: {prefix + f"{time_name} [s]": np.arange(n) / rate},
        lambda: {prefix + time_name: np.arange(n) / rate + rng.choice([0.0, 5.0])},
        lambda: {prefix + f"{time_name} [ms]": np.arange(n) / rate * 1e3},
        lambda: {prefix + f"{time_name} [µs]": np.arange(n) / rate * 1e6},
        lambda: {prefix + f"{time_name} [ns]": np.round(np.arange(n) / rate * 1e9)},
        lambda: {prefix + "timestamp": 1.7e9 + np.arange(n) / rate},
        lambda: {prefix + "timestamp": np.round(1.7e18 + 0 * np.arange(n)).astype(np.int64)
                 + np.round(np.arange(n) / rate * 1e9).astype(np.int64)},
    ]  # fmt: skip
    truth.is_rate_stated = bool(rng.random() < 0.9)
    return ways[int(rng.integers(len(ways)))]() if truth.is_rate_stated else {}


def other_group(prefix: str, nested: bool, name: str) -> str | None:
    """Return a group beside that of the signal."""
    if not nested or not prefix:
        return None
    parent = prefix.rstrip("/").rpartition("/")[0]
    return f"{parent}/{name}/" if parent else f"{name}/"


def slow_group(rng, truth, prefix, n, nested):
    place = other_group(prefix, nested, "slow")
    if place is None:
        return {}
    rate = float(rng.choice([0.1, 1.0, 10.0]))
    fact = {f"{place}fs": rate} if rng.random() < 0.5 else {f"{place}dt": 1 / rate}
    return {f"{place}temperature": 20 + np.abs(rng.normal(size=int(rng.choice([40, n // 3, n])))), **fact}


def fast_group(rng, truth, prefix, n, nested):
    place = other_group(prefix, nested, "other")
    if place is None:
        return {}
    return {f"{place}current": rng.normal(size=int(n * rng.choice([0.5, 1, 3]))), f"{place}fs": truth.rate * 2,
            f"{place}unit": "A", f"{place}rpm": 77.0}  # fmt: skip


def companion(rng, truth, prefix, n, nested):
    samples = rng.normal(size=n)
    truth.companions = {"extra [A]": samples}
    return {f"{prefix}extra [A]": samples}


DECOYS: dict[str, Callable[..., dict[str, Any]]] = {
    "counter": lambda rng, truth, prefix, n, nested: {prefix + str(rng.choice(["n", "index", "axis1", "counter"])):
                                                      np.arange(n) + int(rng.integers(2))},
    "labels": lambda rng, truth, prefix, n, nested: {prefix + str(rng.choice(["label", "y", "target", "class"])):
                                                     rng.integers(0, 4, n)},
    "few labels": lambda rng, truth, prefix, n, nested: {prefix + "labels": np.arange(70) % 4},
    "slow group": slow_group,
    "fast group": fast_group,
    "companion": companion,
    "longer": lambda rng, truth, prefix, n, nested: {prefix + "history": rng.normal(size=3 * n)},
    "shorter": lambda rng, truth, prefix, n, nested: {prefix + "trend": rng.normal(size=n // 2)},
    "parameters": lambda rng, truth, prefix, n, nested: {prefix + "orders": rng.normal(size=5)},
    "constant": lambda rng, truth, prefix, n, nested: {prefix + "setpoint": np.full(n, 3.5)},
    "monotone": lambda rng, truth, prefix, n, nested: {prefix + "total": np.cumsum(rng.random(n) + 0.01)},
    "frequencies": lambda rng, truth, prefix, n, nested: {prefix + str(rng.choice(["freq", "f"])):
                                                          np.linspace(0, truth.rate / 2, n)},
    "limits": lambda rng, truth, prefix, n, nested: {prefix + "max_rpm": 9999.0, prefix + "rated rpm": 8888.0},
    "notes": lambda rng, truth, prefix, n, nested: {prefix + "operator": "Ann", prefix + "gain_db": 3.0},
    "stack": lambda rng, truth, prefix, n, nested: {prefix + "stack": rng.normal(size=(7, 3, 300))},
    "other rate": lambda rng, truth, prefix, n, nested: {prefix + "display_rate": 25.0,
                                                         prefix + "nyquist": truth.rate / 2},
    "contradiction": lambda rng, truth, prefix, n, nested: (
        {prefix + "samplingrate": truth.rate * 3} if truth.is_rate_stated else {}),
    "spectrum": lambda rng, truth, prefix, n, nested: {prefix + "spectrum": np.fft.fft(rng.normal(size=n))},
}  # fmt: skip


# ------------------------------------------------------------------------------------------------ containers


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


# ------------------------------------------------------------------------------------------------ windows


def run_windows(seed: int, folder: Path) -> tuple[str, str]:
    """Write windows that were cut beforehand and read them; return the verdict and a message."""
    from whirl.data.reading import read_all

    rng = np.random.default_rng(seed)
    n_windows, n_channels, length = int(rng.integers(9, 60)), int(rng.integers(1, 5)), int(rng.integers(30, 400))
    windows = rng.normal(size=(n_windows, n_channels, length)).astype(np.float32)
    labels = rng.integers(0, 3, n_windows)
    array = windows if n_channels > 1 or rng.random() < 0.5 else windows[:, 0]
    array = (
        np.moveaxis(array, 0, -1) if rng.random() < 0.2 else np.swapaxes(array, -1, -2) if rng.random() < 0.2 else array
    )
    named = rng.random() < 0.8
    variables: dict[str, Any] = {str(rng.choice(["X", "x_train", "signals", "windows"])): array, "fs": 12_000.0}
    if named:
        variables[str(rng.choice(["y", "labels", "target", "class"]))] = (
            labels if rng.random() < 0.7 else labels[:, None]
        )
    if rng.random() < 0.3:
        variables["mean"] = windows.mean(axis=(1, 2))
    if rng.random() < 0.3:
        variables["features"] = rng.normal(size=(n_windows, 6))
    suffix = str(rng.choice([".npz", ".h5", ".mat"]))
    path = folder / f"{seed}{suffix}"
    CONTAINERS[suffix][0](path, Layout(variables, Truth({}, "", 12_000.0), ()), rng)
    shapes = {name: getattr(value, "shape", value) for name, value in variables.items()}
    try:
        recordings = read_all(path)
    except ValueError as error:
        return "refused", f"{error} {shapes}"
    finally:
        path.unlink()
    found = [(recording.label, recording.signal) for recording in recordings]
    right = len(found) == n_windows and all(
        label == str(truth) and signal.shape == window.shape and np.array_equal(signal, window)
        for (label, signal), truth, window in zip(found, labels, windows, strict=True)
    )
    return ("read", "") if right and named else ("wrong", f"windows {seed}{suffix} {shapes}")


# ------------------------------------------------------------------------------------------------ oracle


def check(path: Path, layout: Layout) -> tuple[str, str]:
    """Read a file; return ("read" or "refused", "") or ("wrong", what is wrong)."""
    from whirl.data.reading import read

    truth = layout.truth
    try:
        recording = read(path, sampling_rate_hz=None if truth.is_rate_stated else truth.rate)
    except ValueError as error:
        return ("refused", str(error)) if str(path) in str(error) else ("wrong", f"error without the path: {error}")
    if abs(recording.sampling_rate_hz / truth.rate - 1) > 1e-3:
        return "wrong", f"rate {recording.sampling_rate_hz} instead of {truth.rate}"
    if recording.rpm is not None and (truth.rpm is None or abs(recording.rpm / truth.rpm - 1) > 1e-6):
        return "wrong", f"rpm {recording.rpm} instead of {truth.rpm}"
    missing = {name: (samples, truth.unit) for name, samples in truth.channels.items()}
    allowed = {name: (samples, "A") for name, samples in truth.companions.items()}
    for row, unit, name in zip(recording.signal, recording.units, recording.channels, strict=True):
        match = next((key for key, (samples, _) in (missing | allowed).items() if same(row, samples)), None)
        if match is None:
            return "wrong", f"channel {name!r} was not written as a channel"
        if unit != (missing | allowed)[match][1]:
            return "wrong", f"channel {name!r} has the unit {unit!r} instead of {(missing | allowed)[match][1]!r}"
        missing.pop(match, None)
    return ("wrong", f"channels {list(missing)} are missing") if missing else ("read", "")


def same(row: np.ndarray, samples: np.ndarray) -> bool:
    return len(row) == samples.size and np.allclose(row, samples.astype(np.float32), rtol=1e-5, atol=1e-7)


def run_one(seed: int, folder: Path, *, with_decoys: bool = True) -> tuple[str, str, str, Layout]:
    """Generate, write and read one file; return its container, the verdict, a message and the layout."""
    rng = np.random.default_rng(seed)
    while True:
        suffix = str(rng.choice(list(CONTAINERS)))
        write, nested, fits = CONTAINERS[suffix]
        layout = make_layout(rng, nested=nested, with_decoys=with_decoys)
        if fits(layout):
            break
    path = folder / f"{seed}{suffix}"
    write(path, layout, rng)
    verdict, message = check(path, layout)
    path.unlink()
    return suffix, verdict, message, layout


def describe(seed: int, suffix: str, message: str, layout: Layout) -> str:
    """Return a finding in a few lines."""
    shapes = {name: value.shape if isinstance(value, np.ndarray) else value for name, value in layout.variables.items()}
    return f"seed {seed} {suffix}: {message}\n  decoys {layout.decoys}\n  {shapes}"


def main() -> None:
    """Run until the time is over, and report verdicts by container."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--show-refused", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    verdicts: Counter[tuple[str, str]] = Counter()
    end, seed = time.monotonic() + arguments.seconds, arguments.first_seed
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            suffix, verdict, message, layout = run_one(seed, Path(folder))
            verdicts[suffix, verdict] += 1
            if verdict == "wrong" or (arguments.show_refused and verdict == "refused"):
                print(describe(seed, suffix, message, layout), flush=True)
            verdict, message = run_windows(seed, Path(folder))
            verdicts["windows", verdict] += 1
            if verdict == "wrong" or (arguments.show_refused and verdict == "refused"):
                print(message, flush=True)
            seed += 1
    for (suffix, verdict), count in sorted(verdicts.items()):
        print(f"{suffix:9} {verdict:8} {count}")
    print(f"{sum(verdicts.values())} layouts, {sum(n for (_, v), n in verdicts.items() if v == 'wrong')} wrong")


if __name__ == "__main__":
    main()
