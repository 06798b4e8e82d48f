"""A classifier over the archive, on a cluster: a row for each detection, and what HTTP says of the same box."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx2
import pytest

from archive.annotations.classes import read_classes
from archive.delta.tables import Tables
from archive.views.query import query
from examples.sample_archive import build
from tests.fixtures_local import PHOTOS, rows_of
from tests.shared_data import shared

pytestmark = pytest.mark.cluster
WEIGHTS = "models/efficientnet_lite0_imagenet_224.classifier.fp16.onnx"
MODEL = "efficientnet-lite0@1"
TWINS = (
    "test_every_detection_that_is_shown_has_its_row",
    "test_a_second_run_reads_and_writes_nothing",
    "test_a_crop_is_what_a_run_cuts_out",
    "test_a_classifier_of_another_model_or_margin_has_rows_of_its_own",
    "test_invalid_requests_are_rejected",
)


@pytest.fixture(scope="module")
def seen(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tables of an archive that SSDLite has seen and that is published; the classifier is in the store."""
    weights, place = shared(WEIGHTS, *TWINS), tmp_path_factory.mktemp("classify")
    added = cluster.resight("models", "add", str(weights), "--name", "efficientnet-lite0")
    assert added.returncode == 0, added.stderr
    build(place / "cameras", 24, seed=3)
    for photo in ("panda", "cat", "moose"):
        (place / "cameras" / "zoo").mkdir(exist_ok=True)
        shutil.copy(PHOTOS / f"{photo}.jpg", place / "cameras" / "zoo" / f"{photo}.jpg")
    tables = str(place / "tables")
    assert cluster.resight("ingest", str(place / "cameras"), tables=tables).returncode == 0
    cluster.reprocess("--model", "ssdlite-coco", tables=tables)
    why = ("--override", "a tenth of the sample cannot be read, on purpose")
    published = cluster.resight("runs", "publish", "ssdlite-coco@1", *why, tables=tables)
    assert published.returncode == 0, published.stderr
    return {"tables": tables, "root": str(place / "cameras")}


def classify(cluster: Any, tables: str, *options: str) -> dict[str, Any]:
    words = ("classify", "--model", MODEL, "--format", "json", *options)
    done = cluster.resight(*words, tables=tables)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_each_detection_that_is_shown_is_classified_once(
    cluster: Any, seen: dict[str, str]
) -> None:
    tables = Tables(seen["tables"])
    shown_sql = "select distinct media_sha256, rank from detections"
    shown = {(row["media_sha256"], row["rank"]) for row in query(tables, shown_sql).to_pylist()}
    results = rows_of(tables, "results")

    planned = classify(cluster, seen["tables"], "--dry-run")
    assert planned["to_classify"] == planned["requested"] == len(shown) > 0
    assert tables.existing("classifications") is None

    report = classify(cluster, seen["tables"], "--actors", "2")
    assert report["counts"]["ok"] == len(shown)
    assert report["counts"]["failed"] == 0
    rows = rows_of(tables, "classifications")
    assert {(row["media_sha256"], row["rank"]) for row in rows} == shown
    assert len(rows) == len(shown)
    assert {len(row["logits"]) for row in rows} == {1000}
    assert rows_of(tables, "results") == results  # nothing was detected again

    names, _ = read_classes(tables.url, rows[0]["labels_digest"])
    assert all(row["label"] in names and 0 < row["score"] <= 1 for row in rows)

    version = tables.snapshot("classifications").version()
    again = classify(cluster, seen["tables"])
    assert again["run_id"] is None
    assert again["counts"]["reused"] == len(shown)
    assert tables.snapshot("classifications").version() == version

    runs = json.loads(cluster.resight("runs", "list", "--format", "json", tables=tables.url).stdout)
    assert [(run["kind"], run["state"]) for run in runs] == [
        ("classify", "sealed"),
        ("detect", "sealed"),
    ]


def test_a_row_says_what_http_says_of_the_same_box(cluster: Any, seen: dict[str, str]) -> None:
    tables = Tables(seen["tables"])
    classify(cluster, seen["tables"])
    boxes = query(
        tables,
        "select path, media_sha256, rank, x1_px, y1_px, x2_px, y2_px from detections "
        "where path like 'zoo/%' order by path, rank",
    ).to_pylist()
    assert boxes
    rows = {(r["media_sha256"], r["rank"]): r for r in rows_of(tables, "classifications")}
    said: dict[str, set[str]] = {}
    for box in boxes:
        row = rows[box["media_sha256"], box["rank"]]
        sides = ",".join(f"{box[name]:.9f}" for name in ("x1_px", "y1_px", "x2_px", "y2_px"))
        answer = httpx2.post(
            f"{cluster.url}/v1/classify",
            params={"model": MODEL, "box": sides, "top": 1},
            content=Path(seen["root"], box["path"]).read_bytes(),
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        (best,) = answer.json()["classes"]
        assert best["label"] == row["label"]
        assert best["score"] == pytest.approx(row["score"], rel=1e-3)
        said.setdefault(box["path"], set()).add(row["label"])
    assert any("panda" in label for label in said.get("zoo/panda.jpg", {"giant panda"}))


def test_another_margin_has_rows_beside_the_others(cluster: Any, seen: dict[str, str]) -> None:
    tables = Tables(seen["tables"])
    classify(cluster, seen["tables"])
    before = len(rows_of(tables, "classifications"))
    asked = ("--margin-frac", "0.2", "--path", "zoo/*")
    report = classify(cluster, seen["tables"], *asked)
    rows = rows_of(tables, "classifications")
    assert len(rows) == before + report["counts"]["ok"]
    assert {row["margin_frac"] for row in rows} == {0.0, 0.2}


def test_a_detector_is_refused_before_anything_is_submitted(
    cluster: Any, seen: dict[str, str]
) -> None:
    done = cluster.resight("classify", "--model", "ssdlite-coco", tables=seen["tables"])
    assert done.returncode == 2
    assert "a classifier is needed here" in done.stderr
