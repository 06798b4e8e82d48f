"""Measure how the operations of an archive grow with its images, and detections with replicas.

python benchmarks/growth.py [--sizes 100000,300000,1000000,3000000] [--indexed 3000000] [--replicas 1,2] [--quick]
The tables are synthetic (`synthetic.py`): results of two models, three detections per image. Each operation runs in a
separate process, so that its peak memory is measured alone:

ingest    an unchanged archive, whose listing is simulated
plan      of a model without results: all images are due
commit    of 2,000 results of a run, the median of COMMITS
compare   both models image by image, as a gate does before a publication
publish   a view
query     detections by camera and label
export    all detections to a Parquet file
search    for the newest 100 images without an index
index     of the images, and from it a page of the browser, up to `indexed` images
list      the newest 100 images of GET /v1/images, and of one camera, with that index

Detections arrive by HTTP at clusters with as many replicas of one worker each, in turn: images a second of 8 clients
for each replica, and p99 of Poisson arrivals at four fifths of that. The negative control sorts images as rows of
Python at the first size: it must take longer than `search`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from harness import MODEL, PHOTO, ROOT, arguments_of, facts, keep, need, peak_mib, picture, table, verdicts

from archive.catalogue.ingest import ingest
from archive.delta.tables import Tables
from archive.views.exports import export
from archive.views.image_filter import ImageFilter
from archive.views.image_index import ImageIndex
from archive.views.indexed_search import IndexedSearch
from archive.views.query import query
from archive.views.search import ImageSearch, find
from archive.views.views import View, Views
from batch.pipeline.commit import Committer
from batch.planning.passes import DetectPass
from batch.planning.plan import pinned, plan_pass
from batch.publishing.impact.compare import compare
from batch.publishing.impact.result_sets import ResultSet
from batch.runs.scope import Scope
from batch.runs.spec import RunSpec
from benchmarks.load import Load
from benchmarks.own_cluster import cluster
from benchmarks.planning import COMMIT_ROWS, empty_rows
from benchmarks.subject import SHIPPED
from benchmarks.synthetic import Simulated, synthetic_media, synthetic_results, url_of
from model_store.store import ModelStore

KEYS, CAMERA, COMMITS, TURNS, OPEN_SHARE, LIST_MS = ("a" * 64, "b" * 64), "camera-00000", 20, 5, 0.8, 300.0
QUERY = "select camera_id, label, count(*) from detections group by all"
OPERATIONS = (
    *("ingest", "plan", "commit", "compare", "publish", "query", "export", "search", "index", "page", "list"),
    "list a camera",
)
Timed = tuple[float, float]  # seconds of an operation, and of what it needs before


def main() -> None:
    arguments = arguments_of(
        __doc__,
        sizes="100000,300000,1000000,3000000",
        indexed=3_000_000,
        replicas="1,2",
        rounds=2,
        seconds=10.0,
        one="",
    )
    if arguments.one:
        operation, url, images = json.loads(arguments.one)
        print(json.dumps({"s": round(measure(operation, Tables(url), images), 4), "peak_mib": round(peak_mib())}))
        return
    need("matplotlib")
    if arguments.quick:
        arguments.sizes, arguments.rounds, arguments.seconds = "10000,20000", 1, 2.0
    sizes, replicas = ([int(n) for n in text.split(",") if n] for text in (arguments.sizes, arguments.replicas))
    result = facts("growth", vars(arguments))
    result["rows"] = [row for images in sizes for row in of_size(images, arguments.indexed)]
    result["control"] = in_a_process("by hand", min(sizes))
    result["replicas"] = [
        online(count, arguments.seconds) | {"round": turn} for turn in range(arguments.rounds) for count in replicas
    ]
    report(result, sizes)


def of_size(images: int, indexed: int) -> Iterator[dict[str, Any]]:
    with synthetic(images) as url:
        for operation in OPERATIONS:
            if images <= indexed or operation not in ("index", "page"):
                yield {"images": images, "operation": operation} | in_a_process(operation, images, url)


@contextmanager
def synthetic(images: int) -> Iterator[str]:
    """Make the tables in another process, whose memory ends with it; `production` shows the first model."""
    with tempfile.TemporaryDirectory(prefix="resight-growth-") as place:
        url = f"{place}/tables"
        in_a_process("make", images, url)
        yield url


def in_a_process(operation: str, images: int, url: str = "") -> dict[str, Any]:
    if not url:
        with synthetic(images) as made:
            return in_a_process(operation, images, made)
    command = [sys.executable, __file__, "--one", json.dumps([operation, url, images])]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{images:>11,}  {operation:14}{found['s']:10.3f} s{found['peak_mib']:8,} MiB", file=sys.stderr)
    return found


def measure(operation: str, tables: Tables, images: int) -> float:
    """Return seconds; a median for what takes milliseconds."""
    place = Path(tables.url).parent
    folder = str(place / "index")
    old, new = (ResultSet(name=key[0], inference_key=key) for key in KEYS)
    once: dict[str, Callable[[], object]] = {
        "make": partial(make, tables, images),
        "ingest": partial(ingest_unchanged, tables, images),
        "plan": lambda: all_due(tables),
        "compare": lambda: compare(tables, old, new),
        "query": lambda: query(tables, QUERY),
        "export": lambda: export(tables, "detections", place / "detections.parquet"),
        "index": lambda: ImageIndex(tables, place / "index", within_s=3600).state(),
        "by hand": lambda: newest_by_hand(tables),
    }
    often: dict[str, Callable[[], object]] = {
        "search": lambda: find(tables, ImageSearch(), 600),
        "list": lambda: IndexedSearch(folder=folder).answer(tables, 600),
        "list a camera": lambda: IndexedSearch(folder=folder, camera=CAMERA).answer(tables, 600),
    }
    if operation in once:
        return seconds(once[operation])
    if operation in often:
        return statistics.median(seconds(often[operation]) for _ in range(TURNS))
    if operation == "publish":
        views = Views(tables.url)
        return statistics.median(seconds(partial(publish, views, number)) for number in range(TURNS))
    if operation == "page":
        index = ImageIndex(tables, place / "index", within_s=3600)
        index.state()
        cameras = [ImageFilter(camera=f"camera-{number:05d}") for number in range(images // 10_000)]
        return statistics.median(seconds(partial(index.page, wanted)) for wanted in [ImageFilter(), *cameras])
    return statistics.median(commits(tables))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def make(tables: Tables, images: int) -> None:
    synthetic_media(tables, images)
    for key in KEYS:
        synthetic_results(tables, images, key, boxes=9)
    publish(Views(tables.url), 0)


def ingest_unchanged(tables: Tables, images: int) -> None:
    Simulated.register()
    report = ingest(tables, url_of(images))
    assert report.unchanged == images, report


def publish(views: Views, number: int) -> None:
    """Publish one of the two models in turn, after the newest publication."""
    now = views.current("production")
    view = View(inference_key=KEYS[number % 2], model_name="model", model_version=str(number), weights_sha256="w" * 64)
    views.publish(view, after=now.serial if now else 0)


def all_due(tables: Tables) -> Any:
    return plan_pass(tables, DetectPass(pinned(ModelStore(str(SHIPPED)), "motion")), Scope())


def commits(tables: Tables) -> list[float]:
    """Return the seconds of commits of a detector without detections."""
    plan = all_due(tables)
    committer = Committer(tables, RunSpec(run_id="bench", model="motion@1", commit_s=1e-9), plan)
    taken: list[float] = []
    for _, window in zip(range(COMMITS), plan.windows(COMMIT_ROWS), strict=False):
        rows = empty_rows(window["media_sha256"].to_pylist(), plan)
        taken.append(seconds(partial(committer.add, rows)))
    return taken


def newest_by_hand(tables: Tables) -> list[Any]:
    rows = tables.snapshot("media").to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: row["captured_at_local"], reverse=True)[:100]


def online(replicas: int, for_s: float) -> dict[str, Any]:
    """Return images a second at saturation and p99 at OPEN_SHARE of it, of a new cluster."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        app = yaml.safe_load((ROOT / "serve" / "app.yaml").read_text())
        app["applications"][0]["args"] |= {"replicas": replicas, "workers": 1}
        yaml.safe_dump(app, file)
        file.flush()
        os.environ["RESIGHT_APP"] = file.name
        try:
            with cluster() as up:
                load = Load(up.url, f"/v1/detect?model={MODEL}", PHOTO.read_bytes(), seconds=for_s)
                replace(load, clients=4, seconds=2).run()  # warm up
                full = replace(load, clients=8 * replicas).run().summary()["per_s"]
                open_loop = replace(load, rate=OPEN_SHARE * full).run().summary()
        finally:
            del os.environ["RESIGHT_APP"]
    found = {"replicas": replicas, "per_s": full, "p99_ms": open_loop["p99_ms"]}
    print(found, file=sys.stderr)
    return found


