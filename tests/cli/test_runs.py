"""resight runs …, and what sql and export see of what is published; no cluster is started."""

from __future__ import annotations

import csv
import io
import json
import platform
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import ray.exceptions  # before the fixture forbids processes
from ray.job_submission import JobStatus

import batch.jobs.cluster_jobs
import batch.jobs.control
import cli.follow
import cli.runs
from archive.delta.tables import Tables
from archive.schemas import CLASSIFICATIONS
from batch.jobs.control import JobOutcome
from batch.runs import listing
from batch.runs.accounting import Counts
from batch.runs.record import RunLog
from batch.runs.spec import RunSpec
from cli.follow import Followed
from model_store.names import version_id
from model_store.store import ModelStore
from tests.cli.conftest import Resight
from tests.cli.ran import LABELS, START, key, ran, rows, scores
from tests.fixtures_local import put_results, result_rows, write_files
from tests.support.jobs import FakeJobs


def test_nothing_was_run_yet(resight: Resight, home: Path) -> None:
    assert rows(resight("runs", "list", "--format", "json").ok()) == []
    assert resight("runs", "list", "--format", "csv").ok().startswith("run_id,kind,state,model,scope,")
    for command in ("show", "log", "attach", "cancel", "publish"):
        assert "unknown run 'r'" in resight("runs", command, "r").refused(2)
    assert "nothing is published" in resight("runs", "rollback").refused(2)
    assert not (home / "tables").exists()


def test_runs_are_listed_newest_first_with_what_they_did(resight: Resight, two: Tables, store: ModelStore) -> None:
    resight("runs", "publish", "old").ok()
    scope = {"sample": 50, "camera": ["north [1]"], "since": "2026-05-01T00:00:00"}
    ran(two, store, "third", "2", "running", start=START + timedelta(days=2), scope=scope)
    listed = rows(resight("runs", "list", "--format", "json").ok())
    assert listed == [
        {
            "run_id": "third",
            "kind": "detect",
            "state": "interrupted",
            "model": "blobs@2",
            "scope": "camera north [1], since 2026-05-01, sample 50",
            "requested": 4,
            "ok": 2,
            "empty": 0,
            "failed": 0,
            "reused": 2,
            "started_at": "2026-05-03T12:00:00Z",
            "took_s": 0.0,
            "published": "",
        },
        listed[1],
        listed[2],
    ]
    seen = [(r["run_id"], r["state"], r["took_s"], r["published"], r["scope"]) for r in listed[1:]]
    assert seen == [("new", "sealed", 60.0, "", "all"), ("old", "sealed", 30.0, "production", "all")]
    (row,) = csv.DictReader(io.StringIO(resight("runs", "list", "--most", 1, "--format", "csv").ok()))
    assert row["run_id"] == "third"
    lines = resight("runs", "list").ok().splitlines()
    assert lines[0].split()[:4] == ["run_id", "kind", "state", "model"]
    assert [line.split()[0] for line in lines[1:]] == ["third", "new", "old"]


def test_one_run_is_shown_with_its_stages_and_last_events(resight: Resight, two: Tables) -> None:
    resight("runs", "publish", "new", "--view", "trial").ok()
    shown = json.loads(resight("runs", "show", "new", "--format", "json").ok())
    assert shown["published"] == "trial"
    assert shown["stages"] == {"read_s": 1.5, "bottleneck": "decode"}
    assert shown["spec"]["run_id"] == "new"
    assert (shown["detections"], shown["message"]) == (4, "says [sealed]")
    assert [(e["event"], e["state"]) for e in shown["events"]] == [(2, "sealed"), (1, "running"), (0, "running")]
    text = resight("runs", "show", "new").ok()
    assert "stage bottleneck  decode" in text
    assert "{" not in text
    assert "says [running]" in text
    logged = rows(resight("runs", "log", "new", "--format", "json").ok())
    assert [(row["event"], row["state"]) for row in logged] == [(2, "sealed"), (1, "running"), (0, "running")]
    assert logged[0]["at"] == "2026-05-02T12:01:00Z"
    assert len(rows(resight("runs", "log", "new", "--most", 2, "--format", "json").ok())) == 2


