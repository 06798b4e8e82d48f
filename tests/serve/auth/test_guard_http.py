"""The guard in front of the API: what it lets through, what it answers, and what it leaves unread."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog
from fastapi import FastAPI
from pydantic import BaseModel

from serve.api.app import build_http_api
from serve.auth.guard import Access, Guard
from serve.auth.scopes import TokenScope
from serve.auth.tokens import TokenFile
from serve.inference.engine import Engine
from serve.settings import DetectArgs
from tests.fixtures_local import motion_store, photo

ALL = frozenset(TokenScope)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


class Promotion(BaseModel):
    version: str


def guarded(access: Access, *origins: str, at: str = "resight:8000") -> httpx2.AsyncClient:
    """An API with a JSON body, which FastAPI reads before any dependency, and a mounted app."""
    api, mounted = FastAPI(), FastAPI()

    @api.post("/v1/models/{name}/promote")
    async def promote(name: str, promotion: Promotion) -> str:
        return f"{name}@{promotion.version}"

    @mounted.get("/")
    async def metrics() -> str:
        return "requests 7"

    api.mount("/metrics", mounted)
    api.add_middleware(Guard, access=access, origins=origins)
    transport = httpx2.ASGITransport(api)
    return httpx2.AsyncClient(transport=transport, base_url=f"http://{at}")


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize(("held", "status"), [((), 401), ((TokenScope.detect,), 403), (ALL, 200)])
async def test_the_body_of_a_request_that_is_refused_is_not_read(
    file: TokenFile, held: tuple[TokenScope, ...], status: int
) -> None:
    token = file.add("station", held) if held else "made-up"
    read: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        for part in (b'{"version"', b': "2"}'):
            read.append(part)
            yield part

    headers = bearer(token) | {"content-type": "application/json"}
    async with guarded(Access("secret", file)) as api:
        answer = await api.post("/v1/models/deer/promote", content=body(), headers=headers)
    assert answer.status_code == status
    assert bool(read) == (status == 200)
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
        assert token not in answer.text
    assert (answer.headers.get("www-authenticate") == "Bearer") == (status == 401)


@pytest.mark.parametrize("path", ["/docs", "/metrics/", "//healthz"])
async def test_docs_mounted_apps_and_unknown_paths_are_closed_too(path: str) -> None:
    async with guarded(Access("secret")) as api:
        assert (await api.get(path)).status_code == 401
        assert (await api.get(path, headers=bearer("secret"))).status_code in (200, 404)


async def test_v2_is_refused_in_the_form_its_clients_read() -> None:
    async with guarded(Access("secret")) as api:
        answer = await api.get("/v2/models/deer")
    assert answer.status_code == 401
    assert list(answer.json()) == ["error"]
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://localhost:8000", 200),
        ("https://localhost:8000", 200),  # behind a TLS proxy
        ("http://allowed.example.org", 200),
        ("http://127.0.0.1:8000", 403),
        ("null", 403),
        ("", 403),
    ],
)
async def test_without_tokens_pages_of_other_sites_are_refused(origin: str | None, status: int) -> None:
    headers = {} if origin is None else {"origin": origin}
    async with guarded(Access(), "http://allowed.example.org", at="localhost:8000") as api:
        answer = await api.post("/v1/models/deer/promote", json={"version": "2"}, headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("resight.localhost:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("evil.example:8000", 403),
        ("localhost.evil.example:8000", 403),
        ("evillocalhost:8000", 403),
        ("127.0.0.1:8000:8000", 403),
        ("[127.0.0.1]:8000", 403),
        ("", 403),
    ],
)
async def test_without_tokens_a_page_s_own_name_must_be_one_that_no_dns_says(host: str, status: int) -> None:
    headers = {"host": host, "origin": f"http://{host}"}
    promote, body = "/v1/models/deer/promote", {"version": "2"}
    async with guarded(Access(), at="localhost:8000") as api:
        asked = await api.post(promote, json=body, headers=headers)
        no_page = await api.post(promote, json=body, headers={"host": host})
    async with guarded(Access(), f"http://{host}", at="localhost:8000") as api:
        allowed = await api.post(promote, json=body, headers=headers)
    async with guarded(Access("secret"), at="localhost:8000") as api:
        known = await api.post(promote, json=body, headers=headers | bearer("secret"))
    assert asked.status_code == status
    assert (no_page.status_code, allowed.status_code, known.status_code) == (200, 200, 200)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    motion_store(tmp_path / "models", "1")
    engine = Engine(DetectArgs(models=str(tmp_path / "models"), workers=1))
    yield engine
    engine.stop()


def whole(engine: Engine, access: Access, *origins: str) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(build_http_api(engine, access, cors_origins=origins))
    return httpx2.AsyncClient(transport=transport, base_url="http://resight")


async def test_the_schema_says_which_scope_a_route_needs(engine: Engine) -> None:
    async with whole(engine, Access()) as api:
        for _ in range(2):  # the second time it is the kept one
            schema = (await api.get("/openapi.json")).json()
    paths = schema["paths"]
    for path, scope in (("/v1/detect", "detect"), ("/v1/models/reload", "admin")):
        assert paths[path]["post"]["security"] == [{"bearer": [scope]}, {"session": [scope]}]
    assert paths["/healthz"]["get"]["security"] == []
    assert "403" in paths["/v1/models/reload"]["post"]["responses"]
    assert "401" not in paths["/healthz"]["get"]["responses"]
    assert schema["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert schema["components"]["securitySchemes"]["session"]["name"] == "resight_session"


PREFLIGHT = {
    "origin": "https://app.example.org",
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


@pytest.mark.parametrize("access", [Access(), Access("secret")])
async def test_cors_is_closed_by_default(engine: Engine, access: Access) -> None:
    async with whole(engine, access) as api:
        preflight = await api.options("/v1/detect", headers=PREFLIGHT)
        read = await api.get("/healthz", headers={"origin": "https://app.example.org"})
    assert preflight.status_code in (401, 403)
    for answer in (preflight, read):
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_cors_opens_for_exactly_the_origins_named(engine: Engine) -> None:
    mine, other = "https://app.example.org", "https://app.example.org.evil.com"
    async with whole(engine, Access("secret"), mine) as api:
        preflight = await api.options("/v1/detect", headers=PREFLIGHT)
        refused = await api.options("/v1/detect", headers=PREFLIGHT | {"origin": other})
        unknown = await api.get("/v1/models", headers={"origin": mine})
        known = await api.get("/v1/models", headers={"origin": mine, **bearer("secret")})
        foreign = await api.get("/v1/models", headers={"origin": other, **bearer("secret")})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == mine
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert (refused.status_code, foreign.status_code) == (400, 200)
    for answer in (refused, foreign):
        assert "access-control-allow-origin" not in answer.headers
    assert (unknown.status_code, known.status_code) == (401, 200)
    for answer in (unknown, known):  # a page must be able to read why
        assert answer.headers["access-control-allow-origin"] == mine
    assert "access-control-allow-credentials" not in preflight.headers


async def test_no_token_is_in_any_log(
    engine: Engine, file: TokenFile, logs: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    token = file.add("station", [TokenScope.detect])
    async with whole(engine, Access("env-secret", file)) as api:
        for sent in (token, "env-secret", "made-up-secret"):
            for method, path in (("GET", "/v1/models"), ("POST", "/v1/models/reload")):
                await api.request(method, path, headers=bearer(sent))
    told = str(logs) + caplog.text
    assert "station" in told
    assert not [sent for sent in (token, "env-secret", "made-up-secret") if sent in told]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/detect?model=blobs@{}"), ("GET", "/v2/models/blobs/versions/{}")]
)
async def test_a_version_that_nothing_needs_is_loaded_for_an_admin_alone(
    file: TokenFile, tmp_path: Path, method: str, path: str
) -> None:
    station, boss = file.add("station", (TokenScope.detect,)), file.add("boss", ALL)
    motion_store(tmp_path / "models", "1", "2")
    engine = Engine(DetectArgs(models=str(tmp_path / "models"), workers=1))
    await engine.aliases.refresh()
    api = build_http_api(engine, Access("", file))
    transport = httpx2.ASGITransport(api)
    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://resight") as client:

            async def status(version: str, token: str) -> int:
                sent = {"headers": bearer(token), "content": photo("cat")}
                options = sent if method == "POST" else {"headers": sent["headers"]}
                answer = await client.request(method, path.format(version), **options)
                return answer.status_code

            found = [await status(*one) for one in (("1", station), ("2", station))]
            assert found == [200, 403]
            assert len(engine.models.names) == 1
            found = [await status(*one) for one in (("2", boss), ("2", station))]
            assert found == [200, 200], "it is here now"
    finally:
        engine.stop()


async def test_every_route_but_health_asks_for_a_token(engine: Engine) -> None:
    async with whole(engine, Access("secret")) as api:
        schema = (await api.get("/openapi.json", headers=bearer("secret"))).json()
        asked = [
            (method, path, (await api.request(method, path)).status_code)
            for path, methods in schema["paths"].items()
            for method in methods
        ]
    without = {path for _, path, status in asked if status != 401}
    antenna, v2 = {"/antenna/livez", "/antenna/readyz"}, {"/v2/health/live", "/v2/health/ready"}
    assert {"/healthz", "/readyz"} <= without <= antenna | v2 | {"/healthz", "/readyz"}
    assert len(asked) > 4
