"""Write a view to a file others open: Parquet or CSV by the file's extension."""

from __future__ import annotations

from pathlib import Path

import duckdb

from archive.query import connect
from archive.tables import Tables
from model_store.errors import BadRequest

VIEWS = ("detections", "results", "media", "runs")
_FORMATS = {".parquet": "format parquet, compression zstd", ".csv": "format csv, header"}


def export(tables: Tables, view: str, out: Path) -> int:
    """Rows written. The file appears whole or not at all. Raises BadRequest."""
    if view not in VIEWS:
        raise BadRequest(f"no view '{view}'; there is: {', '.join(VIEWS)}")
    if out.suffix.lower() not in _FORMATS:
        raise BadRequest(f"{out}: write to a name that ends in .parquet or .csv")
    part = out.with_name(f".{out.name}.part")
    target = str(part).replace("'", "''")
    copy = f"copy {view} to '{target}' ({_FORMATS[out.suffix.lower()]})"
    connection = connect(tables)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        written = connection.execute(copy).fetchall()
        part.replace(out)
    except (OSError, duckdb.IOException) as error:
        raise BadRequest(f"cannot write {out}: {error}") from error
    return int(written[0][0])
