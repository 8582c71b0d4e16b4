"""Reader of sound files: WAV and RF64 directly, FLAC and W64 through libsndfile."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from whirl._distribution import install_hint
from whirl.data.reading import Content, UnreadableError, check_size, register_reader

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
# Sizes that recorders write when they cannot return to the header: "until the end of the file".
_STREAMED = {0, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFC, 0xFFFFFFFE, 0xFFFFFFFF}
_TRUNCATED = "file is truncated; copy or export it again"
_MAX_CHUNKS = 10_000


class _Format(NamedTuple):
    kind: int
    n_channels: int
    rate: int
    frame_bytes: int
    bits: int


class _Chunk(NamedTuple):
    name: bytes
    start: int
    size: int


@register_reader(".wav")
def read_wav(path: Path) -> Content:
    """Read samples and sampling rate; integers are scaled to [-1, 1], the full scale of the recorder."""
    n_bytes = path.stat().st_size
    form: _Format | None = None
    data: _Chunk | None = None
    with path.open("rb") as file:
        for chunk in _chunks(file, n_bytes):
            if chunk.name == b"fmt " and form is None:
                file.seek(chunk.start)
                form = _parse_format(file.read(min(chunk.size, 64)))
            elif chunk.name == b"data":
                if data is not None:
                    raise UnreadableError("contains several chunks of samples; export it again")
                data = chunk
    if form is None or data is None:
        raise ValueError(f"no {'format' if form is None else 'samples'} chunk")
    return Content(_read_samples(path, form, data), sampling_rate_hz=float(form.rate))


def _chunks(file, n_bytes: int) -> Iterator[_Chunk]:
    """Yield the chunks of a RIFF or RF64 file; the size of streamed samples is that of the rest of the file."""
    head = file.read(12)
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64", b"RIFX") or head[8:] != b"WAVE":
        raise ValueError("not a WAV file")
    if head[:4] == b"RIFX":
        raise UnreadableError("is a big-endian WAV file (RIFX), expected RIFF; export it again")
    position, large_size = 12, None
    for _ in range(_MAX_CHUNKS):
        if position + 8 > n_bytes:
            return
        file.seek(position)
        name, size = struct.unpack("<4sI", file.read(8))
        start = position + 8
        if name == b"ds64":
            large_size = struct.unpack("<QQ", file.read(16))[1]
        elif name == b"data" and size == 0xFFFFFFFF and large_size is not None:
            size = large_size
        elif name == b"data" and size in _STREAMED and (size or position + 8 + size < n_bytes):
            size = n_bytes - start
        if start + size > n_bytes and name in (b"data", b"fmt "):
            raise UnreadableError(_TRUNCATED)
        yield _Chunk(name, start, size)
        position = start + size + size % 2
    raise ValueError("too many chunks")


def _parse_format(body: bytes) -> _Format:
    kind, n_channels, rate, _, frame_bytes, bits = struct.unpack("<HHIIHH", body[:16])
    if kind == _EXTENSIBLE:
        kind = struct.unpack("<H", body[24:26])[0]
    if n_channels == 0 or bits == 0:
        raise ValueError(f"{n_channels} channels of {bits} bits")
    if kind not in (_PCM, _FLOAT):
        raise UnreadableError(f"is compressed (format {kind}), expected PCM or float; export it uncompressed")
    return _Format(kind, n_channels, rate, frame_bytes, bits)


def _read_samples(path: Path, form: _Format, data: _Chunk) -> np.ndarray:
    """Return samples `[C, N]`: floats as they are, integers divided by the full scale."""
    width = form.frame_bytes // form.n_channels
    allowed = {1, 2, 3, 4} if form.kind == _PCM else {4, 8}
    if form.frame_bytes != width * form.n_channels or width not in allowed or -(-form.bits // 8) != width:
        raise UnreadableError(
            f"declares {form.bits} bits in frames of {form.frame_bytes} bytes for {form.n_channels} channels; export "
            "it as PCM of 16, 24 or 32 bits or as float"
        )
    n_frames = data.size // form.frame_bytes
    if n_frames == 0:
        return np.zeros((form.n_channels, 0))
    shape = (n_frames, form.n_channels)
    if width == 3:
        packed = np.memmap(path, "u1", "r", data.start, (*shape, 3))
        check_size(path, 4 * n_frames * form.n_channels)
        padded = np.zeros((*shape, 4), dtype=np.uint8)
        padded[..., 1:] = packed
        return (padded.view("<i4")[..., 0] / 2.0**31).T
    samples = np.memmap(
        path, f"<{'f' if form.kind == _FLOAT else 'i' if width > 1 else 'u'}{width}", "c", data.start, shape
    )
    return _scale_to_full_scale(np.asarray(samples)).T


def _scale_to_full_scale(samples: np.ndarray) -> np.ndarray:
    if samples.dtype.kind == "f":
        return samples
    if samples.dtype == np.uint8:  # WAV stores 8-bit samples unsigned, all other widths signed
        return (samples.astype(np.float32) - 128) / 128
    return samples / -float(np.iinfo(samples.dtype).min)


@register_reader(".flac", ".w64")
def read_sound(path: Path) -> Content:
    """Read samples and sampling rate through libsndfile; integers are scaled to [-1, 1]."""
    try:
        import soundfile
    except ImportError as error:
        raise ImportError(f"reading {path.suffix} needs soundfile: {install_hint('soundfile')}") from error
    if path.suffix.lower() == ".w64":
        _check_w64(path)
    info = soundfile.info(str(path))
    check_size(path, 8 * info.frames * info.channels)
    samples, rate = soundfile.read(str(path), dtype="float64", always_2d=True)
    if len(samples) < info.frames:
        raise UnreadableError(_TRUNCATED)
    return Content(samples.T, sampling_rate_hz=float(rate))


def _check_w64(path: Path) -> None:
    """Raise if a W64 file is shorter than its header states; libsndfile silently returns fewer samples."""
    with path.open("rb") as file:
        head = file.read(24)
    if len(head) < 24 or struct.unpack("<Q", head[16:])[0] > path.stat().st_size:
        raise UnreadableError(_TRUNCATED)
