"""Measure the index of the images of a view: pages, counts, histograms, its build and how it follows the tables.

python benchmarks/page.py [--images 1000000] [--folder DIR] [--quick]
The archive is synthetic: 40 cameras, three detections per image, copies, missing files, images without time, failures,
a layer of events, and statements about 2 % of the images. --folder keeps it; a measurement uses a copy.
A page has 100 images, at a random time or by a cursor from there, under a random filter. Refreshes follow 1,000 uploads
and 500 statements; then pages are measured during a full build. `cpu` is the time of all threads of the process.
The negative control pages by OFFSET to the same positions: it must return the same images, and take longer.
"""

from __future__ import annotations

import random
import shutil
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from deltalake import write_deltalake
from harness import arguments_of, facts, keep, peak_mib, table, verdicts

from archive.annotations.assertions import append
from archive.annotations.layers import Layer, keep_layer
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS, TABLES
from archive.views.image_filter import ImageFilter
from archive.views.image_index import ImageIndex
from archive.views.views import View, Views
from benchmarks.synthetic import as_schema
from benchmarks.uploads import KEY, UPLOADS, uploads
from serve.uploads.recorder import commit

EVENTS, ROWS = "e" * 64, 250_000
START, MINUTES = datetime(2023, 1, 1), 2 * 365 * 24 * 60
LABELS = ("deer", "fox", "boar", "bird", "person", "vehicle")
PAGE_MS, COUNT_MS, BUILD_S = 50.0, 100.0, 60.0
VIEW = View(
    inference_key=KEY, model_name="model", model_version="1", weights_sha256="w" * 64, layers=(EVENTS,), threshold=0.2
)
_BY_OFFSET = "from cells order by moment desc, source_root, path limit 100 offset $n"
_SHA = "sha256((if(i % 200 = 7, i - 1, i))::varchar)"
_MEDIA = f"""
    select {_SHA} as media_sha256, '/archive' as source_root,
        format('camera-{{:02d}}/2025-{{:02d}}/IMG_{{:08d}}.jpg', i % 40, i // 1000 % 10 + 1, i) as path,
        1920 as width_px, 1080 as height_px, format('camera-{{:02d}}', i % 40) as camera_id,
        if(i % 100 = 3, null, strftime(
            timestamp '2023-01-01' + to_seconds((hash(i) % ({MINUTES} * 60))::bigint), '%Y-%m-%dT%H:%M:%S')
        ) as captured_at_local,
        if(i % 250 = 9, now(), null) as missing_since, now() as ingested_at
    from range($first, $last) as numbers(i)
"""
_RESULTS = f"""
    select $key as inference_key, {_SHA} as media_sha256, 1920 as width_px, 1080 as height_px,
        if(i % 90 = 1, 'failed', 'ok') as status, 'run-1' as run_id, now() as finished_at,
        if(i % 90 = 1, [], [{{'rank': rank, 'label': $labels[(1 + hash(i * 7 + rank // 2) % 6)::bigint],
            'class_id': hash(i * 7 + rank // 2) % 6, 'score': hash(i * 11 + rank) % 1000 / 1000,
            'x1_px': hash(i) % 900, 'y1_px': hash(i + 1) % 500, 'x2_px': 900 + hash(i + 2) % 900,
            'y2_px': 500 + hash(i + 3) % 500, 'mask_rle': null, 'mask_area_px': null}}
            for rank in range((hash(i * 3) % 7)::bigint)]) as detections
    from range($first, $last) as numbers(i) where i % 20 <> 5 and i % 200 <> 7
"""
_ASSERTED = f"""
    select sha256('a' || i) as assertion_id, $layer as layer_id, 'machine' as method, 'group' as action,
        {_SHA} as media_sha256, $key as inference_key, 'event-' || (i // 8) as group_id, now() as asserted_at
    from range($first, $last) as numbers(i) where i % 200 <> 7
"""