def test_runs_of_other_kinds_are_told_apart_and_show_what_they_counted(
    resight: Resight, two: Tables, store: ModelStore
) -> None:
    """They have the key of what is published, and no results of their own."""
    resight("runs", "publish", "new").ok()
    info = store.describe(version_id("blobs", "2")).info
    log = RunLog(two, RunSpec(run_id="sized", model="blobs"), info, kind="filter")
    log.write("sealed", Counts(requested=2), metrics={"checked": 4, "flagged": 1})
    first, second, *_ = rows(resight("runs", "list", "--format", "json").ok())
    assert (first["run_id"], first["kind"], first["published"]) == ("sized", "filter", "")
    assert (second["run_id"], second["kind"], second["published"]) == ("new", "detect", "production")
    shown = json.loads(resight("runs", "show", "sized", "--format", "json").ok())
    assert (shown["kind"], shown["metrics"]) == ("filter", {"checked": 4, "flagged": 1})
    assert "metric flagged" in resight("runs", "show", "sized").ok()
    assert "run sized is a filter run" in resight("runs", "publish", "sized").refused(2)
    assert "run sized is a filter run" in resight("sql", LABELS, "--run", "sized").refused(2)


def test_queries_see_what_is_published_a_view_or_a_run(resight: Resight, two: Tables) -> None:
    assert scores(resight) == []
    assert scores(resight, "--run", "old") == [0.4, 0.4, 0.9, 0.9]
    resight("runs", "publish", "old").ok()
    resight("runs", "publish", "new", "--view", "trial").ok()
    assert scores(resight) == [0.9, 0.9]
    assert scores(resight, "--view", "trial") == [0.7, 0.7, 0.8, 0.8]


def test_where_nothing_is_published_queries_say_what_to_do(resight: Resight, two: Tables) -> None:
    done = resight("sql", "select count(*) as n from Results", "--format", "json")
    assert rows(done.ok()) == [{"n": 0}]
    assert "resight runs publish new" in done.err
    for words in (("select * from media",), (LABELS, "--run", "old")):
        assert resight("sql", *words).err == ""
    assert resight("sql", "select * from all_results").err == ""
    resight("runs", "publish", "new").ok()
    assert resight("sql", LABELS).err == ""


def test_where_no_table_is_queries_and_exports_are_refused(resight: Resight, tmp_path: Path) -> None:
    out = tmp_path / "x.csv"
    out.write_text("old")
    for words in (("sql", LABELS), ("export", "detections", out, "--overwrite")):
        assert "begin with 'resight ingest FOLDER'" in resight(*words).refused(7)
    assert out.read_text() == "old"


@pytest.mark.parametrize(("table", "lose"), [("results", "damage"), ("runs", "remove")])
def test_a_file_that_is_lost_ends_with_7_in_every_command(
    resight: Resight, two: Tables, tmp_path: Path, table: str, lose: str
) -> None:
    for file in Path(two.url, table).rglob("*.parquet"):
        file.unlink() if lose == "remove" else file.write_bytes(b"x" * 100)
    commands: list[tuple[object, ...]] = [("runs", "diff", "old", "new")]
    if table == "runs":
        commands += [("runs", "list"), ("runs", "publish", "old"), ("runs", "prune")]
    else:
        commands += [("export", "results", tmp_path / "x.csv", "--run", "old")]
    for words in commands:
        resight(*words).refused(7)


def test_views_and_runs_that_are_not_there_end_with_2(resight: Resight, two: Tables, tmp_path: Path) -> None:
    resight("runs", "publish", "old").ok()
    for words, message in (
        (("--run", "none"), "unknown run 'none': see resight runs list"),
        (("--view", "trial"), "nothing is published as 'trial': use one of production"),
        (("--view", "Trial"), "invalid name of a view"),
        (("--view", "production", "--run", "old"), "exclude each other"),
    ):
        assert message in resight("sql", LABELS, *words).refused(2)
    assert message in resight("export", "results", tmp_path / "x.csv", *words).refused(2)


