"""A Delta snapshot as a relation of DuckDB, read by DuckDB itself where it can: on a local disk.

scan(connection, "media", snapshot, MEDIA) -> a view of that name with the columns of the schema, null where a file,
or the whole table, is older than a column. On s3:// it reads through pyarrow, with the same rows.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from archive.dataset import file_paths
from archive.literal import file_literal
from model_store.storage import is_local, path_of


def scan(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    table: DeltaTable | None,
    schema: pa.Schema,
    inference_key: str | None = None,
) -> None:
    """Make or replace the view `name`; with `inference_key`, of that partition alone and without that column.

    Empty where the table is None. The connection must not outlive Delta's retention of the files.
    """
    columns = [field for field in schema.names if field != "inference_key" or inference_key is None]
    files = file_paths(table, inference_key) if table is not None else []
    empty = schema.empty_table().select(columns)
    if table is None or not files:
        connection.execute(f"drop view if exists {name}")  # else `register` refuses the name
        connection.register(name, empty)
        return
    if is_local(table.table_uri):
        folder = path_of(table.table_uri)
        paths = ", ".join(file_literal(f"{folder}/{file}") for file in files)
        partitions = "false" if inference_key is not None else str("inference_key" in schema.names)
        options = (
            f"hive_partitioning = {partitions}, hive_types_autocast = false, union_by_name = true"
        )
        rows = f"from read_parquet([{paths}], {options})"
    else:
        chosen = [("inference_key", "=", inference_key)] if inference_key is not None else None
        connection.register(
            f"{name}_files", table.to_pyarrow_dataset(file_pruning_predicate=chosen)
        )
        rows = f"from {name}_files"
    if set(columns) - {field.name for field in table.schema().fields}:
        connection.register(f"{name}_columns", empty)
        rows = f"{rows} union all by name from {name}_columns"
    connection.execute(f"create or replace temp view {name} as {rows}")
