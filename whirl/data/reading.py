"""Reading one recording from one file, whatever its kind."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from whirl.data.recording import Recording

# No recorder has more channels; a matrix with more rows than this holds windows, or is no signal.
MAX_CHANNELS = 256
# Nor does a recording consist of more arrays, texts and numbers, groups of them counted.
MAX_VARIABLES = 10_000
# What a file may unfold to, as a multiple of its size: integers stored as float64 and deflated shrink to a fifth
# or a tenth, vibration hardly further. Small files may unfold to this many bytes in any case.
MAX_EXPANSION = 32
ALWAYS_ALLOWED_BYTES = 64 * 2**20
_MAX_DETAIL = 200  # letters of what a library says of a broken file; some show its contents


class UnreadableError(ValueError):
    """Raised by a reader: what is wrong with the file and what to do, without the file's name."""


@dataclass(frozen=True, eq=False)
class Content:
    """What a file itself says about the recording in it; None or empty where it says nothing.

    Attributes:
        signal: samples, `[C, N]`, real numbers of any type.
        sampling_rate_hz: samples per second and channel.
        channels: name of each channel.
        unit: unit of the samples.
        rpm: shaft speed in revolutions per minute.
        metadata: whatever else the file says, by name.
    """

    signal: np.ndarray
    sampling_rate_hz: float | None = None
    channels: tuple[str, ...] = ()
    unit: str = ""
    rpm: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def check_size(path: Path, n_bytes: int) -> None:
    """Refuse what a file says it holds where its own size cannot bear that out, before memory is taken for it.

    Every reader of a format that compresses, or that can declare more than it stores, asks here first.

    Args:
        path: the file.
        n_bytes: what is to be read from it, unfolded.

    Raises:
        UnreadableError: it is more than `MAX_EXPANSION` times the file's size, and more than `ALWAYS_ALLOWED_BYTES`.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     check_size(Path(file.name), 64 * 2**20)
        ...     try:
        ...         check_size(Path(file.name), 10**12)
        ...     except UnreadableError as error:
        ...         print(error)
        it declares 1e+06 MB of data and is 0 MB large; save it without compression if it really holds that much
    """
    n_held = path.stat().st_size
    if n_bytes > allowed_bytes(path):
        raise UnreadableError(
            f"it declares {n_bytes / 1e6:.3g} MB of data and is {n_held / 1e6:.3g} MB large; "
            "save it without compression if it really holds that much"
        )


def allowed_bytes(path: Path) -> int:
    """How many bytes a file may unfold to, see `check_size`."""
    return max(ALWAYS_ALLOWED_BYTES, MAX_EXPANSION * path.stat().st_size)


Reader = Callable[[Path], Content]

_READERS: dict[str, Reader] = {}


def register_reader(*suffixes: str) -> Callable[[Reader], Reader]:
    """Register a function as the reader of files that end in one of `suffixes` (lower case).

    A reader takes a path and returns a `Content`; where it can tell what is wrong it raises
    `UnreadableError`, and any other error of it counts as a broken file. Every module in
    `whirl.data.readers` is imported before the first file is read, so a new format is one
    small file there; what is slow to import it imports inside the function.

    Example:
        >>> @register_reader(".counts")
        ... def read_counts(path: Path) -> Content:
        ...     return Content(np.fromfile(path, dtype="<i2")[None], sampling_rate_hz=25_600)
        >>> ".counts" in readable_suffixes()
        True
        >>> del _READERS[".counts"]
    """

    def register(reader: Reader) -> Reader:
        _READERS.update(dict.fromkeys(suffixes, reader))
        return reader

    return register


def readable_suffixes() -> list[str]:
    """The suffixes of the files that can be read, in alphabetical order.

    Example:
        >>> from whirl.data.reading import readable_suffixes
        >>> {".mat", ".csv", ".wav"} <= set(readable_suffixes())
        True
    """
    _load_readers()
    return sorted(_READERS)


