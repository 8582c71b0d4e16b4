"""Read one recording from one file of any supported format."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from whirl.data.blocks import to_float32
from whirl.data.recording import Recording
from whirl.data.signatures import suffixes_by_signature
from whirl.registry import Registry

# No recorder has more channels: a matrix with more rows contains windows, or is not a signal.
MAX_CHANNELS = 256
# Arrays, texts, numbers and groups in one file.
MAX_VARIABLES = 10_000
# Largest uncompressed size as a multiple of the file size. Integers stored as float64 and deflated shrink to a fifth
# or a tenth; vibration hardly shrinks further. Small files may expand to ALWAYS_ALLOWED_BYTES in any case.
MAX_EXPANSION = 32
ALWAYS_ALLOWED_BYTES = 64 * 2**20
# A lower sampling rate is one of temperatures or a misread number, unless it is confirmed.
MIN_RATE_HZ = 100.0
_MAX_DETAIL = 200  # characters of a library's error message, which may quote the file's contents


class UnreadableError(ValueError):
    """Raised by readers; the message states the problem and the remedy, without the file name."""


@dataclass(frozen=True, eq=False)
class Content:
    """What a file states about its recording; None or empty where the file states nothing.

    Attributes:
        signal: samples, `[C, N]`, real numbers of any dtype; or windows that were cut beforehand, `[W, C, T]`.
        sampling_rate_hz: samples per second and channel.
        channels: name of each channel.
        unit: unit of the samples.
        rpm: shaft speed in revolutions per minute.
        metadata: all other information in the file, by name; `left_out` lists arrays that are not channels.
        channel_units: unit of each channel; empty if all have `unit`.
        labels: class of each window.
        groups: specimen of each window; empty if the file does not state it.
        load: load on the machine, in `load_unit`.
        load_unit: unit of `load`.
    """

    signal: np.ndarray
    sampling_rate_hz: float | None = None
    channels: tuple[str, ...] = ()
    unit: str = ""
    rpm: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    channel_units: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    load: float | None = None
    load_unit: str = ""

    def __post_init__(self) -> None:
        if self.channel_units and len(set(self.channel_units)) == 1:
            object.__setattr__(self, "unit", self.channel_units[0])
            object.__setattr__(self, "channel_units", ())


def check_size(path: Path, n_bytes: int) -> None:
    """Validate the size that a file declares against its size on disk, before memory is allocated for it.

    Readers of formats that compress data, or that can declare more data than they store, call this first.

    Args:
        path: the file.
        n_bytes: uncompressed size of the data to read, in bytes.

    Raises:
        UnreadableError: the size exceeds both `MAX_EXPANSION` times the file size and `ALWAYS_ALLOWED_BYTES`.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     check_size(Path(file.name), 64 * 2**20)
        ...     try:
        ...         check_size(Path(file.name), 10**12)
        ...     except UnreadableError as error:
        ...         print(error)
        declares 1e+06 MB of data but is 0 MB in size; save it without compression if it really contains that much
    """
    size = path.stat().st_size
    if n_bytes > allowed_bytes(path):
        raise UnreadableError(
            f"declares {n_bytes / 1e6:.3g} MB of data but is {size / 1e6:.3g} MB in size; "
            "save it without compression if it really contains that much"
        )


def allowed_bytes(path: Path) -> int:
    """Return the largest uncompressed size accepted for a file, in bytes; see `check_size`."""
    return max(ALWAYS_ALLOWED_BYTES, MAX_EXPANSION * path.stat().st_size)


Reader = Callable[[Path], Content]

READERS: Registry[Reader] = Registry("file type", group="whirl.readers")


def register_reader(*suffixes: str) -> Callable[[Reader], Reader]:
    """Return a decorator that registers a function as the reader of files with the given suffixes.

    A reader takes a path and returns a `Content`. It raises `UnreadableError` where it can name the problem; any other
    exception is reported as a corrupt file. All modules in `whirl.data.readers` are imported before the first file is
    read, so a new format needs one small module there. Readers import slow libraries inside the function.

    Args:
        *suffixes: file name suffixes in lower case, e.g. `".csv"`.

    Raises:
        ValueError: another reader is registered for one of the suffixes.

    Example:
        >>> @register_reader(".raw")
        ... def read_raw(path: Path) -> Content:
        ...     return Content(np.fromfile(path, dtype="<i2")[None], sampling_rate_hz=25_600)
        >>> ".raw" in readable_suffixes()
        True
    """
    return READERS.register(*suffixes)


def readable_suffixes() -> list[str]:
    """Return the suffixes of all supported file formats, sorted.

    Example:
        >>> from whirl.data.reading import readable_suffixes
        >>> {".mat", ".csv", ".wav"} <= set(readable_suffixes())
        True
    """
    _load_readers()
    return READERS.names()


def read(path: str | Path, *, sampling_rate_hz: float | None = None) -> Recording:
    r"""Read one file as an unlabeled recording.

    The reader is selected by suffix. Where a format prescribes no structure, these conventions apply: the numeric
    arrays (or columns) of one length and sampling rate are the channels, the longer axis of a matrix is time, and
    scalars with common names (`fs`, `sampling_rate`, `dt`, `rpm`, ...) or a time column beside the samples provide
    sampling rate and shaft speed. Time axes, counters and labels are not channels; `metadata["left_out"]` lists what
    was left out. A file with several arrays that may be the signal is refused. Nothing is ever unpickled. Samples are
    converted to float32; NaN and infinities are kept.

    Args:
        path: the file.
        sampling_rate_hz: sampling rate to assume if the file states none; it also confirms one below 100 Hz.

    Returns:
        The recording; its `source` is the path.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file has an unknown type, is not a regular file, is corrupt or empty, does not fit in memory,
            contains no real numeric signal or several, declares more data than it can contain (see `check_size`), does
            not state its sampling rate, or states one below 100 Hz. The message names the file and the remedy.
        ImportError: the format requires an extra that is not installed.

    Example:
        >>> import tempfile
        >>> from whirl.data.reading import read
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "run.csv"
        ...     _ = path.write_text("time [ms];DE [g]\n0,00;0,5\n0,10;-0,5\n0,20;0,25\n")
        ...     recording = read(path)
        >>> recording.signal, recording.sampling_rate_hz, recording.channels, recording.unit
        (array([[ 0.5 , -0.5 ,  0.25]], dtype=float32), 10000.0, ('DE',), 'g')
    """
    path = Path(path)
    return to_recording(path, read_content(path), sampling_rate_hz)


def read_all(path: str | Path, *, sampling_rate_hz: float | None = None) -> list[Recording]:
    r"""Read one file as a list of recordings: one, or each window of a file of windows that were cut beforehand.

    Args:
        path: the file.
        sampling_rate_hz: sampling rate to assume if the file states none.

    Raises:
        FileNotFoundError, ValueError, ImportError: as for `read`.

    Example:
        >>> import tempfile
        >>> from whirl.data.reading import read_all
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "windows.npz"
        ...     np.savez(path, X=np.zeros((3, 1, 512)), y=[0, 1, 1], classes=["healthy", "wear"], fs=12_000)
        ...     [(window.label, window.n_samples) for window in read_all(path)]
        [('healthy', 512), ('wear', 512), ('wear', 512)]
    """
    path = Path(path)
    return to_recordings(path, read_content(path), sampling_rate_hz)


def to_recordings(path: Path, content: Content, sampling_rate_hz: float | None = None, **known: Any) -> list[Recording]:
    """Convert the content of a file to one recording, or to one for each window that was cut beforehand.

    Raises:
        ValueError: as for `to_recording`, or one label is given for windows of several classes.
    """
    if not content.labels:
        return [to_recording(path, content, sampling_rate_hz, **known)]
    classes = sorted(set(content.labels))
    if known.get("label") and len(classes) > 1:
        raise ValueError(
            f"{path}: contains windows of {len(classes)} classes ({', '.join(classes[:4])}), but the label "
            f"{known['label']!r} is stated for all; load the file itself instead of its folder"
        )
    groups = content.groups or (None,) * len(content.labels)
    length = content.signal.shape[2]
    return [
        to_recording(
            path,
            replace(content, signal=signal, labels=(), groups=()),
            sampling_rate_hz,
            **{"label": label, **({"specimen": group} if group else {}), **_stated(known)},
            start_sample=index * length,
        )
        for index, (signal, label, group) in enumerate(zip(content.signal, content.labels, groups, strict=True))
    ]


def _stated(known: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in known.items() if value is not None}


def to_recording(path: Path, content: Content, sampling_rate_hz: float | None = None, **known: Any) -> Recording:
    """Convert the content of a file to a recording.

    Args:
        path: the file, stored as the recording's `source`.
        content: what the file states.
        sampling_rate_hz: sampling rate to assume if the file states none; it also confirms one below 100 Hz.
        **known: further fields of `Recording`; they override the content.

    Raises:
        ValueError: neither the content nor the caller provides a sampling rate; the content states one below 100 Hz
            that the caller does not confirm, or contains several windows.
    """
    if content.signal.ndim == 3:
        n_windows, n_channels, n_samples = content.signal.shape
        raise ValueError(
            f"{path}: contains {n_windows} windows of {n_channels} channels x {n_samples} samples, expected one "
            "recording; read it with load_dataset or read_all"
        )
    rate = _resolve_rate(path, content.sampling_rate_hz, sampling_rate_hz)
    stated: dict[str, Any] = {
        "rpm": content.rpm,
        "load": content.load,
        "load_unit": content.load_unit,
        "metadata": content.metadata,
    }
    return Recording(
        signal=to_float32(content.signal),
        sampling_rate_hz=rate,
        channels=content.channels,
        unit=content.unit,
        channel_units=content.channel_units,
        source=str(path),
        **(stated | known),
    )


def _resolve_rate(path: Path, stated: float | None, given: float | None) -> float:
    if stated is None or not stated:
        if given is None:
            raise ValueError(
                f"{path}: the file does not state its sampling rate; "
                "add a sampling_rate column to manifest.csv or pass --sampling-rate HZ"
            )
        return given
    is_confirmed = given is not None and abs(given - stated) <= 0.01 * stated
    if stated < MIN_RATE_HZ and not is_confirmed:
        raise ValueError(
            f"{path}: states a sampling rate of {stated:g} Hz, expected at least {MIN_RATE_HZ:g} Hz for vibration; "
            f"if it is right, confirm it with --sampling-rate {stated:g}, otherwise add a sampling_rate column to "
            "manifest.csv"
        )
    return stated


def read_content(path: Path) -> Content:
    """Read a file and validate that its signal is real and has shape `[C, N]`.

    Args:
        path: the file.

    Raises:
        FileNotFoundError, ValueError, ImportError: as for `read`.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():  # reading a pipe or a device may never return
        raise ValueError(f"{path}: not a regular file; copy the recording to a regular file")
    reader = find_reader(path)
    try:
        content = reader(path)
        _check_signal(content.signal)
    except UnreadableError as error:
        raise ValueError(f"{path}: {_wrong_suffix(path) or error}") from error
    except (ImportError, PermissionError) as error:
        error.add_note(f"while reading {path}")
        raise
    except MemoryError as error:
        raise ValueError(f"{path}: does not fit in memory; split it into shorter recordings") from error
    except Exception as error:  # format libraries raise exceptions of any type on corrupt files
        detail = " ".join(str(error).split())[:_MAX_DETAIL]
        problem = f"corrupt or truncated {path.suffix} file ({type(error).__name__}: {detail}); copy or export it again"
        raise ValueError(f"{path}: {_wrong_suffix(path) or problem}") from error
    return content


