"""Headers that Ray could not decode are refused in front of it."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI, Response

from serve.api.headers import middlewares


def guarded() -> FastAPI:
    api = FastAPI(middleware=middlewares())

    @api.get("/")
    async def here() -> str:
        return "here"

    return api


@pytest.mark.parametrize(
    ("value", "status"), [(b"", 200), (b"plain", 200), ("größer".encode(), 200), (b"\xff", 400), (b"gr\xf6\xdfer", 400)]
)
async def test_a_header_that_is_no_utf_8_is_refused_by_name(value: bytes, status: int) -> None:
    transport = httpx2.ASGITransport(guarded())
    async with httpx2.AsyncClient(transport=transport, base_url="http://resight") as asked:
        answer = await asked.get("/", headers=[(b"x-session-id", value)])
    assert answer.status_code == status
    if status == 400:
        assert "'x-session-id' is not UTF-8" in answer.json()["detail"]


@pytest.mark.parametrize("ids", [["ours", "of ray"], ["of ray"], []])
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
    text = (Path(__file__).parents[3] / "serve" / "node_environment.py").read_text()
    assert f'"{module}:{middlewares.__name__}"' in text
