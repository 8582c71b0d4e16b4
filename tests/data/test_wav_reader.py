"""Sound files: sample formats, sizes of streamed files, order of chunks, damaged files."""

import struct

import numpy as np
import pytest

from whirl.data.reading import read

RNG = np.random.default_rng(0)
INTEGERS = RNG.integers(-(2**15), 2**15, size=(500, 2)).astype("<i2")


def chunk(name, body, size=None):
    return name + struct.pack("<I", len(body) if size is None else size) + body + bytes(len(body) % 2)


def fmt(bits=16, n_channels=2, kind=1, rate=25_600, extra=b""):
    width = n_channels * -(-bits // 8)
    return chunk(b"fmt ", struct.pack("<HHIIHH", kind, n_channels, rate, rate * width, width, bits) + extra)


def wav(*chunks, riff=b"RIFF", size=None):
    body = b"WAVE" + b"".join(chunks)
    return riff + struct.pack("<I", len(body) if size is None else size) + body


def read_bytes(tmp_path, data):
    (tmp_path / "a.wav").write_bytes(data)
    return read(tmp_path / "a.wav")


DATA = chunk(b"data", INTEGERS.tobytes())


@pytest.mark.parametrize(
    "data",
    [
        wav(fmt(), DATA),
        wav(fmt(), chunk(b"data", INTEGERS.tobytes(), 0xFFFFFFFF), size=0xFFFFFFFF),
        wav(fmt(), chunk(b"data", INTEGERS.tobytes(), 0x7FFFFFFF)),
        wav(fmt(), chunk(b"data", INTEGERS.tobytes(), 0), size=0),
        wav(chunk(b"LIST", b"INFOx"), fmt(), chunk(b"fact", bytes(4)), DATA, chunk(b"LIST", b"INFO")),
        wav(DATA, fmt()),
        wav(fmt(), DATA, chunk(b"LIST", b"", 999)),
        wav(chunk(b"ds64", struct.pack("<QQQI", 2**40, INTEGERS.nbytes, 500, 0)), fmt(),
            chunk(b"data", INTEGERS.tobytes(), 0xFFFFFFFF), riff=b"RF64", size=0xFFFFFFFF),
        wav(fmt(kind=0xFFFE, extra=struct.pack("<HHIH14s", 22, 16, 3, 1, bytes(14))), DATA),
    ],
    ids=["plain", "streamed", "streamed 2", "streamed 0", "lists", "data first", "damaged list", "RF64", "extensible"],
)  # fmt: skip
def test_reads_chunks_of_any_order_and_size(data, tmp_path):
    recording = read_bytes(tmp_path, data)
    np.testing.assert_allclose(recording.signal, INTEGERS.T / 2**15)
    assert recording.sampling_rate_hz == 25_600


@pytest.mark.parametrize("bits", [24, 32])
def test_reads_wide_integers(bits, tmp_path):
    integers = RNG.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), size=(500, 2))
    samples = integers.astype("<i8").view("u1").reshape(500, 2, 8)[..., : bits // 8].tobytes()
    recording = read_bytes(tmp_path, wav(fmt(bits), chunk(b"data", samples)))
    np.testing.assert_allclose(recording.signal, integers.T / 2.0 ** (bits - 1), rtol=1e-6)


@pytest.mark.parametrize("bits", [32, 64])
def test_reads_floats(bits, tmp_path):
    samples = RNG.normal(size=(500, 2)).astype(f"<f{bits // 8}")
    recording = read_bytes(tmp_path, wav(fmt(bits, kind=3), chunk(b"data", samples.tobytes())))
    np.testing.assert_allclose(recording.signal, samples.T.astype(np.float32))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (wav(fmt(), DATA, DATA), "several chunks of samples"),
        (wav(fmt(kind=2), DATA), "is compressed"),
        (wav(fmt(bits=12, kind=3), DATA), "declares 12 bits"),
        (wav(fmt(), DATA)[:-9], "truncated"),
        (wav(fmt(), chunk(b"data", INTEGERS.tobytes(), 5000)), "truncated"),
        (wav(fmt(), riff=b"RIFX"), "big-endian"),
        (wav(fmt()), "no samples chunk"),
        (wav(DATA), "no format chunk"),
        (b"RIFF", "not a WAV file"),
    ],
)
def test_rejects_damaged_and_unusual_files(data, message, tmp_path):
    with pytest.raises(ValueError, match=rf"a\.wav: .*{message}.*; "):
        read_bytes(tmp_path, data)
