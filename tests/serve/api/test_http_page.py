"""The pages http.md and v2.md of docs/reference have every route: parameters, scopes, statuses, a curl for each."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from batch.api.app import build_runs_api
from serve.api.app import build_http_api
from serve.auth.guard import scope_of
from serve.inference.engine import Engine
from serve.settings import DetectArgs, Settings
from serve.uploads.uploads import Uploads
from tests.fixtures_local import ROOT
from tests.serve.idle_rollouts import IdleRollouts
from tests.support.jobs import FakeJobs

PAGE, V2 = ((ROOT / "docs/reference" / name).read_text() for name in ("http.md", "v2.md"))
SECTIONS = dict(re.findall(r"^### (\w+ /\S+)\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S))


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the operations of both applications by method and path."""
    place = str(tmp_path_factory.mktemp("store"))
    engine = Engine(DetectArgs(models=place, workers=1))
    tables: Any = None  # no request is sent
    uploads = Uploads(f"{place}/uploads", tables, lambda outcome: None)
    detect = build_http_api(engine, rollouts=IdleRollouts(), uploads=uploads).openapi()["paths"]
    runs = build_runs_api(Settings(tables=place), FakeJobs()).openapi()["paths"]
    engine.stop()
    paths = detect | {f"/runs{path}".rstrip("/"): methods for path, methods in runs.items()}
    return {f"{m.upper()} {path}": of for path, methods in paths.items() for m, of in methods.items()}


def curls(text: str) -> list[tuple[str, str]]:
    """Return method and path of each curl, without host and query."""
    lines = re.findall(r"(?:^|\| |^ +)curl .*$", text.replace("\\\n", " "), re.M)
    sent = ("POST" if re.search(r" (-d|-X POST|--data-binary|--form) ", line) else "GET" for line in lines)
    paths = (re.search(r"(?:127\.0\.0\.1|localhost):8000(/[^\s'?\"]*)", line) for line in lines)
    return [(method, path[1]) for method, path in zip(sent, paths, strict=True) if path]


def test_every_route_has_a_section(routes: dict[str, Any]) -> None:
    assert set(SECTIONS) == {route for route in routes if " /v2" not in route}


@pytest.mark.parametrize("route", SECTIONS)
def test_a_section_has_what_the_schema_has(routes: dict[str, Any], route: str) -> None:
    text, of = SECTIONS[route], routes[route]
    method, _, path = route.partition(" ")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) \|", text, re.M))
    queries = {p["name"]: p for p in of.get("parameters", ()) if p["in"] == "query"}
    assert set(rows) == set(queries)
    for name, parameter in queries.items():
        default = parameter["schema"].get("default")
        assert (rows[name] == "required") == parameter["required"]
        if default not in (None, ""):
            written = rows[name].strip("`")
            assert (json.loads(written) if isinstance(default, int | float) else written) == default
    ((sent, where),) = curls(text)
    assert sent == method
    assert re.fullmatch(re.sub(r"\{\w+\}", r"[^/]+", path), where)
    if not path.startswith("/runs"):
        scope = scope_of(method, path)
        assert f"Scope `{scope}`." in text if scope else "No scope." in text
        (statuses,) = re.findall(r"Statuses ([\d, ]+)\.", text)
        assert statuses.split(", ") == sorted(of["responses"])


def test_an_upload_takes_the_parameters_of_detect(routes: dict[str, Any]) -> None:
    detect, upload = (
        {p["name"] for p in routes[f"POST {path}"]["parameters"] if p["in"] == "query"}
        for path in ("/v1/detect", "/v1/images")
    )
    assert detect - upload == {"then"}, "parameters that POST /v1/images lacks (ARCHITECTURE.md: a query parameter)"


def test_the_page_of_v2_has_its_routes(routes: dict[str, Any]) -> None:
    of_v2 = {route for route in routes if " /v2" in route}
    asked = {f"{method} {path}" for method, path in curls(V2)}
    lost = [
        route for route in of_v2 if not any(re.fullmatch(re.sub(r"\{\w+\}", r"[^/]+", route), one) for one in asked)
    ]
    assert lost == []