def main() -> None:
    arguments = arguments_of(__doc__, images=1_000_000, folder="", pages=600)
    images = 20_000 if arguments.quick else arguments.images
    result = facts("page", {"images": images, "pages": arguments.pages, "quick": arguments.quick})
    with tempfile.TemporaryDirectory(prefix="resight-page-") as place:
        kept = Path(arguments.folder or place) / f"archive-{images}"
        if not kept.exists():
            shutil.move(generate(Tables(f"{place}/made"), images).url, kept)
        tables = Tables(shutil.copytree(kept, f"{place}/tables"))
        result |= measure(tables, Path(place) / "index", arguments.pages)
    report(result)


def generate(tables: Tables, images: int) -> Tables:
    keep_layer(tables, Layer(EVENTS, "events", 1, {}, (), "event"), "0")
    of_view = {"key": KEY, "labels": list(LABELS)}
    more = {"media": (_MEDIA, {}), "results": (_RESULTS, of_view)}
    more["assertions"] = (_ASSERTED, {"key": KEY, "layer": EVENTS})
    with duckdb.connect() as sql:
        sql.execute("set timezone = 'UTC'")
        for name, (statement, values) in more.items():
            for first in range(0, images, ROWS):
                bounds = {"first": first, "last": min(first + ROWS, images)}
                rows = sql.sql(statement, params=bounds | values).to_arrow_table()
                write_deltalake(tables.snapshot(name), as_schema(rows, TABLES[name]), mode="append")
    append(tables, stated([sha256(str(i).encode()).hexdigest() for i in range(11, images, 50)]))
    Views(tables.url).publish(VIEW, after=0)
    return tables


