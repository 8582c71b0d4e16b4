"""Reader of Parquet tables (.parquet)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from whirl._distribution import install_hint
from whirl.data.readers.conventions import Unread, content_from_variables, flat_name
from whirl.data.readers.parquet_pages import declared_bytes
from whirl.data.readers.wide import stack_numbered
from whirl.data.reading import Content, check_size, register_reader

_MAX_TEXTS = 100_000
_INTERNAL = ("pandas", "ARROW:schema")


@register_reader(".parquet")
def read_parquet(path: Path) -> Content:
    """Read columns of numbers or times as channels; key-value metadata of the schema count as scalars.

    A column of lists of equal length holds windows. Texts are labels or time stamps.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError(f"reading .parquet needs pyarrow: {install_hint('parquet')}") from error
    # ParquetFile instead of read_table, which turns folder names such as label=x into columns. Texts are read as
    # references to different ones: a few bytes can stand for a million long texts.
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        texts = [field.name for field in schema if _is_text(field.type)]
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
        # Run-length encoding stores equal values in almost no bytes, so the number of rows is checked as well.
        check_size(path, 8 * len(schema) * sum(group.num_rows for group in groups))
        check_size(path, declared_bytes(path, file.metadata))
        readable = [field.name for field in schema if _is_readable(field.type)]
        table = file.read(columns=readable)
    metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    variables: dict[str, Any] = {flat_name(k): v for k, v in metadata.items() if k not in _INTERNAL}
    columns: dict[str, Any] = {
        flat_name(field.name): _values(path, table[field.name])
        if field.name in readable
        else Unread(f"a column of type {field.type}")
        for field in schema
    }
    for field in schema:
        for key, value in (field.metadata or {}).items():
            if not key.startswith(b"PARQUET:"):
                variables[f"{flat_name(field.name)}/{flat_name(key.decode())}"] = value.decode(errors="replace")
    return content_from_variables(variables | stack_numbered(columns))


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_readable(kind: Any) -> bool:
    """Return whether a column may hold samples, times or labels; others are not decoded."""
    import pyarrow as pa

    if _is_list(kind):
        return _is_number(kind.value_type) or (_is_list(kind.value_type) and _is_readable(kind.value_type))
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type) or _is_number(kind.value_type)
    is_other = pa.types.is_temporal(kind) or pa.types.is_decimal(kind) or pa.types.is_boolean(kind)
    return is_other or _is_number(kind) or _is_text(kind)


def _values(path: Path, column: Any) -> Any:
    import pyarrow as pa

    kind = column.type
    if _is_number(kind) or pa.types.is_temporal(kind):
        return column.to_numpy()
    if pa.types.is_dictionary(kind):
        return _texts(column) if _is_text(kind.value_type) else _values(path, column.cast(kind.value_type))
    if pa.types.is_decimal(kind):
        return column.cast(pa.float64()).to_numpy()
    if pa.types.is_boolean(kind):
        return np.asarray(column.to_pylist(), dtype=object).astype(str)
    return _windows(path, column)


def _texts(column: Any) -> np.ndarray:
    """Return the texts of the first rows as an array of objects; equal texts are one object."""
    texts: list[str] = []
    for chunk in column[:_MAX_TEXTS].chunks:
        different = chunk.dictionary.to_pylist()
        texts += ["" if index is None else different[index] or "" for index in chunk.indices.to_pylist()]
    return np.array(texts, dtype=object)


def _windows(path: Path, column: Any) -> Any:
    """Return lists of equal length as windows `[rows, 1, length]`, or nested lists as `[rows, C, length]`."""
    from pyarrow import compute

    kind = column.type
    lengths = compute.call_function("unique", [compute.call_function("list_value_length", [column])]).to_pylist()
    if len(lengths) != 1 or lengths[0] is None:
        return Unread("a column of lists of different length", "save one recording per file, or lists of equal length")
    flat = compute.call_function("list_flatten", [column])
    shape = (len(column), lengths[0])
    if _is_list(kind.value_type):
        inner = _windows(path, flat)
        return inner if isinstance(inner, Unread) else inner.reshape(*shape, -1)
    check_size(path, flat.nbytes)
    return flat.to_numpy().reshape(len(column), 1, lengths[0])
