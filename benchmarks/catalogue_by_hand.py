"""The negative controls of `catalogue.py`: the same work as one does it by hand, which must come out worse.

(tables, images) -> what a step says of itself, as the steps of `catalogue.py` do; bounds: steps, controls -> verdicts
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from archive.tables import Tables
from benchmarks.synthetic import Simulated, synthetic_results, url_of

HASTY_ROWS = 100


def commit_results_hastily(tables: Tables, images: int) -> dict[str, Any]:
    """The same rows, a tenth of them, in commits that are too small."""
    rows = images // 10
    synthetic_results(tables, rows, "k", file_rows=HASTY_ROWS)
    return {"of": rows, "files": len(tables.snapshot("results").file_uris())}


def ingest_by_hand(tables: Tables, images: int) -> dict[str, Any]:
    """What `ingest unchanged` finds, with listing and catalogue in Python's memory, row by row."""
    root = url_of(images)
    media = tables.snapshot("media").to_pyarrow_table().to_pylist()
    known = {row["path"]: row for row in media if row["source_root"] == root}
    listed: Any = Simulated().find(root.removeprefix("simulated://"), detail=True)
    files = [info | {"path": info["name"].split("/", 1)[1]} for info in listed.values()]
    same = [
        file
        for file in files
        if file["path"] in known
        and known[file["path"]]["size_bytes"] == file["size"]
        and known[file["path"]]["content_tag"] == f"etag:{file['ETag'].strip(chr(34))}"
    ]
    assert len(same) == images, len(same)
    return {}


def bounds(
    rows: list[dict[str, Any]], marks: list[dict[str, Any]], compact_every: int
) -> list[tuple[str, Any, str, bool]]:
    """Each control against the step it stands for, at the smallest size; the last marks of both logs."""
    found: list[tuple[str, Any, str, bool]] = []
    for control, step_name, measure, words in (
        ("commit results hastily", "commit results", "us_a_file", "commits of 100, µs a row"),
        ("ingest by hand", "ingest unchanged", "rss_mib", "rows of Python, MiB"),
    ):
        bad, good = (
            next(row[measure] for row in rows if row["step"] == name)
            for name in (control, step_name)
        )
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
"""They need tables after the step `fill`."""
