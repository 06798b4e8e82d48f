"""What every HTTP API of Resight has: errors as problem JSON, no unknown query parameters, and /docs."""

from __future__ import annotations

from fastapi import Depends, FastAPI

from serve import problems
from serve.parameters import known_only
from serve.routes import docs


def base_api(title: str, summary: str) -> FastAPI:
    api = FastAPI(
        title=title,
        summary=summary,
        openapi_url=None,  # both are routes of `docs`
        docs_url=None,
        dependencies=[Depends(known_only)],
    )
    problems.install(api)
    api.include_router(docs.router())
    return api