def measure(tables: Tables, folder: Path, pages: int) -> dict[str, Any]:
    index = ImageIndex(tables, folder, within_s=600)
    build_s, state = timed(index.state)
    found = {"build_s": build_s, "indexed": state.images, "build_mib": round(peak_mib())}
    found["file_mb"] = round(sum(f.stat().st_size for f in folder.rglob("*.duckdb")) / 1e6)
    found["lists"] = lists(index, pages)
    found["offset_ms"], found["offset_same"] = by_offset(index, folder)
    digests = index.select(ImageFilter(status="ok"))["media_sha256"].to_pylist()
    for first in range(10**8, 10**8 + 1_000, UPLOADS):
        commit(tables, uploads(first))
    found["uploads_s"], _ = timed(index.refresh)
    append(tables, stated(digests[:: len(digests) // 500][:500]))
    found["statements_s"], _ = timed(index.refresh)
    found["lists_after"] = lists(index, pages // 3)
    Views(tables.url).publish(VIEW.model_copy(update={"threshold": 0.4}), after=1)
    return found | while_building(index)


def timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    done = work()
    taken = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return {kind: round(s, 4) for kind, s in taken.items()}, done


def filters(lot: random.Random) -> dict[str, ImageFilter]:
    moment = START + timedelta(minutes=lot.randrange(MINUTES))
    camera, label = f"camera-{lot.randrange(40):02}", lot.choice(LABELS)
    return {
        "all": ImageFilter(),
        "camera": ImageFilter(camera=camera),
        "status": ImageFilter(status=lot.choice(("ok", "empty", "failed", "missing"))),
        "label": ImageFilter(label=label),
        "rare": ImageFilter(label=label, min_score=0.99, camera=camera),
        "score": ImageFilter(min_score=0.9),
        "week": ImageFilter(since=moment, until=moment + timedelta(days=7)),
        "to review": ImageFilter(reviewed=False, label=label, min_score=0.5),
        "path": ImageFilter(path=f"{camera}/2025-0{lot.randrange(1, 10)}/"),
        "none": ImageFilter(camera="?"),
    }


def lists(index: ImageIndex, pages: int) -> dict[str, dict[str, Any]]:
    """Return n, p50 and p95 in ms of each kind of request."""
    lot, took = random.Random(7), defaultdict[str, list[tuple[str, dict[str, float]]]](list)

    def take(kind: str, name: str, work: Callable[[], Any]) -> Any:
        taken, done = timed(work)
        took[kind].append((name, taken))
        return done

    for _ in range(max(2, pages // len(filters(lot)) // 2)):
        for name, wanted in filters(lot).items():
            at = START + timedelta(minutes=lot.randrange(MINUTES))
            page = take("page", name, partial(index.page, wanted, at=at))
            cursor = {"before": page.previous} if lot.random() < 0.5 else {"after": page.next}
            page = take("page", name, partial(index.page, wanted, **cursor))
            take("count", name, partial(index.count, wanted))
            for sha in page.columns["media_sha256"][:1]:
                take("neighbours", name, partial(index.neighbours, wanted, sha))
    for name, wanted in filters(lot).items():
        for by in ("day", "hour", "camera", "label", "status"):
            take("histogram", name, partial(index.histogram, wanted, by))
        take("select", name, partial(index.select, wanted))
    return {kind: summary(of_kind) for kind, of_kind in took.items()}


def summary(took: list[tuple[str, dict[str, float]]]) -> dict[str, Any]:
    def p95(clock: str, rank: int = 95, name: str = "") -> float:
        some = [taken[clock] for of, taken in took if name in ("", of)]
        return round(float(np.percentile(some, rank)) * 1e3, 1)

    of_all = {f"{c} p{rank}": p95(c, rank) for c in ("wall", "cpu") for rank in (50, 95)}
    by_filter = {name: p95("cpu", name=name) for name, _ in took}
    return {"n": len(took), **of_all, "cpu p95 by filter": by_filter}


def by_offset(index: ImageIndex, folder: Path) -> tuple[float, bool]:
    """Return the median in ms of pages by OFFSET, and whether they have the images that `at` leads to."""
    lot, took, same = random.Random(3), list[float](), True
    (file,) = folder.rglob("*.duckdb")
    with duckdb.connect(file, read_only=True) as sql:
        for _ in range(20):
            at = START + timedelta(minutes=lot.randrange(MINUTES))
            page = index.page(ImageFilter(), at=at).columns["media_sha256"]
            newer = sql.execute("select count(*) from cells where moment > $1", [at]).fetchall()
            paged = sql.sql(_BY_OFFSET, params={"n": newer[0][0]})
            taken, rows = timed(paged.to_arrow_table)
            took.append(taken["wall"] * 1e3)
            same &= rows["media_sha256"].to_pylist() == page
    return round(statistics.median(took), 1), same


def stated(shas: list[str]) -> pa.Table:
    row = {"layer_id": "human", "method": "human", "action": "suppress"}
    row |= {"asserted_at": datetime.now(UTC)}
    return pa.Table.from_pylist([row | {"media_sha256": sha} for sha in shas], schema=ASSERTIONS)


def while_building(index: ImageIndex) -> dict[str, Any]:
    """Return the time of a full refresh, and the p95 in ms of pages that are read during it."""
    done, took, lot = list[dict[str, float]](), list[float](), random.Random(5)
    builder = threading.Thread(target=lambda: done.append(timed(index.refresh)[0]))
    builder.start()
    while builder.is_alive():
        for wanted in filters(lot).values():
            took.append(timed(partial(index.page, wanted))[0]["wall"] * 1e3)
    builder.join()
    return {"rebuild_s": done[0], "during_p95_ms": round(float(np.percentile(took, 95)), 1)}


def report(result: dict[str, Any]) -> None:
    before, after = result["lists"], result["lists_after"]
    for name, of_kind in (("lists", before), ("lists after", after)):
        rows_of = of_kind.items()
        table([{name: kind} | {k: row[k] for k in list(row)[:5]} for kind, row in rows_of])
    bounds = [("build, s wall", result["build_s"]["wall"], BUILD_S)]
    for p95 in ("wall p95", "cpu p95"):
        bounds += [(f"page, ms {p95}", before["page"][p95], PAGE_MS)]
        bounds += [(f"page after refreshes, ms {p95}", after["page"][p95], PAGE_MS)]
        bounds += [(f"count, ms {p95}", before["count"][p95], COUNT_MS)]
    offset_ms, same, page_ms = (result["offset_ms"], result["offset_same"], before["page"]["wall p50"])
    rows: list[tuple[str, Any, str, bool]] = [
        *((name, value, f"≤ {bound:g}", value <= bound) for name, value, bound in bounds),
        ("pages by OFFSET are the same", same, "True", same),
        ("page by OFFSET, ms", offset_ms, f"> {page_ms}", offset_ms > page_ms),
    ]
    verdicts(result, rows)
    keep(result)


if __name__ == "__main__":
    main()
