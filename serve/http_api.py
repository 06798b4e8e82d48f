"""The HTTP API of a detector replica; knows no Ray. docs at /docs, schema at /openapi.json.

/v1/detect  /v1/models  /healthz  /readyz, each in `routes/`
"""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends, FastAPI, Header

from model_store.errors import Unauthorized
from serve import problems
from serve.engine import Engine
from serve.routes import detect, health, models


def build_http_api(engine: Engine, token: str = "") -> FastAPI:
    """Routes over an engine; with a `token`, all of /v1 needs `Authorization: Bearer TOKEN`."""
    api = FastAPI(title="Resight", summary="Versioned detectors over HTTP", redoc_url=None)
    problems.install(api)

    def authorized(authorization: Annotated[str, Header()] = "") -> None:
        if token and not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise Unauthorized("send the header 'Authorization: Bearer TOKEN'")

    guarded = [Depends(authorized)]
    api.include_router(detect.router(engine), dependencies=guarded)
    api.include_router(models.router(engine), dependencies=guarded)
    api.include_router(health.router(engine))
    return api