def test_the_report_of_a_run_that_has_ended_is_printed_at_once(
    resight: Resight, two: Tables, store: ModelStore
) -> None:
    """`new` is the newest."""
    for words in ((), ("new",)):
        report = json.loads(resight("runs", "attach", *words, "--format", "json").ok())
        assert (report["run_id"], report["accounting"]) == ("new", "says [sealed]")
        assert (report["bottleneck"], report["counts"]["reused"]) == ("decode", 2)
    ran(two, store, "broken", "1", "running", "failed")
    done = resight("runs", "attach", "broken")
    assert (done.code, "accounting  requested 4, ok 2, empty 0, failed 0, reused 2" in done.out) == (5, True)
    assert "run broken is failed: says [failed]; to resume it, run it again" in done.err
    ran(two, store, "young", "1", "running", start=datetime.now(UTC))
    assert "not as a job of this machine or its cluster" in resight("runs", "attach", "young").refused(2)
    assert "unknown run 'none'" in resight("runs", "attach", "none").refused(2)


def test_a_report_names_the_first_files_that_failed_and_how_to_list_all(
    resight: Resight, two: Tables, store: ModelStore
) -> None:
    counts = Counts(requested=7, ok=1, failed=6)
    for run, kind in (("bad", "detect"), ("crops", "classify")):
        info = store.describe(version_id("blobs", "1")).info
        RunLog(two, RunSpec(run_id=run, model="blobs@1"), info, kind).write("sealed", counts)
    reasons = [f"byte {i} is wrong " + "x" * 300 for i in range(6)]
    for sha, reason in zip("cdefgh", reasons, strict=True):
        row = {"run_id": "bad", "error_code": "decode", "error_detail": reason}
        put_results(two, result_rows([sha], key(store, "1"), "failed", **row))
    crop = {"media_sha256": "c", "status": "failed", "run_id": "crops", "inference_key": "k"}
    crop |= {"error_code": "crop", "error_detail": "another size"}
    crops = [crop | {"rank": rank} for rank in (0, 1)]
    table = pa.Table.from_pylist(crops, schema=CLASSIFICATIONS)
    two.append("classifications", table, "w", lambda _, wanted: wanted)
    said = resight("runs", "attach", "bad").err.splitlines()
    assert said[0].startswith("failed: c.jpg: decode: byte 0 is wrong")
    assert (len(said), max(map(len, said[:5])) <= 200) == (6, True)
    listed = json.loads(resight("sql", said[5].split('"')[1], "--format", "json").ok())
    assert listed == [{"path": "c.jpg", "error_code": "decode", "error_detail": reasons[0]}]
    first, hint = resight("runs", "attach", "crops").err.splitlines()
    assert first == "failed: c.jpg: crop: another size"
    assert len(json.loads(resight("sql", hint.split('"')[1], "--format", "json").ok())) == 2


def test_a_report_counts_the_images_that_are_partly_decoded(resight: Resight, two: Tables, store: ModelStore) -> None:
    info = store.describe(version_id("blobs", "1")).info
    log = RunLog(two, RunSpec(run_id="cut", model="blobs@1"), info)
    log.write("sealed", Counts(requested=2, ok=2), metrics={"partly_decoded": 1, "failed_before": 1})
    note = {"run_id": "cut", "decode_note": "damaged_tolerated: it ends early"}
    put_results(two, result_rows(["c"], key(store, "1"), **note))
    put_results(two, result_rows(["b"], key(store, "1"), run_id="earlier", status="failed", error_code="decode"))
    done = resight("runs", "attach", "cut", "--format", "json")
    assert json.loads(done.ok())["partly_decoded"] == 1
    assert "partly decoded, counted as ok or empty: 1; see: resight sql" in done.err
    listed = rows(resight("sql", done.err.split('"')[1], "--format", "json").ok())
    assert [row["path"] for row in listed] == ["c.jpg"]
    assert "failed in earlier runs, counted as reused: 1; see: resight sql" in done.err
    assert [row["path"] for row in rows(resight("sql", done.err.split('"')[3], "--format", "json").ok())] == ["b.jpg"]
    assert "metric partly_decoded  1" in resight("runs", "show", "cut").ok()


