"""Query parameters that a route does not know, or that are sent twice, are refused: on every route."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import httpx2
import pytest
from fastapi import FastAPI

from serve.api.app import build_http_api
from serve.inference.engine import Engine
from serve.settings import DetectArgs
from serve.uploads.uploads import Uploads
from tests.serve.http_client import CAT, problem_of, requests_of
from tests.serve.idle_rollouts import IdleRollouts

HEALTH = {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}
HEALTH |= {"/antenna/livez", "/antenna/readyz"}
NOT_FOUND = {"/"}  # and for browsers, which are sent to the page
WRONG_METHODS = {"/v1/images"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    place, tables = tmp_path_factory.mktemp("parameters"), cast("Any", None)
    engine = Engine(DetectArgs(models=str(place), workers=1))
    uploads = Uploads(str(place), tables, engine.metrics.uploaded)
    yield build_http_api(engine, rollouts=IdleRollouts(), uploads=uploads)
    engine.stop()


@pytest.fixture
def api(app: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://resight")


async def test_every_route_refuses_an_unknown_parameter(app: FastAPI, api: httpx2.AsyncClient) -> None:
    asked = set(requests_of(app))
    assert len(asked) > 40
    assert {("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/v2/")} <= asked
    async with api:
        for method, path in asked:
            answer = await api.request(method, path, params={"nonsense": "1"})
            if path in HEALTH | NOT_FOUND or answer.status_code == 405:
                assert path in HEALTH | NOT_FOUND | WRONG_METHODS, (method, path)
                assert "nonsense" not in answer.text
            elif path.startswith("/v2"):
                assert "query parameter 'nonsense'" in answer.json()["error"], (method, path)
                assert answer.status_code == 400
            else:
                assert "query parameter 'nonsense'" in problem_of(answer, 400), (method, path)


@pytest.mark.parametrize(
    ("request_line", "words"),
    [
        (
            "POST /v1/images?model=motion&camra=north",
            "unknown query parameter 'camra': did you mean 'camera'? valid parameters: model, camera, min_score,",
        ),
        ("POST /v1/detect?model=a&model=b", "query parameter 'model' is sent 2 times: send it once"),
        ("GET /v1/models?verbose", "unknown query parameter 'verbose': this path takes none"),
        ("GET /docs?=", "unknown query parameter ''"),
        ("POST /v1/models/blobs/pin?" + "x" * 500, f"'{'x' * 100}': this path takes none"),
    ],
)
async def test_the_refusal_names_the_parameter_the_nearest_and_the_list(
    api: httpx2.AsyncClient, request_line: str, words: str
) -> None:
    method, path = request_line.split(" ")
    async with api:
        assert words in problem_of(await api.request(method, path, content=CAT), 400)


async def test_health_answers_whatever_load_balancers_add(api: httpx2.AsyncClient) -> None:
    async with api:
        assert (await api.get("/healthz?probe=lb&probe=lb")).status_code == 200
