"""Test `resight classify`, which plans locally and uses a cluster only if there is something to classify."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import cli.follow
from archive.delta.tables import Tables
from archive.schemas import CLASSIFICATIONS, EMBEDDINGS
from archive.views.views import View, Views
from batch.classify.rows import classify_target
from batch.crops.model_rows import detection_id
from batch.jobs.cluster_jobs import runs_of
from batch.jobs.control import JobOutcome
from cli.follow import Followed
from model_store.store import ModelStore
from tests.cli.conftest import Resight
from tests.fixtures_local import copy_of_models, photo, put_results, result_rows, rows_of, write_files, write_json
from tests.support.jobs import FakeJobs

RUN = ("classify", "--model", "colours@1")
KEY = "k" * 64


@pytest.fixture
def seen(resight: Resight, home: Path, tmp_path: Path) -> Tables:
    """Three images, each with an animal at the threshold and one below it; a classifier in the store."""
    copy_of_models(home)
    config = {"kind": "classifier", "runtime": {"kind": "onnx"}, "labels": ["red", "green"]}
    folder = home / "models" / "colours" / "1"
    write_json(folder / "config.json", config)
    (folder / "model.onnx").write_bytes(b"not read here")
    ready(folder)
    files = {"north/1.jpg": "cat", "north/2.jpg": "panda", "south/1.jpg": "moose"}
    archive = write_files(tmp_path / "archive", {p: photo(name) for p, name in files.items()})
    resight("ingest", archive).ok()
    tables = Tables(str(home / "tables"))
    box = {"class_id": 0, "label": "animal"}
    box |= {"x1_px": 10.0, "y1_px": 20.0, "x2_px": 110.0, "y2_px": 70.0}
    found = [box | {"rank": 0, "score": 0.9}, box | {"rank": 1, "score": 0.2}]
    for row in rows_of(tables, "media"):
        size = {"width_px": row["width_px"], "height_px": row["height_px"]}
        put_results(tables, result_rows([row["media_sha256"]], KEY, detections=found, **size))
    view = View(inference_key=KEY, model_name="finder", model_version="1", weights_sha256="w")
    Views(tables.url).publish(view.model_copy(update={"threshold": 0.5}), after=0)
    return tables


def ready(folder: Path) -> None:
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    write_json(folder / "READY", {"files": digests})


def done(tables: Tables, home: Path) -> None:
    """Classify all detections that are shown."""
    store = ModelStore(str(home / "models"))
    target = classify_target(KEY, store.describe(store.versions("colours")[0]), 0.0)
    rows = [
        {"media_sha256": row["media_sha256"], "rank": 0, "status": "ok", **target.key}
        | {"detection_id": detection_id(row["media_sha256"], 0), "run_id": "r0"}
        for row in rows_of(tables, "media")
    ]
    table = pa.Table.from_pylist(rows, schema=CLASSIFICATIONS)
    tables.append("classifications", table, "test", lambda _, wanted: wanted)


def facts(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_dry_run_counts_and_writes_nothing(resight: Resight, seen: Tables, home: Path) -> None:
    told = facts(resight(*RUN, "--dry-run", "--format", "json").ok())
    assert (told["model"], told["view"], told["inference_key"]) == ("colours@1", "production 1", KEY)
    assert (told["requested"], told["to_infer"], told["images"]) == (3, 3, 3)
    north = (*RUN, "--dry-run", "--camera", "north", "--format", "json")
    assert facts(resight(*north).ok())["requested"] == 2
    none = (*RUN, "--dry-run", "--labels", "person", "--format", "json")
    assert facts(resight(*none).ok())["requested"] == 0
    assert seen.existing("classifications") is None
    assert seen.existing("runs") is None
    assert not (home / "tables" / "labels").exists()


def test_with_nothing_to_do_no_job_is_started(
    resight: Resight, seen: Tables, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = FakeJobs()
    monkeypatch.setattr(cli.follow, "jobs_of", lambda *_: jobs)
    done(seen, home)
    ended = resight(*RUN, "--format", "json")
    told = facts(ended.ok())
    query = ended.err.partition('to see the classes: resight sql "')[2].partition('"')[0]
    assert json.loads(resight("sql", query, "--format", "json").ok())[0]["count_star()"] == 3
    assert told["accounting"] == "requested 3 = ok 0 + failed 0 + reused 3 detections"
    assert told["run_id"] is None
    assert seen.existing("runs") is None
    assert not jobs.submitted
    assert "runs nowhere" in resight(*RUN, "--margin-frac", "0.1", "--no-follow").err
    assert len(jobs.submitted) == 1
    none = facts(resight(*RUN, "--labels", "person", "--format", "json").ok())
    assert none["counts"]["requested"] == 0


def test_the_job_receives_the_spec_and_its_report_is_printed(
    resight: Resight, seen: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = FakeJobs()

    def follow(_: object, job: str, run_ids: list[str], *more: object) -> Followed:
        assert run_ids == ["r"]
        if len(jobs.submitted) == 1:
            return Followed(JobOutcome("FAILED", None, "runtime_env setup failed: gone"), {}, {})
        report = {"run_id": "r", "accounting": "line", "counts": {}, "stages": {}}
        return Followed(JobOutcome("SUCCEEDED", 0, ""), {"r": report}, {})

    monkeypatch.setattr(cli.follow, "jobs_of", lambda *_: jobs)
    monkeypatch.setattr(cli.follow, "follow", follow)
    told = facts(resight(*RUN, "--run-id", "r", "--labels", "animal", "--format", "json").ok())
    assert (told["run_id"], told["accounting"]) == ("r", "line")
    assert len(jobs.submitted) == 2  # the first job never started
    module, run_id, words, followed = jobs.submitted[1]
    assert (module, run_id, followed) == ("batch.classify", "r", True)
    assert json.loads(words[words.index("--spec") + 1])["labels"] == ["animal"]
    assert "r" in runs_of(" ".join(["python", "-m", module, *words]))


def test_invalid_requests_are_rejected(resight: Resight, seen: Tables) -> None:
    for words, said in (
        (("classify",), "--model is required"),
        (("classify", "--model", "ssdlite-coco"), "a classifier is needed here"),
        (("classify", "--model", "colours@1", "--view", "trial"), "nothing is published as trial"),
        (("classify", "--model", "colours@1", "--labels", ","), "--labels: name at least one"),
        (("reprocess", "--model", "colours@1", "--dry-run"), "resight classify --help"),
    ):
        assert said in resight(*words).refused(2)


def test_similar_detections_are_listed_and_wrong_ids_refused(resight: Resight, seen: Tables) -> None:
    digests = sorted(row["media_sha256"] for row in rows_of(seen, "media"))
    rows = [
        {"media_sha256": sha, "rank": 0, "detection_id": detection_id(sha, 0), "vector": vector, "status": "ok"}
        | {"inference_key": KEY, "embedder_key": "e" * 64, "margin_frac": 0.0, "model_name": "looks"}
        | {"model_version": "1", "finished_at": datetime.now(UTC)}
        for sha, vector in zip(digests, ([1.0, 0.0], [0.0, 1.0], [0.6, 0.8]), strict=True)
    ]
    seen.append("embeddings", pa.Table.from_pylist(rows, schema=EMBEDDINGS), "test", lambda _, wanted: wanted)
    found = json.loads(resight("similar", f"{digests[0]}-0", "--format", "json").ok())
    assert [row["detection_id"] for row in found] == [f"{digests[2]}-0", f"{digests[1]}-0"]
    assert [row["cosine"] for row in found] == pytest.approx([0.6, 0.0])
    assert "invalid detection 'x'" in resight("similar", "x").refused(2)
    assert "name a detection" in resight("similar").refused(2)
    assert "vectors need no index" in resight("similar", "--rebuild").refused(2)
