"""Malicious sound files, tables, manifests and settings, and paths that are not regular files."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from tests.security.cases import GIGABYTE, SIGNAL, case, deflated_zeros, write_file

# ------------------------------------------------------------------------------------------------------- WAV


def wav(data_size: int = 800, channels: int = 2, rate: int = 100, bits: int = 16, riff: bytes = b"RIFF") -> bytes:
    width = channels * bits // 8 & 0xFFFF
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * width, width, bits)
    sizes = b"ds64" + struct.pack("<IQQQI", 28, 10**18, 10**18, 10**17, 0) if riff == b"RF64" else b""
    chunks = sizes + b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", data_size) + bytes(800)
    return riff + struct.pack("<I", 836) + b"WAVE" + chunks


@case("")  # streaming recorders write this size; the samples present are read
def wav_of_4_gigabytes(folder: Path) -> Path:
    return write_file(folder / "a.wav", wav(data_size=2**32 - 4))


@case("file is truncated")
def wav_of_1e18_bytes(folder: Path) -> Path:
    return write_file(folder / "a.wav", wav(data_size=2**32 - 1, riff=b"RF64"))


@case(r"corrupt or truncated \.wav")
def wav_without_channels(folder: Path) -> Path:
    return write_file(folder / "a.wav", wav(channels=0))


@case("65535 channels|corrupt or truncated")
def wav_of_65535_channels(folder: Path) -> Path:
    return write_file(folder / "a.wav", wav(channels=65535))


@case(r"corrupt or truncated \.wav")
def wav_without_bits(folder: Path) -> Path:
    return write_file(folder / "a.wav", wav(bits=0))


@case("does not state its sampling rate", how="dataset")
def wav_of_0_hz(folder: Path) -> Path:
    write_file(folder / "x" / "a.wav", wav(rate=0))
    return folder


@case("file is truncated|corrupt or truncated|declares")
def flac_of_1e10_samples(folder: Path) -> Path:
    import soundfile

    soundfile.write(folder / "a.flac", np.zeros(4096), 12_000)
    data = bytearray((folder / "a.flac").read_bytes())
    data[21] |= 0x0F  # the number of samples has 36 bits
    data[22:26] = b"\xff" * 4
    return write_file(folder / "a.flac", bytes(data))


# ------------------------------------------------------------------------------------------------- compressed files


@case("declares much more data than its size allows")
def gzip_bomb(folder: Path) -> Path:
    header = b"\x1f\x8b\x08" + bytes(7)
    return write_file(folder / "a.csv.gz", header + deflated_zeros(GIGABYTE))


@case("declares much more data than its size allows")
def zst_bomb(folder: Path) -> Path:
    import pyarrow as pa

    with pa.output_stream(str(folder / "a.csv.zst"), compression="zstd") as stream:
        for _ in range(GIGABYTE // 2**24):
            stream.write(bytes(2**24))
    return folder / "a.csv.zst"


@case("is compressed more than once")
def gzip_in_gzip(folder: Path) -> Path:
    return write_file(folder / "a.csv.gz.gz", b"\x1f\x8b\x08" + bytes(7))


# ------------------------------------------------------------------------------------------------------- Parquet


@case("declares .* MB of data")
def parquet_of_equal_values(folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": np.zeros(10_000_000)}), folder / "a.parquet")
    return folder / "a.parquet"


def varint(number: int) -> bytes:
    """Encode an integer as in Thrift's compact protocol."""
    number, digits = 2 * number, []
    while number:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits[:-1], digits[-1] & 127])


