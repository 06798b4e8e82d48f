"""Negative controls of `catalogue.py`: naive implementations of the same work, which must be worse.

(tables, images) -> measurements of a step, as in `catalogue.py`; bounds: steps, controls -> verdicts
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from archive.catalogue.listing import list_keys
from archive.delta.tables import Tables
from benchmarks.synthetic import Simulated, SimulatedS3, synthetic_results, url_of

HASTY_ROWS = 100


def commit_results_hastily(tables: Tables, images: int) -> dict[str, Any]:
    """Commit a tenth of the same rows in commits that are too small."""
    rows = images // 10
    synthetic_results(tables, rows, "k", file_rows=HASTY_ROWS)
    return {"of": rows, "files": len(tables.snapshot("results").file_uris())}


def ingest_by_hand(tables: Tables, images: int) -> dict[str, Any]:
    """Compute the result of `ingest unchanged` with listing and catalogue as Python rows."""
    root = url_of(images)
    media = tables.snapshot("media").to_pyarrow_table().to_pylist()
    known = {row["path"]: row for row in media if row["source_root"] == root}
    files = [entry for part in list_keys(SimulatedS3(images, changed=Simulated.changed), "") for entry in part]
    same = [
        file
        for file in files
        if file["Key"] in known
        and known[file["Key"]]["size_bytes"] == file["Size"]
        and known[file["Key"]]["content_tag"] == f"etag:{file['ETag'].strip(chr(34))}"
    ]
    assert len(same) == images, len(same)
    return {}


def bounds(
    rows: list[dict[str, Any]], marks: list[dict[str, Any]], compact_every: int
) -> list[tuple[str, Any, str, bool]]:
    """Compare each control with its step at the first size, and the final states of both logs."""
    found: list[tuple[str, Any, str, bool]] = []
    for control, step_name, measure, words in (
        ("commit results hastily", "commit results", "us_a_file", "commits of 100, µs a row"),
        ("ingest by hand", "ingest unchanged", "rss_mib", "rows of Python, MiB"),
    ):
        bad, good = (next(row[measure] for row in rows if row["step"] == name) for name in (control, step_name))
        found.append((f"control: {words}", bad, f"> {good}", bad > good))
    never, often = (
        next(mark["data files"] for mark in reversed(marks) if mark["compacted every"] == every)
        for every in ("-", compact_every)
    )
    return [*found, ("control: never compacted, files", never, f"> {often}", never > often)]


CONTROLS: dict[str, Callable[[Tables, int], dict[str, Any]]] = {
    "commit_results_hastily": commit_results_hastily,
    "ingest_by_hand": ingest_by_hand,
}
"""Controls by name; they need the tables of the step `fill`."""
