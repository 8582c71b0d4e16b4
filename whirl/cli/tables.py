"""Tables: with Rich on a terminal, in plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer


def echo_table(rows: Sequence[Sequence[str]]) -> None:
    """Print a table, the heading first."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*rows[0])
        for row in rows[1:]:
            table.add_row(*map(Text, row))  # as it is: brackets in a cell are no markup
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
