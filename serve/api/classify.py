"""POST /v1/classify: encoded images to their best classes; one image as the body, or several in a form."""

from __future__ import annotations

import math
import re
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from model_store.errors import BadRequest
from model_store.images.crops import Box
from model_store.names import REF
from serve.api.answers import to_classes
from serve.api.bodies import IMAGE_BODY, PROBLEMS
from serve.api.headers import REQUEST_ID, deadline_of, request_id_of
from serve.api.multipart import answer_images
from serve.api.schemas import ClassifyAnswer, ClassifyFormResponse, ClassifyResponse
from serve.inference.engine import Engine

MAX_CLASSES = 1000
_NUMBER = r"[+-]?[0-9]{1,9}(\.[0-9]{1,9})?"
BOX = rf"^{_NUMBER}(,{_NUMBER}){{3}}$"


def router(engine: Engine) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/classify", response_model=ClassifyAnswer, responses=PROBLEMS, openapi_extra=IMAGE_BODY)
    async def classify(
        request: Request,
        model: Annotated[
            str,
            Query(
                description="name, name@version or name:alias of a classifier",
                json_schema_extra={"pattern": f"^{REF}$"},  # for OpenAPI; parse_ref validates
            ),
        ],
        top: Annotated[int, Query(ge=1, le=MAX_CLASSES, description="number of classes, best first")] = 5,
        box: Annotated[
            str | None,
            Query(
                description="x1,y1,x2,y2 in px of the upright image: classify this crop only",
                json_schema_extra={"pattern": BOX},
            ),
        ] = None,
    ) -> Response:
        """Classify one image, sent as the raw body, or each file of a form."""
        deadline_s, request_id, box_xyxy_px = (deadline_of(request), request_id_of(request), box_of(box))

        async def answer(body: bytes) -> ClassifyResponse:
            classes = await engine.classify(body, model, box_xyxy_px, deadline_s, request_id)
            return to_classes(classes, top)

        response = await answer_images(engine, request, answer, ClassifyFormResponse)
        text = response.model_dump_json()
        return Response(text, headers={REQUEST_ID: request_id}, media_type="application/json")

    return routes


def box_of(text: str | None) -> Box | None:
    """Parse `x1,y1,x2,y2`; return None for None. Raises BadRequest for an invalid box."""
    if text is None:
        return None
    sides = [float(part) for part in text.split(",")] if re.fullmatch(BOX, text) else [math.nan] * 4
    x1, y1, x2, y2 = sides
    if not (x1 < x2 and y1 < y2):
        raise BadRequest(f"invalid box '{text[:64]}': use x1,y1,x2,y2 in px, with x1 < x2 and y1 < y2")
    return x1, y1, x2, y2
