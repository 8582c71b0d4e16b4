"""The command `whirl` in processes that are forked from one that has imported what most commands need.

A new interpreter takes seconds for these imports. Unlike a fork of the test process, these processes have none of its
threads, streams and warning filters.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TIMEOUT_S = 500
"""Generous, as the machine may be slow or loaded."""
SERVER: Any = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
if hasattr(os, "fork"):
    SERVER.set_forkserver_preload(
        [
            "whirl.cli.main", "whirl.runs.training", "whirl.runs.evaluation", "torch._dynamo",
            "sklearn.covariance", "sklearn.linear_model", "matplotlib.figure", "matplotlib.backends.backend_svg",
        ]
    )  # fmt: skip
_numbers = itertools.count()


class Command:
    """A command that runs in a process of its own, in the environment of the test.

    Args:
        *arguments: words after `whirl`.
        log_folder: folder for its output.
        cwd: its working directory.
        path: folder of modules that it can import besides installed ones.
        encoding: encoding of its output.
    """

    def __init__(
        self, *arguments: Any, log_folder: Path, cwd: Path | None = None, path: Path | None = None,
        encoding: str = "utf-8",
    ) -> None:  # fmt: skip
        self.arguments, self.encoding = [str(argument) for argument in arguments], encoding
        number = next(_numbers)
        self._logs = [log_folder / f"{name}-{number}.log" for name in ("stdout", "stderr")]
        for log in self._logs:
            log.touch()
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = SERVER.Process(
            target=_run, args=(self.arguments, self._logs, cwd or Path.cwd(), path, encoding, environment)
        )
        self._process.start()
        self.pid: int = self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def read(self) -> tuple[str, str]:
        """Return what it has written to stdout and stderr so far."""
        stdout, stderr = (log.read_bytes().decode(self.encoding, "replace") for log in self._logs)
        return stdout, stderr

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end."""
        self._process.join(TIMEOUT_S)
        assert not self.is_running, f"has not ended after {TIMEOUT_S} s: {self.arguments}"
        return subprocess.CompletedProcess(self.arguments, self._process.exitcode, *self.read())


def _run(
    arguments: list[str], logs: list[Path], cwd: Path, path: Path | None, encoding: str, environment: dict[str, str]
) -> None:
    for descriptor, log in enumerate(logs, start=1):
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), descriptor)
    sys.stdout = open(1, "w", encoding=encoding, buffering=1)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding=encoding, buffering=1)  # noqa: SIM115
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [] if path is None else [str(path)]
    sys.argv = ["whirl", *arguments]
    from whirl.cli.main import main

    main()
