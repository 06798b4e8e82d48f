"""Measure the cost of planning and committing, and its growth with the archive: 10^5, 10^6 and 10^7 images.

python benchmarks/planning.py [--full]
Uses synthetic catalogues (`synthetic.py`) and a null detector (every image is empty), without Ray. Each size runs in a
separate process, so that its peak memory is measured alone. The plans are: a new model (all images are due), 90 %
done, nothing to do. Then rows of the null detector pass the committer of a run, and the table is compacted. The last
line of output is a JSON document. The negative control is the same plan at the first size, computed from both tables
as Python rows. It must take longer and more memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from harness import ROOT, facts, keep, peak_mib, verdicts

from archive.delta.compact import compact
from archive.delta.tables import Tables
from archive.schemas import RESULTS
from batch.pipeline.commit import Committer
from batch.planning.passes import DetectPass
from batch.planning.plan import Plan, pinned, plan_pass
from batch.runs.accounting import read_back
from batch.runs.scope import Scope
from batch.runs.spec import RunSpec
from model_store.store import ModelStore

COMMIT_ROWS = 2_000
MOST_COMMITTED = 1_000_000
MOST_GROWTH = 2
"""Maximum growth of the cost of planning an image over all sizes; correct sorts and joins stay below it."""
ENDS = 25
"""Number of commits at the start and at the end that are compared."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--full", action="store_true", help="also measure 10^7: some minutes, 4 GB of disk")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--by-hand", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one or arguments.by_hand:
        found = measure(arguments.one) if arguments.one else by_hand(arguments.by_hand)
        print(json.dumps(found))
        return
    sizes = [10**5, 10**6] + ([10**7] if arguments.full else [])
    rows = [_in_a_process("--one", size) for size in sizes]
    control = _in_a_process("--by-hand", sizes[0])
    _print(rows)
    found = {"rows": rows, "control": control}
    result = facts("planning", {"sizes": sizes, "commit_rows": COMMIT_ROWS}) | found
    verdicts(result, bounds(rows, control))
    keep(result)


def bounds(rows: list[dict[str, Any]], control: dict[str, Any]) -> list[tuple[str, Any, str, bool]]:
    """Return the verdicts; `rows` are ordered by size, and the control has the first size."""
    smallest, largest = rows[0], rows[-1]
    grows = largest["us_per_image"] / smallest["us_per_image"]
    found = [("µs an image, largest / smallest", grows, f"≤ {MOST_GROWTH}", grows <= MOST_GROWTH)]
    for name, words in (("us_per_image", "µs an image"), ("peak_mib", "MiB")):
        value, least = control[name], smallest[name]
        found.append((f"control: by hand, {words}", value, f"> {least:.1f}", value > least))
    return found


def measure(images: int) -> dict[str, Any]:
    """Return seconds, microseconds per image and MiB for one size; another process makes the tables."""
    model = pinned(ModelStore(str(ROOT / "examples" / "models")), "motion")
    key = model.info.inference_key
    with tempfile.TemporaryDirectory(prefix="resight-plan-bench-") as folder:
        tables = Tables(folder)
        _elsewhere(f"synthetic_media(tables, {images})", folder)
        told: dict[str, Any] = {"images": images}
        plan, told["new_model_s"] = _planned(tables, model)
        assert plan.todo == images
        started = time.perf_counter()
        assert sum(len(window) for window in plan.windows(262_144)) == images
        told["windows_s"] = time.perf_counter() - started
        told["peak_mib"] = peak_mib()
        if images <= MOST_COMMITTED:
            told |= _committed(tables, plan)
            plan, told["nothing_to_do_s"] = _planned(tables, model)
            assert plan.todo == 0
        else:
            _elsewhere(f"synthetic_results(tables, {images}, '{key}', 0.9)", folder)
            plan, told["tenth_due_s"] = _planned(tables, model)
            assert 0 < plan.todo < images
        told["us_per_image"] = told["new_model_s"] / images * 1e6
        return told


def by_hand(images: int) -> dict[str, Any]:
    """Compute the plan for a new model without a database: both tables as Python rows."""
    with tempfile.TemporaryDirectory(prefix="resight-plan-bench-") as folder:
        tables = Tables(folder)
        _elsewhere(f"synthetic_media(tables, {images})", folder)
        started = time.perf_counter()
        media, results = (tables.snapshot(name).to_pyarrow_table().to_pylist() for name in ("media", "results"))
        done = {row["media_sha256"] for row in results if row["status"] != "failed"}
        todo: dict[str, list[dict[str, Any]]] = {}
        for row in media:
            if row["missing_since"] is None and row["media_sha256"] not in done:
                todo.setdefault(row["media_sha256"], []).append(row)
        seconds = time.perf_counter() - started
        assert len(todo) == images
        told = {"images": images, "new_model_s": seconds, "peak_mib": peak_mib()}
        return told | {"us_per_image": seconds / images * 1e6}


def _planned(tables: Tables, model: Any) -> tuple[Plan, float]:
    started = time.perf_counter()
    plan = plan_pass(tables, DetectPass(model), Scope())
    return plan, time.perf_counter() - started


def _committed(tables: Tables, plan: Plan) -> dict[str, Any]:
    """Commit rows of a detector without detections, in commits of COMMIT_ROWS."""
    spec = RunSpec(run_id="bench", model="motion@1", commit_s=1e-9)
    committer = Committer(tables, spec, plan)
    seconds: list[float] = []
    for window in plan.windows(COMMIT_ROWS):
        rows = empty_rows(window["media_sha256"].to_pylist(), plan)
        started = time.perf_counter()
        committer.add(rows)
        seconds.append(time.perf_counter() - started)
    started = time.perf_counter()
    counts = read_back(tables, plan, "bench")
    read_back_s = time.perf_counter() - started
    assert counts.closed
    assert counts.empty == plan.todo
    files = len(tables.snapshot("results").file_uris())
    report = compact(tables, "results", plan.model.info.inference_key, 2)
    return {
        "commit_first_ms": statistics.median(seconds[:ENDS]) * 1e3,
        "commit_last_ms": statistics.median(seconds[-ENDS:]) * 1e3,
        "read_back_s": read_back_s,
        "files": files,
        "files_compacted": len(tables.snapshot("results").file_uris()),
        "compaction_s": report.seconds,
    }


def empty_rows(digests: list[str], plan: Plan) -> pa.Table:
    info = plan.model.info
    same = {
        "inference_key": info.inference_key,
        "status": "ok",
        "n_detections": 0,
        "detections": [],
        "run_id": "bench",
        "model_name": info.name,
        "model_version": info.version,
        "finished_at": datetime.now(UTC),
    }
    rows = pa.Table.from_pylist([same | {"media_sha256": d} for d in digests], schema=RESULTS)
    return rows.append_column("replaces", pa.array([False] * len(rows), pa.bool_()))


def _elsewhere(call: str, folder: str) -> None:
    code = (
        "from archive.delta.tables import Tables\n"
        "from benchmarks.synthetic import synthetic_media, synthetic_results\n"
        f"tables = Tables({folder!r})\n{call}\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def _in_a_process(what: str, images: int) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__)), what, str(images)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _print(rows: list[dict[str, Any]]) -> None:
    names = sorted({name for row in rows for name in row} - {"images"})
    print(f"{'':18}" + "".join(f"{row['images']:>14,}" for row in rows))
    for name in names:
        cells = (f"{row[name]:14.2f}" if name in row else f"{'':14}" for row in rows)
        print(f"{name:18}" + "".join(cells))


if __name__ == "__main__":
    main()
