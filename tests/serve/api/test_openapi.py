"""Every route answers as /openapi.json says: requests that fit the schema, and requests that do not.

schemathesis makes them: for each operation the corners of its parameters and
body, wrong methods, missing tokens, and some random ones, the same in every run; then its checks look at
status, type, headers and body. A second time with a model that exists, so that there is something to answer.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from archive.delta.tables import Tables
from archive.views.search import P, Search
from serve.api.app import build_http_api
from serve.auth.guard import Access
from serve.inference.engine import Engine
from serve.settings import DetectArgs
from serve.uploads.uploads import Upload, Uploads
from tests.fixtures_local import motion_store
from tests.serve.idle_rollouts import IdleRollouts

TOKEN = "a-token"
EXAMPLES = settings(
    max_examples=3, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
CONFIG: dict[str, Any] = {
    "request-timeout": 120,  # a busy machine must fail no test
    "headers": {"Authorization": f"Bearer {TOKEN}"},
    "auth": {"openapi": {"bearer": {"bearer": TOKEN}}},
    "operations": [
        {
            # no schema can say whether bytes are an image, tensors a model's, a day in the calendar, a view
            # published, or two fields belong together
            "include-name": [
                "GET /v1/images",
                "POST /v1/classify",
                "POST /v1/embed",
                "GET /v1/detections/{detection}/similar",
                "POST /v1/detect",
                "POST /v1/images",
                "POST /v1/models/{name}/canary",
                "POST /v1/models/{name}/shadow",
                "POST /v2/models/{model}/infer",
                "POST /v2/models/{model}/versions/{version}/infer",
                "POST /v2/repository/models/{model}/load",
                "POST /v2/repository/models/{model}/unload",
            ],
            "checks": {"positive_data_acceptance": {"enabled": False}},
        }
    ],
}
EXISTING = {"path.model": "blobs", "path.name": "blobs", "path.version": "1", "query.model": "blobs"}


class Forgetful:
    """Tables that take whatever they are given."""

    async def record(self, upload: Upload) -> None:
        pass

    async def find(self, wanted: Search[P]) -> P:
        return await asyncio.to_thread(wanted.answer, TABLES, 30)


_place = tempfile.TemporaryDirectory(prefix="resight-openapi-")
motion_store(Path(_place.name), "1", "2")
_engine = Engine(DetectArgs(models=_place.name, workers=1))
TABLES = Tables(f"{_place.name}/tables")
TABLES.snapshot("media")
_uploads = Uploads(f"{_place.name}/uploads", Forgetful(), _engine.metrics.uploaded)
_api = build_http_api(_engine, Access(TOKEN), IdleRollouts(), uploads=_uploads)


def _schema(**more: Any) -> Any:
    config = schemathesis.Config.from_dict(CONFIG | more)
    schema = schemathesis.openapi.from_dict(_api.openapi(), config=config)
    schema.app = _api
    return schema


@pytest.fixture(scope="module", autouse=True)
def _engine_runs() -> Iterator[None]:
    asyncio.run(_engine.aliases.refresh())
    yield
    _engine.stop()
    _place.cleanup()


@_schema().parametrize()
@EXAMPLES
def test_what_is_documented_is_what_happens(case: Any) -> None:
    case.call_and_validate()


@(
    _schema(parameters=EXISTING)
    .include(path_regex=r"\{(model|name)\}|/v1/(detect|classify|images)")
    .exclude(path="/v1/images", method="GET")
    .parametrize()
)
@EXAMPLES
def test_and_so_it_is_with_a_model_that_exists(case: Any) -> None:
    case.call_and_validate()
