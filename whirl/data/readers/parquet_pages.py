"""Sizes that the pages of a Parquet file declare, which the metadata at its end may understate.

A page header is a structure in Thrift's compact protocol, see
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md and
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from whirl.data.reading import UnreadableError

_HEADER_BYTES = 2**14  # of most headers
_MAX_DEPTH = 16
_UNCOMPRESSED, _COMPRESSED, _DATA_HEADERS, _N_VALUES = 2, 3, (5, 8), 1
_VALUE_BYTES = 8  # of a number when it is read
# Types of Thrift's compact protocol.
_TRUE, _FALSE, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = 1, 2, 3, (4, 5, 6), 7, 8, (9, 10), 12


def declared_bytes(path: Path, metadata: Any) -> int:
    """Return the bytes of all pages and of the values that they contain, as the headers of the pages declare.

    Args:
        path: the file.
        metadata: its `pyarrow.parquet.FileMetaData`.

    Raises:
        UnreadableError: a header is malformed.
    """
    total = 0
    with path.open("rb") as file:
        for group in range(metadata.num_row_groups):
            for index in range(metadata.num_columns):
                column = metadata.row_group(group).column(index)
                start = min(filter(None, (column.dictionary_page_offset, column.data_page_offset)))
                for header in _page_headers(file, start, start + column.total_compressed_size):
                    n_values = max((header.get(key) or {}).get(_N_VALUES, 0) for key in _DATA_HEADERS)
                    total += max(header[_UNCOMPRESSED], _VALUE_BYTES * n_values)
    return total


def _page_headers(file: Any, position: int, end: int) -> Iterator[dict[int, Any]]:
    while position < end:
        try:
            header, n_bytes = _read_header(file, position, end - position)
            is_valid = header[_COMPRESSED] >= 0 and header[_UNCOMPRESSED] >= 0
        except (IndexError, KeyError, TypeError, RecursionError):
            is_valid = False
        if not is_valid:
            raise UnreadableError("the header of a page is malformed; copy or export it again")
        yield header
        position += n_bytes + header[_COMPRESSED]


def _read_header(file: Any, position: int, n_bytes: int) -> tuple[dict[int, Any], int]:
    """Return a header and its length, which is at most `n_bytes`: it may contain the smallest text of the page."""
    size = min(_HEADER_BYTES, n_bytes)
    while True:
        file.seek(position)
        reader = _Compact(file.read(size))
        try:
            return reader.structure(), reader.position
        except IndexError:
            if size == n_bytes:
                raise
            size = min(16 * size, n_bytes)


class _Compact:
    """Reads structures in Thrift's compact protocol; of values other than integers and structures only the end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def structure(self, depth: int = 0) -> dict[int, Any]:
        """Return the integers and structures among the fields, by number."""
        if depth > _MAX_DEPTH:
            raise RecursionError
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = self._value(head & 15, depth)
        return fields

    def _byte(self) -> int:
        self.position += 1
        return self.data[self.position - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128 or shift > 63:
                return value

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _INTEGERS:
            return self._integer()
        if kind == _STRUCT:
            return self.structure(depth + 1)
        if kind in _LISTS:
            head = self._byte()
            for _ in range(head >> 4 if head >> 4 < 15 else self._varint()):
                self._value(head & 15, depth + 1)
        elif kind in (_BYTE, _DOUBLE, _BINARY):
            length = 1 if kind == _BYTE else 8 if kind == _DOUBLE else self._varint()
            self.position += length
        elif kind not in (_TRUE, _FALSE):
            raise TypeError(f"type {kind}")
        return None
