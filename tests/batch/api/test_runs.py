"""Runs and publications over HTTP: over runs that were made as rows, with jobs that do not start; and a real one."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

import batch.api.runs
from archive.catalogue.ingest import ingest
from archive.delta.tables import Tables
from archive.schemas import MEDIA
from archive.views.views import Views
from batch.api.app import build_runs_api
from batch.jobs.control import jobs_of
from batch.runs.spec import RunSpec
from model_store.store import ModelStore
from serve.settings import Settings
from tests.cli.ran import START, ran
from tests.fixtures_local import MODELS, photo, publish_blobs, write_files
from tests.serve.http_client import problem_of
from tests.support.jobs import FakeJobs
from tests.support.left_clients import answer_after_one_has_left
from tests.support.processes import clear_variables


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    clear_variables(monkeypatch)
    monkeypatch.setenv("RESIGHT_HOME", str(tmp_path / "home"))
    return Settings()


@pytest.fixture
def store(settings: Settings) -> ModelStore:
    made = ModelStore(settings.models_url)
    for version, side_px in (("1", 64), ("2", 96)):
        preprocess = {"resize": "stretch", "side_px": side_px}
        publish_blobs(made, version, preprocess=preprocess, thresholds={"default": 0.5})
    made.set_alias("blobs", "production", "2")
    return made


@pytest.fixture
def tables(settings: Settings, store: ModelStore) -> Tables:
    """Two images, and sealed runs `old` of version 1 and `new` of version 2 over both; nothing is published."""
    tables = Tables(settings.tables_url)
    media = [{"media_sha256": sha, "source_root": "/r", "path": f"{sha}.jpg"} for sha in "abc"]
    tables.append("media", pa.Table.from_pylist(media, schema=MEDIA), "w", lambda _, rows: rows)
    ran(tables, store, "old", "1", "running", "sealed")
    later = START + timedelta(days=1)
    ran(tables, store, "new", "2", "running", "sealed", start=later, scores=(0.8, 0.3))
    return tables


@pytest.fixture
def jobs() -> FakeJobs:
    return FakeJobs("first line", "second line")


@pytest.fixture
def client(settings: Settings, tables: Tables, jobs: FakeJobs) -> TestClient:
    return TestClient(build_runs_api(settings, jobs))


def test_the_list_is_read_in_pages_and_by_state_and_kind(client: TestClient, tables: Tables, store: ModelStore) -> None:
    for number in range(3):
        ran(tables, store, f"same-{number}", "1", "running", "failed")  # started with `old`
    seen, before = [], None
    while True:
        query = {"limit": 2} | ({"before": before} if before else {})
        page = client.get("/", params=query).json()
        seen += [row["run_id"] for row in page["runs"]]
        if (before := page["next"]) is None:
            break
    assert seen == ["new", "same-2", "same-1", "same-0", "old"]
    sealed = client.get("/", params={"state": "sealed", "kind": "detect"}).json()["runs"]
    assert [row["run_id"] for row in sealed] == ["new", "old"]
    assert (sealed[0]["model"], sealed[0]["requested"], sealed[0]["published"]) == ("blobs@2", 4, [])
    assert client.get("/", params={"kind": "filter"}).json() == {"runs": [], "next": None}
    assert "unknown run 'x'" in problem_of(client.get("/", params={"before": "x"}), 400)
    assert problem_of(client.get("/", params={"state": "done"}), 400)


def test_a_run_that_was_killed_on_this_machine_is_interrupted_at_once(
    client: TestClient, tables: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in ("killed", "alive"):
        ran(tables, store, run, "1", "running", start=datetime.now(UTC))
    monkeypatch.setattr("batch.api.runs.ended_here", lambda *_: {"killed", "old"})
    for state, runs in (("interrupted", ["killed"]), ("running", ["alive"]), ("sealed", ["new", "old"])):
        listed = client.get("/", params={"state": state}).json()["runs"]
        assert [(row["run_id"], row["state"]) for row in listed] == [(run, state) for run in runs]
    assert client.get("/killed").json()["state"] == "interrupted"


def test_the_mount_itself_is_the_list(client: TestClient, settings: Settings) -> None:
    mounted = TestClient(build_runs_api(settings, FakeJobs()), root_path="/runs")
    answer = mounted.get("/runs", follow_redirects=False)
    assert [row["run_id"] for row in answer.json()["runs"]] == ["new", "old"]
    assert mounted.get("/runs/").json() == answer.json()


def test_a_run_is_shown_with_counts_that_balance(client: TestClient) -> None:
    run = client.get("/new").json()
    assert (run["state"], run["balanced"], run["progress"]) == ("sealed", True, 1.0)
    assert {name: run["counts"][name] for name in ("requested", "ok", "reused")} == {
        "requested": 4,
        "ok": 2,
        "reused": 2,
    }
    assert (run["eta_s"], run["scope"], run["started_by"]) == (None, "all", None)
    assert "unknown run 'x'" in problem_of(client.get("/x"), 404)


def test_a_run_is_submitted_with_the_spec_of_the_request(client: TestClient, jobs: FakeJobs) -> None:
    body = {"model": "blobs@1", "scope": {"path": "a.jpg"}}
    nothing = client.post("/", json=body).json()
    assert (nothing["job"], nothing["report"]["counts"]["reused"]) == (None, 1)
    assert jobs.submitted == []
    answer = client.post("/", json={"model": "blobs@1", "scope": {"status": "missing"}})
    started = answer.json()
    assert (answer.status_code, started["job"], started["scope"]) == (202, "job-1", "status missing")
    ((module, run_id, words, followed),) = jobs.submitted
    spec = RunSpec.model_validate_json(words[words.index("--spec") + 1])
    assert (module, run_id, followed) == ("batch.reprocess", started["run_id"], False)
    assert (spec.model, spec.run_id, spec.scope.status) == ("blobs@1", run_id, "missing")


def test_limits_that_are_not_sent_are_those_of_the_policy(client: TestClient, jobs: FakeJobs, tmp_path: Path) -> None:
    (tmp_path / "home" / "policy.toml").write_text("[stop]\nfailed_after = 7\nstall_s = 60\n")
    body = {"model": "blobs@1", "stop": {"stall_s": 30}, "snips": {"quality": 80}}
    assert client.post("/", json=body).status_code == 202
    words = jobs.submitted[0][2]
    spec = RunSpec.model_validate_json(words[words.index("--spec") + 1])
    assert (spec.stop.failed_after, spec.stop.stall_s) == (7, 30)
    assert spec.snips is not None
    assert (spec.snips.quality, spec.snips.margin_frac) == (80, 0.1)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "blobs@9"}, 404, "blobs@9"),
        ({"model": "blobs@1", "scope": {"camra": ["n"]}}, 400, "camra"),
        ({"model": "blobs@1", "scope": {"since": "noon"}}, 400, "invalid time 'noon'"),
        ({"model": "blobs@1", "run_id": "../x"}, 400, "run_id"),
    ],
)
def test_an_invalid_request_starts_nothing(
    client: TestClient, jobs: FakeJobs, body: dict[str, Any], status: int, words: str
) -> None:
    assert words in problem_of(client.post("/", json=body), status)
    assert jobs.submitted == []


def test_a_dry_run_returns_the_plan_and_starts_nothing(client: TestClient, jobs: FakeJobs) -> None:
    plan = client.post("/", json={"model": "blobs@1", "dry_run": True}).json()["plan"]
    assert (plan["model"], plan["requested"], plan["reused"], plan["to_infer"]) == ("blobs@1", 3, 2, 1)
    assert "estimate_s" in plan
    assert jobs.submitted == []


def test_a_second_run_of_a_model_conflicts(
    client: TestClient, tables: Tables, store: ModelStore, jobs: FakeJobs
) -> None:
    ran(tables, store, "first", "1", "running", start=datetime.now(UTC))
    jobs.alive = {"first"}
    body = {"model": "blobs@1"}
    assert "run first of the same model" in problem_of(client.post("/", json=body), 409)
    assert client.post("/", json=body | {"allow_concurrent": True}).json()["job"] == "job-1"


def test_a_run_on_another_host_is_not_started_again_and_is_cancelled(
    settings: Settings, tables: Tables, store: ModelStore, jobs: FakeJobs
) -> None:
    other = FakeJobs()
    other.alive = {"there"}
    client = TestClient(build_runs_api(settings, jobs, others=[other]))
    ran(tables, store, "there", "1", "running", start=datetime.now(UTC))
    body = {"model": "blobs@1", "run_id": "there", "allow_concurrent": True}
    assert "run there is running" in problem_of(client.post("/", json=body), 400)
    done = client.post("/there/cancel").json()
    assert done == {"run_id": "there", "state": "cancelled", "job": "job of there"}
    assert client.get("/there").json()["state"] == "cancelled"


def test_what_cannot_be_cancelled_is_told(
    client: TestClient, tables: Tables, store: ModelStore, jobs: FakeJobs
) -> None:
    assert "unknown run 'x'" in problem_of(client.post("/x/cancel"), 404)
    assert "run old has ended" in problem_of(client.post("/old/cancel"), 400)
    ran(tables, store, "young", "1", "running", start=datetime.now(UTC))
    assert "stop it where it was started" in problem_of(client.post("/young/cancel"), 409)
    jobs.alive = {"unborn"}
    assert client.post("/unborn/cancel").json()["state"] == "cancelled before it began"


def test_the_log_is_read_from_a_byte_on(client: TestClient, jobs: FakeJobs) -> None:
    assert "no log of run 'new'" in problem_of(client.get("/new/log"), 404)
    jobs.alive = {"new"}
    part = client.get("/new/log").json()
    assert part == {"job": "job of new", "text": "first line\nsecond line\n", "next": 23}
    assert client.get("/new/log", params={"after": 11}).json()["text"] == "second line\n"
    assert client.get("/new/log", params={"after": 23}).json()["text"] == ""
    assert problem_of(client.get("/new/log", params={"after": -1}), 400)


def test_the_log_is_that_of_the_host_where_the_run_is_running(
    settings: Settings, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = FakeJobs("resumed here")
    jobs.alive = here.alive = {"new"}
    monkeypatch.setattr(jobs, "running", set)
    client = TestClient(build_runs_api(settings, jobs, others=[here]))
    assert client.get("/new/log").json()["text"] == "resumed here\n"


def test_a_run_is_published_once_by_a_thread(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    current = Views.current

    def off_the_loop(*about: Any) -> Any:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return current(*about)

    monkeypatch.setattr(Views, "current", off_the_loop)
    first = client.post("/old/publish", json={"reason": "the start"}).json()
    assert (first["view"]["serial"], first["view"]["reason"], first["changed"]) == (1, "the start", True)
    assert client.post("/old/publish", json={}).json()["changed"] is False
    detail = problem_of(client.post("/none/publish", json={}), 400)
    assert "unknown run 'none'" in detail
    assert "--override requires a reason" in problem_of(client.post("/new/publish", json={"override": " "}), 400)


def test_a_failing_gate_is_a_conflict(client: TestClient, tables: Tables, tmp_path: Path) -> None:
    client.post("/old/publish", json={})
    (tmp_path / "home" / "policy.toml").write_text("[gates]\nmax_emptied_frac = 0.0\n")
    store = ModelStore(str(tmp_path / "home" / "models"))
    publish_blobs(store, "3", preprocess={"resize": "stretch", "side_px": 32})
    ran(tables, store, "empty", "3", "sealed", scores=())
    detail = problem_of(client.post("/empty/publish", json={}), 409)
    assert "max_emptied_frac" in detail
    assert Views(tables.url).current().run_id == "old"  # type: ignore[union-attr]
    view = client.post("/empty/publish", json={"override": "seen by eye"}).json()["view"]
    assert "gates overridden: seen by eye" in view["reason"]


def test_a_roll_back_describes_what_it_undid(client: TestClient) -> None:
    assert "nothing is published" in problem_of(client.post("/rollback", json={}), 400)
    for run in ("old", "new"):
        client.post(f"/{run}/publish", json={})
    detail = problem_of(client.post("/rollback", json={"after": 1}), 409)
    assert "view production has number 2 now, and number 1 was to be undone: nothing was changed" in detail
    done = client.post("/rollback", json={"reason": "worse", "after": 2}).json()
    assert (done["view"]["run_id"], done["view"]["rolled_back_to"]) == ("old", 1)
    assert done["notes"] == ["undone: number 2 (blobs@2 in place of blobs@1)", "nothing is left to undo"]
    assert problem_of(client.post("/rollback", json={"after": 2}), 409), "sent again"
    assert problem_of(client.post("/rollback", json={"view": "../x"}), 400)


def test_the_impact_is_by_label_and_camera_with_bounded_samples(client: TestClient) -> None:
    for run in ("old", "new"):
        client.post(f"/{run}/publish", json={})
    report = client.get("/diff", params={"old": "old", "new": "published", "samples": 1}).json()
    assert report["verdict"]["passed"] is True
    (label,) = report["impact"]["labels"]
    assert (label["label"], label["matched"], label["lost"]) == ("blob", 2, 0)
    back = client.get("/diff", params={"old": "published", "new": "previous"}).json()["impact"]
    assert (back["old"]["model_version"], back["new"]["model_version"]) == ("2", "1")
    assert "'none' is not a run" in problem_of(client.get("/diff", params={"old": "none", "new": "new"}), 400)
    assert problem_of(client.get("/diff", params={"old": "old", "new": "new", "samples": 99}), 400)


async def test_a_comparison_keeps_its_place_until_it_ends_also_if_its_client_has_left(
    settings: Settings, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch.api.runs, "MAX_PLANS", 1)
    api, work = build_runs_api(settings, FakeJobs()), (batch.api.runs, "impact_report")
    answer = await answer_after_one_has_left(monkeypatch, work, api, "", "GET", "/diff?old=old&new=new")
    assert "1 plans are being made, the bound is 1" in problem_of(answer, 429)


def test_a_real_run_is_started_followed_published_and_rolled_back(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes of this machine, with the shipped models."""
    monkeypatch.setenv("RESIGHT_MODELS", str(MODELS))
    settings = Settings()
    for name in ("cat", "moose"):
        write_files(tmp_path / "archive", {f"{name}.jpg": photo(name)})
    tables = Tables(settings.tables_url)
    ingest(tables, str(tmp_path / "archive"))
    jobs = jobs_of(settings, here=True)
    client = TestClient(build_runs_api(settings, jobs))
    assert "name a model" in problem_of(client.post("/", json={}), 400)
    runs: list[str] = []
    for model in ("ssdlite-coco", "motion"):
        started = client.post("/", json={"model": model}).json()
        runs.append(run_id := started["run_id"])
        jobs.tail(started["job"], lambda line: None, lambda: False)
        run = client.get(f"/{run_id}").json()
        assert (run["state"], run["balanced"], run["counts"]["requested"]) == ("sealed", True, 2)
        lines = client.get(f"/{run_id}/log").json()["text"].splitlines()
        assert json.loads(lines[-1])["event"] == "report"
    assert client.get(f"/{runs[0]}").json()["published"] == ["production"], "the first run"
    shown = client.post(f"/{runs[1]}/publish", json={"override": "a test"}).json()["view"]
    assert shown["run_id"] == runs[1]
    assert client.post("/rollback", json={}).json()["view"]["run_id"] == runs[0]