@case("declares .* MB of data")
def parquet_with_false_row_count(folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    n_rows = 1_100_000
    pq.write_table(pa.table({"x": np.zeros(n_rows)}), folder / "a.parquet", row_group_size=n_rows)
    data = (folder / "a.parquet").read_bytes()
    assert data.count(varint(n_rows)) >= 2
    return write_file(folder / "a.parquet", data.replace(varint(n_rows), varint(130_000_000)))


# ------------------------------------------------------------------------------------------------------- TDMS, UFF


@case("declares .* MB of data|corrupt|ends in the middle")
def tdms_of_1e12_samples(folder: Path) -> Path:
    from nptdms import ChannelObject, TdmsWriter

    with TdmsWriter(folder / "a.tdms") as writer:
        writer.write_segment([ChannelObject("g", "c", SIGNAL[0])])
    data = (folder / "a.tdms").read_bytes()
    n_samples = struct.pack("<Q", SIGNAL.shape[1])
    assert data.count(n_samples) == 1
    return write_file(folder / "a.tdms", data.replace(n_samples, struct.pack("<Q", 10**12)))


@case("corrupt or truncated")
def tdms_of_4e9_objects(folder: Path) -> Path:
    body = struct.pack("<I", 2**32 - 1) + bytes(100)
    lead_in = b"TDSm" + struct.pack("<IIQQ", 2 | 4 | 8, 4713, len(body), len(body))
    return write_file(folder / "a.tdms", lead_in + body)


# ------------------------------------------------------------------------------------------------------- text


@case("no rows of numbers")
def csv_of_1e6_columns(folder: Path) -> Path:
    return write_file(folder / "a.csv", ("1," * 999_999 + "1\n") * 3)


@case("contains 10000 columns, expected at most 300")
def csv_of_30000_columns_in_the_head(folder: Path) -> Path:
    return write_file(folder / "a.csv", ("1," * 9_999 + "1\n") * 20)


@case("characters or more")
def csv_line_of_500_megabytes(folder: Path) -> Path:
    path = write_file(folder / "a.csv", "a,b\n" + "1,2\n" * 20_000)
    os.truncate(path, 500_000_000)
    return path


@case("binary data")
def csv_of_500_megabytes_of_zeros(folder: Path) -> Path:
    path = write_file(folder / "a.csv", "")
    os.truncate(path, 500_000_000)
    return path


@case("expected only numbers|ends in the middle|fields")
def csv_with_nul_after_the_head(folder: Path) -> Path:
    return write_file(folder / "a.csv", "a,b\n" + "1,2\n" * 20_000 + "1,\0\0\n" + "1,2\n" * 9)


@case("no rows of numbers|no numeric signal|fields|binary")
def csv_that_is_slow_to_match(folder: Path) -> Path:
    lines = [" " * 9000 + "x", "k:" + "," * 9000 + "x", "(" * 9000, '"' * 9000, "#" * 9000 + " ", "1" * 9000 + "x"]
    return write_file(folder / "a.csv", "\n".join([*lines, "1 2", "3"]))


@case(r"is inf at sample 2", how="dataset")
def csv_of_huge_numbers(folder: Path) -> Path:
    write_file(folder / "x" / "a.csv", "# fs = 1000\n1.0\n2.0\n1e300\n4.0\n1.0\n")
    return folder


@case(r"is nan at sample 1", how="dataset")
def csv_of_nan(folder: Path) -> Path:
    write_file(folder / "x" / "a.csv", "# fs = 1000\n1.0;2\nnan;1\n1.5;3\n4.0;2\n1.0;2\n")
    return folder


# ------------------------------------------------------------------------------------------------------- manifests


def dataset(folder: Path, manifest: str | bytes) -> Path:
    np.savez(folder / "a.npz", signal=SIGNAL, fs=100)
    return write_file(folder / "manifest.csv", manifest).parent


OUTSIDE = ["../secret.npz", "../../etc/passwd", "/etc/passwd", "x/../../secret.npz", r"..\secret.npz", "C:/secret.npz"]


@case(r"not a path within the folder.*and 3 more", how="dataset")
def manifest_with_paths_outside(folder: Path) -> Path:
    np.savez(folder / "secret.npz", signal=SIGNAL, fs=100)
    (folder / "data").mkdir()
    return dataset(folder / "data", "file,label\n" + "".join(f"{name},x\n" for name in OUTSIDE))


@case(r"cannot be accessed|does not exist", how="dataset")
def circular_symlink(folder: Path) -> Path:
    (folder / "x").mkdir()
    (folder / "x" / "a.csv").symlink_to("a.csv")
    return folder


@case("does not exist|cannot be accessed", how="dataset")
def manifest_with_impossible_names(folder: Path) -> Path:
    return dataset(folder, f"file,label\n{'n' * 5000}.csv,x\na\x01.csv,x\n")


@case("250", how="dataset")
def manifest_of_1e6_columns(folder: Path) -> Path:
    return dataset(folder, "file,label" + ",x" * 1_000_000 + "\na.npz,x\n")


@case("at most", how="dataset")
def manifest_of_many_columns_and_rows(folder: Path) -> Path:
    return dataset(folder, "file,label" + ",x" * 60_000 + "\n" + "a\n" * 100_000)


@case("at most", how="dataset")
def manifest_of_1e6_rows(folder: Path) -> Path:
    return dataset(folder, "file,label\n" + "a,x\n" * 1_000_000)


@case("is larger than", how="dataset")
def manifest_of_500_megabytes(folder: Path) -> Path:
    dataset(folder, "file,label\na.npz,x\n")
    os.truncate(folder / "manifest.csv", 500_000_000)
    return folder


@case("", how="dataset")
def manifest_with_nested_cells(folder: Path) -> Path:
    return dataset(folder, f"file,label,note,load\na.npz,x,{'[' * 100_000},1e999\n")


@case("", how="dataset")
def manifest_that_is_slow_to_match(folder: Path) -> Path:
    load = "1" * 100_000
    return dataset(folder, f'file,label,load\na.npz,x,"{load}\n{load[:9]}"\n')


@case("rpm is 'inf', expected a number > 0", how="dataset")
def manifest_of_infinite_speed(folder: Path) -> Path:
    return dataset(folder, "file,label,rpm\na.npz,x,inf\na.npz,x,1e999\na.npz,x,-1\n")


@case("field larger than field limit", how="dataset")
def manifest_with_a_cell_of_a_megabyte(folder: Path) -> Path:
    return dataset(folder, f"file,label\na.npz,{'x' * 1_000_000}\n")


# --------------------------------------------------------------------------------------------- not regular files


@case("not a regular file")
def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.csv")
    return folder / "a.csv"


@case("is not a regular file", how="dataset")
def a_pipe_in_a_manifest(folder: Path) -> Path:
    os.mkfifo(folder / "b.csv")
    return dataset(folder, "file,label\nb.csv,x\n")


@case("is not a regular file", how="dataset")
def a_pipe_in_a_class(folder: Path) -> Path:
    (folder / "x").mkdir()
    os.mkfifo(folder / "x" / "a.csv")
    return folder


@case("not a regular file")
def a_device(folder: Path) -> Path:
    (folder / "a.csv").symlink_to("/dev/zero")
    return folder / "a.csv"


@case("not a regular file")
def a_folder_as_a_recording(folder: Path) -> Path:
    (folder / "a.csv").mkdir()
    return folder / "a.csv"


@case("no such file")
def an_impossible_name(folder: Path) -> Path:
    return folder / "a\0b.csv"


# ------------------------------------------------------------------------------------------------------- settings


@case("could not determine a constructor", how="settings")
def yaml_with_a_tag(folder: Path) -> Path:
    code = f"open({str(folder / 'canary')!r}, 'w')"
    return write_file(folder / "config.yaml", f"epochs: !!python/object/apply:eval [{code!r}]\n")


def billion_laughs(first: str, line: str, n: int = 9) -> str:
    """Return lines that each reference the previous one ten times."""
    aliases = [", ".join([f"*a{index}"] * 10) for index in range(n)]
    return first + "".join(line.format(index + 1, names) for index, names in enumerate(aliases))


@case("cannot be read as YAML", how="settings")
def yaml_of_nested_aliases(folder: Path) -> Path:
    return write_file(folder / "config.yaml", billion_laughs("a0: &a0 [x]\n", "a{0}: &a{0} [{1}]\n") + "classes: *a9\n")


@case("cannot be read as YAML", how="settings")
def yaml_of_nested_merges(folder: Path) -> Path:
    return write_file(folder / "config.yaml", billion_laughs("a0: &a0 {k: v}\n", "a{0}: &a{0}\n  <<: [{1}]\n"))


@case("cannot be read as YAML", how="settings")
def yaml_nested(folder: Path) -> Path:
    return write_file(folder / "config.yaml", "classes: " + "[" * 50_000)


@case("cannot be read as YAML", how="settings")
def yaml_of_a_long_number(folder: Path) -> Path:
    return write_file(folder / "config.yaml", "epochs: " + "1" * 5000)


@case("cannot be read as YAML", how="settings")
def yaml_of_an_invalid_date(folder: Path) -> Path:
    return write_file(folder / "config.yaml", "data: 2024-13-45\n")


@case("cannot be read as YAML", how="settings")
def yaml_of_500_megabytes(folder: Path) -> Path:
    path = write_file(folder / "config.yaml", "epochs: 1\n")
    os.truncate(path, 500_000_000)
    return path


@case("cannot be read as YAML", how="settings")
def yaml_in_a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "config.yaml")
    return folder / "config.yaml"
