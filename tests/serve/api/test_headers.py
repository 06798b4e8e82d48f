"""Request ids and deadlines, from the header to the answer; headers that Ray could not decode."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
from fastapi import FastAPI, Response

from model_store.errors import DeadlinePassed
from serve.api.headers import middlewares
from serve.inference.engine import Engine
from serve.settings import DetectArgs
from tests.fixtures_local import MODELS, ROOT, photo
from tests.serve.http_client import client


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(DetectArgs(models=str(MODELS), workers=1))
    yield engine
    engine.stop()


async def post(engine: Engine, path: str = "/v1/detect?model=motion@1", **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client(engine, raise_errors=False) as api:
        return await api.post(path, content=photo("cat"), headers=named)


async def test_an_answer_carries_the_sender_s_id_or_a_new_one(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await post(engine, x_request_id="upload-7")).headers["x-request-id"] == "upload-7"
    for path in ("/v1/detect?model=none", "/v1/classify?model=motion", "/v2/models/motion/infer"):
        answer = await post(engine, path, x_request_id="wrong")
        assert (answer.is_client_error, answer.headers["x-request-id"]) == (True, "wrong")
    with monkeypatch.context() as broken:
        broken.setattr(engine.resolver, "get", None)
        answer = await post(engine, x_request_id="ours")
        assert (answer.status_code, answer.headers["x-request-id"]) == (500, "ours")
    new = [(await post(engine)).headers["x-request-id"] for _ in range(2)]
    assert len(set(new)) == 2
    for odd in ("x" * 129, "a b"):
        given = (await post(engine, x_request_id=odd)).headers["x-request-id"]
        assert given != odd


async def test_a_deadline_that_has_passed_costs_no_inference(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    await engine.resolver.get("motion@1")
    ran: list[object] = []
    monkeypatch.setattr(engine.batcher, "_ran", lambda key, size: ran.append(size))
    with pytest.raises(DeadlinePassed):
        await engine.detect(photo("cat"), "motion@1", deadline_s=0.0)
    assert ran == []


@pytest.mark.parametrize("text", ["0", "1.5", "9" * 30, "600001"])
async def test_a_deadline_that_is_none_is_refused(engine: Engine, text: str) -> None:
    answer = await post(engine, x_request_timeout_ms=text)
    assert answer.status_code == 400
    assert "whole milliseconds" in answer.json()["detail"]


def plain() -> FastAPI:
    api = FastAPI(middleware=middlewares())

    @api.get("/")
    async def here() -> str:
        return "here"

    return api


@pytest.mark.parametrize(("value", "status"), [(b"", 200), ("größer".encode(), 200), (b"gr\xf6\xdfer", 400)])
async def test_a_header_that_is_no_utf_8_is_refused_by_name(value: bytes, status: int) -> None:
    transport = httpx2.ASGITransport(plain())
    async with httpx2.AsyncClient(transport=transport, base_url="http://resight") as asked:
        answer = await asked.get("/", headers=[(b"x-session-id", value)])
    assert answer.status_code == status
    if status == 400:
        assert "'x-session-id' is not UTF-8" in answer.json()["detail"]


@pytest.mark.parametrize("ids", [["ours", "of ray"], []])
async def test_an_answer_has_one_request_id_which_is_the_first(ids: list[str]) -> None:
    answer = Response()
    answer.raw_headers += [(b"X-Request-ID", each.encode()) for each in ids]
    answer.raw_headers += [(b"vary", b"a"), (b"vary", b"b")]
    api = FastAPI(middleware=middlewares())
    api.get("/")(lambda: answer)
    transport = httpx2.ASGITransport(api)
    async with httpx2.AsyncClient(transport=transport, base_url="http://resight") as client:
        got = (await client.get("/")).headers
    assert got.get_list("x-request-id") == ids[:1]
    assert got.get_list("vary") == ["a", "b"]


def test_ray_finds_them_by_the_name_the_cluster_is_given() -> None:
    module = middlewares.__module__
    text = (ROOT / "serve/node_environment.py").read_text()
    assert f'"{module}:{middlewares.__name__}"' in text
