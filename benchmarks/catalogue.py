"""Measure the cost of the catalogue for 10^5, 10^6 and 10^7 files, and whether a step grows faster than linearly.

python benchmarks/catalogue.py --quick (10^5) | python benchmarks/catalogue.py | … --full (10^7, half an hour)
The archives do not exist (synthetic.py): names and tags are generated while listing, so that listing costs only
processor time. Each step runs in a separate process; `rss_mib` is its peak minus the memory after its imports.
`us_a_file` is per file of the archive, or per file of the step (`of`). There are three negative controls at
the first size. Results in commits of 100 rows instead of 5,000 must cost more per row. An ingest that keeps listing and
catalogue as Python rows must take more memory. The third is the log of a table that is never compacted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from harness import ROOT, arguments_of, facts, keep, peak_mib, table, verdicts

from archive.catalogue.ingest import ingest, retire
from archive.catalogue.listing import list_keys
from archive.delta.compact import compact
from archive.delta.tables import Tables
from archive.schemas import RESULTS
from benchmarks.catalogue_by_hand import CONTROLS, bounds
from benchmarks.synthetic import Simulated, SimulatedS3, synthetic_media, synthetic_results, url_of

S3_PAGE_S = 0.1
COMPACT_EVERY = 64
COMMIT_ROWS = 5_000


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "step":
        step(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
        return
    arguments = arguments_of(__doc__, add_options, commits=2000)
    sizes = [10**5] if arguments.quick else [10**5, 10**6, *([10**7] if arguments.full else [])]
    result = facts("catalogue", vars(arguments) | {"s3_page_s": S3_PAGE_S})
    rows: list[dict[str, Any]] = []
    for images in sizes:
        with tempfile.TemporaryDirectory(prefix="resight-catalogue-") as home:
            for name in STEPS:
                rows.append({"images": images, **in_a_process(name, Path(home), images)})
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="resight-catalogue-") as home:
        _, *controls = [in_a_process(name, Path(home), sizes[0]) for name in ("fill", *CONTROLS)]
    rows += [{"images": sizes[0], **row} for row in controls]
    columns = ("images", "step", "s", "of", "us_a_file", "cpu_s", "rss_mib", "files", "mib", "note")
    table([{column: row.get(column) for column in columns} for row in rows])
    with tempfile.TemporaryDirectory(prefix="resight-catalogue-") as home:
        commits = arguments.commits if not arguments.quick else 200
        log = in_a_process("log", Path(home), commits)
    table(log["marks"])
    verdicts(result, bounds(rows, log["marks"], COMPACT_EVERY))
    keep(result | {"steps": rows, "log": log["marks"]})


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--full", action="store_true", help="also measure 10^7: half an hour")


def in_a_process(name: str, home: Path, images: int) -> dict[str, Any]:
    words = [sys.executable, __file__, "step", name, str(home), str(images)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} of {images} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def step(name: str, home: Path, images: int) -> None:
    tables = Tables(str(home / "tables"))
    Simulated.register()
    before_mib = peak_mib()
    cpu, started = time.process_time(), time.perf_counter()
    found = (STEPS | CONTROLS | {"log": growth_of_the_log})[name](tables, images)
    elapsed = found.pop("s", time.perf_counter() - started)
    of = found.setdefault("of", images)
    measured = {
        "step": name.replace("_", " "),
        "s": round(elapsed, 2),
        "us_a_file": round(elapsed / max(1, of) * 1e6, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "rss_mib": round(peak_mib() - before_mib),
    }
    print(json.dumps(measured | found))


def fill(tables: Tables, images: int) -> dict[str, Any]:
    synthetic_media(tables, images)
    return size_of(tables, "media")


def size_of(tables: Tables, name: str) -> dict[str, Any]:
    sizes = pa.table(tables.snapshot(name).get_add_actions())["size_bytes"].to_pylist()
    return {"files": len(sizes), "mib": round(sum(sizes) / 2**20, 1)}


def list_s3(_: Tables, images: int) -> dict[str, Any]:
    """List in parallel ranges on S3 with 100 ms per call; sequential calls would take pages x 100 ms."""
    server = SimulatedS3(images, lambda: time.sleep(S3_PAGE_S))
    found = sum(len(entries) for entries in list_keys(server, ""))
    assert found == images, found
    pages = -(-images // 1000)
    return {"note": f"{server.calls} calls, {pages} pages: {pages * S3_PAGE_S:.0f} s in one chain"}


def ingest_unchanged(tables: Tables, images: int) -> dict[str, Any]:
    report = ingest(tables, url_of(images))
    assert (report.unchanged, report.files) == (images, images), report
    return {}


def ingest_one_in_a_hundred_new(tables: Tables, images: int) -> dict[str, Any]:
    Simulated.new_each = 100
    report = ingest(tables, url_of(images))
    assert (report.new, report.unchanged) == (images // 100, images), report
    return {"of": report.new, **size_of(tables, "media")}


def compact_media(tables: Tables, images: int) -> dict[str, Any]:
    report = compact(tables, "media", min_files=2)
    return {
        "of": report.rows,
        **size_of(tables, "media"),
        "note": f"{report.files_before} files before, {report.commits} commits",
    }


def ingest_one_in_a_hundred_changed(tables: Tables, images: int) -> dict[str, Any]:
    Simulated.new_each, Simulated.changed = 100, images // 100
    report = ingest(tables, url_of(images))
    assert report.changed == images // 100, report
    return {"of": report.changed, **size_of(tables, "media")}


def ingest_one_in_a_hundred_gone(tables: Tables, images: int) -> dict[str, Any]:
    """Ingest after the new files were removed again."""
    Simulated.changed = images // 100
    report = ingest(tables, url_of(images))
    assert report.missing == images // 100, report
    return {"of": report.missing, **size_of(tables, "media")}


def commit_results(tables: Tables, images: int) -> dict[str, Any]:
    """Commit results like a run: 5,000 rows per commit, up to half a million rows."""
    rows = min(images, 500_000)
    synthetic_results(tables, rows, "k", file_rows=COMMIT_ROWS)
    return {"of": rows, **size_of(tables, "results")}


def compact_results(tables: Tables, images: int) -> dict[str, Any]:
    report = compact(tables, "results", "k", min_files=2)
    return {
        "of": report.rows,
        **size_of(tables, "results"),
        "note": f"{report.files_before} files, {report.bytes_before / 2**20:.0f} MiB before",
    }


def growth_of_the_log(tables: Tables, commits: int) -> dict[str, Any]:
    """Commit single rows, without compaction and with compaction at every 64 small files."""
    marks: list[dict[str, Any]] = []
    for every in (0, COMPACT_EVERY):
        marks += small_commits(Tables(f"{tables.url}-{every}"), commits, every)
    return {"marks": marks}


def small_commits(tables: Tables, commits: int, compact_every: int) -> list[dict[str, Any]]:
    base = tables.snapshot("results")
    seconds: list[float] = []
    marks: list[dict[str, Any]] = []
    log = Path(tables.url, "results", "_delta_log")
    for i in range(1, commits + 1):
        row = {"inference_key": "k", "media_sha256": f"{i:064d}", "status": "ok"}
        rows = pa.Table.from_pylist([row], schema=RESULTS)
        started = time.perf_counter()
        base = tables.append("results", rows, "w", lambda _, wanted: wanted, base=base)
        seconds.append(time.perf_counter() - started)
        if compact_every and i % compact_every == 0:
            compact(tables, "results", "k", min_files=2)
        if i in {commits // 20, commits // 4, commits // 2, commits}:
            marks.append(
                {"commits": i, "compacted every": compact_every or "-", **log_facts(tables, log)}
                | {"commit p50 ms": round(statistics.median(seconds[-50:]) * 1e3, 1)}
            )
    return marks


def log_facts(tables: Tables, log: Path) -> dict[str, Any]:
    started = time.perf_counter()
    files = len(tables.snapshot("results").file_uris())
    opened = time.perf_counter() - started
    sizes = {file.name: file.stat().st_size for file in log.iterdir()}
    checkpoints = [size for name, size in sizes.items() if "checkpoint.parquet" in name]
    return {
        "open ms": round(opened * 1e3, 1),
        "data files": files,
        "log files": len(sizes),
        "log KiB": round(sum(sizes.values()) / 1024),
        "checkpoints": len(checkpoints),
        "largest KiB": round(max(checkpoints, default=0) / 1024),
    }


def retire_all(tables: Tables, images: int) -> dict[str, Any]:
    """Mark every row as missing."""
    return {"of": retire(tables, url_of(images)), **size_of(tables, "media")}


STEPS: dict[str, Callable[[Tables, int], dict[str, Any]]] = {
    "fill": fill,
    "list_s3": list_s3,
    "ingest_unchanged": ingest_unchanged,
    "ingest_one_in_a_hundred_new": ingest_one_in_a_hundred_new,
    "compact_media": compact_media,
    "ingest_one_in_a_hundred_changed": ingest_one_in_a_hundred_changed,
    "ingest_one_in_a_hundred_gone": ingest_one_in_a_hundred_gone,
    "retire_all": retire_all,
    "commit_results": commit_results,
    "compact_results": compact_results,
}


if __name__ == "__main__":
    main()
