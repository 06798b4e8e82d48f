"""The first files that failed in a run, each with its reason, and the command that lists them all."""

from __future__ import annotations

from textwrap import shorten

from archive.literal import literal
from archive.publications import last_event
from archive.query import query
from archive.tables import Tables

SHOWN = 5
MOST_CHARS = 200
_FAILED = """
    select coalesce(any_value(path), media_sha256) as file, any_value(error_code) as code,
        any_value(error_detail) as detail
    from {rows} left join images using (media_sha256) where status = 'failed' and run_id = {run} {more}
    group by media_sha256 order by file limit {most}
"""
_ALL = (
    "select path, error_code, error_detail from {rows} join images using (media_sha256) "
    "where status = 'failed' and run_id = {run}"
)


def failures(tables: Tables, run_id: str) -> list[str]:
    """Return lines for people; none where nothing failed. Raises StorageError."""
    event = last_event(tables, run_id)
    if event is None:
        return []
    detects, run = event["kind"] == "detect", literal(run_id)
    rows = "all_results" if detects else "classifications"
    more = f"and inference_key = {literal(event['inference_key'])}" if detects else ""
    found = query(tables, _FAILED.format(rows=rows, run=run, more=more, most=SHOWN)).to_pylist()
    lines = [f"failed: {row['file']}: {row['code']}: {row['detail']}" for row in found]
    statement = _ALL.format(rows=rows, run=run)
    hint = [f'all that failed: resight sql "{statement}"'] if lines else []
    return [*(shorten(line, MOST_CHARS, placeholder=" …") for line in lines), *hint]
