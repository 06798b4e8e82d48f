"""The HTTP API of a detector replica; knows no Ray. docs at /docs, schema at /openapi.json.

POST /v1/detect?model=name[@version|:alias]   raw image body -> DetectResponse
GET  /v1/models   POST /v1/models/reload   GET /healthz   GET /readyz
"""

from __future__ import annotations

import asyncio
import hmac
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Request
from fastapi.responses import Response

from model_store.errors import BadRequest, ImageTooLarge, ModelNotReady, Unauthorized
from serve import problems
from serve.contract import DetectResponse, ModelsResponse, Problem, to_response
from serve.engine import Engine
from serve.model_status import model_statuses

IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("image/jpeg", "image/png", "image/webp", "image/tiff", "image/bmp")
        },
    }
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "the image is damaged, or a parameter is wrong",
        401: "a bearer token is needed",
        404: "no such model; lists what exists",
        413: "too many bytes or pixels",
        415: "not an image Resight decodes",
        429: "queue full, see Retry-After",
        503: "the model cannot answer now",
    }.items()
}


def build_http_api(engine: Engine, token: str = "") -> FastAPI:
    """Routes over an engine; with a `token`, all of /v1 needs `Authorization: Bearer TOKEN`."""
    api = FastAPI(title="Resight", summary="Versioned detectors over HTTP", redoc_url=None)
    problems.install(api)

    def authorized(authorization: Annotated[str, Header()] = "") -> None:
        if token and not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise Unauthorized("send the header 'Authorization: Bearer TOKEN'")

    guarded = [Depends(authorized)]

    @api.post(
        "/v1/detect",
        response_model=DetectResponse,
        responses=PROBLEMS,
        openapi_extra=IMAGE_BODY,
        dependencies=guarded,
    )
    async def detect(
        request: Request,
        model: Annotated[str, Query(description="name, name@version or name:alias")],
        min_score: Annotated[
            float | None, Query(ge=0, le=1, description="default: the model's own thresholds")
        ] = None,
    ) -> Response:
        """Detections in one image, sent as the raw body."""
        with engine.slot():
            body = await read_body(request, engine.args.limits.body_mib)
            answer = await engine.detect(body, model)
        return Response(
            to_response(answer, min_score).model_dump_json(), media_type="application/json"
        )

    @api.get("/v1/models", response_model=ModelsResponse, dependencies=guarded)
    async def models() -> ModelsResponse:
        """Every READY version in the store, its aliases, and what this replica has loaded."""
        statuses = await asyncio.to_thread(model_statuses, engine.store, engine.residents)
        return ModelsResponse(store=engine.store.url, models=statuses)

    @api.post("/v1/models/reload", response_model=ModelsResponse, dependencies=guarded)
    async def reload() -> ModelsResponse:
        """Read the alias files now (in the replica that answers; the others poll)."""
        await engine.residents.refresh()
        return await models()

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @api.get("/readyz", responses={503: PROBLEMS[503]})
    async def readyz() -> dict[str, Any]:
        """At least one model is loaded, and every alias points at one that is."""
        residents = engine.residents
        if residents.failures:
            raise ModelNotReady("; ".join(f"{a}: {why}" for a, why in residents.failures.items()))
        if not residents.loaded:
            raise ModelNotReady(
                f"no model is loaded: add one to {engine.store.url} with 'resight models add' and "
                "'resight models promote'"
            )
        return {"status": "ready", "loaded": [str(version) for version in residents.loaded]}

    return api


async def read_body(request: Request, limit_mib: int) -> bytes:
    """The raw body. Raises ImageTooLarge as soon as it is known, BadRequest for multipart or nothing."""
    limit = limit_mib * 1024 * 1024
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise BadRequest("send the image itself as the body: curl --data-binary @image.jpg")
    too_large = ImageTooLarge(f"the body is over the limit of {limit_mib} MiB")
    if int(request.headers.get("content-length") or 0) > limit:
        raise too_large
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise too_large
        parts.append(part)
    if not size:
        raise BadRequest("the body is empty: send the image itself, curl --data-binary @image.jpg")
    return b"".join(parts)
