"""Errors and exit codes of the command."""

from __future__ import annotations

import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import typer

from whirl._display import escape_controls
from whirl.runs.output import explain, format_failures

EX_USAGE, EX_INTERRUPTED, EX_SIGNAL_BASE = 2, 130, 128


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a text; characters that control the terminal, e.g. in labels, are shown as escapes."""
    typer.echo(escape_controls(text), err=err, nl=nl)


def report_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Report errors that a user can fix in one line with exit code 2, and Ctrl-C with exit code 130."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            echo("whirl: interrupted", err=True)
            raise typer.Exit(EX_INTERRUPTED) from None
        except (ValueError, OSError, ImportError, MemoryError) as error:
            logging.getLogger(__name__).debug("", exc_info=True)
            if os.environ.get("RANK", "0") != "0":
                time.sleep(20)  # one message is enough: torchrun ends the other processes when rank 0 has ended
            echo(f"whirl: {explain(error)}", err=True)
            raise typer.Exit(EX_USAGE) from None

    return run


def report_usage_error(error: Any) -> NoReturn:
    """Print a usage error in one line, or the help if there are no arguments, and exit with code 2."""
    kind = type(error).__name__  # typer's exceptions are not public
    if kind == "NoArgsIsHelpError":
        message = error.ctx.get_help()
    elif kind == "NoSuchOption":
        from whirl.runs.config import Config
        from whirl.runs.flat import unknown_option

        flags = [flag for parameter in error.ctx.command.params for flag in parameter.opts]
        message = f"whirl: {unknown_option(error.option_name, flags, Config)}"
    else:
        message = f"whirl: {' '.join(error.format_message().split())}"
    typer.echo(message, err=True)
    sys.exit(EX_USAGE)


def finish(failures: Mapping[Any, Exception], exit_code: int = 0) -> None:
    """Print the errors of files, those of the same kind in one line, and exit with code 2 if there are any."""
    for line in format_failures(failures):
        echo(f"whirl: {line}", err=True)
    if failures or exit_code:
        raise typer.Exit(EX_USAGE if failures else exit_code)
