"""Parquet tables."""

from __future__ import annotations

from pathlib import Path

from packages.core.signals.read import Content, register_reader
from packages.core.signals.readers.conventions import content_from_variables


@register_reader(".parquet")
def read_parquet(path: Path) -> Content:
    """Columns are channels; the schema's key-value metadata count as single values."""
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError("reading .parquet needs pyarrow: pip install 'whirl[parquet]'") from error
    # ParquetFile and not read_table, which would make columns of folder names such as label=x.
    with pq.ParquetFile(path) as file:
        table = file.read()
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return content_from_variables({k: v for k, v in metadata.items() if k not in ("pandas", "ARROW:schema")} | columns)
