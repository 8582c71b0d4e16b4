"""Reader of Parquet tables (.parquet)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from whirl._distribution import install_hint
from whirl.data.readers.conventions import Unread, content_from_variables, flat_name
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
    # ParquetFile instead of read_table, which turns folder names such as label=x into columns.
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
        # Run-length encoding stores equal values in almost no bytes, so the number of rows is checked as well.
        check_size(path, 8 * len(schema) * sum(group.num_rows for group in groups))
        check_size(path, sum(group.total_byte_size for group in groups))
        table = file.read()
    metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    variables: dict[str, Any] = {flat_name(k): v for k, v in metadata.items() if k not in _INTERNAL}
    columns = {flat_name(name): _values(path, table[name]) for name in table.column_names}
    for field in schema:
        for key, value in (field.metadata or {}).items():
            if not key.startswith(b"PARQUET:"):
                variables[f"{flat_name(field.name)}/{flat_name(key.decode())}"] = value.decode(errors="replace")
    return content_from_variables(variables | stack_numbered(columns))


def _values(path: Path, column: Any) -> Any:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_temporal(kind):
        return column.to_numpy()
    if pa.types.is_dictionary(kind):
        return _values(path, column.cast(kind.value_type))
    if pa.types.is_decimal(kind):
        return column.cast(pa.float64()).to_numpy()
    if pa.types.is_boolean(kind):
        return np.asarray(column.to_pylist(), dtype=object).astype(str)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return [text or "" for text in column[:_MAX_TEXTS].to_pylist()]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _windows(path, column)
    return Unread(f"a column of type {kind}")


def _windows(path: Path, column: Any) -> Any:
    """Return lists of equal length as windows `[rows, 1, length]`, or nested lists as `[rows, C, length]`."""
    import pyarrow as pa
    from pyarrow import compute

    kind = column.type
    lengths = compute.call_function("unique", [compute.call_function("list_value_length", [column])]).to_pylist()
    if len(lengths) != 1 or lengths[0] is None:
        return Unread("a column of lists of different length", "save one recording per file, or lists of equal length")
    flat = compute.call_function("list_flatten", [column])
    shape = (len(column), lengths[0])
    if pa.types.is_list(kind.value_type):
        inner = _windows(path, flat)
        return inner if isinstance(inner, Unread) else inner.reshape(*shape, -1)
    if not (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)):
        return Unread(f"a column of lists of type {kind.value_type}")
    check_size(path, flat.nbytes)
    return flat.to_numpy().reshape(len(column), 1, lengths[0])
