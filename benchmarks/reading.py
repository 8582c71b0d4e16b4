"""Reading speed in each format, compared with the format's own library alone.

Why: finding out what is signal, time or label in a file must not cost more than reading it.

What: files of about 100 MB of float64 noise in 4 channels, read by `whirl.data.read` and by the library that whirl
uses, in alternation; medians of the ratios. The library's time ends with the samples in memory as float32. For MATLAB
v7.3, a file of 5000 small variables is compared with visiting its objects by h5py.

    python benchmarks/reading.py --megabytes 100
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _harness import configure, make_parser, measure, median_ratio, print_medians, print_results

from whirl.data import read

RATE_HZ = 25_600.0
CHANNELS = ("DE", "FE", "BA", "motor")
FORMATS = ("npy", "npz", "mat", "h5", "parquet", "csv", "wav", "tdms", "mf4")
GOALS = {f"{name}_vs_library": "<= 1.3" for name in FORMATS} | {"objects_vs_visit": "<= 1.5"}


def to_float32(rows: Any) -> np.ndarray:
    return np.ascontiguousarray(rows, dtype=np.float32)


def npy(path: Path, rows: np.ndarray) -> Callable[[], Any]:
    np.save(path, rows)
    return lambda: to_float32(np.load(path, mmap_mode="c"))


def npz(path: Path, rows: np.ndarray) -> Callable[[], Any]:
    np.savez(path, signal=rows, fs=RATE_HZ)
    return lambda: to_float32(np.load(path)["signal"])


def mat(path: Path, rows: np.ndarray) -> Callable[[], Any]:
    from scipy.io import loadmat, savemat

    savemat(path, {"vib": rows.T, "fs": RATE_HZ})
    return lambda: to_float32(loadmat(path)["vib"].T)


def h5(path: Path, rows: np.ndarray) -> Callable[[], Any]:
    import h5py

    with h5py.File(path, "w") as file:
        file["vib"], file.attrs["fs"] = rows, RATE_HZ

    def library() -> Any:
        with h5py.File(path) as file:
            return to_float32(file["vib"][()])

    return library


def parquet(path: Path, rows: np.ndarray) -> Callable[[], Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(dict(zip(CHANNELS, rows, strict=True))), path)

    def library() -> Any:
        table = pq.read_table(path)
        return to_float32(np.stack([table[name].to_numpy() for name in CHANNELS]))

    return library


def csv(path: Path, rows: np.ndarray) -> Callable[[], Any]:
    import pandas as pd

    rows = rows[:, : rows.shape[1] // 2]  # a number takes about 16 bytes as text
    pd.DataFrame(rows.T, columns=CHANNELS).to_csv(path, index=False, float_format="%.9g")
    return lambda: to_float32(pd.read_csv(path).to_numpy().T)


def wav(path: Path, rows: np.ndarray) -> Callable[[], Any]:
    from scipy.io import wavfile

    wavfile.write(path, int(RATE_HZ), rows.T.astype(np.float32))
    return lambda: to_float32(wavfile.read(path)[1].T)


def tdms(path: Path, rows: np.ndarray) -> Callable[[], Any]:
    from nptdms import ChannelObject, TdmsFile, TdmsWriter

    with TdmsWriter(path) as writer:
        properties = {"wf_increment": 1 / RATE_HZ}
        writer.write_segment([ChannelObject("g", n, row, properties) for n, row in zip(CHANNELS, rows, strict=True)])

    def library() -> Any:
        group = TdmsFile.read(path)["g"]
        return to_float32(np.stack([group[name][:] for name in CHANNELS]))

    return library


def mf4(path: Path, rows: np.ndarray) -> Callable[[], Any]:
    from asammdf import MDF, Signal

    times = np.arange(rows.shape[1]) / RATE_HZ
    with MDF(version="4.10") as file:
        file.append([Signal(row, times, name=name) for name, row in zip(CHANNELS, rows, strict=True)])
        file.save(path, overwrite=True)

    def library() -> Any:
        with MDF(str(path)) as file:
            return to_float32(np.stack([file.get(name).samples for name in CHANNELS]))

    return library


def objects(path: Path) -> Callable[[], Any]:
    """Write a MATLAB v7.3 file of 5000 variables and a signal; return a visit of its objects."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        for index in range(5000):
            file[f"group{index // 100}/value{index}"] = float(index)
        file["vib"], file["fs"] = np.random.default_rng(0).normal(size=4096), RATE_HZ

    def visit() -> list[tuple[str, list[Any], Any]]:
        found: list[tuple[str, list[Any], Any]] = []
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item: found.append(
                    (name, list(item.attrs.items()), item[()] if isinstance(item, h5py.Dataset) else None)
                )
            )
        return found

    return visit


def main() -> None:
    """Print the ratios as JSON."""
    parser = make_parser(__doc__, rounds=7)
    parser.add_argument("--megabytes", type=float, default=100.0, help="size of the samples of a file")
    arguments = parser.parse_args()
    configure()
    warnings.simplefilter("ignore")
    rows = np.random.default_rng(0).normal(size=(len(CHANNELS), int(arguments.megabytes * 1e6 / 8 / len(CHANNELS))))
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in FORMATS:
            path = Path(folder) / f"a.{name}"
            library = globals()[name](path, rows)
            ratios[f"{name}_vs_library"] = compare(
                name, lambda path=path: read(path, sampling_rate_hz=RATE_HZ), library, arguments
            )
            path.unlink()
        path = Path(folder) / "a.mat"
        visit = objects(path)
        ratios["objects_vs_visit"] = compare("objects", lambda: read(path), visit, arguments)
    print_results(ratios, GOALS)


def compare(name: str, ours: Callable[[], Any], library: Callable[[], Any], arguments: Any) -> float:
    """Return the median ratio of our time to that of the library."""
    seconds = measure({"whirl": ours, "library": library}, arguments.rounds)
    print(name)
    print_medians(seconds)
    return median_ratio(seconds["whirl"], seconds["library"])


if __name__ == "__main__":
    main()
