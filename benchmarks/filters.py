"""Measure the time and memory of each filter over a million detections.

python benchmarks/filters.py [--detections 1000000] [--here]
The tables are simulated: cameras take bursts of three frames with up to five boxes each. The boxes are animals that
move within the burst, a branch at a fixed place, small specks and near-duplicates. Each filter runs twice over all
detections; the second run must add no rows. With --here it runs in this process, otherwise on a separate Ray cluster
like `resight filters run`. The negative control is a run for a single image: per detection, it must cost more than any
filter over all images. Prints a table; the last line is a JSON document, also written to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
from deltalake import write_deltalake
from harness import facts, keep, peak_mib, verdicts

from archive.delta.tables import Tables
from archive.schemas import MEDIA, RESULTS
from archive.views.views import View, Views
from batch.filters.layers import switch
from batch.filters.prepare import prepare
from batch.filters.run import execute, here
from batch.planning.id_list import name_ids
from batch.runs.scope import FilterScope
from benchmarks.own_cluster import Cluster, cluster
from benchmarks.synthetic import as_schema

KEY = "f" * 64
PER_IMAGE = 2.5
IMAGES_PER_CAMERA = 10_000
KINDS = ("duplicates", "small-size", "score-threshold", "repeat-detections", "events", "smoothing")
KINDS += ("tracking", "fixed-slots")
CONTROL = "duplicates"
_IMAGES = """
    create table images as
    select i, sha256(i::varchar) as media_sha256, i // $per_camera as camera, i % $per_camera as n,
        timestamp '2025-06-01' + to_seconds(n // 3 * 900 + n % 3) as taken, hash(i // 3) as burst
    from range($images) as numbers(i)
"""
_MEDIA = """
    select media_sha256, 'simulated://' as source_root, format('cam-{:03d}/IMG_{:07d}.jpg', camera, n) as path,
        1000000 as size_bytes, format('etag:{}', i) as content_tag, 'image/jpeg' as media_type,
        1920 as width_px, 1080 as height_px, 1 as exif_orientation,
        strftime(taken, '%Y-%m-%dT%H:%M:%S') as captured_at_local, 'exif_original' as timestamp_source,
        format('cam-{:03d}', camera) as camera_id, now() as ingested_at
    from images
"""
_RESULTS = """
    with boxes as (
        select i, k, hash(i * 8 + k) as h,
            case k when 0 then 400 + camera * 7 % 600 + h % 3       -- the branch
                when 1 then burst % 1200 + n % 3 * 25               -- an animal, moving
                when 2 then burst % 1200 + n % 3 * 25 + 4           -- the same again
                when 3 then h % 1800 else hash(burst) % 1200 end as x,
            case k when 0 then 300 when 3 then h % 1000 else burst // 7 % 600 end as y,
            case k when 0 then 90 when 3 then 18 else 260 end as side,
            case k when 0 then 'animal' when 3 then 'bird' when 1 then
                case when h % 10 = 0 then 'fox' else 'deer' end else 'deer' end as label,
            case k when 0 then 0.3 when 2 then 0.4 else 0.5 + h % 500 / 1000 end as score
        from images, range(5) as kinds(k) where hash(i * 5 + k) % 2 = 0),
    ranked as (select *, row_number() over (partition by i order by score desc, k) - 1 as rank from boxes),
    found as (
        select i, list({'rank': rank, 'label': label, 'class_id': k, 'score': score, 'x1_px': x, 'y1_px': y,
            'x2_px': x + side, 'y2_px': y + side, 'mask_rle': null, 'mask_area_px': null} order by rank) as detections
        from ranked group by i)
    select $key as inference_key, media_sha256, 'ok' as status,
        1920 as width_px, 1080 as height_px, coalesce(len(detections), 0) as n_detections, false as saturated,
        coalesce(detections, []) as detections, 'run-1' as run_id, 'model' as model_name, '1' as model_version,
        repeat('w', 64) as weights_sha256, now() as finished_at
    from images left join found using (i)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--detections", type=int, default=1_000_000)
    parser.add_argument("--here", action="store_true", help="run in this process, without Ray")
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    arguments = parser.parse_args()
    config = {"detections": arguments.detections, "here": arguments.here}
    with tempfile.TemporaryDirectory(prefix="resight-bench-") as folder:
        tables = simulated(Path(folder), arguments.detections)
        one = Path(folder) / "one.txt"
        one.write_text(hashlib.sha256(b"0").hexdigest())
        if arguments.here:
            rows = in_order(arguments.kinds, lambda kind: _alone(tables.url, kind), tables)
            control = _alone(tables.url, CONTROL, one)
        else:
            with cluster() as up:
                rows = in_order(arguments.kinds, lambda kind: _submitted(up, tables.url, kind), tables)
                control = _submitted(up, tables.url, CONTROL, one)
    result = facts("filters", config) | {"filters": rows, "control": control}
    verdicts(result, bounds(rows, control))
    keep(result)


def bounds(rows: list[dict[str, Any]], control: dict[str, Any]) -> list[tuple[str, Any, str, bool]]:
    """Compare the seconds per checked detection of the control with the slowest run of any filter."""
    slowest = max((max(row["seconds"], row["again_s"]) / max(1, row["checked"]) for row in rows), default=0)
    alone = control["seconds"] / max(1, control["checked"])
    words = "control: a run for one image, µs a detection"
    return [(words, alone * 1e6, f"> {slowest * 1e6:.0f}", alone > slowest)]


def simulated(place: Path, detections: int) -> Tables:
    """Make and publish tables with approximately `detections` detections."""
    tables = Tables(str(place / "tables"))
    images = round(detections / PER_IMAGE)
    with duckdb.connect() as sql:
        sql.execute("set timezone = 'UTC'")
        sql.execute(_IMAGES, {"images": images, "per_camera": IMAGES_PER_CAMERA})
        for name, statement, schema in (("media", _MEDIA, MEDIA), ("results", _RESULTS, RESULTS)):
            asked = {"key": KEY} if name == "results" else None
            rows = sql.execute(statement, asked).to_arrow_table()
            write_deltalake(tables.snapshot(name), as_schema(rows, schema), mode="append")
    view = View(inference_key=KEY, model_name="model", model_version="1", weights_sha256="w" * 64)
    Views(tables.url).publish(view, after=0)
    return tables


def in_order(kinds: Any, run: Callable[[str], dict[str, Any]], tables: Tables) -> list[dict[str, Any]]:
    """Run each filter twice over the layers of the filters before it."""
    rows: list[dict[str, Any]] = []
    for kind in kinds:
        first, again = run(kind), run(kind)
        switch(tables, on=[first["layer_id"]])
        assert again["added"] == 0, f"{kind} added {again['added']} rows the second time"
        row = {"kind": kind, "again_s": again["seconds"]} | first
        rows.append(row)
        words = "  ".join(f"{name} {row[name]}" for name in ("checked", "flagged", "changed", "added"))
        print(
            f"{kind:18} {row['seconds']:7.1f} s, again {row['again_s']:6.1f} s  "
            f"peak {row['peak_mib']:5.0f} MiB  {words}",
            flush=True,
        )
    return rows


def _alone(url: str, kind: str, ids: Path | None = None) -> dict[str, Any]:
    """Run a filter in a fresh process, so that the peak memory is that of the filter."""
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    process = context.Process(target=_work, args=(url, kind, ids, told))
    process.start()
    found: dict[str, Any] = told.get()
    process.join()
    return found


def _work(url: str, kind: str, ids: Path | None, told: Any) -> None:
    started = time.perf_counter()
    scope = FilterScope(ids=ids and name_ids(ids))
    spec = prepare(Tables(url), kind, {}, scope)
    report = execute(spec, Tables(url), here)
    seconds = time.perf_counter() - started
    told.put(report.metrics() | {"seconds": seconds, "peak_mib": peak_mib()})


def _submitted(up: Cluster, url: str, kind: str, ids: Path | None = None) -> dict[str, Any]:
    """Run a filter by the command line; the memory of the driver is measured only with --here."""
    started = time.perf_counter()
    words = ["filters", "run", kind, "--format", "json", *(["--ids", str(ids)] if ids else [])]
    (row,) = json.loads(up.resight(*words, RESIGHT_TABLES=url))
    return row | {"layer_id": row["layer"], "seconds": time.perf_counter() - started, "peak_mib": 0.0}


if __name__ == "__main__":
    main()
