"""Measure seconds and peak memory of `resight sql` and `resight export` as an archive grows.

The archive is synthetic, with three detections per image (nine in a third of them). Each query runs in a new process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from archive.delta.tables import Tables
from archive.views.exports import export
from archive.views.query import query
from archive.views.views import View, Views
from benchmarks.harness import peak_mib, table
from benchmarks.synthetic import synthetic_media, synthetic_results

KEY = "k" * 64
VIEW = View(inference_key=KEY, model_name="model", model_version="1", weights_sha256="w")
QUERIES = {
    "README": "select camera_id, label, count(*) from detections group by all",
    "images by camera": "select camera_id, count(*) from images group by all",
    "export": "",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--memory-mib", type=int, nargs="*", default=[0, 1024, 512])
    parser.add_argument("--one", nargs=3, metavar=("NAME", "TABLES", "MIB"), help="run the query in this process")
    arguments = parser.parse_args()
    if arguments.one:
        name, url, mib = arguments.one
        print(*_measured(name, Tables(url), int(mib) or None))
        return
    with tempfile.TemporaryDirectory(prefix="resight-queries-") as place:
        tables = Tables(f"{place}/tables")
        synthetic_media(tables, arguments.images)
        synthetic_results(tables, arguments.images, KEY, boxes=9)
        Views(tables.url).publish(VIEW, after=0)
        rows = []
        for name in QUERIES:
            for mib in arguments.memory_mib:
                command = [sys.executable, __file__, "--one", name, tables.url, str(mib)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                seconds, peak = done.stdout.split() or ("failed", done.stderr.splitlines()[-1])
                row = {"query": name, "images": arguments.images, "memory MiB": mib or "half"}
                rows.append(row | {"s": seconds, "peak MiB": peak})
        table(rows)


def _measured(name: str, tables: Tables, memory_mib: int | None) -> tuple[float, float]:
    started = time.monotonic()
    if QUERIES[name]:
        query(tables, QUERIES[name], memory_mib=memory_mib)
    else:
        out = Path(tables.url).parent / "out.parquet"
        export(tables, "detections", out, memory_mib=memory_mib)
    return round(time.monotonic() - started, 1), round(peak_mib())


if __name__ == "__main__":
    main()