def read(path: str | Path, *, sampling_rate_hz: float | None = None) -> Recording:
    r"""Read one file as a recording without a label.

    The suffix chooses the reader. Where a format leaves it free, the longest numeric arrays (or
    columns) are the channels, the longer axis of a matrix is time, and scalars with the usual names
    (`fs`, `sampling_rate`, `dt`, `rpm`, ...) or a time column give sampling rate and shaft speed.
    Nothing is ever unpickled. Samples become float32; NaN and infinities pass.

    Args:
        path: the file.
        sampling_rate_hz: the sampling rate to assume where the file states none.

    Returns:
        The recording; `source` is the path.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of unknown kind, no regular file, broken, empty, larger than memory, without
            a real numeric signal, declares more than it can hold (`check_size`), or does not say its
            sampling rate; the message names the file and the remedy.
        ImportError: the format needs an extra that is not installed.

    Example:
        >>> import tempfile
        >>> from whirl.data.reading import read
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "run.csv"
        ...     _ = path.write_text("time [s];DE [g]\n0,00;0,5\n0,01;-0,5\n0,02;0,25\n")
        ...     recording = read(path)
        >>> recording.signal, recording.sampling_rate_hz, recording.channels, recording.unit
        (array([[ 0.5 , -0.5 ,  0.25]], dtype=float32), 100.0, ('DE',), 'g')
    """
    path = Path(path)
    return to_recording(path, read_content(path), sampling_rate_hz)


def to_recording(path: Path, content: Content, sampling_rate_hz: float | None = None, **known: Any) -> Recording:
    """The recording that `content` describes, with what else is `known` of it (fields of `Recording`).

    Raises:
        ValueError: the sampling rate is neither in the content nor given.
    """
    rate = content.sampling_rate_hz or sampling_rate_hz
    if rate is None:
        raise ValueError(
            f"{path}: the file does not say its sampling rate; "
            "add a sampling_rate column to manifest.csv or pass --sampling-rate HZ"
        )
    with np.errstate(over="ignore"):  # beyond the range of float32 lies infinity
        # One row per channel in memory, so that windows are contiguous.
        signal = np.ascontiguousarray(content.signal, dtype=np.float32)
    return Recording(
        signal=signal,
        sampling_rate_hz=rate,
        channels=content.channels,
        unit=content.unit,
        source=str(path),
        **{"rpm": content.rpm, "metadata": content.metadata, **known},
    )


def read_content(path: Path) -> Content:
    """What the file says, checked to be a real signal `[C, N]`; errors as in `read`."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():  # a pipe would wait for ever, a device never end
        raise ValueError(f"{path}: is no regular file; copy the recording into one")
    reader = _reader_of(path)
    try:
        content = reader(path)
        _check_signal(content.signal)
    except UnreadableError as error:
        raise ValueError(f"{path}: {error}") from error
    except (ImportError, PermissionError) as error:
        error.add_note(f"while reading {path}")
        raise
    except MemoryError as error:
        raise ValueError(f"{path}: needs more memory than there is; cut it into shorter recordings") from error
    except Exception as error:  # the libraries below raise whatever a broken file makes them raise
        detail = " ".join(str(error).split())[:_MAX_DETAIL]
        what = f"broken or truncated {path.suffix} file ({type(error).__name__}: {detail})"
        raise ValueError(f"{path}: {what}; copy or export it again") from error
    return content


def _reader_of(path: Path) -> Reader:
    suffixes = readable_suffixes()
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        raise ValueError(f"{path}: unknown kind of file {suffix!r}; convert it to one of {', '.join(suffixes)}")
    return _READERS[suffix]


@cache
def _load_readers() -> None:
    from whirl.data import readers

    for module in pkgutil.iter_modules(readers.__path__):
        importlib.import_module(f"{readers.__name__}.{module.name}")


def _check_signal(signal: np.ndarray) -> None:
    if signal.dtype.kind == "c":
        raise UnreadableError("the samples are complex; export the real time signal, not a spectrum")
    if signal.dtype.kind not in "fiu":
        raise UnreadableError(f"the samples are {signal.dtype}, not real numbers; export them as plain numbers")
    if signal.ndim != 2:
        raise UnreadableError(f"the signal has shape {signal.shape}; export it as [channels, samples]")
    n_channels, n_samples = signal.shape
    if n_channels == 0 or n_samples < 2:
        raise UnreadableError(
            f"there is no signal in it ({n_channels} channels of {n_samples} samples); record it again"
        )
    if n_channels > MAX_CHANNELS:
        raise UnreadableError(
            f"{n_channels} channels of {n_samples} samples look like windows cut beforehand; export whole recordings"
        )
