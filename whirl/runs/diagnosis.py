"""Diagnosis of files without training: reading, judging in parallel, and writing tables and pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from whirl._csv import safe_cell
from whirl._parallel import available_cores, one_torch_thread
from whirl.data.manifest import MANIFEST, read_listed, rows_by_file
from whirl.data.reading import readable_suffixes
from whirl.data.recording import Recording
from whirl.diagnosis.plots import plot_diagnosis
from whirl.diagnosis.results import BearingDiagnosis, RecordingDiagnosis
from whirl.diagnosis.spectral import SpectralDiagnoser
from whirl.engine.files import atomic_write, check_writable, write_text
from whirl.physics.bearings import parse_bearings
from whirl.physics.fault_families import HARMONICS
from whirl.runs.output_files import check_outputs
from whirl.validation import check_number

PICTURE_SUFFIXES = (".png", ".svg", ".pdf")
FAMILIES = ("BPFI", "BPFO", "2BSF", "FTF")

_FAILURES = (ValueError, OSError, ImportError)  # of one file; the others can be diagnosed
_QUANTITIES = ("significance_db", "depth_db", "slip", "sidebands_db", "false_alarm_probability")


@dataclass(frozen=True)
class DiagnoseOptions:
    """What is known about files beside their manifest.

    Attributes:
        bearing: the bearings near the sensors; None takes those in the manifest.
        rpm: speed of the shaft in rev/min; None takes that of manifest or file.
        channels: channels to evaluate, or names for channels without one; None takes all.
        sampling_rate_hz: sampling rate of files that state none.
    """

    bearing: str | None = None
    rpm: float | None = None
    channels: Sequence[str] | None = None
    sampling_rate_hz: float | None = None

    def read(self, file: str | Path) -> Recording:
        """Read a file with the information that its manifest and these options have about it."""
        (recording,) = read_listed([file], self.sampling_rate_hz)
        recording = replace(recording, **known_facts(self.bearing, self.rpm))
        return recording if self.channels is None else _with_channels(recording, self.channels)


def known_facts(bearing: str | None, rpm: float | None) -> dict[str, Any]:
    """Return the fields of recordings that a user states, validated.

    Raises:
        ValueError: the bearing is unknown or malformed, or the speed is not positive.

    Example:
        >>> known_facts("SKF 6205", None)
        {'bearing': '6205'}
    """
    facts: dict[str, Any] = {}
    if bearing is not None:
        facts["bearing"] = "; ".join(each.text for each in parse_bearings(bearing))
    if rpm is not None:
        facts["rpm"] = check_number("rpm", rpm, 0, open_ends=True)
    return facts


def list_recordings(paths: Sequence[str | Path]) -> list[Path]:
    """Return the recordings that paths name: files, folders, manifests and patterns such as `data/*.mat`.

    A folder stands for the files in its manifest, or for all that can be read if it has none.

    Raises:
        FileNotFoundError: a path does not exist, or a pattern fits no file.
        ValueError: a folder has no recordings.

    Example:
        >>> list_recordings(["no such file"])
        Traceback (most recent call last):
        FileNotFoundError: no such file: no such file or folder
    """
    return [file for path in paths for file in _files_of(Path(path))]


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        return _files_in(path)
    if path.name == MANIFEST and path.is_file():
        return _files_in(path.parent)
    if path.exists():
        return [path]
    found = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))) if _is_pattern(path) else []
    if not found:
        raise FileNotFoundError(f"{path}: no such file or folder")
    return [file for each in found for file in (_files_in(each) if each.is_dir() else [each])]


def _is_pattern(path: Path) -> bool:
    return any(character in str(path) for character in "*?[")


def diagnose_files(
    files: Sequence[str | Path], options: DiagnoseOptions | None = None, n_workers: int | None = None
) -> tuple[list[RecordingDiagnosis], dict[str, Exception]]:
    """Diagnose files in parallel; a file that fails does not affect the others.

    Args:
        files: recordings in any supported format.
        options: what is known about them beside their manifest.
        n_workers: threads; default one per processor.

    Returns:
        The diagnoses in the order of the files, and why each other file has none.

    Raises:
        ValueError: the bearing or the speed in the options is invalid.

    Example:
        >>> diagnose_files([])
        ([], {})
    """
    options = options or DiagnoseOptions()
    known_facts(options.bearing, options.rpm)  # what is invalid is so for every file
    diagnoser = SpectralDiagnoser()

    def diagnose(file: str | Path) -> RecordingDiagnosis | Exception:
        try:
            return diagnoser.diagnose([options.read(file)])[0]
        except _FAILURES as error:
            return error

    with one_torch_thread(), ThreadPoolExecutor(n_workers or available_cores()) as pool:
        found = list(pool.map(diagnose, files))
    diagnoses = [each for each in found if isinstance(each, RecordingDiagnosis)]
    failures = {str(file): each for file, each in zip(files, found, strict=True) if isinstance(each, Exception)}
    return diagnoses, failures


def diagnose_paths(
    paths: Sequence[str | Path], options: DiagnoseOptions, csv: str | Path | None = None, plot: str | Path | None = None
) -> tuple[list[BearingDiagnosis], dict[str, Exception], list[Path]]:
    """Diagnose files and folders, and write the results.

    Args:
        paths: files, and folders of recordings.
        options: what is known about them beside their manifest.
        csv: CSV file to write.
        plot: image file or folder to write, see `write_pictures`.

    Returns:
        The results in the order of the files, why each other file has none, and the images.

    Raises:
        ValueError: the options are invalid, or `csv` or `plot` cannot be used; nothing has been diagnosed then.
        OSError: a path does not exist, or a result cannot be written.
    """
    files = list_recordings(paths)
    picture = plot if plot is not None and is_picture(plot, len(files)) else None
    check_outputs([csv, picture], files)
    if plot is not None:
        check_writable(Path(plot).parent if picture else plot)
    diagnoses, failures = diagnose_files(files, options)
    results = each_result(diagnoses)
    if csv is not None:
        write_csv(results, csv)
    return results, failures, [] if plot is None else write_pictures(diagnoses, options, plot)


def each_result(diagnoses: Sequence[RecordingDiagnosis]) -> list[BearingDiagnosis]:
    """Return the diagnoses of all channels and bearings, in order."""
    return [result for diagnosis in diagnoses for result in diagnosis.results]


def to_csv(results: Sequence[BearingDiagnosis]) -> str:
    """Write diagnoses as CSV, one line per file, channel and bearing; what was not measured is empty.

    Example:
        >>> print(to_csv([BearingDiagnosis("no_line_found", ("too faint",), "a.mat", "DE", 1797.0, "6205")])[:70])
        file,channel,rpm,bearing,verdict,reasons,turns,impulsiveness,BPFI_sign
    """
    rows = [
        {name: safe_cell(value) if isinstance(value, str) else value for name, value in _row(result).items()}
        for result in results
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(_row(BearingDiagnosis("not_judged", ()))), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(results: Sequence[BearingDiagnosis], path: str | Path) -> None:
    """Write diagnoses to a CSV file, see `to_csv`."""
    write_text(path, to_csv(results))


def is_picture(path: str | Path, n_files: int) -> bool:
    """Return whether a path is a picture of a file, otherwise it is a folder for the pictures of several.

    Args:
        path: the path.
        n_files: number of files to draw.

    Raises:
        ValueError: it is another kind of file, or a picture for several files.

    Example:
        >>> is_picture("a.png", 1), is_picture("pictures", 2)
        (True, False)
    """
    path = Path(path)
    if path.is_dir():
        return False
    if path.suffix.lower() in PICTURE_SUFFIXES:
        if n_files > 1:
            raise ValueError(f"{path}: is one picture, but there are {n_files} files; give a folder")
        return True
    if path.suffix[1:2].isalpha():
        formats = ", ".join(PICTURE_SUFFIXES)
        raise ValueError(f"{path}: unsupported image format; expected one of: {formats}, or a folder without suffix")
    if path.exists():
        raise ValueError(f"{path}: is a file, expected an image ({', '.join(PICTURE_SUFFIXES)}) or a folder")
    return False


def write_pictures(diagnoses: Sequence[RecordingDiagnosis], options: DiagnoseOptions, out: str | Path) -> list[Path]:
    """Draw diagnoses, see `whirl.diagnosis.plot_diagnosis`.

    Args:
        diagnoses: of files.
        options: those that the files were diagnosed with.
        out: a picture (.png, .svg, .pdf) of the leading diagnosis of a single recording, or a folder, which gets a
            picture of every file, channel and bearing.

    Returns:
        The pictures.

    Raises:
        ValueError: `out` is another kind of file, or one picture and there are several recordings.
        OSError: a picture cannot be written.
    """
    out = Path(out)
    if is_picture(out, len(diagnoses)):
        wanted = [(out, each.leading) for each in diagnoses]
    else:
        out.mkdir(parents=True, exist_ok=True)
        wanted = list(zip(_picture_names(out, each_result(diagnoses)), each_result(diagnoses), strict=True))
    recordings: dict[str, Recording] = {}
    for path, result in wanted:
        if result.file not in recordings:
            recordings = {result.file: options.read(result.file)}  # one at a time
        figure = plot_diagnosis(recordings[result.file], result)
        with atomic_write(path) as file:
            figure.savefig(file, format=path.suffix[1:].lower())
    return [path for path, _ in wanted]


def _files_in(folder: Path) -> list[Path]:
    listed = [folder / name for name in rows_by_file(folder)]
    suffixes = readable_suffixes()
    found = listed or sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix.lower() in suffixes and path.name != MANIFEST
    )
    if not found:
        raise ValueError(f"{folder}: has no recordings; expected files in one of {', '.join(suffixes)}")
    return found


def _with_channels(recording: Recording, names: Sequence[str]) -> Recording:
    unnamed = recording.channels == tuple(f"ch{index}" for index in range(recording.n_channels))
    if unnamed and len(names) == recording.n_channels:
        return replace(recording, channels=tuple(names))
    return recording.select_channels(names)


def _row(result: BearingDiagnosis) -> dict[str, Any]:
    row: dict[str, Any] = {
        "file": result.file,
        "channel": result.channel,
        "rpm": result.rpm,
        "bearing": result.bearing,
        "verdict": result.verdict,
        "reasons": "; ".join(result.reasons),
        "turns": result.n_turns,
        "impulsiveness": result.impulsiveness,
    }
    for name in FAMILIES:
        family = result.families.get(name)
        for quantity in _QUANTITIES:
            row[f"{name}_{quantity}"] = getattr(family, quantity, None)
        for place, harmonic in enumerate(HARMONICS):
            row[f"{name}_harmonic_{harmonic}_db"] = None if family is None else family.harmonics_db[place]
    return row


def _picture_names(folder: Path, results: Sequence[BearingDiagnosis]) -> list[Path]:
    """Names from file, channel and bearing, with a number where one occurs again."""
    names: dict[str, int] = {}
    paths = []
    for result in results:
        parts = (Path(result.file).stem, result.channel, result.bearing or "")
        name = "-".join("".join(c if c.isalnum() or c in "._" else "_" for c in part) for part in parts if part)[:120]
        names[name] = names.get(name, 0) + 1
        paths.append(folder / f"{name}{f'-{names[name]}' if names[name] > 1 else ''}.png")
    return paths
