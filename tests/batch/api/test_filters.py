"""Test filter runs over HTTP, with jobs intercepted before they reach a cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from archive.delta.tables import Tables
from batch.api.app import MAX_REQUESTS, build_runs_api
from batch.app import RunsArgs, build
from batch.filters.run import execute, here
from batch.filters.spec import MODULE, FilterSpec, read_spec
from serve.auth.guard import Access
from serve.inference.admission import SMALL_BODIES
from serve.settings import Settings
from tests.batch.filters.scene import box, publish, put, tables_at
from tests.serve.http_client import requests_of
from tests.support.jobs import FakeJobs

MIB = 1024 * 1024


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    tables = tables_at(tmp_path)
    put(tables, {1: ("north", 0.0, [box(0, 1, 1, 10.0)]), 2: ("south", 5.0, [box(0, 1, 1, 300.0)])})
    publish(tables)
    return tables


@pytest.fixture
def started() -> list[FilterSpec]:
    return []


@pytest.fixture
def client(tables: Tables, started: list[FilterSpec]) -> TestClient:
    class Jobs(FakeJobs):
        def submit(self, module: str, run_id: str, words: Sequence[str], followed: bool) -> str:
            assert (module, followed, list(words)) == (MODULE, False, ["--run-id", run_id])
            started.append(read_spec(tables.url, run_id))
            return super().submit(module, run_id, words, followed)

    return TestClient(build_runs_api(Settings(tables=tables.url), Jobs()))


def test_the_requested_run_is_started(client: TestClient, started: list[FilterSpec], tables: Tables) -> None:
    asked: dict[str, Any] = {"config": {"min_area_frac": 0.001}, "scope": {"camera": ["north"]}}
    answer = client.post("/filters/small-size", json=asked)
    assert answer.status_code == 202
    told = answer.json()
    (spec,) = started
    assert (told["run_id"], told["job"], told["scope"]) == (spec.run_id, "job-1", "camera north")
    report = execute(spec, tables, here)
    assert (report.images, report.tally.flagged, report.layer_id) == (1, 1, told["layer_id"])
    state = client.get(f"/{spec.run_id}").json()
    assert (state["state"], state["kind"], state["metrics"]["flagged"]) == ("sealed", "filter", 1)


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("small-size", {"scope": {"camera": ["north", "nort"]}}, "did you mean 'north'?"),
        ("small-size", {"scope": {"camera": ["north"]}, "config": {"x": 1}}, "x: unknown field"),
        ("small", {}, "unknown filter 'small'"),
        ("small-size", {"scopes": [{"camera": ["north"]}]}, "scopes: unknown field"),
    ],
)
def test_an_invalid_request_starts_nothing(
    client: TestClient, started: list[FilterSpec], kind: str, body: dict[str, Any], words: str
) -> None:
    answer = client.post(f"/filters/{kind}", json=body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.json()["detail"]
    assert started == []


@pytest.mark.parametrize("declared", [False, True])
async def test_a_body_is_read_no_further_than_its_bound(
    tables: Tables, started: list[FilterSpec], declared: bool
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 64 * MIB:
            sent += MIB // 4
            yield b" " * (MIB // 4)

    api = build_runs_api(Settings(tables=tables.url), FakeJobs())
    transport = httpx2.ASGITransport(api)
    headers = {"content-type": "application/json"}
    if declared:
        headers["content-length"] = str(64 * MIB)
    async with httpx2.AsyncClient(transport=transport, base_url="http://resight") as asking:
        answer = await asking.post("/filters/small-size", content=endless(), headers=headers)
    assert answer.status_code == 413
    assert "over the limit of 1024 KiB" in answer.json()["detail"]
    assert sent < 2 * MIB
    assert started == []


def test_every_route_refuses_an_unknown_parameter(client: TestClient) -> None:
    asked = set(requests_of(cast("FastAPI", client.app)))
    assert {("GET", "/docs"), ("POST", "/filters/{kind}"), ("GET", "/{run_id}")} <= asked
    for method, path in asked:
        answer = client.request(method, path, params={"nonsense": "1"})
        assert answer.status_code == 400, (method, path)
        assert "unknown query parameter 'nonsense': " in answer.json()["detail"]


def test_a_body_within_the_bound_is_read(client: TestClient) -> None:
    asked = {"scope": {"run": "published"}, "dry_run": True, "view": "production"}
    body = json.dumps(asked).encode()
    for size, status in ((MIB, 202), (MIB + 1, 413)):
        headers = {"content-type": "application/json"}
        answer = client.post("/filters/small-size", content=body.ljust(size), headers=headers)
        assert answer.status_code == status


@pytest.mark.parametrize(
    "body",
    [
        '{"view": "\\ud800"}',
        '{"scope": ' + "[" * 5000,
        '{"scope": ' + "9" * 5000 + "}",
        '{"config": {"min_area_frac": NaN}}',
    ],
)
def test_invalid_json_is_rejected(tables: Tables, started: list[FilterSpec], body: str) -> None:
    api = build_runs_api(Settings(tables=tables.url), FakeJobs())
    with TestClient(api, raise_server_exceptions=False) as asking:
        headers = {"content-type": "application/json"}
        answer = asking.post("/filters/small-size", content=body, headers=headers)
    assert answer.status_code == 400
    assert started == []


def test_kinds_are_described_with_their_schema(client: TestClient) -> None:
    kinds = {row["kind"]: row for row in client.get("/filters").json()}
    assert {"duplicates", "small-size", "events", "tracking", "fixed-slots"} <= kinds.keys()
    schema = client.get("/filters/small-size").json()["schema"]
    assert schema["additionalProperties"] is False
    assert all("description" in field for name, field in schema["properties"].items() if name != "kind")


def test_starting_and_reading_need_a_token(tables: Tables) -> None:
    access = Access("secret", required=True)
    api = build_runs_api(Settings(tables=tables.url), FakeJobs(), access)
    client = TestClient(api)
    asked: dict[str, Any] = {}
    assert client.post("/filters/small-size", json=asked).status_code == 401
    assert client.get("/filters").status_code == 401
    bearer = {"Authorization": "Bearer secret"}
    assert client.post("/filters/small-size", json=asked, headers=bearer).status_code == 202


async def test_slow_bodies_leave_room_for_other_requests(tables: Tables) -> None:
    rays = build(RunsArgs())._bound_deployment.max_ongoing_requests  # type: ignore[attr-defined]
    assert rays > MAX_REQUESTS > SMALL_BODIES
    opened = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await opened.wait()

    api = build_runs_api(Settings(tables=tables.url), FakeJobs())
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(api), base_url="http://resight") as client:
        senders = {asyncio.create_task(client.post("/filters/small-size", content=slow())) for _ in range(rays)}
        refused: set[asyncio.Task[httpx2.Response]] = set()
        while len(refused) < rays - SMALL_BODIES:
            refused, _ = await asyncio.wait(senders, timeout=0.05)
        assert {one.result().status_code for one in refused} == {429}
        assert (await client.get("/filters")).status_code == 200
        opened.set()
        done = await asyncio.gather(*(senders - refused))
        assert [one.status_code for one in done] == [400] * SMALL_BODIES
