"""Cells of tables that are opened in a spreadsheet."""

from __future__ import annotations

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def safe_cell(text: str) -> str:
    r"""Return the text in one line, and quoted by `'` if a spreadsheet would run it as a formula.

    Numbers are not changed: they are written as numbers, not as text.

    Example:
        >>> safe_cell("=cmd|' /C calc'!A0"), safe_cell("inner_race"), safe_cell("two\nlines")
        ("'=cmd|' /C calc'!A0", 'inner_race', 'two lines')
    """
    line = " ".join(text.splitlines())
    return f"'{line}" if text.startswith(_FORMULA) else line