def _wrong_suffix(path: Path) -> str | None:
    """Return what is wrong with a file whose first bytes are those of another format, otherwise None."""
    suffixes = suffixes_by_signature(path)
    if not suffixes or suffix_of(path) in suffixes:
        return None
    return f"is a file of the format {suffixes[0]} by its first bytes; give it this suffix"


def find_reader(path: Path) -> Reader:
    """Return the reader of a file, by its suffix.

    Raises:
        ValueError: no reader is registered for the suffix.
    """
    suffix, suffixes = suffix_of(path), readable_suffixes()
    if suffix not in suffixes:
        raise ValueError(f"{path}: unknown file type {suffix!r}; convert it to one of: {', '.join(suffixes)}")
    return READERS.get(suffix)


def suffix_of(path: Path) -> str:
    """Return the suffix that selects the reader of a file, in lower case.

    Snapshots of data loggers have names without suffix, or names that end in a time stamp; they are text.

    Example:
        >>> suffix_of(Path("RUN.MAT")), suffix_of(Path("2003.10.22.12.06.24")), suffix_of(Path("snapshot"))
        ('.mat', '.txt', '.txt')
    """
    suffix = path.suffix.lower()
    return ".txt" if suffix[1:].isdecimal() or not suffix else suffix


@cache
def _load_readers() -> None:
    from whirl.data import readers

    for module in pkgutil.iter_modules(readers.__path__):
        importlib.import_module(f"{readers.__name__}.{module.name}")


def _check_signal(signal: np.ndarray) -> None:
    if signal.dtype.kind == "c":
        raise UnreadableError("the samples are complex, expected real numbers; export the time signal, not a spectrum")
    if signal.dtype.kind not in "fiu":
        raise UnreadableError(f"the samples have dtype {signal.dtype}, expected real numbers; export them as numbers")
    if signal.ndim == 3:  # windows
        n_windows, n_channels, n_samples = signal.shape
        if n_windows and n_channels <= MAX_CHANNELS and n_samples > 1:
            return
    if signal.ndim != 2:
        raise UnreadableError(f"the signal has shape {signal.shape}; export it as [channels, samples]")
    n_channels, n_samples = signal.shape
    if n_channels == 0 or n_samples < 2:
        raise UnreadableError(
            f"contains no signal ({n_channels} channels of {n_samples} samples, expected at least 1 of 2); "
            "record it again"
        )
    if n_channels > MAX_CHANNELS:
        raise UnreadableError(
            f"{n_channels} channels of {n_samples} samples look like pre-cut windows (expected at most "
            f"{MAX_CHANNELS} channels); export complete recordings"
        )
