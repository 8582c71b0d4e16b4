"""Judgement of many files: one line for each as it is judged, a table that grows, a page, and grouped errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from whirl.runs.diagnosis import list_recordings
from whirl.runs.diagnosis_page import write_page
from whirl.runs.diagnosis_table import DiagnosisTable
from whirl.runs.judgement import Diagnosis
from whirl.runs.output_files import check_outputs
from whirl.runs.prediction import BATCH, StatedFacts, iter_diagnoses, load_diagnoser

NOT_JUDGED_CODE = 3
"""Exit code if every file could be used, but some were not judged."""


@dataclass(frozen=True)
class BatchOptions:
    """What to do with the judgements.

    Attributes:
        csv: table to write; None writes none.
        append: continue the table, and judge only files that it does not have.
        report: HTML page to write; None writes none.
    """

    csv: str | Path | None = None
    append: bool = False
    report: str | Path | None = None

    def __post_init__(self) -> None:
        if self.append and self.csv is None:
            raise ValueError("--append requires --csv FILE")


@dataclass
class Outcome:
    """What came of a batch.

    Attributes:
        n_judged: number of files with a class.
        n_not_judged: number of usable files without one.
        failures: why each other file could not be used.
    """

    n_judged: int = 0
    n_not_judged: int = 0
    failures: dict[str, Exception] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 if every file was judged, 2 if one could not be used, otherwise 3."""
        return 2 if self.failures else NOT_JUDGED_CODE if self.n_not_judged else 0

    def add(self, found: Diagnosis) -> None:
        """Count a judgement."""
        if found.status != "unreadable":
            self.n_judged += found.is_judged
            self.n_not_judged += not found.is_judged


def predict_batch(
    run: str | Path,
    paths: Sequence[str | Path],
    stated: StatedFacts,
    options: BatchOptions,
    show: Callable[[Diagnosis], None],
) -> Outcome:
    """Judge files, folders, manifests and patterns with the memory of a few recordings.

    Args:
        run: a run folder or a bundle.
        paths: see `list_recordings`.
        stated: what is known of the files beside their manifest.
        options: what to write.
        show: called with each judgement, in order; for a file that cannot be used, with one of status `"unreadable"`.

    Raises:
        FileNotFoundError, ValueError: a path, the run or the table cannot be used; nothing has been judged then.
    """
    files = list_recordings(paths)
    check_outputs([options.csv, options.report], files)
    diagnoser = load_diagnoser(run)
    outcome, kept = Outcome(), []
    with nullcontext() if options.csv is None else DiagnosisTable(options.csv, options.append) as table:
        new = files if table is None else [file for file in files if file not in table]
        for found in _progress(_judge(diagnoser, new, stated, outcome), len(new)):
            if table is not None:
                table.append([found], datetime.now().isoformat(timespec="seconds"))
            if options.report is not None:
                kept.append(found)
            show(found)
    if options.report is not None:
        write_page(kept, options.report, f"Recordings judged by {Path(run).name}", stated.sampling_rate_hz)
    return outcome


def _judge(diagnoser: Any, files: Sequence[Path], stated: StatedFacts, outcome: Outcome) -> Iterator[Diagnosis]:
    for file, found in iter_diagnoses(diagnoser, files, stated):
        if isinstance(found, Exception):
            outcome.failures[str(file)] = found
            found = Diagnosis.unreadable(str(file), " ".join(str(found).split()))
        outcome.add(found)
        yield found


def _progress(judged: Iterable[Diagnosis], n_files: int) -> Iterable[Diagnosis]:
    """Show a progress bar for many files, if stderr is a terminal and stdout is not."""
    if n_files <= BATCH or not sys.stderr.isatty() or sys.stdout.isatty():
        return judged
    from tqdm.auto import tqdm

    return tqdm(judged, total=n_files, unit="file")
