"""Data sets on disk: a folder with a manifest.csv, or with one subfolder per class."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from whirl._locks import LOCK, locked
from whirl.data.layouts import is_condition, part_of, recognize_layout
from whirl.data.manifest import (
    MANIFEST,
    Entry,
    first_few,
    read_manifest,
    row_of,
    rows_by_file,
    why_unreadable,
    write_manifest,
)
from whirl.data.memmap import to_mmap
from whirl.data.mixing import one_unit_per_channel, without_very_short
from whirl.data.names import DATASET_PREFIX as PREFIX
from whirl.data.progress import with_progress
from whirl.data.public_sets import public_entries
from whirl.data.recording import Recording
from whirl.validation import unknown_name

logger = logging.getLogger(__name__)

_NOT_EMPTY = "is not an empty folder; choose a new one or empty it"
_PARTIAL = re.compile(r"\.partial-[a-z0-9_]{8}")

# Files that are skipped in class folders.
_DOCUMENT_SUFFIXES = {
    ".md",
    ".pdf",
    ".html",
    ".json",
    ".xml",
    ".yaml",
    ".yml",
    ".png",
    ".jpg",
    ".jpeg",
    ".py",
    ".m",
    ".ipynb",
}
_DOCUMENT_NAMES = ("readme", "license", "licence", "notes")
# Prefixes of files created by Windows and Office (lock files of open documents), in lower case.
_SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "~$", "icon\r", "ds_store", "._")
# Folders that systems and archivers leave, in lower case.
_SYSTEM_FOLDERS = ("__macosx", "$recycle.bin", "system volume information", "@eadir", "lost+found", "__pycache__")


def load_dataset(
    folder: str | Path,
    *,
    channels: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    sampling_rate_hz: float | None = None,
    mmap_dir: str | Path | None = None,
    where: Mapping[str, Any] | None = None,
) -> list[Recording]:
    r"""Read all recordings of a folder and validate them for training.

    The folder contains a `manifest.csv` with the columns `file` and `label` and, optionally, `specimen` (or
    `specimen_group`), `rpm`, `load` ("2 hp"), `sampling_rate`, `unit` and `channel_names`. Rolling bearings are
    given by `bearing` (a designation; several separated by ";"), or by `n_elements`, `ball_diameter`,
    `pitch_diameter` and `contact_angle`, or by their fault orders `bpfo`, `bpfi`, `bsf` and `ftf`, with
    `rotating_race` "inner" (default) or "outer". Other columns become metadata. Without a manifest, it contains one
    subfolder per class, with the files either directly in it or in one subfolder per specimen. Labels are kept as
    written. For supported formats see `read`; values in the manifest override those in the file.

    Args:
        folder: the folder; or a single file of windows with labels; or `"dataset:NAME"`, a public data set that the
            package `bearing-datasets` built, see `whirl.data.public_entries`.
        channels: names of the channels to keep, in this order; None keeps all.
        classes: labels to keep; files of other classes are not opened. None keeps all.
        sampling_rate_hz: sampling rate to assume if neither manifest nor file states one.
        mmap_dir: folder for a memory-mapped file with the samples, for data larger than memory; see
            `whirl.data.to_mmap`. None keeps the samples in memory.
        where: values of columns that recordings of a public data set must have, e.g. `{"fault_origin": "real"}`.

    Returns:
        The recordings in the order of the manifest, or sorted by path. All have the same channels, finite samples and,
        where units are known, the same unit in each channel: that of the first recording. Recordings that are much
        shorter than all others are left out with a warning.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: the folder is empty; the manifest is malformed, or lists a file twice, outside the folder, missing
            or of unknown type; a class or channel does not exist; a file cannot be read; a sample is NaN or infinite;
            recordings have different channels, or different quantities in a channel. The message is one line that names
            the file and the remedy.

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
    recordings = one_unit_per_channel(_read_all(list_dataset(folder, classes, where), channels, sampling_rate_hz))
    unified = _unify_channels(folder, list(recordings) if mmap_dir is None else to_mmap(recordings, mmap_dir))
    return without_very_short(unified)


def _read_all(
    entries: Sequence[Entry], channels: Sequence[str] | None, sampling_rate_hz: float | None
) -> Iterator[Recording]:
    for entry in with_progress(entries, "reading"):
        for recording in entry.read_all(sampling_rate_hz):
            if channels:
                recording = _select_channels(recording, channels)
            _check_finite(recording)
            yield recording


