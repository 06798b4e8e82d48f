"""Properties of all three applications: /v1 and /v2, /runs and /ui."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
from fastapi import FastAPI

import batch.app
import pages.app
import pages.http_app
import serve.app
from archive.delta.tables import Tables
from batch.api.app import build_runs_api
from batch.jobs.control import jobs_of
from pages.context import Context
from pages.http_app import build_pages_app
from serve.api.app import build_http_api
from serve.api.limits import MaxRequests, PacedAnswers
from serve.auth.guard import Guard
from serve.settings import DetectArgs, Limits, Settings
from tests.fixtures_local import write_files
from tests.pages.routes.test_pictures import DATA, SHA, publish
from tests.pages.test_pictures import media_row, put
from tests.serve.hostile import engine_in

LIMITS = {"answers_mib": 7, "answer_s": 8}
ODD = [
    *("", "0", "-1", "nan", "1e999", "9" * 5000, "\0", "%", "'; drop table media; --", "..", "x" * 9000),
    *("0001-01-01", "9999-12-31T23:59:59.9999999", "253402300800", "2026-05-01T00:00:00+25:00"),
    *("W10=", "W1tbW10=", "production", "a@1", "\u0663", '{"a":', "null", "a:b"),
]


VALUES, SHARED = 4, 2
"""Values for each parameter of a route, and for one that other routes have too: they get other values."""


@pytest.fixture
def applications(context: Context, tables: Tables, settings: Settings, tmp_path: Path) -> Iterator[dict[str, FastAPI]]:
    """The applications by the paths of their mounts, over an archive with one published image."""
    put(tables, media_row(write_files(tmp_path / "archive", {"north/1.jpg": DATA}), "north/1.jpg", DATA))
    publish(tables, [("person", 0.9, (200.0, 100.0, 360.0, 300.0))])
    engine = engine_in(tmp_path / "models", **LIMITS)
    limits = Limits.model_validate(LIMITS)
    yield {
        "": build_http_api(engine),
        "/runs": build_runs_api(settings, jobs_of(settings, here=True), limits=limits),
        "/ui": build_pages_app(context, limits=limits),
    }
    engine.stop()


def test_requests_are_counted_before_the_guard_and_answers_paced_around_it(applications: dict[str, FastAPI]) -> None:
    for api in applications.values():
        layers = [layer for layer in api.user_middleware if layer.cls in (MaxRequests, PacedAnswers, Guard)]
        assert [layer.cls for layer in layers] == [MaxRequests, PacedAnswers, Guard]
        assert layers[1].kwargs == {"max_bytes": 7 << 20, "within_s": 8}


def test_rays_bounds_are_above_those_of_the_applications(applications: dict[str, FastAPI]) -> None:
    rays = {
        "": serve.app.build(DetectArgs(workers=1)),
        "/runs": batch.app.build(batch.app.RunsArgs()),
        "/ui": pages.app.build(batch.app.RunsArgs()),
    }
    for mount, api in applications.items():
        room = next(layer.kwargs["room"] for layer in api.user_middleware if layer.cls is MaxRequests)
        assert rays[mount]._bound_deployment.max_ongoing_requests > room._places  # type: ignore[attr-defined]


async def test_no_value_in_a_get_is_an_error_of_the_server(applications: dict[str, FastAPI]) -> None:
    for mount, api in applications.items():
        transport = httpx2.ASGITransport(api, raise_app_exceptions=False, root_path=mount)
        async with httpx2.AsyncClient(transport=transport, base_url=f"http://127.0.0.1{mount}") as client:
            for url, query in urls(api):
                answer = await client.get(url, params=query)
                assert answer.status_code < 500, f"{mount}{url[:80]} {str(query)[:80]}: {answer.text}"


def urls(api: FastAPI) -> Iterator[tuple[str, dict[str, str]]]:
    """Every GET of an application that ends, with the next odd values in each parameter, and sound paths otherwise."""
    values, paths = itertools.cycle(ODD), api.openapi()["paths"]
    routes = {path: methods.get("get", {}).get("parameters", []) for path, methods in paths.items()}
    names = Counter(parameter["name"] for parameters in routes.values() for parameter in parameters)
    for path, parameters in routes.items():
        for parameter in parameters if path != "/v1/stream" else ():
            name = parameter["name"]
            for odd in itertools.islice(values, SHARED if names[name] > 1 else VALUES):
                given = {other["name"]: SHA for other in parameters if other["in"] == "path"}
                if parameter["in"] == "path":
                    yield path.format(**given | {name: quote(odd[:500], safe="")}), {}
                elif parameter["in"] == "query":
                    yield path.format(**given), {name: odd}
