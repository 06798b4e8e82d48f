"""Runs that were made, as rows of tables; nothing was run."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from archive.delta.tables import Tables
from archive.schemas import RUNS
from batch.runs.spec import RunSpec
from model_store.names import version_id
from model_store.store import ModelStore
from tests.fixtures_local import put_results, result_rows

START = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
BOX = {"rank": 0, "class_id": 0, "x1_px": 1.0, "y1_px": 1.0, "x2_px": 9.0, "y2_px": 9.0}
LABELS = "select score from detections order by score"


def key(store: ModelStore, version: str) -> str:
    return store.describe(version_id("blobs", version)).info.inference_key


def ran(
    tables: Tables,
    store: ModelStore,
    run_id: str,
    version: str,
    *states: str,
    start: datetime = START,
    scores: tuple[float, ...] = (0.9, 0.4),
    **more: Any,
) -> None:
    """A run over images a and b, which have these detections."""
    info = store.describe(version_id("blobs", version)).info
    spec = RunSpec.model_validate({"run_id": run_id, "model": "blobs", **more})
    identity = {"inference_key": info.inference_key, "model_name": "blobs"}
    identity |= {"model_version": version, "weights_sha256": info.weights_sha256}
    counts = {"requested": 4, "ok": 2, "empty": 0, "failed": 0, "reused": 2, "detections": 4}
    rows = [
        {"run_id": run_id, "event": i, "state": state, "event_at": start + timedelta(seconds=30 * i)}
        | identity
        | {"spec": spec.model_dump_json(), "counts": counts, "message": f"says [{state}]"}
        | {"stages": json.dumps({"read_s": 1.5, "bottleneck": "decode"}) if state == "sealed" else None}
        for i, state in enumerate(states)
    ]
    table = pa.Table.from_pylist(rows, schema=RUNS)
    tables.append("runs", table, f"run:{run_id}", lambda _, wanted: wanted)
    found = [BOX | {"label": "blob", "score": score} for score in scores]
    results = result_rows(["a", "b"], info.inference_key, detections=found, n_detections=len(found), run_id=run_id)
    put_results(tables, results)


def rows(done: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(done)
    return found


def scores(resight: Callable[..., Any], *words: str) -> list[float]:
    """What queries see, by their scores."""
    done = resight("sql", LABELS, *words, "--format", "json").ok()
    return [round(row["score"], 2) for row in rows(done)]
