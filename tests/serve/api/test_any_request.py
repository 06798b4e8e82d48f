"""Requests that hypothesis makes up: whatever a client sends, it is never answered 5xx."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings, strategies

from archive.views.search import P, Search
from serve.api.app import build_http_api
from serve.inference.engine import Engine
from serve.uploads.uploads import Upload, Uploads
from tests.archive.views.test_search import mark_of
from tests.batch.filters.scene import box, publish, put, tables_at
from tests.serve.hostile import client, engine_in
from tests.serve.idle_rollouts import IdleRollouts

LOADED = "blobs"
JSON = {"content-type": "application/json"}
MANY = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Shelf:
    """The tables of an archive, read in this process; nothing is recorded."""

    def __init__(self, place: Path) -> None:
        self.tables = tables_at(place)
        put(self.tables, {1: ("north", 0.0, [box(0, 1, 1, 10.0)]), 2: ("south", 5.0, [])})
        publish(self.tables)

    async def record(self, upload: Upload) -> None:
        raise AssertionError

    async def find(self, wanted: Search[P]) -> P:
        return await asyncio.to_thread(wanted.answer, self.tables, 30)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    engine: Engine = engine_in(tmp_path_factory.mktemp("any"))
    place = tmp_path_factory.mktemp("tables")
    uploads = Uploads(str(place / "uploads"), Shelf(place / "tables"), engine.metrics.uploaded)
    yield build_http_api(engine, rollouts=IdleRollouts(), uploads=uploads)
    assert engine.admission.images.taken == 0
    engine.stop()


def status(api: FastAPI, method: str, path: str, **more: Any) -> int:
    async def asked() -> int:
        async with client(api) as one:
            answer = await one.request(method, path, **more)
        not_ready = answer.status_code == 503 and path.endswith("/ready")  # the answer of v2
        assert answer.status_code < 500 or not_ready, (method, path, answer.text[:500])
        return answer.status_code

    return asyncio.run(asked())


TEXT = strategies.text(max_size=20) | strategies.sampled_from(
    [
        "",
        "0",
        "-1",
        "1e999",
        "nan",
        "inf",
        "9" * 5000,
        "\0",
        "\ud800".encode("utf-8", "replace").decode(),
        "blobs",
        "blobs@1",
        "blobs:production",
        "..",
        "../..",
        "%00",
        "production",
        "deer'--",
        "٣",
        "x" * 5000,
    ]
)
NUMBERS = strategies.integers() | strategies.floats() | strategies.sampled_from([2**63, 10**400])
ANY = strategies.recursive(
    strategies.none() | strategies.booleans() | NUMBERS | TEXT | strategies.just("\ud800"),
    lambda inner: strategies.lists(inner, max_size=4) | strategies.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
DAYS = strategies.sampled_from(
    ["2026-05-01", "0001-01-01", "9999-12-31T23:59:59.9999999", "2026-05-01T00:00:00Z", "1e10", "-1", "253402300800"]
) | strategies.datetimes().map(lambda at: at.isoformat())
MARKS = ANY.map(lambda value: mark_of(json.dumps(value))) | strategies.tuples(DAYS | strategies.none(), TEXT, TEXT).map(
    lambda value: mark_of(json.dumps(value))
)
VALUES = TEXT | DAYS | MARKS | NUMBERS.map(str)


def queries(api: FastAPI, method: str, path: str) -> strategies.SearchStrategy[Any]:
    """Make up queries of the parameters in the OpenAPI document, and of one that does not exist."""
    route = api.openapi()["paths"][path][method]
    names = [one["name"] for one in route["parameters"] if one["in"] == "query"]
    assert names
    values = strategies.tuples(strategies.sampled_from([*names, "x"]), VALUES)
    return strategies.lists(values, max_size=3)


@pytest.mark.parametrize("path", ["/v1/images", "/v1/models/{name}/events"])
@MANY
@given(data=strategies.data())
def test_any_query(api: FastAPI, path: str, data: strategies.DataObject) -> None:
    query = data.draw(queries(api, "get", path))
    status(api, "GET", path.format(name=LOADED), params=query)


@pytest.mark.parametrize("path", ["/v1/detect", "/v1/images", "/v1/classify"])
@MANY
@given(data=strategies.data(), body=strategies.binary(max_size=64))
def test_any_query_of_an_image(api: FastAPI, path: str, data: strategies.DataObject, body: bytes) -> None:
    status(api, "POST", path, params=data.draw(queries(api, "post", path)), content=body)


PATHS = [
    "/v1/models/{}",
    "/v1/models/{}/events",
    "/v1/operations/{}",
    "/v2/models/{}",
    "/v2/models/{}/ready",
    "/v2/models/{}/stats",
    "/v2/models/{}/config",
    "/v2/models/blobs/versions/{}",
    "/v2/models/blobs/versions/{}/ready",
    "/{}",
]


@pytest.mark.parametrize("path", PATHS)
@MANY
@given(name=TEXT)
def test_any_name_in_a_path(api: FastAPI, path: str, name: str) -> None:
    status(api, "GET", path.format(quote(name, safe="")))


CONTROLS = ["promote", "rollback", "canary", "shadow", "pin", "unpin", "release"]
FIELDS = strategies.dictionaries(strategies.sampled_from(["alias", "version", "percent", "\ud800"]), ANY, max_size=4)


@pytest.mark.parametrize("control", CONTROLS)
@MANY
@given(body=FIELDS | ANY)
def test_any_control(api: FastAPI, control: str, body: Any) -> None:
    status(api, "POST", f"/v1/models/blobs/{control}", content=json.dumps(body), headers=JSON)


REPOSITORY = ["index", "models/blobs/load", "models/blobs/unload"]
ASKED = strategies.fixed_dictionaries(
    {},
    optional={
        "ready": ANY,
        "parameters": ANY
        | strategies.dictionaries(strategies.sampled_from(["version", "unload_dependents", "\ud800"]), ANY),
    },
)


@pytest.mark.parametrize("path", REPOSITORY)
@MANY
@given(body=ASKED | ANY)
def test_any_question_about_the_repository(api: FastAPI, path: str, body: Any) -> None:
    answered = status(api, "POST", f"/v2/repository/{path}", content=json.dumps(body), headers=JSON)
    assert path != "models/blobs/unload" or answered != 200  # an alias means it


SHAPES = strategies.lists(NUMBERS | strategies.integers(0, 4) | strategies.just(64), max_size=9)
TENSORS = strategies.fixed_dictionaries(
    {},
    optional={
        "name": strategies.sampled_from(["image", "images"]) | ANY,
        "shape": SHAPES | ANY,
        "datatype": strategies.sampled_from(["BYTES", "FP32"]) | ANY,
        "data": ANY,
        "parameters": ANY | strategies.dictionaries(strategies.just("binary_data_size"), ANY),
    },
)
OUTPUTS = strategies.lists(
    strategies.fixed_dictionaries(
        {"name": strategies.sampled_from(["boxes", "scores"]) | TEXT},
        optional={"parameters": ANY | strategies.dictionaries(strategies.just("binary_data"), ANY)},
    ),
    max_size=3,
)
INFER = strategies.fixed_dictionaries(
    {"inputs": strategies.lists(TENSORS, max_size=2) | ANY},
    optional={
        "id": ANY,
        "outputs": OUTPUTS | ANY,
        "parameters": ANY
        | strategies.dictionaries(
            strategies.sampled_from(["min_score", "binary_data_output", "sequence_id", "timeout"]), ANY
        ),
    },
)


@MANY
@given(body=INFER | ANY, tail=strategies.binary(max_size=64), length=strategies.none() | TEXT | NUMBERS)
def test_any_tensor(api: FastAPI, body: Any, tail: bytes, length: Any) -> None:
    text = json.dumps(body).encode()
    length = len(text) if length is None else length
    headers = [(b"Inference-Header-Content-Length", str(length)[:6000].encode("utf-8", "replace"))]
    path = f"/v2/models/{LOADED}/infer"
    status(api, "POST", path, content=text + tail, headers=headers)
    status(api, "POST", path, content=text)