def test_a_list_has_no_counts_before_a_plan_and_no_view_for_a_sample(
    resight: Resight, two: Tables, store: ModelStore
) -> None:
    """The sample has the inference key of the published run."""
    resight("runs", "publish", "old").ok()
    ran(two, store, "sample", "1", "sealed", scope={"sample": 1})
    info = store.describe(version_id("blobs", "1")).info
    RunLog(two, RunSpec(run_id="young", model="blobs@1"), info).write("running", Counts())
    listed = {row["run_id"]: row for row in rows(resight("runs", "list", "--format", "json").ok())}
    assert (listed["young"]["state"], listed["young"]["requested"]) == ("running", None)
    published = {name: row["published"] for name, row in listed.items()}
    assert published == {"old": "production", "new": "", "sample": "", "young": ""}


def test_a_run_that_is_running_is_followed_to_its_end(
    resight: Resight, two: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job is the newest that is alive; it has not even begun."""
    report = {"run_id": "young", "accounting": "line", "seconds": 1.0, "counts": {}, "stages": {}}
    jobs = [job("old", JobStatus.SUCCEEDED, 1), job("young", JobStatus.RUNNING, 2)]

    def followed(_: object, submission_id: str, run_ids: list[str], quiet: bool) -> Followed:
        assert (submission_id, run_ids, quiet) == ("resight-young", ["young"], True)
        return Followed(JobOutcome("SUCCEEDED", 0, ""), {"young": report}, {})

    monkeypatch.setenv("RESIGHT_ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setattr(batch.jobs.control, "join", lambda _: None)
    client = SimpleNamespace(list_jobs=lambda: jobs)
    monkeypatch.setattr(batch.jobs.cluster_jobs, "_client", lambda: client)
    monkeypatch.setattr(cli.runs, "follow", followed)
    for words in ((), ("young",)):
        assert json.loads(resight("runs", "attach", *words, "--format", "json").ok()) == report


def test_a_run_is_listed_and_shown_from_its_submission_on(
    resight: Resight, two: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job takes seconds to record it; the job of `new` is still ending."""
    cluster, own = FakeJobs(), FakeJobs()
    cluster.alive = {"fresh", "new"}
    monkeypatch.setattr(batch.jobs.control, "all_jobs", lambda _: [own, cluster])
    listed = rows(resight("runs", "list", "--format", "json").ok())
    assert [(row["run_id"], row["state"], row["model"]) for row in listed[:2]] == [
        ("fresh", "submitted", None),
        ("new", "sealed", "blobs@2"),
    ]
    assert len(rows(resight("runs", "list", "--most", 1, "--format", "json").ok())) == 1
    shown = json.loads(resight("runs", "show", "fresh", "--format", "json").ok())
    assert shown == {"run_id": "fresh", "state": "submitted", "job": "job of fresh"}
    assert json.loads(resight("runs", "show", "new", "--format", "json").ok())["state"] == "sealed"
    page = listing.page

    def recorded_first(*arguments: Any, **more: Any) -> Any:
        monkeypatch.setattr(listing, "page", page)
        ran(two, store, "fresh", "1", "running", start=datetime.now(UTC))
        return page(*arguments, **more)

    monkeypatch.setattr(listing, "page", recorded_first)  # while the list is being read
    listed = rows(resight("runs", "list", "--format", "json").ok())
    assert [(row["run_id"], row["state"]) for row in listed[:2]] == [("fresh", "running"), ("new", "sealed")]
    assert "unknown run 'other'" in resight("runs", "show", "other").refused(2)


def test_a_second_run_of_a_model_is_refused_while_the_first_is_running(
    resight: Resight, two: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is running by its record and as a job: one that was killed, and one of another model, are ignored."""
    jobs = FakeJobs()
    jobs.alive = {"first", "2"}
    monkeypatch.setattr(cli.follow, "jobs_of", lambda *_: jobs)
    for run_id, version in (("first", "1"), ("2", "2")):
        ran(two, store, run_id, version, "running", start=datetime.now(UTC))
    again = ("reprocess", "--model", "blobs@1", "--no-follow")
    assert "run first of the same model is running" in (words := resight(*again).refused(2))
    assert "'resight runs attach first'" in words
    resight(*again, "--allow-concurrent").ok()
    resight(*again, "--run-id", "first").ok()
    jobs.alive = {"2"}
    resight(*again).ok()
    runs = [run_id for _, run_id, _, followed in jobs.submitted if not followed]
    assert (len(runs), runs[1]) == (3, "first")


def job(run_id: str, status: JobStatus, start_time: int) -> SimpleNamespace:
    command = f"python -m batch.reprocess --run-id {run_id}"
    facts = {"entrypoint": command, "status": status, "start_time": start_time}
    return SimpleNamespace(driver_node_id=None, submission_id=f"resight-{run_id}", **facts)


def test_without_a_cluster_an_interrupted_run_is_cancelled_in_the_record(
    resight: Resight, two: Tables, store: ModelStore
) -> None:
    ran(two, store, "killed", "1", "running")
    facts = json.loads(resight("runs", "cancel", "killed", "--format", "json").ok())
    assert facts == {"run_id": "killed", "state": "cancelled", "job": None}
    assert "run killed has ended: it is cancelled" in resight("runs", "cancel", "killed").refused(2)
    assert "run old has ended: it is sealed" in resight("runs", "cancel", "old").refused(2)
    ran(two, store, "young", "1", "running", start=datetime.now(UTC))
    assert "run young is running" in resight("runs", "cancel", "young").refused(2)


def test_a_run_of_this_machine_whose_process_is_gone_is_not_running_for_any_command(
    resight: Resight, two: Tables, store: ModelStore, home: Path
) -> None:
    """Its record is a moment old. It was killed, so that its log is unlocked."""
    ran(two, store, "young", "1", "running", start=datetime.now(UTC))
    plan = ("plan", "--model", "blobs@1", "--format", "json")
    assert any("run young" in reason for reason in json.loads(resight(*plan).ok())["reasons"])
    head = {"event": "job", "runs": ["young"], "node": platform.node(), "pid": 1, "at": 0}
    write_files(home, {"logs/runs/young.log": json.dumps(head).encode() + b"\n"})
    assert not any("run young" in reason for reason in json.loads(resight(*plan).ok())["reasons"])
    assert rows(resight("runs", "list", "--most", 1, "--format", "json").ok())[0]["state"] == "interrupted"
    assert json.loads(resight("runs", "show", "young", "--format", "json").ok())["state"] == "interrupted"
    for words in ((), ("young",)):
        assert resight("runs", "attach", *words).code == 5
    assert json.loads(resight("runs", "cancel", "young", "--format", "json").ok())["state"] == "cancelled"


def test_where_no_cluster_answers_only_an_interrupted_run_is_cancelled(
    resight: Resight, two: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIGHT_ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setattr(batch.jobs.control, "join", lambda _: None)
    monkeypatch.setattr(batch.jobs.cluster_jobs, "_client", no_cluster)
    ran(two, store, "young", "1", "running", start=datetime.now(UTC))
    ran(two, store, "killed", "1", "running")
    for run_id in ("young", "nobody", "old"):
        assert "does not answer: refused" in resight("runs", "cancel", run_id).refused(8)
    done = resight("runs", "cancel", "killed", "--format", "json")
    assert json.loads(done.ok()) == {"run_id": "killed", "state": "cancelled", "job": None}
    assert "does not answer: refused" in done.err


def no_cluster() -> None:
    raise ray.exceptions.AuthenticationError("refused")


def test_with_a_cluster_its_job_is_stopped(
    resight: Resight, two: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, own = FakeJobs(), FakeJobs()
    cluster.alive = {"alive"}
    monkeypatch.setattr(cli.runs, "has_cluster", lambda _: True)
    monkeypatch.setattr(cli.runs, "jobs_of", lambda _, here=False: own if here else cluster)
    ran(two, store, "alive", "1", "running", start=datetime.now(UTC))
    facts = json.loads(resight("runs", "cancel", "alive", "--format", "json").ok())
    assert facts == {"run_id": "alive", "state": "cancelled", "job": "job of alive"}
    assert (own.stopped, cluster.stopped) == (["alive"], ["alive"])
