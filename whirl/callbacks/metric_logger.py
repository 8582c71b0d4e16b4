"""A callback that writes the logs of epochs to a JSON or CSV file."""

from __future__ import annotations

import csv
import io
import json
import os
import warnings
from pathlib import Path

from whirl.callbacks.helpers import check_interval, scalars
from whirl.engine.callbacks import Callback, Logs
from whirl.engine.files import to_json_safe, write_json, write_text


class MetricLogger(Callback):
    r"""Write the logs of every `log_interval`-th epoch to a JSON or CSV file.

    `.json` is an array and `.csv` a table, which are rewritten each time; `.jsonl` has one line per epoch. Numbers that
    are not finite become null, or an empty cell. A resumed training continues the file and replaces entries of epochs
    that it repeats; a training that starts at epoch 0 starts a new file. If the file cannot be written, there is one
    warning, training continues, and every later entry tries again to write everything that is missing.

    Args:
        log_file: file to write; missing folders are created.
        log_interval: epochs between entries, >= 1; epoch 0 is written.

    Raises:
        ValueError: `log_interval` is below 1; at the end of an epoch, the file exists and was not written by a
            `MetricLogger`; it is left unchanged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "metrics.jsonl"
        ...     MetricLogger(file).on_epoch_end(0, {"val_loss": 0.5, "val_accuracy": float("nan")})
        ...     file.read_text()
        '{"epoch": 0, "val_loss": 0.5, "val_accuracy": null}\n'
    """

    rank_zero_only = True

    def __init__(self, log_file: str | Path, log_interval: int = 1) -> None:
        check_interval(log_interval)
        self.log_file = Path(log_file)
        self.log_interval = log_interval
        self._entries: list[Logs] | None = None
        self._is_behind = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._entries = None
        self._is_behind = False

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if epoch % self.log_interval:
            return
        try:
            self._log(epoch, logs)
        except OSError as error:
            if not self._is_behind:
                warnings.warn(f"MetricLogger: {error}; training continues", RuntimeWarning, stacklevel=2)
            self._is_behind = True

    def _log(self, epoch: int, logs: Logs | None) -> None:
        written = self._read() if self._entries is None else self._entries
        kept = [past for past in written if past["epoch"] < epoch]
        entry = to_json_safe({"epoch": epoch} | scalars(logs) | {"epoch": epoch})
        can_append = self._entries is not None and kept == written and not self._is_behind
        self._entries = [*kept, entry]
        if self.log_file.suffix == ".csv":
            write_text(self.log_file, _table(self._entries))
        elif self.log_file.suffix != ".jsonl":
            write_json(self.log_file, self._entries)
        elif can_append:
            self._append(_line(entry))
        else:
            write_text(self.log_file, "".join(_line(past) for past in self._entries))
        self._is_behind = False

    def _append(self, line: str) -> None:
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> list[Logs]:
        if not self.log_file.exists():
            return []
        try:
            text = self.log_file.read_text(encoding="utf-8")
            if self.log_file.suffix == ".jsonl":
                # A last line without a line break was not written completely.
                entries = [json.loads(line) for line in text.split("\n")[:-1]]
            elif self.log_file.suffix == ".csv":
                entries = _rows(text)
            else:
                entries = json.loads(text)
            if not all(isinstance(entry["epoch"], int) for entry in entries):
                raise TypeError
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{self.log_file}: was not written by a MetricLogger; choose another file") from None
        return entries


def _line(entry: Logs) -> str:
    return json.dumps(entry) + "\n"


def _table(entries: list[Logs]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(name for entry in entries for name in entry)), lineterminator="\n")
    table.writeheader()
    table.writerows(entries)
    return text.getvalue()


def _rows(table: str) -> list[Logs]:
    header, *rows = csv.reader(io.StringIO(table))
    epoch = header.index("epoch")
    numbers = [{name: float(cell) if cell else None for name, cell in zip(header, row, strict=True)} for row in rows]
    return [{**entry, "epoch": int(row[epoch])} for entry, row in zip(numbers, rows, strict=True)]
