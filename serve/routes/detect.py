"""POST /v1/detect: encoded images in, detections out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from serve.contract import DetectResponse, to_response
from serve.engine import Engine
from serve.routes.bodies import IMAGE_BODY, PROBLEMS, read_body


def router(engine: Engine) -> APIRouter:
    routes = APIRouter()

    @routes.post(
        "/v1/detect",
        response_model=DetectResponse,
        responses=PROBLEMS,
        openapi_extra=IMAGE_BODY,
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

    return routes
