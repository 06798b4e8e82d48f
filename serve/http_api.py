"""The HTTP API of a detector replica; knows no Ray. docs at /docs, schema at /openapi.json.

/v1/detect  /v1/images  /v1/classify  /v1/models  /v2  /metrics  /healthz  /readyz, each in `routes/`; who may
ask is in `access.py`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from serve.access import Access, Guard, scope_of
from serve.base_api import base_api
from serve.bounds import MaxRequests, max_requests
from serve.engine import Engine
from serve.forward import Forward, Pools
from serve.rollout.client import Rollouts
from serve.routes import classify, detect, health, images, metrics, models, v2
from serve.routes.bodies import MIB, PROBLEMS
from serve.sending import Sending
from serve.traces import Incoming
from serve.uploads import Uploads


def build_http_api(
    engine: Engine,
    access: Access | None = None,
    rollouts: Rollouts | None = None,
    gather: metrics.Gather | None = None,
    cors_origins: Sequence[str] = (),
    pools: Pools | None = None,
    uploads: Uploads | None = None,
) -> FastAPI:
    """Routes over an engine, for those whom `access` lets in; None lets in everybody. `gather` brings the
    metrics of all replicas; without it, this engine's own are all there are.

    Models that live elsewhere are answered by `pools`; without `uploads` nothing is kept. Pages of
    `cors_origins` may ask too (scheme://host:port, as a browser sends it).
    """
    api = base_api("Resight", "Versioned detectors and classifiers over HTTP")
    api.include_router(detect.router(engine))
    if uploads is not None:
        api.include_router(images.router(engine, uploads))
    api.include_router(classify.router(engine))
    api.include_router(models.control_router(engine, rollouts, pools))  # first: `reload` is no name
    api.include_router(models.read_router(engine, rollouts, pools))
    api.include_router(metrics.router(engine, rollouts, gather))
    api.include_router(v2.router(engine, pools=pools))
    api.include_router(health.router(engine, pools))
    if pools is not None:
        api.add_middleware(Forward, engine=engine, pools=pools)
    if engine.traces is not None:
        api.add_middleware(Incoming)
    api.add_middleware(Guard, access=access or Access(), origins=cors_origins)
    limits = engine.args.limits
    api.add_middleware(Sending, most_bytes=limits.answers_mib * MIB, within_s=limits.answer_s)
    api.add_middleware(MaxRequests, most=max_requests(limits))
    if cors_origins:  # in front of the guard: a browser's first question carries no token
        api.add_middleware(
            CORSMiddleware,
            allow_origins=cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    _describe_scopes(api)
    return api


def _describe_scopes(api: FastAPI) -> None:
    """Say in the schema which scope each route needs, and what a wrong parameter is answered."""
    described = api.openapi

    def openapi() -> dict[str, Any]:
        schema = described()
        bearer = {"type": "http", "scheme": "bearer", "description": "see docs/access.md"}
        schema["components"]["securitySchemes"] = {"bearer": bearer}
        for path, methods in schema["paths"].items():
            for method, operation in methods.items():
                scope = scope_of(method.upper(), path)
                operation["security"] = [{"bearer": [scope]}] if scope else []
                operation["responses"].pop("422", None)  # FastAPI's own; ours is 400
                if scope:
                    operation["responses"].setdefault("400", PROBLEMS[400])
                for status in (401, 403) if scope and not path.startswith("/v2") else ():
                    operation["responses"].setdefault(str(status), PROBLEMS[status])
        return schema

    api.openapi = openapi
