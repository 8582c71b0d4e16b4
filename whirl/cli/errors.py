"""Errors and exit codes of the command."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer

from whirl._display import escape_controls

_SHOWN = 3  # files of one kind of error
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
            _defer_to_rank_zero()
            echo_error(error)
            raise typer.Exit(EX_USAGE) from None

    return run


def echo_error(error: Exception) -> None:
    """Print an error in one line to stderr."""
    echo(f"whirl: {' '.join(_explain(error).split())}", err=True)


def _defer_to_rank_zero() -> None:
    """Processes that fail for the same reason need one message: torchrun ends the others when rank 0 has ended."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") != "0":
        time.sleep(20)


def _explain(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"not enough memory: {error}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


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


def print_results(results: Iterable[Any], failures: Mapping[Any, Exception], as_json: bool) -> None:
    """Print results and the errors of files without one; exit with code 2 if there are errors."""
    if as_json:
        echo(json.dumps([result.as_dict() for result in results], indent=2, allow_nan=False))
    else:
        for result in results:
            echo(str(result))
    _echo_failures(failures)
    if failures:
        raise typer.Exit(EX_USAGE)


def _echo_failures(failures: Mapping[Any, Exception]) -> None:
    """Print one line for each kind of error, with the number of files that share it and the first of them."""
    files: dict[str, list[str]] = {}
    for file, error in failures.items():
        message = " ".join(_explain(error).split())
        kind = message.removeprefix(f"{file}: ").removeprefix(f"{Path(file).name}: ")
        files.setdefault(kind, []).append(str(file))
    for kind, named in files.items():
        names = ", ".join(Path(file).name for file in named[:_SHOWN]) + (", ..." if len(named) > _SHOWN else "")
        echo(
            f"whirl: {named[0]}: {kind}" if len(named) == 1 else f"whirl: {len(named)} files: {kind} ({names})",
            err=True,
        )


@contextmanager
def printing(as_json: bool) -> Iterator[Callable[[Any], None]]:
    """Yield a function that prints one result after the other, as text or as a JSON list."""
    if not as_json:
        yield lambda result: echo(str(result))
        return
    from whirl.runs.batch_prediction import JsonList

    printed = JsonList(echo)
    yield lambda result: printed.add(result.as_dict())
    printed.close()


def finish(outcome: Any) -> None:
    """Print the errors of a batch, those of the same kind in one line, and exit with its code."""
    _echo_failures(outcome.failures)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)
