"""Watching a folder: new recordings are judged as they arrive, and alarms are kept for each machine."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from whirl.data.manifest import MANIFEST
from whirl.data.reading import readable_suffixes
from whirl.runs.alarms import ACKNOWLEDGED, AlarmRule, Alarms, Change
from whirl.runs.diagnosis_table import DiagnosisTable
from whirl.runs.judgement import Diagnosis
from whirl.runs.output_files import check_outputs
from whirl.runs.prediction import BATCH, Diagnoser, StatedFacts, iter_diagnoses, load_diagnoser
from whirl.runs.watch_page import write_watch_page
from whirl.validation import check_number

logger = logging.getLogger(__name__)

SETTLE_S = 2.0
"""A file is complete once its size and time have not changed for so long."""

RETRY_S = 60.0
"""A file that cannot be read is tried again for so long: its writer may have paused."""

_WEBHOOK_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class WatchOptions:
    """How to watch.

    Attributes:
        every_s: seconds between two looks at the folder, > 0.
        rule: when alarms begin and end.
        page: HTML page of all machines; None writes none.
        webhook: address that gets each change as JSON; None for none.
    """

    every_s: float = 10.0
    rule: AlarmRule = field(default_factory=AlarmRule)
    page: str | Path | None = None
    webhook: str | None = None

    def __post_init__(self) -> None:
        check_number("every", self.every_s, 0, open_ends=True)
        if self.webhook is not None and not self.webhook.startswith(("http://", "https://")):
            raise ValueError(f"webhook is {self.webhook!r}, expected an address that begins with http:// or https://")


class _Seen:
    """When each new file was last seen to change."""

    def __init__(self) -> None:
        self._files: dict[Path, tuple[tuple[int, int], float]] = {}

    def unchanged_s(self, file: Path, now_s: float) -> float:
        """Return for how many seconds a file has not changed, as far as it was seen; 0 if it is gone."""
        try:
            about = file.stat()
        except OSError:
            return 0.0
        facts = (about.st_size, about.st_mtime_ns)
        known, since_s = self._files.get(file, (None, now_s))
        if known != facts:
            since_s = now_s
        self._files[file] = (facts, since_s)
        return now_s - since_s

    def forget(self, file: Path) -> None:
        """Forget a file that has been judged."""
        self._files.pop(file, None)


class Watch:
    """Judges the new recordings of a folder, each once, and follows the alarms of its machines.

    The table is the only memory: alarm states follow from its lines, so that they survive a restart or a kill at any
    time. A line is written once a file has been judged; a file without a line is judged again.

    Args:
        folder: folder to watch, with all its subfolders.
        diagnoser: the diagnoser.
        table: table of judgements, opened to append.
        options: how to watch.
        stated: what is known of the files beside their manifest.
        notify: called with each change of an alarm.
        clock: returns seconds that never decrease.

    Attributes:
        alarms: alarm states of all machines.
    """

    def __init__(
        self,
        folder: str | Path,
        diagnoser: Diagnoser,
        table: DiagnosisTable,
        options: WatchOptions,
        stated: StatedFacts,
        notify: Callable[[Change], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.diagnoser, self.table, self.options = Path(folder), diagnoser, table, options
        self.stated, self._notify, self._clock = stated, notify, clock
        self._seen = _Seen()
        self.alarms = Alarms(options.rule)
        self.alarms.follow(table.rows)

    def look(self, settle_s: float = SETTLE_S, retry_s: float = RETRY_S) -> int:
        """Judge the new files that are complete.

        Args:
            settle_s: seconds for which a file must not have changed.
            retry_s: seconds for which a file that cannot be read is tried again.

        Returns:
            The number of files that were judged or given up.
        """
        now_s = self._clock()
        unchanged = {file: self._seen.unchanged_s(file, now_s) for file in self._new_files()}
        complete = [file for file, seconds in unchanged.items() if seconds >= settle_s]
        n_lines = 0
        for start in range(0, len(complete), BATCH):
            n_lines += self._judge(complete[start : start + BATCH], unchanged, retry_s)
        if self.options.page is not None and (n_lines or not Path(self.options.page).exists()):
            write_watch_page(self.alarms, self.table.rows, self.options.page, self.folder.name)
        return n_lines

    def run(self) -> None:
        """Look at the folder again and again, until interrupted."""
        while True:
            self.look()
            time.sleep(self.options.every_s)

    def _new_files(self) -> Iterator[Path]:
        suffixes = readable_suffixes()
        for file in sorted(self.folder.rglob("*")):
            is_ours = file.name == MANIFEST or file.resolve() == self.table.path.resolve()
            if file.suffix.lower() in suffixes and not is_ours and file not in self.table and file.is_file():
                yield file

    def _judge(self, files: list[Path], unchanged_s: Mapping[Path, float], retry_s: float) -> int:
        judged = []
        for file, found in iter_diagnoses(self.diagnoser, files, self.stated):
            if isinstance(found, Exception):
                if unchanged_s[Path(file)] < retry_s:
                    continue
                found = Diagnosis.unreadable(str(file), " ".join(str(found).split()))
            judged.append(replace(found, machine=found.machine or self._machine_of(Path(file))))
            self._seen.forget(Path(file))
        self._write(judged)
        return len(judged)

    def _write(self, judged: list[Diagnosis]) -> None:
        n_before = len(self.table.rows)
        self.table.append(judged, datetime.now().isoformat(timespec="seconds"))
        for change in self.alarms.follow(self.table.rows[n_before:]):
            self._notify(change)
            if self.options.webhook is not None:
                post(self.options.webhook, change)

    def _machine_of(self, file: Path) -> str:
        """Return the folder of a file, relative to the watched one: the machine, if the file states none."""
        relative = file.parent.relative_to(self.folder)
        return relative.as_posix() if relative.parts else self.folder.resolve().name


def acknowledge(table: DiagnosisTable, machine: str, rule: AlarmRule) -> None:
    """Acknowledge the warnings and alarms of a machine.

    Raises:
        ValueError: the machine has none.
    """
    alarms = Alarms(rule)
    alarms.follow(table.rows)
    levels = [state.level for point, state in alarms.states.items() if point.machine == machine]
    if not set(levels) - {"normal"}:
        known = ", ".join(sorted({p.machine for p, state in alarms.states.items() if state.level != "normal"}))
        raise ValueError(f"machine {machine!r} has no warning or alarm; those with one: {known or 'none'}")
    line = replace(Diagnosis.unreadable("", "by hand"), machine=machine)
    table.append([replace(line, status=ACKNOWLEDGED)], datetime.now().isoformat(timespec="seconds"))


def post(address: str, change: Change) -> None:
    """Send a change to a webhook as JSON; a failure is logged, and watching goes on."""
    message = {
        "machine": change.point.machine,
        "point": change.point.point,
        "before": change.before,
        "level": change.state.level,
        "fault": change.state.fault,
        "file": change.state.last.get("file", ""),
        "time": change.state.since,
        "text": str(change),
    }
    request = Request(address, json.dumps(message).encode(), {"Content-Type": "application/json"})
    try:
        urlopen(request, timeout=_WEBHOOK_TIMEOUT_S).close()
    except (URLError, OSError, ValueError) as error:
        logger.warning("the webhook %s could not be reached: %s", address, error)


def watch_folder(folder: Path, options: Any, echo: Callable[[str], None]) -> None:
    """Watch a folder as `whirl watch` does.

    Args:
        folder: the folder.
        options: settings, see `whirl.runs.command_options.WatchSection`.
        echo: prints one line.

    Raises:
        ValueError: an option, the run or the table cannot be used.
        FileNotFoundError: the folder does not exist.
    """
    rule = AlarmRule(options.on, options.of)
    watch_options = WatchOptions(options.every_s, rule, options.page, options.webhook)
    stated = StatedFacts(options.sampling_rate_hz, options.channels, options.bearing, options.rpm)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    if options.acknowledge is not None:
        with DiagnosisTable(options.log, append=True) as table:
            acknowledge(table, options.acknowledge, rule)
        echo(f"{options.acknowledge}: acknowledged")
        return
    check_outputs([options.log, options.page])
    diagnoser = load_diagnoser(options.run)
    if diagnoser.config.is_regression:
        raise ValueError(f"{options.run}: predicts a number, but alarms require classes; use whirl predict --append")
    with DiagnosisTable(options.log, append=True) as table:
        watch = Watch(folder, diagnoser, table, watch_options, stated, lambda change: echo(str(change)))
        if options.once:
            n_files = watch.look(settle_s=0, retry_s=0)
            echo(f"{n_files} new files; {_summary(watch.alarms)}")
        else:
            logger.info("watching %s; %s; end with Ctrl-C", folder, _summary(watch.alarms))
            watch.run()


def _summary(alarms: Alarms) -> str:
    """Return how many machines there are, and which have a warning or alarm."""
    raised = [
        f"{point.machine} {state.level} ({state.fault})"
        for point, state in alarms.states.items()
        if state.level != "normal"
    ]
    n_machines = len({point.machine for point in alarms.states})
    return f"{n_machines} machines, " + (", ".join(raised) if raised else "no warning or alarm")
