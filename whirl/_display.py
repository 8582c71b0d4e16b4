"""How objects show themselves: one line of text, and an HTML table in a notebook."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from numbers import Integral, Real
from typing import Any

_MAX_CHARS = 80
_MAX_ITEMS = 6


class Displayed:
    """Base of objects that show themselves as one line of text, and as a table in a notebook.

    A subclass returns what to show from `_display_facts`. Showing an object reads no samples and no tensors, and never
    raises: of an object that is incomplete, e.g. because its constructor failed, only the type is shown.
    """

    def _display_facts(self) -> dict[str, Any]:
        """Return values by name; those that are None or empty are not shown."""
        return {}

    def _display_table(self) -> str:
        """Return the HTML table for notebooks."""
        rows = [(name, cell(value)) for name, value in shown(self._display_facts())]
        return html_table(rows, caption=type(self).__name__)

    def __repr__(self) -> str:
        try:
            return f"{type(self).__name__}({format_facts(self._display_facts())})"
        except Exception:
            return object.__repr__(self)

    def _repr_html_(self) -> str:
        try:
            return self._display_table()
        except Exception:
            return f"<pre>{escape(object.__repr__(self))}</pre>"


def format_facts(facts: Mapping[str, Any]) -> str:
    """Format values by name in one line, without those that are None or empty.

    Example:
        >>> format_facts({"label": "ball", "rpm": 1797.0, "load": None, "channels": ("DE", "FE")})
        "label='ball', rpm=1797, channels=('DE', 'FE')"
    """
    return ", ".join(f"{name}={_in_code(value)}" for name, value in shown(facts))


def format_attributes(owner: object, *names: str) -> str:
    """Format the named attributes as `format_facts` does; for `extra_repr` of modules.

    Example:
        >>> format_attributes(3 + 4j, "real", "imag", "absent")
        'real=3, imag=4'
    """
    return format_facts({name: getattr(owner, name, None) for name in names})


def shown(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the facts that are neither None nor empty text or an empty sequence."""
    return [(name, value) for name, value in facts.items() if value is not None and not _is_empty(value)]


def cell(value: Any) -> str:
    """Format a value as plain text for a table.

    Example:
        >>> cell(1797.0), cell(("DE", "FE")), cell("ball"), cell(None)
        ('1797', 'DE, FE', 'ball', '')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (tuple, list)):
        return ", ".join(map(cell, _first_items(value)))
    return "" if value is None else _in_code(value)


def html_table(rows: Iterable[Sequence[str]], header: Sequence[str] = (), caption: str = "") -> str:
    """Return an HTML table with a heading in the first column; all texts are escaped.

    Args:
        rows: texts of the cells; the first of each row is its heading.
        header: heading of each column; empty for none.
        caption: title of the table; empty for none.

    Example:
        >>> html_table([("loss", "0.5 < 1")], caption="History")
        '<table><caption>History</caption><tbody><tr><th>loss</th><td>0.5 &lt; 1</td></tr></tbody></table>'
    """
    title = f"<caption>{_escaped(caption)}</caption>" if caption else ""
    head = f"<thead>{_row(header, 'th')}</thead>" if header else ""
    return f"<table>{title}{head}<tbody>{''.join(_row(row, 'td') for row in rows)}</tbody></table>"


_CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def escape_controls(text: str) -> str:
    r"""Write characters that control a terminal, or the direction of text, as escapes; keep tabs and line breaks.

    Example:
        >>> print(escape_controls("\x1b[31mwear"))
        \x1b[31mwear
    """
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class EscapingFormatter(logging.Formatter):
    """Formats messages without characters that control a terminal; names in them may be from files."""

    def format(self, record: logging.LogRecord) -> str:
        return escape_controls(super().format(record))


def printable(text: str) -> str:
    r"""Replace characters that cannot be shown, such as control characters and undecodable bytes, by U+FFFD.

    Example:
        >>> printable("a\0b") == "a\ufffdb"
        True
    """
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _row(texts: Sequence[str], tag: str) -> str:
    tags = ["th", *[tag] * (len(texts) - 1)]
    return f"<tr>{''.join(f'<{tag}>{_escaped(text)}</{tag}>' for tag, text in zip(tags, texts, strict=True))}</tr>"


def _escaped(text: str) -> str:
    return escape(printable(_shortened(text)))


def _in_code(value: Any) -> str:
    """Format a value as in code; of arrays and tensors only the type and shape, which need no samples."""
    if isinstance(value, (bool, Integral)):
        return str(value)
    if isinstance(value, Real):
        return f"{float(value):.6g}"
    if isinstance(value, str):
        return repr(_shortened(value))
    if isinstance(value, type):
        return value.__name__
    if value is ...:
        return "..."
    if isinstance(value, (tuple, list)):
        text = ", ".join(map(_in_code, _first_items(value)))
        return f"[{text}]" if isinstance(value, list) else f"({text}{',' if len(value) == 1 else ''})"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return type(value).__name__


def _first_items(values: Sequence[Any]) -> list[Any]:
    return [*values] if len(values) <= _MAX_ITEMS else [*values[: _MAX_ITEMS - 1], ..., values[-1]]


def _shortened(text: str) -> str:
    """Shorten a text to a maximum length in its middle, because both ends of a path matter."""
    if len(text) <= _MAX_CHARS:
        return text
    half = (_MAX_CHARS - 3) // 2
    return f"{text[:half]}...{text[-half:]}"


def _is_empty(value: Any) -> bool:
    return isinstance(value, (str, tuple, list)) and not value
