"""The shortcut of POST /v1/detect: which requests it answers, and that its answers are those of the route."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from serve.api.detect import DetectShortcut
from serve.inference.engine import Engine
from tests.serve.http_client import CAT, client

ROUTE_OF = {"s": "%73", "m": "%6D", "n": "%6E"}
"""First letters of models as no client writes them, so that the route answers."""


async def both(engine: Engine, model: str, rest: str, body: bytes, **headers: str) -> list[httpx2.Response]:
    """Return the answers of the shortcut and of the route to the same request."""
    async with client(engine) as api:
        names = (model, ROUTE_OF[model[0]] + model[1:])
        return [await api.post(f"/v1/detect?model={name}{rest}", content=body, headers=headers) for name in names]


def comparable(answer: httpx2.Response) -> tuple[int, dict[str, Any], set[str]]:
    """Return status, body without times, and the names of the headers."""
    body = answer.json() if answer.content else {}
    body.pop("timings_ms", None)
    return answer.status_code, body, set(answer.headers)


@pytest.mark.parametrize("rest", ["", "&min_score=0", "&min_score=0.05", "&min_score=1"])
@pytest.mark.parametrize("model", ["ssdlite-coco", "ssdlite-coco%401", "ssdlite-coco:production", "motion"])
async def test_both_answer_alike(engine: Engine, model: str, rest: str) -> None:
    shortcut, route = await both(engine, model, rest, CAT)
    assert shortcut.status_code == 200, shortcut.text
    assert comparable(shortcut) == comparable(route)


@pytest.mark.parametrize(
    ("model", "body", "headers", "status"),
    [
        ("ssdlite-coco", b"no picture", {}, 415),
        ("ssdlite-coco", CAT[:100], {}, 400),
        ("ssdlite-coco", b"", {}, 400),
        ("nobody", CAT, {}, 404),
        ("ssdlite-coco@@", CAT, {}, 400),
        ("ssdlite-coco", CAT, {"x-request-timeout-ms": "soon"}, 400),
        ("ssdlite-coco", CAT, {"content-length": "999999999999"}, 413),
    ],
)
async def test_both_refuse_alike(engine: Engine, model: str, body: bytes, headers: dict[str, str], status: int) -> None:
    shortcut, route = await both(engine, model, "", body, **headers)
    assert shortcut.status_code == status, shortcut.text
    assert comparable(shortcut) == comparable(route)


@pytest.mark.parametrize(
    ("target", "headers", "shortened"),
    [
        ("/v1/detect?model=ssdlite-coco", {}, True),
        ("/v1/detect?model=ssdlite-coco&min_score=0.3", {}, True),
        ("/v1/detect", {}, False),
        ("/v1/detect?model=ssdlite-coco&model=motion", {}, False),
        ("/v1/detect?model=ssdlite-coco&camra=1", {}, False),
        ("/v1/detect?model=ssdlite-coco&min_score=2", {}, False),
        ("/v1/detect?model=ssdlite-coco&min_score=nan", {}, False),
        ("/v1/detect?model=ssdlite-coco", {"content-type": "multipart/form-data; boundary=x"}, False),
        ("/v1/classify?model=ssdlite-coco", {}, False),
    ],
)
async def test_a_request_that_is_not_plain_goes_to_the_routes(
    engine: Engine, target: str, headers: dict[str, str], shortened: bool
) -> None:
    reached = list[str]()

    async def routes(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    transport = httpx2.ASGITransport(DetectShortcut(routes, engine))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as api:
        answer = await api.post(target, content=CAT, headers=headers)
    assert (answer.status_code, bool(reached)) == ((200, False) if shortened else (204, True))
