"""HTTP API of a detector replica, without Ray. Documentation at /docs, schema at /openapi.json.

/v1/detect  /v1/images  /v1/classify  /v1/models  /v2  /antenna  /metrics  /healthz  /readyz

Each group of routes is a module of this folder, except those for load balancers and monitoring, which are here;
authorisation is in `serve/auth/`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import RedirectResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from serve.antenna.fetch import ImageFetcher
from serve.antenna.routes import router as antenna_router
from serve.api import detect, images, models
from serve.api.base import any_query, base_api, describe_scopes, protect
from serve.api.bodies import PROBLEMS
from serve.api.v2 import routes as v2
from serve.auth.guard import Access
from serve.inference.engine import Engine
from serve.models.pool_proxy import PoolProxy
from serve.models.pools import Pools, serving_everywhere
from serve.observability.metrics import merged
from serve.observability.traces import CallerSpans
from serve.rollout.client import RolloutClient
from serve.uploads.uploads import Uploads

Gather = Callable[[], Awaitable[Mapping[str, str]]]
"""Returns the exposition of each replica, by replica name."""


def build_http_api(
    engine: Engine,
    access: Access | None = None,
    rollouts: RolloutClient | None = None,
    gather: Gather | None = None,
    cors_origins: Sequence[str] = (),
    pools: Pools | None = None,
    uploads: Uploads | None = None,
    fetcher: ImageFetcher | None = None,
) -> FastAPI:
    """Return the application of an engine.

    access        authorises requests; None allows all
    gather        returns the metrics of all replicas; None: /metrics shows only this engine's
    cors_origins  sites allowed to send requests from a browser, as scheme://host:port
    pools         answer for models placed in other pools
    uploads       stores images; None: /v1/images does not exist
    fetcher       fetches images by URL for Antenna; None: as the arguments of the engine permit
    """
    api = base_api("Resight", "Versioned detectors and classifiers over HTTP")
    api.include_router(detect.router(engine))
    if uploads is not None:
        api.include_router(images.router(engine, uploads))
    api.include_router(models.router(engine, rollouts, pools))
    api.include_router(v2.router(engine, pools=pools))
    api.include_router(antenna_router(engine, fetcher or ImageFetcher(engine.args), pools))
    api.include_router(_monitoring(engine, rollouts, gather, pools))
    api.add_middleware(detect.DetectShortcut, engine=engine)
    if pools is not None:
        api.add_middleware(PoolProxy, engine=engine, pools=pools)
    if engine.traces is not None:
        api.add_middleware(CallerSpans)
    protect(api, access, cors_origins, engine.admission.requests, engine.args.limits)
    if cors_origins:  # in front of the guard: a browser's preflight request has no token
        api.add_middleware(
            CORSMiddleware,
            allow_origins=cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    describe_scopes(api)
    return api


def _monitoring(
    engine: Engine, rollouts: RolloutClient | None, gather: Gather | None, pools: Pools | None
) -> APIRouter:
    """Return the routes of health, readiness and metrics, and /. The first two need no token, and ignore query
    parameters.
    """
    routes = APIRouter()

    @routes.get("/healthz")
    @any_query
    async def healthz() -> dict[str, str]:
        """Report that the process answers."""
        return {"status": "ok"}

    @routes.get("/readyz", responses={503: PROBLEMS[503]})
    @any_query
    async def readyz() -> dict[str, Any]:
        """Succeed if at least one model is loaded and each pool answers. `failures` names the models and aliases that
        do not serve, and why.
        """
        serving = await serving_everywhere(engine.serving(), pools)
        serving.require_ready(engine.store.url)
        return {"status": "ready", "loaded": sorted(set(serving.loaded)), "failures": serving.failures}

    @routes.get("/metrics", response_class=Response, tags=["metrics"])
    async def metrics() -> Response:
        """Return the Prometheus text format; each sample has the label `replica`."""
        texts = (await gather() if gather else {}) or {"": engine.exposition()}
        swaps, refused = await rollouts.counts() if rollouts else ({}, 0)
        return Response(merged(texts, swaps, refused), media_type=CONTENT_TYPE_LATEST)

    @routes.get("/", include_in_schema=False)
    @any_query
    async def root(request: Request) -> Response:
        """Redirect a browser to the page."""
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("ui/", 303)
        raise HTTPException(404)

    return routes
