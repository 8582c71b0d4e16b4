"""Fast check of the number of fields in the rows of a text file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

_BLOCK_BYTES = 2**17  # fits into the cache of a core, and contains any header
_NEWLINE, _RETURN, _SPACE, _TAB = 10, 13, 32, 9


def has_equal_rows(path: Path, separator: str, n_columns: int, first_row: int = 0) -> bool:
    r"""Return whether the lines of a file from `first_row` have `n_columns` fields on average and end with a line feed.

    With a separator of one character only the total is compared: then no line has too many fields unless another has
    too few, which the parser fills with NaN.

    A file for which this is False may still be valid, with other line ends or another encoding.

    Args:
        path: the file.
        separator: one character, or `\s+`.
        n_columns: number of fields.
        first_row: index of the first line.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w") as file:
        ...     _ = file.write("1,2\n3,4\n5,6,7\n")
        ...     file.flush()
        ...     has_equal_rows(Path(file.name), ",", 2)
        False
    """
    for index, block in enumerate(_blocks(path)):
        if index == 0 and first_row:
            ends = np.flatnonzero(block == _NEWLINE)
            if len(ends) < first_row:
                return False
            block = block[ends[first_row - 1] + 1 :]
        if not _block_has_equal_rows(block, separator, n_columns):
            return False
    return True


def _blocks(path: Path) -> Iterator[np.ndarray]:
    """Yield the bytes of a file in blocks that end with a line feed, except the last."""
    with path.open("rb") as file:
        rest = b""
        while data := file.read(_BLOCK_BYTES):
            cut = data.rfind(b"\n") + 1
            yield np.frombuffer(rest + data[:cut], dtype=np.uint8)
            rest = data[cut:]
        if rest:
            yield np.frombuffer(rest, dtype=np.uint8)


def _block_has_equal_rows(block: np.ndarray, separator: str, n_columns: int) -> bool:
    if not len(block):
        return True
    if block[-1] != _NEWLINE:
        return False
    if len(separator) == 1:
        n_separators, n_lines = (np.count_nonzero(block == each) for each in (ord(separator), _NEWLINE))
        return n_separators == n_lines * (n_columns - 1)
    ends = np.flatnonzero(block == _NEWLINE)
    is_space = (block == _SPACE) | (block == _TAB) | (block == _NEWLINE) | (block == _RETURN)
    found = np.flatnonzero(~is_space & np.concatenate(([True], is_space[:-1])))
    counts = np.diff(np.searchsorted(found, ends), prepend=0)
    return bool((counts == n_columns).all())
