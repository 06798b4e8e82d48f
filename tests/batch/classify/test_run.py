"""Test a classify run in the driver, without a cluster: rows stored once, accounts closed, resumed, recorded."""

from __future__ import annotations

import json
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pytest

import batch.pipeline.read_image
import batch.runs.run
from archive.annotations.classes import only_classifier, read_classes
from archive.delta.tables import Tables
from archive.schemas import TABLES
from batch.runs.accounting import Counts
from batch.runs.record import RunLog
from batch.runs.run import report_of_nothing
from batch.runs.scope import Scope
from model_store.errors import BadRequest, Conflict
from serve.settings import Settings
from tests.batch.box_bench import BOX, KEY, picture, png
from tests.batch.classify.bench import COLOURS, ClassifyBench, classifier, spec_of
from tests.fixtures_local import rows_of

pytestmark = pytest.mark.usefixtures("without_ray")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch.pipeline.read_image._read.retry, "sleep", lambda _: None)


def last_event(bench: ClassifyBench) -> dict[str, Any]:
    return max(rows_of(bench.tables, "runs"), key=lambda row: (row["event_at"], row["event"]))


def counts(report: Any) -> tuple[int, int, int, int]:
    found: Counts = report.counts
    return found.requested, found.ok, found.failed, found.reused


def test_every_detection_that_is_shown_has_its_row(bench: ClassifyBench, three: dict[str, str]) -> None:
    report = bench.run()
    assert counts(report) == (3, 3, 0, 0)
    both, one = three["both"], three["one"]
    assert set(bench.rows) == {(both, 0), (both, 1), (one, 1)}
    row = bench.rows[one, 1]
    # box 10,10,30,20 of the image: the mean of each colour, in steps of 16
    means = picture(1)[10:20, 10:30].reshape(-1, 3).mean(axis=0) / 16
    assert row["logits"] == pytest.approx(means, abs=0.3)  # the crop is resized to 8 by 8
    kept = np.array(row["logits"], np.float32)
    assert (kept == kept.astype(np.float16)).all()
    assert row["label"] == COLOURS[int(np.argmax(means))]
    scores = np.exp(kept - kept.max()) / np.exp(kept - kept.max()).sum()
    assert row["score"] == pytest.approx(scores.max(), abs=0.01)
    assert (row["status"], row["error_code"], row["error_detail"]) == ("ok", None, None)
    corners = [row[f"crop_{side}_px"] for side in ("x1", "y1", "x2", "y2")]
    assert corners == [10, 10, 30, 20]
    assert (row["inference_key"], row["detection_id"]) == (KEY, f"{one}-1")
    assert (row["run_id"], row["model_name"], row["model_version"]) == ("r1", "colours", "1")
    assert (row["weights_sha256"], row["margin_frac"]) == ("v" * 64, 0.0)
    assert row["classifier_key"] == report.as_dict()["classifier_key"]
    assert row["finished_at"].tzinfo is not None
    assert read_classes(bench.tables.url, row["labels_digest"]) == (COLOURS, ("", "", ""))
    assert only_classifier(bench.tables, KEY) == row["classifier_key"]


def test_a_new_detection_run_keeps_classifications(bench: ClassifyBench, three: dict[str, str]) -> None:
    bench.run()
    before = rows_of(bench.tables, "classifications")
    sha = bench.add("both/b.png", png(7), [(0.9, "animal", BOX)], key="another")
    bench.publish("another")
    assert counts(bench.run("r2")) == (1, 1, 0, 0)
    after = rows_of(bench.tables, "classifications")
    assert [row for row in after if row["inference_key"] == KEY] == before
    assert [row["media_sha256"] for row in after if row["inference_key"] == "another"] == [sha]
    results = rows_of(bench.tables, "results")
    assert {row["run_id"] for row in results} == {"r"}


def test_a_classifier_of_another_model_or_margin_has_rows_of_its_own(
    bench: ClassifyBench, three: dict[str, str]
) -> None:
    bench.run()
    assert counts(bench.run("r2", margin_frac=0.5)) == (3, 3, 0, 0)
    bench.model = classifier("d" * 64)
    assert counts(bench.run("r3")) == (3, 3, 0, 0)
    rows = rows_of(bench.tables, "classifications")
    assert len(rows) == 9
    assert len({row["classifier_key"] for row in rows}) == 3
    with pytest.raises(BadRequest, match="several classifiers for these"):
        only_classifier(bench.tables, KEY)


