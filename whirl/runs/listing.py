"""Table of the run folders below a folder."""

from __future__ import annotations

import csv
import io
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from whirl._csv import safe_cell
from whirl._display import escape_controls

logger = logging.getLogger(__name__)

COLUMNS = ("run", "data", "model", "trainer", "n_test", "macro_f1", "low", "high", "accuracy", "finished", "minutes")


@dataclass(frozen=True)
class RunRow:
    """One run in the table.

    Attributes:
        run: path of its folder, relative to the folder that was searched.
        data: name of its recordings.
        model: name of the network.
        trainer: name of the trainer.
        n_test: number of test recordings; None if the run is not finished, as for the scores.
        macro_f1: macro F1 over test recordings, 0 to 1; None if a number is predicted, as for accuracy.
        low: lower end of its 95 % interval; None if there is none.
        high: upper end.
        accuracy: accuracy over test recordings, 0 to 1.
        finished: when the metrics were written, ISO 8601 in local time.
        minutes: duration of the training.
    """

    run: str
    data: str
    model: str
    trainer: str
    n_test: int | None = None
    macro_f1: float | None = None
    low: float | None = None
    high: float | None = None
    accuracy: float | None = None
    finished: str = ""
    minutes: float | None = None


def list_runs(folder: str | Path, sort_by: str = "finished") -> list[RunRow]:
    """List the runs below a folder.

    Args:
        folder: folder to search for run folders, at any depth.
        sort_by: a field of `RunRow`; numbers are sorted in descending order, and unfinished runs are last.

    Raises:
        ValueError: the folder does not exist, or the column is unknown.
    """
    from whirl.validation import check_name

    folder = Path(folder)
    check_name("column", sort_by, [field.name for field in fields(RunRow)])
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder")
    rows = list(_rows(folder))
    known = [row for row in rows if getattr(row, sort_by) not in (None, "")]
    known.sort(key=lambda row: getattr(row, sort_by), reverse=not _is_name(sort_by))
    return known + [row for row in rows if row not in known]


def _is_name(column: str) -> bool:
    return column in ("run", "data", "model", "trainer")


def _rows(folder: Path) -> Iterator[RunRow]:
    for config_file in sorted(folder.rglob("config.yaml")):
        run = config_file.parent
        if (run / "data.json").is_file():
            try:
                yield _row(run, str(run.relative_to(folder)) if run != folder else run.name)
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                logger.warning("%s: left out, not readable as a run folder (%s: %s)", run, type(error).__name__, error)


def _row(run: Path, name: str) -> RunRow:
    from whirl.runs.config_files import read_yaml

    config: Any = read_yaml(run / "config.yaml")
    facts = {
        "run": name,
        "data": Path(config["data"]["path"]).name,
        "model": config["model"]["name"],
        "trainer": config["training"]["method"]["kind"],
    }
    return RunRow(**facts, **_scores(run / "metrics.json"), minutes=_minutes(run / "data.json"))


def _scores(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    metrics = json.loads(file.read_text(encoding="utf-8"))["recording"]
    interval = metrics["intervals"].get("macro_f1", {})
    written = datetime.fromtimestamp(file.stat().st_mtime).isoformat(sep=" ", timespec="minutes")
    return {
        "n_test": metrics["n"],
        "macro_f1": metrics.get("macro_f1"),
        "low": interval.get("low"),
        "high": interval.get("high"),
        "accuracy": metrics.get("accuracy"),
        "finished": written,
    }


def _minutes(file: Path) -> float | None:
    seconds = json.loads(file.read_text(encoding="utf-8")).get("timings_s", {}).get("training")
    return None if seconds is None else seconds / 60


def to_csv(rows: Sequence[RunRow]) -> str:
    """Format the table as CSV with full precision."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    values = ([getattr(row, name) for name in COLUMNS] for row in rows)
    table.writerows([safe_cell(value) if isinstance(value, str) else value for value in each] for each in values)
    return text.getvalue()


def to_latex(rows: Sequence[RunRow]) -> str:
    r"""Format the table for LaTeX with the package booktabs."""
    lines = [" & ".join(cells) + r" \\" for cells in ([_HEAD, *map(cells_of, rows)])]
    escaped = [line.replace("_", r"\_").replace("%", r"\%") for line in lines]
    body = "\n".join([r"\toprule", escaped[0], r"\midrule", *escaped[1:], r"\bottomrule"])
    return f"\\begin{{tabular}}{{{'l' * len(_HEAD)}}}\n{body}\n\\end{{tabular}}\n"


_HEAD = ["run", "data", "model", "trainer", "test", "macro F1", "accuracy", "finished", "duration"]


def cells_of(row: RunRow) -> list[str]:
    """Format the cells of a row; those of unfinished runs are empty.

    Example:
        >>> cells_of(RunRow("a", "cwru", "wdcnn", "plain", 12, 0.5, 0.4, 0.6, 0.75, "2026-11-30 12:00", 1.5))[4:7]
        ['12', '0.500 [0.400, 0.600]', '0.750']
    """
    interval = "" if row.low is None or row.high is None else f" [{row.low:.3f}, {row.high:.3f}]"
    return [
        row.run,
        row.data,
        row.model,
        row.trainer,
        "" if row.n_test is None else str(row.n_test),
        "" if row.macro_f1 is None else f"{row.macro_f1:.3f}{interval}",
        "" if row.accuracy is None else f"{row.accuracy:.3f}",
        row.finished,
        "" if row.minutes is None else f"{row.minutes:.1f} min",
    ]


def table_of(rows: Sequence[RunRow]) -> list[list[str]]:
    """Return the heading and the cells of each run."""
    return [_HEAD, *map(cells_of, rows)]


def print_table(rows: Sequence[RunRow]) -> None:
    """Print the table: with Rich on a terminal, as plain text elsewhere.

    Example:
        >>> print_table([RunRow("a", "cwru", "wdcnn", "plain")])
        run  data  model  trainer  test  macro F1  accuracy  finished  duration
        a    cwru  wdcnn  plain
    """
    head, *cells = [[escape_controls(cell) for cell in row] for row in table_of(rows)]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*head)
        for row in cells:
            table.add_row(*map(Text, row))  # as Text, so that brackets are not markup
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    for row in (head, *cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
