"""The HTTP API over an engine, asked in this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx2
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from model_store.errors import Overloaded
from model_store.images.decode import decode
from serve.api.app import build_http_api
from serve.auth.guard import Access
from serve.inference.engine import Engine
from serve.settings import DetectArgs
from tests.fixtures_local import photo

TIMEOUT_S = 20
MIB = 1024 * 1024
CAT = photo("cat")
CAT_PIXELS = decode(CAT).pixels
MakeEngine = Callable[..., Awaitable[Engine]]


async def engine_over(models: Path, **args: Any) -> Engine:
    """Every alias loaded; nobody polls, so that a test decides when alias files are read."""
    engine = Engine(DetectArgs(models=str(models), workers=1, **args))
    await engine.aliases.refresh()
    return engine


@lru_cache(maxsize=1)
def api_of(engine: Engine, token: str = "") -> FastAPI:
    """Return the API of an engine; building one takes as long as twenty requests."""
    return build_http_api(engine, Access(token))


def client(engine: Engine, token: str = "", raise_errors: bool = True) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(api_of(engine, token), raise_app_exceptions=raise_errors)
    return httpx2.AsyncClient(transport=transport, base_url="http://resight")


async def post(
    engine: Engine, body: Any, model: str = "ssdlite-coco", token: str = "", **query: Any
) -> httpx2.Response:
    headers = query.pop("headers", {})
    async with client(engine, token) as api:
        parameters = {"model": model, **query}
        return await api.post("/v1/detect", content=body, params=parameters, headers=headers)


def has_room(engine: Engine) -> bool:
    try:
        with engine.admission.images.place():
            pass
    except Overloaded:
        return False
    return True


def problem_of(answer: httpx2.Response, status: int) -> str:
    """The detail of a problem answer, which must be well formed."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) - {"errors"} == {"type", "title", "status", "detail"}
    assert body["type"].startswith("urn:resight:")
    assert body["status"] == status
    assert body["title"]
    return str(body["detail"])


def requests_of(api: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and path of every route, the undocumented ones too."""
    for route in iter_route_contexts(api.routes):
        for method in route.methods or ():
            yield method, route.path or ""