def test_a_failed_crop_fails_alone_and_is_replaced_alone(bench: ClassifyBench, three: dict[str, str]) -> None:
    both = three["both"]
    bench.broken.add(f"{both}-1")
    assert counts(bench.run("r1")) == (3, 2, 1, 0)
    assert bench.states[both, 1] == ("failed", "model", "r1")
    assert bench.rows[both, 1]["error_detail"] == "no colour"
    bench.broken.clear()
    bench.asked.clear()
    assert counts(bench.run("r2")) == (3, 1, 0, 2)
    assert bench.asked == [f"{both}-1"]
    assert {bench.states[both, 0][2], bench.states[both, 1][2]} == {"r1", "r2"}
    assert len(rows_of(bench.tables, "classifications")) == 3


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_without_anything_to_do_is_sealed_if_it_had_begun(
    bench: ClassifyBench, three: dict[str, str], begun: bool
) -> None:
    bench.run("r0")
    if begun:
        RunLog(bench.tables, spec_of(), bench.model.info, "classify").write("running", Counts())
    report = report_of_nothing(spec_of(), Settings(), bench.tables, bench.store)
    assert report is not None
    assert report["run_id"] == ("r1" if begun else None)
    assert report["counts"]["reused"] == 3
    sealed = sorted(row["run_id"] for row in rows_of(bench.tables, "runs") if row["state"] == "sealed")
    assert sealed == ["r0", "r1"][: 1 + begun]


def test_the_record_of_a_run_has_its_kind_and_inputs(bench: ClassifyBench, three: dict[str, str]) -> None:
    report = bench.run(scope=Scope(camera=("both",)), labels=("animal",))
    events = rows_of(bench.tables, "runs")
    assert {row["kind"] for row in events} == {"classify"}
    assert {row["inference_key"] for row in events} == {"c" * 64}
    (began,) = (json.loads(row["metrics"]) for row in events if row["event"] == 0)
    assert began["inference_key"] == KEY, "from then on a prune keeps the detections"
    last = last_event(bench)
    assert (last["state"], last["model_name"]) == ("sealed", "colours")
    assert last["message"] == "requested 1 = ok 1 + failed 0 + reused 0 detections"
    metrics = json.loads(last["metrics"])
    timing = {name: metrics.pop(name) for name in ("seconds", "detections_per_s")}
    assert min(timing.values()) >= 0
    assert metrics == report.plan.work.metrics(report.plan)
    assert (metrics["view"], metrics["inference_key"], metrics["images"]) == ("production 1", KEY, 1)  # fmt: skip
    assert last["counts"]["requested"] == last["counts"]["ok"] == 1
    assert json.loads(last["stages"])["crops_by_node"] == {"node": 1}
    assert json.loads(last["spec"])["labels"] == ["animal"]


def test_a_run_is_not_resumed_as_another(bench: ClassifyBench, three: dict[str, str]) -> None:
    bench.run()
    bench.run(actors=3)
    others: tuple[tuple[dict[str, Any], str], ...] = (
        ({"margin_frac": 0.2}, "margin_frac was 0.0, now 0.2"),
        ({"labels": ("animal",)}, "labels was"),
        ({"least_score": 0.6}, "least_score was 0.0, now 0.6"),
    )
    for other, words in others:
        with pytest.raises(Conflict, match=words):
            bench.run(**other)


def test_tables_on_s3(bench: ClassifyBench, three: dict[str, str], s3_endpoint: str) -> None:
    bench.run()
    s3 = boto3.client("s3", endpoint_url=s3_endpoint)
    s3.create_bucket(Bucket="classified")
    there = ClassifyBench(bench.root, Tables("s3://classified/tables"), bench.model)
    for name in ("media", "results"):
        rows = pa.Table.from_pylist(rows_of(bench.tables, name), TABLES[name])
        there.tables.append(name, rows, "test", lambda _, wanted: wanted)
    there.publish(person=0.7)
    assert counts(there.run()) == (3, 3, 0, 0)
    assert {w: row["logits"] for w, row in there.rows.items()} == {w: row["logits"] for w, row in bench.rows.items()}
    row = next(iter(there.rows.values()))
    assert read_classes(there.tables.url, row["labels_digest"])[0] == COLOURS
    assert counts(there.run("r2")) == (3, 0, 0, 3)