def list_dataset(
    folder: str | Path, classes: Sequence[str] | None = None, where: Mapping[str, Any] | None = None
) -> list[Entry]:
    """Return the entries of a folder without opening the recordings; see `load_dataset`.

    Args:
        folder: the folder, a file or a public data set.
        classes: labels to keep; None keeps all.
        where: selection from a public data set.

    Raises:
        FileNotFoundError, ValueError: as for `load_dataset`.
    """
    if str(folder).startswith(PREFIX):
        return _of_classes(folder, public_entries(str(folder), where), classes)
    if where:
        raise ValueError(f"where is {dict(where)}, expected a public data set ({PREFIX}NAME) instead of {folder}")
    folder = Path(folder)
    if folder.is_file():
        return [Entry(folder, label="")]
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    entries = read_manifest(folder) if (folder / MANIFEST).is_file() else _class_folders(folder)
    if not entries and (folder / MANIFEST).is_file():
        raise ValueError(f"{folder}: {MANIFEST} lists no recordings; add a row (file, label) for each")
    if not entries:
        raise ValueError(
            f"{folder}: contains no recordings; add a {MANIFEST} (columns file, label) or one folder per class"
        )
    return _of_classes(folder, entries, classes)


def _of_classes(folder: str | Path, entries: list[Entry], classes: Sequence[str] | None) -> list[Entry]:
    if classes is None:
        return entries
    known = sorted({entry.label for entry in entries})
    unknown = [name for name in classes if name not in known]
    if unknown:
        raise ValueError(f"{folder}: {unknown_name('class', unknown[0], known)}")
    return [entry for entry in entries if entry.label in classes]


def save_dataset(recordings: Iterable[Recording], folder: str | Path) -> None:
    """Write labeled recordings as float32 `.npz` files with a `manifest.csv`, for `load_dataset`.

    Recordings read back equal those written, except `source` and `start_sample`, which refer to the new file. Metadata
    become columns; texts, numbers, lists and None are restored exactly, tuples as lists. Files are written one by one
    to a temporary folder and moved at the end, the manifest last, so a failed write leaves no partial data set.

    Args:
        recordings: the recordings; a generator is consumed one recording after the other.
        folder: a new or empty folder.

    Raises:
        ValueError: the folder is not empty, there are no recordings, or a recording has no label.

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
    is_new = not folder.exists()
    if not is_new and not folder.is_dir():
        raise ValueError(f"{folder}: {_NOT_EMPTY}")
    try:
        with locked(folder):
            _remove_partial(folder)
            _check_empty(folder)
            _write_recordings(recordings, folder)
    finally:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


def _check_empty(folder: Path) -> None:
    if any(path.name != LOCK for path in folder.iterdir()):
        raise ValueError(f"{folder}: {_NOT_EMPTY}")


def _remove_partial(folder: Path) -> None:
    """Remove what a process left that was killed while it wrote a data set; its manifest is moved last."""
    for partial in folder.glob(".partial-*"):
        if _PARTIAL.fullmatch(partial.name) is None or (folder / MANIFEST).exists():
            continue
        for name in rows_by_file(partial):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(partial)


def _write_recordings(recordings: Iterable[Recording], folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as temp_dir:
        rows = [_write_recording(Path(temp_dir), index, recording) for index, recording in enumerate(recordings)]
        if not rows:
            raise ValueError(f"{folder}: no recordings to write")
        write_manifest(Path(temp_dir) / MANIFEST, rows)
        _move([*(row["file"] for row in rows), MANIFEST], Path(temp_dir), folder)


def _move(names: Sequence[str], source: Path, target: Path) -> None:
    """Move files to another folder, all or, if one cannot be moved, none."""
    try:
        for name in names:
            (source / name).replace(target / name)
    except BaseException:
        for name in reversed(names):
            (target / name).unlink(missing_ok=True)
        raise


def data_files(folder: Path) -> list[Path]:
    """Return the files of a folder that should be recordings, sorted; documents and system files are skipped.

    Links to folders are not followed, but returned, so that they are reported instead of being skipped silently.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    found = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir()]
    return [path for path in found if _is_data_file(path.relative_to(folder)) and path.name != MANIFEST]


