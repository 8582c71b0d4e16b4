"""A folder of recordings: a manifest.csv that lists them, or one folder per class."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from whirl.data.manifest import (
    MANIFEST,
    Entry,
    first_few,
    read_manifest,
    row_of,
    why_unreadable,
    write_manifest,
)
from whirl.data.memmap import to_mmap
from whirl.data.recording import Recording

# What may lie beside recordings in a folder of classes without being one.
_DOCUMENTS = {".md", ".pdf", ".html", ".json", ".xml", ".yaml", ".yml", ".png", ".jpg", ".jpeg", ".py", ".m", ".ipynb"}
_DOCUMENT_NAMES = ("readme", "license", "licence", "notes")
# What Windows and Office leave behind (lock files of open documents), in lower case.
_LEFTOVERS = ("thumbs.db", "desktop.ini", "~$")


def load_dataset(
    folder: str | Path,
    *,
    channels: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    sampling_rate_hz: float | None = None,
    mmap_dir: str | Path | None = None,
) -> list[Recording]:
    r"""Read all recordings of a folder, checked to be fit for training.

    The folder holds a `manifest.csv` with the columns `file` and `label`, and where known `specimen` (or
    `specimen_group`), `rpm`, `load` ("2 hp"), `sampling_rate`, `unit`, `channel_names`; other columns
    become metadata. Without a manifest it holds one folder per class, and in these the files, or one
    folder per specimen with its files. Labels stay as the user wrote them. See `read` for
    the kinds of files; what the manifest says overrides the file.

    Args:
        folder: the folder.
        channels: names of the channels to keep, in this order; None keeps all.
        classes: labels to keep; files of others are not opened. None keeps all.
        sampling_rate_hz: the rate to assume where neither manifest nor file states one.
        mmap_dir: folder on whose disk samples are kept instead of in memory, see `whirl.data.to_mmap`.

    Returns:
        The recordings in the order of the manifest, or of their paths; all have the same channels, and
        only finite samples.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder is empty; the manifest is malformed, names files twice, outside of the
            folder, absent or of unknown kind; a class or channel is not there; a file cannot be read; a
            sample is NaN or infinite; recordings differ in their channels. The message is one line that
            names the file and the remedy.

    Example:
        >>> import tempfile
        >>> from whirl.data.dataset import load_dataset
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(Path(folder) / "a.npz", signal=np.zeros((2, 64)), fs=8000, rpm=1500)
        ...     _ = (Path(folder) / "manifest.csv").write_text("file,label,specimen,load\na.npz,wear,B1,2 hp\n")
        ...     recording, = load_dataset(folder)
        >>> recording.label, recording.specimen, recording.rpm, recording.load, recording.load_unit
        ('wear', 'B1', 1500.0, 2.0, 'hp')
    """
    read = _read_all(list_dataset(folder, classes), channels, sampling_rate_hz)
    return _same_channels(folder, list(read) if mmap_dir is None else to_mmap(read, mmap_dir))


def _read_all(
    entries: Iterable[Entry], channels: Sequence[str] | None, sampling_rate_hz: float | None
) -> Iterator[Recording]:
    for entry in entries:
        recording = entry.read(sampling_rate_hz)
        if channels:
            recording = _select_channels(recording, channels)
        _check_finite(recording)
        yield recording


def list_dataset(folder: str | Path, classes: Sequence[str] | None = None) -> list[Entry]:
    """The recordings of a folder, without opening their files; see `load_dataset`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of recordings")
    entries = read_manifest(folder) if (folder / MANIFEST).is_file() else _class_folders(folder)
    if not entries and (folder / MANIFEST).is_file():
        raise ValueError(f"{folder}: {MANIFEST} names no recordings; add a row (file, label) for each")
    if not entries:
        raise ValueError(f"{folder}: holds no recordings; add a {MANIFEST} (columns file, label) or a folder per class")
    if classes is None:
        return entries
    known = sorted({entry.label for entry in entries})
    unknown = [name for name in classes if name not in known]
    if unknown:
        raise ValueError(f"{folder}: has no class {unknown[0]!r}; its classes are {', '.join(known)}")
    return [entry for entry in entries if entry.label in classes]


