"""Reader of Parquet tables (.parquet)."""

from __future__ import annotations

from pathlib import Path

from whirl._distribution import install_hint
from whirl.data.readers.conventions import content_from_variables
from whirl.data.reading import Content, check_size, register_reader


@register_reader(".parquet")
def read_parquet(path: Path) -> Content:
    """Read columns of numbers or times as channels; key-value metadata of the schema count as scalars."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError(f"reading .parquet needs pyarrow: {install_hint('parquet')}") from error
    # ParquetFile instead of read_table, which turns folder names such as label=x into columns.
    with pq.ParquetFile(path) as file:
        kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_temporal)
        names = [column.name for column in file.schema_arrow if any(is_kind(column.type) for is_kind in kinds)]
        groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
        # Run-length encoding stores equal values in almost no bytes, so the number of rows is checked as well.
        check_size(path, 8 * len(names) * sum(group.num_rows for group in groups))
        check_size(path, sum(group.total_byte_size for group in groups))
        table = file.read(columns=names)
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return content_from_variables({k: v for k, v in metadata.items() if k not in ("pandas", "ARROW:schema")} | columns)