def report(result: dict[str, Any], sizes: list[int]) -> None:
    found = {(row["operation"], row["images"]): row for row in result["rows"]}
    for what in ("s", "peak_mib"):
        table(
            [
                {what: operation} | {f"{size:,}": found.get((operation, size), {}).get(what) for size in sizes}
                for operation in OPERATIONS
            ]
        )
    draw(result)
    listed = [("newest", found["list", sizes[-1]]["s"] * 1e3), ("camera", found["list a camera", sizes[-1]]["s"] * 1e3)]
    rows = [(f"list of {sizes[-1]:,}, {name}, ms", ms, f"≤ {LIST_MS:g}", ms <= LIST_MS) for name, ms in listed]
    by_hand, sorted_s = result["control"]["s"], found["search", sizes[0]]["s"]
    verdicts(result, [*rows, ("control: sorted by hand, s", by_hand, f"> {sorted_s:.3f}", by_hand > sorted_s)])
    keep(result)


def draw(result: dict[str, Any]) -> None:
    with picture(result, 4) as (time_s, memory, rate, latency):
        for number, operation in enumerate(OPERATIONS):
            rows = [row for row in result["rows"] if row["operation"] == operation]
            style = "o-" if number < 10 else "s--"  # there are ten colours
            for axes, what in ((time_s, "s"), (memory, "peak_mib")):
                axes.plot([row["images"] for row in rows], [row[what] for row in rows], style, label=operation)
        for axes, name in ((time_s, "seconds"), (memory, "peak MiB of the process")):
            axes.set(xscale="log", yscale="log", xlabel="images", title=name)
            axes.grid(alpha=0.3)
        time_s.set_ylim(top=100 * time_s.get_ylim()[1])  # room for the legend
        time_s.legend(fontsize=7, ncols=3)
        for axes, what, name in ((rate, "per_s", "detections a second"), (latency, "p99_ms", "p99 at 80 %, ms")):
            axes.plot([r["replicas"] for r in result["replicas"]], [r[what] for r in result["replicas"]], "o")
            axes.set(xlabel="replicas of one worker", title=name, ylim=(0, None))
            axes.xaxis.get_major_locator().set_params(integer=True)


if __name__ == "__main__":
    main()
