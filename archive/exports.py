"""Write a view to a file others open: Parquet or CSV by the file's extension."""

from __future__ import annotations

from pathlib import Path

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
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    target = str(part).replace("'", "''")
    options = _FORMATS[out.suffix.lower()]
    written = connect(tables).execute(f"copy {view} to '{target}' ({options})").fetchall()
    part.replace(out)
    return int(written[0][0])
