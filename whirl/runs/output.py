"""Output of commands that handle many files: one result after the other, and errors by kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SHOWN = 3  # files of one kind of error


def explain(error: Exception) -> str:
    """Return the message of an error in one line.

    Example:
        >>> explain(FileNotFoundError(2, "No such file or directory", "a.mat"))
        'a.mat: No such file or directory'
    """
    text = str(error)
    if isinstance(error, MemoryError):
        text = f"not enough memory: {error}"
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(text.split())


def format_failures(failures: Mapping[Any, Exception]) -> list[str]:
    """Return one line for each kind of error, with the number of files that share it and the first of them.

    Example:
        >>> format_failures({"a.mat": ValueError("a.mat: no signal"), "b.mat": ValueError("b.mat: no signal")})
        ['2 files: no signal (a.mat, b.mat)']
        >>> format_failures({"a.mat": ValueError("a.mat has 9 samples")})
        ['a.mat: has 9 samples']
    """
    files: dict[str, list[str]] = {}
    for file, error in failures.items():
        kind = explain(error).removeprefix(f"{file}: ").removeprefix(f"{Path(file).name}: ").removeprefix(f"{file} ")
        files.setdefault(kind, []).append(str(file))
    return [_format_kind(kind, named) for kind, named in files.items()]


def _format_kind(kind: str, files: list[str]) -> str:
    if len(files) == 1:
        return f"{files[0]}: {kind}"
    names = ", ".join(Path(file).name for file in files[:_SHOWN]) + (", ..." if len(files) > _SHOWN else "")
    return f"{len(files)} files: {kind} ({names})"


def print_results(results: Sequence[Any], as_json: bool, echo: Callable[[str], None]) -> None:
    """Print results as text or as indented JSON.

    Args:
        results: what to print.
        as_json: whether to print JSON.
        echo: prints one line.
    """
    if as_json:
        echo(json.dumps([result.as_dict() for result in results], indent=2, allow_nan=False))
    else:
        for result in results:
            echo(str(result))


@contextmanager
def printing(as_json: bool, echo: Callable[[str], None]) -> Iterator[Callable[[Any], None]]:
    """Yield a function that prints one result after the other, as text or as a JSON list.

    Args:
        as_json: whether to print JSON.
        echo: prints one line.
    """
    if not as_json:
        yield lambda result: echo(str(result))
        return
    printed = JsonList(echo)
    yield lambda result: printed.add(result.as_dict())
    printed.close()


class JsonList:
    """Prints a JSON list item by item.

    Args:
        echo: prints one line.
    """

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo, self._pending = echo, ""

    def add(self, item: dict[str, Any]) -> None:
        """Print the item before, and keep this one until it is known whether another follows."""
        self._echo(self._pending + "," if self._pending else "[")
        self._pending = json.dumps(item, allow_nan=False)

    def close(self) -> None:
        """Print the last item and the end of the list."""
        self._echo(self._pending + "\n]" if self._pending else "[]")