def _class_folders(folder: Path) -> list[Entry]:
    paths = data_files(folder)
    entries = recognize_layout(folder, paths)
    if entries is not None:
        logger.info("%s has the layout of the data set %s", folder, entries[0].metadata["data_set"])
        return entries
    places = {path: _without_part(path.relative_to(folder)) for path in paths}
    depths = {path: len(place.parts) for path, place in places.items()}
    misplaced = [str(path.relative_to(folder)) for path, depth in depths.items() if depth not in (2, 3)]
    if misplaced:
        raise ValueError(
            f"{folder}: {first_few(misplaced)} is not in a class folder; add a {MANIFEST} (columns file, label) "
            "or arrange the files as CLASS/FILE or CLASS/SPECIMEN/FILE"
        )
    problems = [f"{path.relative_to(folder)} {why}" for path in paths if (why := why_unreadable(path))]
    if problems:
        raise ValueError(f"{folder}: {first_few(problems)}; convert or remove them")
    labels = {place.parts[0] for place in places.values()}
    if labels and all(map(is_condition, labels)):
        raise ValueError(
            f"{folder}: the folders {first_few(sorted(labels))} state operating conditions, not classes; add a "
            f"{MANIFEST} (columns file, label): whirl inspect DATA --write-manifest writes one to correct by hand"
        )
    return [
        Entry(
            path,
            label=place.parts[0],
            specimen=path.parent.name if depths[path] == 3 else None,
            metadata={"part": path.relative_to(folder).parts[0]} if place != path.relative_to(folder) else {},
        )
        for path, place in places.items()
    ]


def _without_part(relative: Path) -> Path:
    """Return a path without a first folder that only splits the data set, such as `train`."""
    is_part = len(relative.parts) > 2 and part_of(relative.parts[0])
    return Path(*relative.parts[1:]) if is_part else relative


def _is_data_file(relative: Path) -> bool:
    """Return whether a file should be a recording: not hidden, not a system file, and not a document."""
    hidden = any(part.startswith(".") or part.lower() in _SYSTEM_FOLDERS for part in relative.parts)
    hidden = hidden or relative.name.lower().startswith(_SYSTEM_FILES) or relative.name.endswith((".tdms_index", "~"))
    is_text = relative.suffix.lower() in ("", ".txt")
    document = relative.suffix.lower() in _DOCUMENT_SUFFIXES or (
        is_text and relative.stem.lower().startswith(_DOCUMENT_NAMES)
    )
    return not (hidden or document)


def _select_channels(recording: Recording, names: Sequence[str]) -> Recording:
    try:
        return recording.select_channels(names)
    except ValueError as error:
        raise ValueError(
            f"{error}; name the channels in a channel_names column of {MANIFEST}, "
            f"or train with --channels {','.join(recording.channels)}"
        ) from error


def _check_finite(recording: Recording) -> None:
    finite = np.isfinite(recording.signal)
    if finite.all():
        return
    channel, sample = np.argwhere(~finite)[0]
    raise ValueError(
        f"{recording.name}: channel {recording.channels[channel]} is {recording.signal[channel, sample]} at sample "
        f"{sample} ({(~finite).sum()} NaN or infinite samples in total); repair or exclude the file"
    )


def _unify_channels(folder: str | Path, recordings: list[Recording]) -> list[Recording]:
    """Return the recordings with their channels in the same order; raise if they have different channels."""
    sets = Counter(frozenset(recording.channels) for recording in recordings)
    if len(sets) > 1:
        order = recordings[0].channels
        shared = [name for name in order if all(name in names for names in sets)]
        found = ", ".join(f"{' '.join(sorted(names))} ({count})" for names, count in sets.most_common(3))
        select = f"select the common ones with --channels {','.join(shared)}, or " if shared else ""
        raise ValueError(
            f"{folder}: recordings have different channels: {found}; "
            f"{select}rename channels in the channel_names column of {MANIFEST}"
        )
    return [
        recording if recording.channels == recordings[0].channels else recording.select_channels(recordings[0].channels)
        for recording in recordings
    ]


def _write_recording(folder: Path, index: int, recording: Recording) -> dict[str, str]:
    """Write one file and return its row of the manifest."""
    if recording.label is None:
        raise ValueError(f"{recording.name}: has no label, expected one for every recording of a data set")
    name = f"{re.sub(r'[^A-Za-z0-9_-]', '_', recording.label)}_{index:05d}.npz"
    contents: dict[str, Any] = {
        "signal": recording.signal,
        "sampling_rate_hz": recording.sampling_rate_hz,
        "channels": np.array(recording.channels),
        "unit": np.array(recording.channel_units) if recording.channel_units else recording.unit,
    }
    if recording.rpm is not None:
        contents["rpm"] = recording.rpm
    with (folder / name).open("wb") as file:
        np.savez(file, **contents)
        file.flush()
        os.fsync(file.fileno())
    return row_of(name, recording)
