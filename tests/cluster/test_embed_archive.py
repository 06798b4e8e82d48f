"""An embedder over the archive, on both hosts: a vector for each detection, that of HTTP, and those like it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from archive.delta.tables import Tables
from archive.views.query import query
from examples.sample_archive import Summary
from model_store.embedder import unit
from tests.cluster.hosts import Finished, Host
from tests.fixtures_local import rows_of
from tests.model_store.embedders import looks

pytestmark = pytest.mark.cluster
MODEL = "looks@1"


def embed(host: Host, tables: str) -> dict[str, Any]:
    return dict(json.loads(host.done("embed", "--model", MODEL, "--format", "json", tables=tables)))


def test_each_shown_detection_has_the_vector_that_http_answers(
    host: Host, undisturbed: Finished, archive: tuple[Path, Summary], tmp_path: Path
) -> None:
    weights = tmp_path / "looks.onnx"
    weights.write_bytes(looks())
    host.done("models", "add", str(weights), "--name", "looks")
    tables = Tables(str(shutil.copytree(undisturbed.tables, tmp_path / "tables")))
    report = embed(host, tables.url)
    boxes = query(
        tables, "select path, media_sha256, rank, x1_px, y1_px, x2_px, y2_px from detections order by path, rank"
    )
    shown = {(box["media_sha256"], box["rank"]): box for box in boxes.to_pylist()}
    rows = {(row["media_sha256"], row["rank"]): row for row in rows_of(tables, "embeddings")}
    assert rows.keys() == shown.keys()
    assert report["counts"]["ok"] == len(rows) == len(rows_of(tables, "embeddings")) > 8

    for which, box in list(shown.items())[:4]:
        sides = ",".join(f"{box[name]:.9f}" for name in ("x1_px", "y1_px", "x2_px", "y2_px"))
        body = (archive[0] / box["path"]).read_bytes()
        answer = httpx2.post(f"{host.url}/v1/embed", params={"model": MODEL, "box": sides}, content=body, timeout=60)
        assert answer.status_code == 200, answer.text
        units, norms = unit(np.array([answer.json()["vector"]], np.float32))
        assert rows[which]["vector"] == pytest.approx(units[0].tolist(), abs=1e-3)
        assert rows[which]["norm"] == pytest.approx(float(norms[0]), rel=1e-6)

    again = embed(host, tables.url)
    assert (again["run_id"], again["counts"]["reused"]) == (None, len(rows))
    (sha, rank), one = next(iter(rows.items()))
    cosines = {which: float(np.dot(row["vector"], one["vector"])) for which, row in rows.items() if row is not one}
    found = json.loads(host.done("similar", f"{sha}-{rank}", "--format", "json", "--limit", "3", tables=tables.url))
    assert [row["cosine"] for row in found] == pytest.approx(sorted(cosines.values(), reverse=True)[:3], abs=1e-5)
