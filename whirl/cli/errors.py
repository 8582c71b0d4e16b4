"""Errors and exit codes of the command."""

from __future__ import annotations

import functools
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

import typer

EX_USAGE, EX_INTERRUPTED, EX_SIGNAL_BASE = 2, 130, 128


def report_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what a user can fix into one line and exit code 2, and Ctrl-C into exit code 130."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            typer.echo("whirl: interrupted", err=True)
            raise typer.Exit(EX_INTERRUPTED) from None
        except (ValueError, OSError, ImportError, MemoryError) as error:
            logging.getLogger(__name__).debug("", exc_info=True)
            _defer_to_rank_zero()
            echo_error(error)
            raise typer.Exit(EX_USAGE) from None

    return run


def echo_error(error: Exception) -> None:
    """Print an error in one line to stderr."""
    typer.echo(f"whirl: {' '.join(_explain(error).split())}", err=True)


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
    """Print a wrong usage in one line, or the help where nothing was given, and exit with code 2."""
    name = getattr(error, "option_name", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.ctx.get_help(), err=True)
    elif name:
        from whirl.runs.config import Config
        from whirl.runs.flat import unknown_setting

        hint = unknown_setting(name.strip("-").replace("-", "_"), Config).partition("; ")[2]
        typer.echo(f"whirl: no such option: {name}{'; ' + hint if hint.startswith('did') else ''}", err=True)
    else:
        typer.echo(f"whirl: {' '.join(error.format_message().split())}", err=True)
    sys.exit(EX_USAGE)


def names_in(text: str | None) -> list[str] | None:
    """Split names at commas; None stays None.

    Example:
        >>> names_in("DE, FE")
        ['DE', 'FE']
    """
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]
