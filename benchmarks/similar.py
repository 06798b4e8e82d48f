"""Measure the search for similar detections: recall of the index, and time and memory of each way to search.

python benchmarks/similar.py --vectors 1000000 --size 512
Nine of ten vectors lie in clusters of 50 on average, as those of an animal or a scene do; the others are random. The
truth are cosines by numpy, of the vectors as drawn. Each way searches in a new process, and the ways take turns:
`dataset`, the table as Arrow reads it; `exact`, as DuckDB does; `index`. Negative control: an index of which a search
reads one list.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from archive.delta.tables import Tables
from archive.schemas import EMBEDDINGS
from archive.views import query, similar
from archive.views.vector_index import IndexedVectors, VectorIndex, build, find_index
from archive.views.views import View, Views
from benchmarks.harness import arguments_of, facts, keep, need, peak_mib, table, verdicts
from benchmarks.synthetic import as_schema, synthetic_media, synthetic_results

OF = IndexedVectors("k" * 64, "e" * 64)
BOXES, PART, TOP, QUERIES = 3, 50_000, 10, 200
SPECIES, OF_CLUSTER, RANDOM_FRAC = 50, 50, 0.1
WAYS = ("dataset", "exact", "index")


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def parts(vectors: int, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of the first vector and (n, size) vectors, rounded to 16 bits as stored."""
    draw = np.random.default_rng(0)
    species = unit(draw.standard_normal((SPECIES, size), np.float32))
    clusters = max(1, vectors // OF_CLUSTER)
    own = unit(draw.standard_normal((clusters, size), np.float32))
    centres = unit(species[draw.integers(0, SPECIES, clusters)] + own)
    spread = draw.uniform(0.4, 1.4, clusters).astype(np.float32)
    for first in range(0, vectors, PART):
        n = min(PART, vectors - first)
        which, noise = draw.integers(0, clusters, n), unit(draw.standard_normal((n, size), np.float32))
        drawn = unit(centres[which] + spread[which, None] * noise)
        is_random = draw.random(n) < RANDOM_FRAC
        drawn[is_random] = noise[is_random]
        yield first, drawn.astype(np.float16).astype(np.float32)


def sha_of(number: int) -> str:
    """Return the digest of the image of a vector: every third image has three."""
    return hashlib.sha256(str(number // BOXES * 3).encode()).hexdigest()


def archive_of(tables: Tables, vectors: int, size: int) -> None:
    """Write a published archive with a vector for each detection."""
    synthetic_media(tables, vectors + 3)
    synthetic_results(tables, vectors + 3, OF.inference_key, boxes=BOXES)
    same = {"inference_key": OF.inference_key, "embedder_key": OF.embedder_key, "margin_frac": 0.0, "status": "ok"}
    same |= {"model_name": "looks", "model_version": "1", "finished_at": datetime.now(UTC), "norm": 1.0}
    for first, part in parts(vectors, size):
        numbers = range(first, first + len(part))
        columns: dict[str, Any] = {
            "media_sha256": [sha_of(n) for n in numbers],
            "rank": [n % BOXES for n in numbers],
            "vector": pa.FixedSizeListArray.from_arrays(part.ravel(), size).cast(pa.list_(pa.float32())),
        }
        rows = pa.table(columns | {name: [value] * len(part) for name, value in same.items()})
        write_deltalake(tables.snapshot("embeddings"), as_schema(rows, EMBEDDINGS), mode="append")
    view = View(inference_key=OF.inference_key, model_name="m", model_version="1", weights_sha256="w")
    Views(tables.url).publish(view, after=0)


def truth_of(vectors: int, size: int, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the query vectors (n, size), the numbers of the ten nearest others and their cosines (n, 10), sorted."""
    own = np.zeros((len(queries), size), np.float32)
    for first, part in parts(vectors, size):
        here = (queries >= first) & (queries < first + len(part))
        own[here] = part[queries[here] - first]
    cosines, numbers = np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
    for first, part in parts(vectors, size):
        found = own @ part.T
        here = np.flatnonzero((queries >= first) & (queries < first + len(part)))
        found[here, queries[here] - first] = -2  # a query is not its own neighbour
        best = np.argpartition(-found, TOP, axis=1)[:, :TOP]
        cosines = np.hstack([cosines, np.take_along_axis(found, best, 1)])
        numbers = np.hstack([numbers, best + first])
    order = np.argsort(-cosines, axis=1)[:, :TOP]
    return own, np.take_along_axis(numbers, order, 1), np.take_along_axis(cosines, order, 1)


def recalled(index: VectorIndex, queries: np.ndarray, own: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the recall@10 of each query, and the median ms of a search in the index."""
    found, ms = [], []
    for query_number, vector, right in zip(queries, own, truth, strict=True):
        started = time.monotonic()
        near = index.nearest(vector, TOP + 1).to_pylist()
        ms.append(1e3 * (time.monotonic() - started))
        wanted = {(sha_of(n), n % BOXES) for n in right.tolist()}
        others = [(r["media_sha256"], r["rank"]) for r in near]
        others = [one for one in others if one != (sha_of(query_number), query_number % BOXES)][:TOP]
        found.append(len(wanted & set(others)) / TOP)
    return np.array(found), statistics.median(ms)


def searched(tables: Tables, way: str, folder: str, numbers: Sequence[int]) -> dict[str, Any]:
    """Return seconds of each whole search in this process, and its peak memory."""
    if way == "build":
        started = time.monotonic()
        build(tables, OF, Path(folder))
        return {"s": [time.monotonic() - started], "peak_mib": peak_mib()}
    similar.INDEXED_FROM = 0  # also with --quick
    if way == "dataset":
        similar.connect = lambda *a, scans=False, **more: query.connect(*a, **more)
    seconds = []
    for number in numbers:
        detection = f"{sha_of(number)}-{number % BOXES}"
        wanted = similar.SimilarSearch(detection=detection, folder=folder, limit=TOP, exact=way != "index")
        started = time.monotonic()
        page = similar.find_similar(tables, wanted, 3600)
        seconds.append(time.monotonic() - started)
        assert page.is_exact == (way != "index"), page.note
    return {"s": seconds, "peak_mib": peak_mib()}


def apart(tables: Tables, way: str, folder: str, numbers: Sequence[int]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", way, tables.url, folder, json.dumps(numbers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def measure(result: dict[str, Any], tables: Tables, folder: str, vectors: int, size: int, rounds: int) -> None:
    """Add times and recall; each round searches for the same two detections in each way."""
    archive_of(tables, vectors, size)
    result["build"] = apart(tables, "build", folder, [])
    queries = np.sort(np.random.default_rng(1).choice(vectors, QUERIES, replace=False))
    own, truth, cosines = truth_of(vectors, size, queries)
    is_clustered = cosines[:, 4] > 0.4
    index = find_index(tables, OF, Path(folder))
    assert isinstance(index, VectorIndex), index
    recall, result["nearest_ms"] = recalled(index, queries, own, truth)
    result["recall"] = {
        "all": float(recall.mean()),
        "clustered": float(recall[is_clustered].mean()),
        "random": float(recall[~is_clustered].mean()),
        "queries": [QUERIES, int(is_clustered.sum())],
    }
    index._lists.nprobe = 1
    result["recall"]["control"] = float(recalled(index, queries, own, truth)[0].mean())
    runs = [{way: apart(tables, way, folder, queries[:2].tolist()) for way in WAYS} for _ in range(rounds)]
    rows = []
    for way in WAYS:
        seconds = [run[way]["s"] for run in runs]
        row = {"way": way, "first_s": statistics.median(s[0] for s in seconds)}
        row |= {"next_s": statistics.median(s[1] for s in seconds)}
        rows.append(row | {"peak_mib": max(run[way]["peak_mib"] for run in runs)})
    table(rows)
    result["ways"], result["runs"] = rows, runs
    faster = statistics.median(run["exact"]["s"][1] / run["index"]["s"][1] for run in runs)
    verdicts(
        result,
        [
            ("recall@10 of the index", result["recall"]["all"], ">= 0.95", result["recall"]["all"] >= 0.95),
            ("recall@10 of the control", result["recall"]["control"], "< 0.95", result["recall"]["control"] < 0.95),
            ("exact / index, whole search", faster, "> 1", faster > 1),
        ],
    )


def main() -> None:
    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--one", nargs=4, metavar=("WAY", "TABLES", "FOLDER", "NUMBERS"), help="in this process")

    arguments = arguments_of(__doc__, more, vectors=1_000_000, size=512, rounds=3)
    if arguments.one:
        way, url, folder, numbers = arguments.one
        print(json.dumps(searched(Tables(url), way, folder, json.loads(numbers))))
        return
    need("faiss", group="dev")
    result = facts("similar", {k: v for k, v in vars(arguments).items() if k != "one"})
    with tempfile.TemporaryDirectory(prefix="resight-similar-") as place:
        vectors, size = (20_000, 64) if arguments.quick else (arguments.vectors, arguments.size)
        measure(result, Tables(f"{place}/tables"), f"{place}/vectors", vectors, size, arguments.rounds)
    keep(result)


if __name__ == "__main__":
    main()
