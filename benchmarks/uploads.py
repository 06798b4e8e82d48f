"""Measure how the size of an archive affects uploads and queries of GET /v1/images.

python benchmarks/uploads.py [--sizes 100000,1000000] [--quick]
The tables are synthetic (`synthetic.py`) and compacted as by `resight compact`; nine tenths of the images have results.
Each kind of query is repeated (`archive/views/search.py`), and rows of 100 uploads are added to both tables
(`serve/uploads/recorder.py`). Figures are medians in seconds.
Each size runs in a separate process, to measure its peak memory.
The negative control computes the page of the newest images from the view `detections`, grouped by image before the
limit: it must take longer.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa
from harness import ROOT, arguments_of, facts, keep, peak_mib, table, verdicts

from archive.delta.compact import compact
from archive.delta.tables import Tables
from archive.schemas import MEDIA, RESULTS
from archive.views.query import query
from archive.views.search import ImageSearch, SearchPage, find
from archive.views.views import View, Views
from benchmarks.synthetic import synthetic_media, synthetic_results
from serve.uploads.recorder import commit
from serve.uploads.uploads import Upload

KEY, TURNS, UPLOADS = "k", 3, 100
MOST_S = 20.0
"""Time limit of a query in seconds (serve/uploads/actors.py)."""
CAMERA = "camera-00000"
QUESTIONS: dict[str, dict[str, Any]] = {
    "the newest": {},
    "of a camera": {"camera": CAMERA},
    "of an hour": {"since": datetime(2025, 6, 1, 12), "until": datetime(2025, 6, 1, 13)},
    "missing": {"status": "missing"},
    "empty": {"status": "empty"},
    "of a label": {"label": "deer"},
    "of a camera and a label": {"camera": CAMERA, "label": "deer"},
}
BY_HAND = """
    with images as (
        select m.path, max(m.captured_at_local) as taken, count(d.rank) as n
        from media m left join detections d using (media_sha256) where m.missing_since is null
        group by m.path)
    select * from images order by taken desc limit 100
"""


def main() -> None:
    arguments = arguments_of(__doc__, sizes="100000,1000000", one=0)
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    sizes = [10_000] if arguments.quick else [int(size) for size in arguments.sizes.split(",")]
    result = facts("uploads", {"sizes": sizes, "quick": arguments.quick})
    result["rows"] = [in_a_process(size) for size in sizes]
    report(result)


def in_a_process(size: int) -> dict[str, Any]:
    words = [sys.executable, __file__, "--one", str(size)]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(images: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="resight-uploads-") as folder:
        tables = Tables(folder)
        synthetic_media(tables, images)
        synthetic_results(tables, images, KEY, 0.9)
        for name in ("media", "results"):
            compact(tables, name, min_files=1)
        view = View(inference_key=KEY, model_name="model", model_version="1", weights_sha256="w")
        Views(tables.url).publish(view, after=0)
        before_mib = peak_mib()
        asked = {words: timed(partial(ask, tables, more)) for words, more in QUESTIONS.items()}
        peak = peak_mib()
        by_hand = timed(lambda: query(tables, BY_HAND))
        numbers = iter(range(images * 10, images * 20, UPLOADS))
        adds = timed(lambda: commit(tables, uploads(next(numbers))))
    return {
        "images": images,
        "questions_s": asked,
        "rows_s": adds,
        "by_hand_s": by_hand,
        "peak_mib": round(peak),
        "before_mib": round(before_mib),
    }


def ask(tables: Tables, conditions: dict[str, Any]) -> SearchPage:
    return find(tables, ImageSearch(**conditions), 600)


def uploads(first: int) -> list[Upload]:
    """Return uploads of pictures that are in no table."""
    now = datetime.now(UTC)
    made: list[Upload] = []
    for number in range(first, first + UPLOADS):
        digest = hashlib.sha256(f"upload {number}".encode()).hexdigest()
        place = {"source_root": "/uploads", "path": f"{digest}.jpg", "size_bytes": 1}
        media = {"media_sha256": digest, "ingested_at": now, **place}
        seen = {"inference_key": KEY, "status": "ok", "detections": [], "run_id": "upload"}
        made.append(
            Upload(
                pa.Table.from_pylist([media], schema=MEDIA),
                pa.Table.from_pylist([seen | {"media_sha256": digest}], schema=RESULTS),
            )
        )
    return made


def timed(work: Callable[[], object]) -> float:
    took: list[float] = []
    for _ in range(TURNS):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return round(statistics.median(took), 3)


def report(result: dict[str, Any]) -> None:
    rows = result["rows"]
    table([{"images": r["images"], **r["questions_s"], "rows of 100": r["rows_s"]} for r in rows])
    last = rows[-1]
    slowest, newest = max(last["questions_s"].values()), last["questions_s"]["the newest"]
    verdicts(
        result,
        [
            ("slowest question, s", slowest, f"≤ {MOST_S:g}", slowest <= MOST_S),
            ("the newest by hand, s", last["by_hand_s"], f"> {newest}", last["by_hand_s"] > newest),
        ],
    )
    keep(result)


if __name__ == "__main__":
    main()
