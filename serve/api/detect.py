"""POST /v1/detect: encoded images to detections; one image as the body, or several in a form."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from model_store.names import REF
from serve.api.answers import to_response
from serve.api.bodies import IMAGE_BODY, PROBLEMS
from serve.api.headers import REQUEST_ID, deadline_of, request_id_of
from serve.api.multipart import answer_images
from serve.api.schemas import DetectAnswer, DetectResponse, FormResponse
from serve.inference.engine import Engine

DetectorRef = Annotated[
    str,
    Query(
        description="name, name@version or name:alias",
        json_schema_extra={"pattern": f"^{REF}$"},  # for OpenAPI; parse_ref validates
    ),
]
MinScore = Annotated[
    float | None, Query(ge=0, le=1, description="minimum score of a detection; default: the model's own thresholds")
]


def router(engine: Engine) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/detect", response_model=DetectAnswer, responses=PROBLEMS, openapi_extra=IMAGE_BODY)
    async def detect(request: Request, model: DetectorRef, min_score: MinScore = None) -> Response:
        """Detect in one image, sent as the raw body, or in each file of a form."""
        deadline_s, request_id = deadline_of(request), request_id_of(request)

        async def answer(body: bytes) -> DetectResponse:
            return to_response(await engine.detect(body, model, deadline_s, request_id), min_score)

        text = (await answer_images(engine, request, answer, FormResponse)).model_dump_json()
        return Response(text, headers={REQUEST_ID: request_id}, media_type="application/json")

    return routes