def save_dataset(recordings: Iterable[Recording], folder: str | Path) -> None:
    """Write labelled recordings as float32 `.npz` files with a `manifest.csv`, for `load_dataset`.

    What is read back equals what was written but for `source` and `start_sample`, which tell the new file.
    Metadata become columns; texts, numbers, lists and None come back as they were, tuples as lists.
    Files are written one by one in a folder aside and moved at the end, the manifest last, so that
    nothing half-written stays when writing fails.

    Args:
        recordings: the recordings; a generator is drawn from one at a time.
        folder: new or empty.

    Raises:
        ValueError: the folder is not empty, there are no recordings, or one has no label.

    Example:
        >>> from whirl.data.dataset import load_dataset, save_dataset
        >>> one = Recording(np.ones((1, 32)), 8000, label="wear", specimen="B1", metadata={"severity": 0.5})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_dataset([one], folder)
        ...     again, = load_dataset(folder)
        >>> again.label, again.specimen, again.metadata, bool((again.signal == one.signal).all())
        ('wear', 'B1', {'severity': 0.5}, True)
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: is not an empty folder; choose a new one or empty it")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as aside:
            rows = [_write_recording(Path(aside), index, recording) for index, recording in enumerate(recordings)]
            if not rows:
                raise ValueError(f"{folder}: there are no recordings to write")
            write_manifest(Path(aside) / MANIFEST, rows)
            for name in [*(row["file"] for row in rows), MANIFEST]:
                (Path(aside) / name).replace(folder / name)
    except BaseException:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        raise


def _class_folders(folder: Path) -> list[Entry]:
    # Links to folders are not followed; as files without a class they are refused, not left out.
    found = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir()]
    paths = [path for path in found if _is_data_file(path.relative_to(folder))]
    depths = {path: len(path.relative_to(folder).parts) for path in paths}
    misplaced = [str(path.relative_to(folder)) for path, depth in depths.items() if depth not in (2, 3)]
    if misplaced:
        raise ValueError(
            f"{folder}: {first_few(misplaced)} has no class; add a {MANIFEST} (columns file, label) "
            "or sort the files as CLASS/FILE or CLASS/SPECIMEN/FILE"
        )
    problems = [f"{path.relative_to(folder)} {why}" for path in paths if (why := why_unreadable(path))]
    if problems:
        raise ValueError(f"{folder}: {first_few(problems)}; convert or remove them")
    return [
        Entry(path, label=path.relative_to(folder).parts[0], specimen=path.parent.name if depths[path] == 3 else None)
        for path in paths
    ]


def _is_data_file(relative: Path) -> bool:
    """Whether a file is meant to be a recording: not hidden, no leftover, and no document."""
    hidden = any(part.startswith(".") for part in relative.parts) or relative.name.lower().startswith(_LEFTOVERS)
    is_text = relative.suffix.lower() in ("", ".txt")
    document = relative.suffix.lower() in _DOCUMENTS or (is_text and relative.stem.lower().startswith(_DOCUMENT_NAMES))
    return not (hidden or document)


def _select_channels(recording: Recording, names: Sequence[str]) -> Recording:
    try:
        return recording.select_channels(names)
    except ValueError as error:
        raise ValueError(
            f"{error}; name the channels with a channel_names column in {MANIFEST}, "
            f"or choose from these with --channels {','.join(recording.channels)}"
        ) from error


def _check_finite(recording: Recording) -> None:
    finite = np.isfinite(recording.signal)
    if finite.all():
        return
    channel, sample = np.argwhere(~finite)[0]
    raise ValueError(
        f"{recording.name}: channel {recording.channels[channel]} is {recording.signal[channel, sample]} at sample "
        f"{sample} ({(~finite).sum()} such samples in all); mend the file or leave it out of the manifest"
    )


def _same_channels(folder: str | Path, recordings: list[Recording]) -> list[Recording]:
    """The recordings with their channels in one order."""
    sets = Counter(frozenset(recording.channels) for recording in recordings)
    if len(sets) > 1:
        order = recordings[0].channels
        shared = [name for name in order if all(name in names for names in sets)]
        found = ", ".join(f"{' '.join(sorted(names))} ({count})" for names, count in sets.most_common(3))
        remedy = f"keep what all have with --channels {','.join(shared)}" if shared else "name them alike"
        raise ValueError(
            f"{folder}: recordings differ in their channels: {found}; "
            f"{remedy}, or rename channels in the manifest's column channel_names"
        )
    return [
        recording if recording.channels == recordings[0].channels else recording.select_channels(recordings[0].channels)
        for recording in recordings
    ]


def _write_recording(folder: Path, index: int, recording: Recording) -> dict[str, str]:
    """Write one file; the row of the manifest for it."""
    if recording.label is None:
        raise ValueError(f"{recording.name}: has no label, and a data set needs one for every recording")
    name = f"{re.sub(r'[^A-Za-z0-9_-]', '_', recording.label)}_{index:05d}.npz"
    contents: dict[str, Any] = {
        "signal": recording.signal,
        "sampling_rate_hz": recording.sampling_rate_hz,
        "channels": np.array(recording.channels),
        "unit": recording.unit,
    }
    if recording.rpm is not None:
        contents["rpm"] = recording.rpm
    with (folder / name).open("wb") as file:
        np.savez(file, **contents)
        file.flush()
        os.fsync(file.fileno())
    return row_of(name, recording)
