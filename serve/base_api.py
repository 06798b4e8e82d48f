"""What every HTTP API of Resight has: errors as problem JSON, and /docs."""

from __future__ import annotations

from fastapi import FastAPI

from serve import problems
from serve.routes import docs


def base_api(title: str, summary: str) -> FastAPI:
    api = FastAPI(
        title=title,
        summary=summary,
        openapi_url=None,  # both are routes of `docs`
        docs_url=None,
    )
    problems.install(api)
    api.include_router(docs.router())
    return api
