"""A classifier over the archive, on both hosts: a row for each detection, and what HTTP says of the same box."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from archive.annotations.classes import read_classes
from archive.delta.tables import Tables
from archive.views.query import query
from examples.sample_archive import Summary
from tests.cluster.hosts import Finished, Host, OneProcess
from tests.fixtures_local import rows_of
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


@dataclass(frozen=True)
class Classified:
    tables: Tables
    planned: dict[str, Any]
    report: dict[str, Any]


@pytest.fixture(scope="module")
def classified(host: Host, undisturbed: Finished, tmp_path_factory: pytest.TempPathFactory) -> Classified:
    """A published run of SSDLite, classified; the plan of that, and its report."""
    weights = shared(WEIGHTS, *TWINS)
    host.done("models", "add", str(weights), "--name", "efficientnet-lite0")
    place = tmp_path_factory.mktemp("classify") / "tables"
    tables = Tables(str(shutil.copytree(undisturbed.tables, place)))
    planned = classify(host, tables.url, "--dry-run")
    assert tables.existing("classifications") is None
    return Classified(tables, planned, classify(host, tables.url, "--actors", "2"))


def classify(host: Host, tables: str, *options: str) -> dict[str, Any]:
    words = ("classify", "--model", MODEL, "--format", "json", *options)
    return dict(json.loads(host.done(*words, tables=tables)))


def test_each_detection_that_is_shown_is_classified_once(
    host: Host, classified: Classified, undisturbed: Finished
) -> None:
    tables, planned = classified.tables, classified.planned
    shown_sql = "select distinct media_sha256, rank from detections"
    shown = {(row["media_sha256"], row["rank"]) for row in query(tables, shown_sql).to_pylist()}
    assert planned["to_infer"] == planned["requested"] == len(shown) > 0
    assert classified.report["counts"]["ok"] == len(shown)
    assert classified.report["counts"]["failed"] == 0
    rows = rows_of(tables, "classifications")
    assert {(row["media_sha256"], row["rank"]) for row in rows} == shown
    assert len(rows) == len(shown)
    assert {len(row["logits"]) for row in rows} == {1000}
    # nothing was detected again
    assert rows_of(tables, "results") == rows_of(Tables(undisturbed.tables), "results")

    names, _ = read_classes(tables.url, rows[0]["labels_digest"])
    assert all(row["label"] in names and 0 < row["score"] <= 1 for row in rows)

    version = tables.snapshot("classifications").version()
    again = classify(host, tables.url)
    assert again["run_id"] is None
    assert again["counts"]["reused"] == len(shown)
    assert tables.snapshot("classifications").version() == version

    runs = json.loads(host.done("runs", "list", "--format", "json", tables=tables.url))
    assert [(run["kind"], run["state"]) for run in runs] == [("classify", "sealed"), ("detect", "sealed")]


def test_a_row_has_what_http_answers_for_the_same_box(
    host: Host, classified: Classified, archive: tuple[Path, Summary]
) -> None:
    boxes = query(
        classified.tables,
        "select path, media_sha256, rank, x1_px, y1_px, x2_px, y2_px from detections order by path, rank limit 8",
    ).to_pylist()
    assert len({box["path"] for box in boxes}) > 1
    rows = {(r["media_sha256"], r["rank"]): r for r in rows_of(classified.tables, "classifications")}
    for box in boxes:
        row = rows[box["media_sha256"], box["rank"]]
        sides = ",".join(f"{box[name]:.9f}" for name in ("x1_px", "y1_px", "x2_px", "y2_px"))
        answer = httpx2.post(
            f"{host.url}/v1/classify",
            params={"model": MODEL, "box": sides, "top": 1},
            content=(archive[0] / box["path"]).read_bytes(),
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        (best,) = answer.json()["classes"]
        assert best["label"] == row["label"]
        assert best["score"] == pytest.approx(row["score"], rel=1e-3)


def test_detect_then_classify_answers_with_the_rows_bit_for_bit(
    host: Host, classified: Classified, archive: tuple[Path, Summary]
) -> None:
    sql = """
        select path, list({'label': c.label, 'score': c.score, 'logits': c.logits} order by rank) as rows
        from detections join classifications c using (inference_key, media_sha256, rank)
        group by path having count(*) > 1 or path like '%1.jpg' order by path limit 12"""
    images = query(classified.tables, sql).to_pylist()
    assert max(len(image["rows"]) for image in images) > 1
    for image in images:
        answer = host.detect((archive[0] / image["path"]).read_bytes(), then=MODEL)
        assert answer.status_code == 200, answer.text
        assert answer.json()["then"]["model"]["version"] == "1"
        for found, row in zip(answer.json()["detections"], image["rows"], strict=True):
            best = found["classes"][0]
            assert (best["label"], np.float32(best["score"])) == (row["label"], np.float32(row["score"]))
            for one in found["classes"]:
                assert np.float16(one["logit"]) == row["logits"][one["class_id"]]


def test_reprocess_then_classify_is_one_job_with_two_accounts(
    host: Host, classified: Classified, catalogued: str
) -> None:
    def rows(tables: str) -> set[tuple[Any, ...]]:
        found = rows_of(Tables(tables), "classifications")
        return {(r["detection_id"], r["classifier_key"], r["label"], r["score"], *r["logits"]) for r in found}

    words = ("--model", "ssdlite-coco", "--then", MODEL)
    first = host.reprocess(*words, tables=catalogued)
    count = classified.report["counts"]["ok"]
    assert first["then"]["run_id"] == f"{first['run_id']}-then"
    assert (first["counts"]["reused"], first["then"]["counts"]["ok"]) == (0, count)
    assert first["then"]["view"] == "ssdlite-coco@1"
    assert rows(catalogued) == rows(classified.tables.url)

    again = host.reprocess(*words, tables=catalogued)
    assert again["run_id"] is again["then"]["run_id"] is None
    assert again["then"]["counts"]["reused"] == count

    if isinstance(host, OneProcess):  # the ids of jobs that resume a run on a cluster: test_cluster_jobs
        shutil.rmtree(f"{catalogued}/classifications")
        resumed = host.reprocess(*words, "--run-id", first["run_id"], tables=catalogued)
        assert resumed["counts"]["requested"] == first["counts"]["requested"]
        assert resumed["then"]["counts"]["ok"] == count
        assert rows(catalogued) == rows(classified.tables.url)


def test_a_detector_is_refused_before_anything_is_submitted(host: Host, seen: str) -> None:
    done = host.resight("classify", "--model", "ssdlite-coco", tables=seen)
    assert done.returncode == 2
    assert "a classifier is needed here" in done.stderr
    done = host.resight("reprocess", "--model", "ssdlite-coco", "--then", "motion", tables=seen)
    assert done.returncode == 2
    assert "motion@1 is a detector, and a classifier is needed here" in done.stderr
