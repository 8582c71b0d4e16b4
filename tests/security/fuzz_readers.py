"""Fuzz the recording readers with atheris: mutate small valid files, guided by coverage of the Python code.

    nice -n 19 python tests/security/fuzz_readers.py --seconds 600 [--kinds .mat .h5] [--findings DIR]

Each kind of file gets an equal share of the time, in its own process. Expected errors are ImportError, and ValueError
with a one-line message that names the file. Inputs that raise anything else, crash the process, take more than 2 s or
need more than 700 MB are saved in the findings folder. After a fix, move the finding to `seeds/` next to this file,
where `test_seeds.py` reads it. The last line of output is JSON with the number of executions and the findings.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
MANIFEST = "manifest.csv"
MAX_BYTES, MAX_MB, MAX_S = 20_000, 700, 2.0
SIGNAL = np.random.default_rng(0).normal(size=(2, 40)).astype(np.float32)


# ------------------------------------------------------------------------------------------------ small valid files


def mat_files(folder: Path) -> Iterator[bytes]:
    from scipy.io import savemat

    cells = np.array([SIGNAL[0], "text", {"rpm": 1500.0, "x": np.arange(9)}], dtype=object)
    variables = {"vib": SIGNAL.T, "fs": 100.0, "rpm": 1500.0, "name": "run", "flags": np.array([True, False])}
    cwru = {"X105_DE_time": SIGNAL[0][:, None], "X105RPM": np.array([[1772]])}
    for contents in (variables, variables | {"info": {"a": {"b": SIGNAL}, "c": cells}}, cwru, {"z": SIGNAL * 1j}):
        for compressed in (False, True):
            file = io.BytesIO()
            savemat(file, contents, do_compression=compressed)
            yield file.getvalue()
    file = io.BytesIO()
    savemat(file, variables, format="4")
    yield file.getvalue()
    yield from hdf5_files(folder, 512)


def hdf5_files(folder: Path, userblock: int = 0) -> Iterator[bytes]:
    import h5py

    for library, filters in (("earliest", {}), ("latest", {"compression": "gzip", "shuffle": True})):
        path = folder / "a.h5"
        with h5py.File(path, "w", libver=library, userblock_size=userblock) as file:
            # Fixed-length strings: HDF5 itself allocates up to 4 GB for a variable-length string with a false length.
            file.attrs["fs"], file.attrs["rig"] = 100.0, np.bytes_("A")
            file.create_dataset("run/DE", data=SIGNAL[0], chunks=(16,) if filters else None, **filters)
            file["run/FE"] = SIGNAL[1]
            file["unit"] = np.array([[ord("g")]], dtype=np.uint16)
            file["unit"].attrs["MATLAB_class"] = np.bytes_("char")
            file["names"] = np.array([b"a", b"b"])
            file["loop"] = file["run"]
        data = bytearray(path.read_bytes())
        if userblock:
            data[:128] = b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + struct.pack("<H2s", 0x0200, b"IM")
        yield bytes(data)


def npy_files(folder: Path) -> Iterator[bytes]:
    table = np.zeros(40, dtype=[("t", "f8"), ("X", "f4"), ("Y", "i2")])
    for array in (SIGNAL, SIGNAL.T.astype(">f8"), table, np.asfortranarray(SIGNAL), np.arange(40, dtype=np.int16)):
        file = io.BytesIO()
        np.save(file, array)
        yield file.getvalue()


def npz_files(folder: Path) -> Iterator[bytes]:
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, signal=SIGNAL, fs=100, rpm=1500, channels=np.array(["a", "b"]), unit="g")
        yield file.getvalue()


def parquet_files(folder: Path) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    times = np.arange(40) / 100
    table = pa.table({"time": times, "DE [g]": SIGNAL[0], "n": np.arange(40), "text": ["a"] * 40})
    for compression in ("none", "snappy", "zstd"):
        file = io.BytesIO()
        pq.write_table(table, file, compression=compression)
        yield file.getvalue()


def tdms_files(folder: Path) -> Iterator[bytes]:
    from nptdms import ChannelObject, RootObject, TdmsWriter

    file = io.BytesIO()
    with TdmsWriter(file) as writer:
        for _ in range(2):
            rows = [
                ChannelObject("Log", name, row, {"wf_increment": 0.01}) for name, row in zip("ab", SIGNAL, strict=True)
            ]
            writer.write_segment([RootObject({"rpm": 1500.0, "name": "x"}), *rows])
    yield file.getvalue()


def uff_files(folder: Path) -> Iterator[bytes]:
    from pyuff import UFF, prepare_58

    for binary in (0, 1):
        path = folder / "a.uff"
        path.unlink(missing_ok=True)
        data = prepare_58(
            binary=binary, func_type=1, rsp_node=1, rsp_dir=1, ref_node=0, ref_dir=0, data=SIGNAL[0].astype(float),
            x=np.arange(40) / 100, id1="run", id2="", id3="", id4="", id5="", abscissa_spacing=1, abscissa_min=0.0,
            abscissa_inc=0.01, abscissa_spec_data_type=17, ordinate_spec_data_type=12, ordinate_axis_units_lab="g",
            orddenom_spec_data_type=0, z_axis_spec_data_type=0, ver_num=0, load_case_id=0, rsp_ent_name="NONE",
            ref_ent_name="NONE", num_pts=40, ord_data_type=4,
        )  # fmt: skip
        UFF(str(path)).write_sets([data, data], "add")
        yield path.read_bytes()


def wav_files(folder: Path) -> Iterator[bytes]:
    from scipy.io import wavfile

    for samples in (SIGNAL.T, (SIGNAL[0] * 1000).astype(np.int16), (SIGNAL.T * 1000).astype(np.int32)):
        file = io.BytesIO()
        wavfile.write(file, 100, samples)
        yield file.getvalue()


def text_files(folder: Path) -> Iterator[bytes]:
    rows = [f"{index / 100},{a:.4f},{b:.4f}" for index, (a, b) in enumerate(SIGNAL.T)]
    yield "\n".join(["time [s],DE (g),FE (g)", *rows, ""]).encode()
    yield "\r\n".join(["Rate: 25,6 kHz", "a;b;c", *(row.replace(",", ";") for row in rows), ""]).encode()
    yield "\n".join(row.replace(",", "\t").replace(".", ",") for row in rows).encode("utf-16")
    yield "\n".join(["# time (s) a b", *(row.replace(",", " ") for row in rows)]).encode()


def manifest_files(folder: Path) -> Iterator[bytes]:
    yield b"file,label,specimen,rpm,load,sampling_rate,channel_names,note\na.npy,wear,B1,1500,2 hp,100,X Y,[1]\n"
    yield "file;class;machine_id\na.npy;Größe;1\n".encode("cp1252")


KINDS: dict[str, Callable[[Path], Iterator[bytes]]] = {
    ".mat": mat_files,
    ".h5": hdf5_files,
    ".npy": npy_files,
    ".npz": npz_files,
    ".parquet": parquet_files,
    ".tdms": tdms_files,
    ".uff": uff_files,
    ".wav": wav_files,
    ".csv": text_files,
    MANIFEST: manifest_files,
}


# ------------------------------------------------------------------------------------------------ one kind, one process


def target(kind: str, folder: Path) -> tuple[Path, Callable[[], object]]:
    """Return the path to write an input to, and a function that reads it."""
    if kind == MANIFEST:
        from whirl.data.manifest import read_manifest

        np.save(folder / "a.npy", SIGNAL)
        return folder / MANIFEST, lambda: read_manifest(folder)
    from whirl.data.reading import read

    path = folder / f"input{kind}"
    return path, lambda: read(path, sampling_rate_hz=100.0)


def find_fault(path: Path, read: Callable[[], object], max_s: float = math.inf) -> str:
    """Return a description of the fault in reading an input; empty if it is read or gives an expected error.

    Inputs that take more than `max_s` seconds of processor time are faults as well.
    """
    start = time.process_time()
    try:
        read()
    except ValueError as error:
        if str(path.parent) not in str(error) or "\n" in str(error):
            return traceback.format_exc()
    except ImportError:
        pass
    except Exception:
        return traceback.format_exc()
    elapsed_s = time.process_time() - start
    return f"took {elapsed_s:.1f} s" if elapsed_s > max_s else ""


def mutate_compressed(data: bytes, max_size: int, mutate: Callable[[bytes, int], bytes]) -> bytes:
    """Mutate the uncompressed contents of a MATLAB file; mutated compressed data would only fail the checksum."""
    if data[128:132] != b"\x0f\0\0\0" or data[0] % 2:
        return mutate(data, max_size)
    try:
        part = zlib.compress(mutate(zlib.decompress(data[136:]), max_size))
    except zlib.error:
        return mutate(data, max_size)
    return data[:128] + struct.pack("<II", 15, len(part)) + part


def fuzz(kind: str, findings: Path, arguments: list[str]) -> None:
    """Run libFuzzer, which ends the process."""
    import atheris

    warnings.simplefilter("ignore")
    sys.path.insert(0, str(ROOT))
    with atheris.instrument_imports(include=["whirl.data", "nptdms", "pyuff", "scipy.io"]):
        import scipy.io.wavfile  # noqa: F401

        folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        path, read = target(kind, folder)
        path.write_bytes(b"")
        find_fault(path, read)  # imports the readers
    seen: set[str] = set()

    def one(data: bytes) -> None:
        path.write_bytes(data)
        fault = find_fault(path, read, MAX_S)
        place = "".join(re.findall(r'File ".*?(\w+\.py)", line (\d+)', fault)[-1]) if "File" in fault else fault[:4]
        if fault and place not in seen:
            seen.add(place)
            findings.mkdir(parents=True, exist_ok=True)
            (findings / f"{place}{kind}").write_bytes(data)
            (findings / f"{place}{kind}.txt").write_text(fault)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        return mutate_compressed(data, max_size, atheris.Mutate)

    atheris.Setup([sys.argv[0], *arguments], one, custom_mutator=mutate if kind == ".mat" else None)
    atheris.Fuzz()


# ------------------------------------------------------------------------------------------------ all kinds


def run(kind: str, seconds: int, findings: Path, corpus: Path) -> int:
    """Fuzz one kind for some time, restarting after each crash; return the number of executions."""
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for index, data in enumerate(KINDS[kind](Path(folder))):
            (corpus / f"seed{index}").write_bytes(data)
    findings.mkdir(parents=True, exist_ok=True)
    executed, end = 0, time.monotonic() + seconds
    while (remaining := int(end - time.monotonic())) > 5:
        limits = [f"-rss_limit_mb={MAX_MB}", f"-max_len={MAX_BYTES}", "-timeout=20", f"-max_total_time={remaining}"]
        command = [sys.executable, __file__, "--child", kind, "--findings", str(findings), "--"]
        result = subprocess.run(
            [*command, *limits, f"-artifact_prefix={findings}/{kind}-", "-print_final_stats=1", str(corpus)],
            capture_output=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        log = result.stderr.decode(errors="replace")
        counts = re.findall(r"number_of_executed_units:\s*(\d+)", log) or re.findall(r"^#(\d+)\s", log, re.M)
        executed += int(counts[-1]) if counts else 0
        if result.returncode:
            (findings / f"{kind}-crash-{len(list(findings.iterdir()))}.log").write_text(log[-6000:])
    return executed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--findings", type=Path, default=Path("fuzz_findings"))
    parser.add_argument("--child", choices=list(KINDS), help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        fuzz(options.child, options.findings, options.rest)
        return
    share = options.seconds // len(options.kinds)
    executed = {}
    for kind in options.kinds:
        executed[kind] = run(kind, share, options.findings, options.findings / "corpus" / kind)
        print(f"{kind}: {executed[kind]} executions", flush=True)
    found = sorted(path.name for path in options.findings.iterdir() if path.is_file())
    print(json.dumps({"seconds": options.seconds, "executions": executed, "findings": found}))


if __name__ == "__main__":
    main()
