"""POST /v1/detect: encoded images in, detections out; one as the body, or several in a form."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from model_store.names import REF
from serve.contract import DetectAnswer, DetectResponse, FormResponse, FormResult, to_response
from serve.engine import Engine
from serve.routes.bodies import IMAGE_BODY, PROBLEMS, read_body
from serve.routes.forms import each_file
from serve.routes.headers import REQUEST_ID, deadline_of, request_id_of
from serve.routes.multipart import is_form

DetectorRef = Annotated[
    str,
    Query(
        description="name, name@version or name:alias",
        json_schema_extra={"pattern": f"^{REF}$"},  # documented; parse_ref says more
    ),
]
MinScore = Annotated[
    float | None, Query(ge=0, le=1, description="default: the model's own thresholds")
]


def router(engine: Engine) -> APIRouter:
    routes = APIRouter()

    @routes.post(
        "/v1/detect",
        response_model=DetectAnswer,
        responses=PROBLEMS,
        openapi_extra=IMAGE_BODY,
    )
    async def detect(
        request: Request,
        model: DetectorRef,
        min_score: MinScore = None,
    ) -> Response:
        """Detections in one image, sent as the raw body, or in each file of a form."""
        asked = Asked(model, min_score, deadline_of(request), request_id_of(request))
        if is_form(request):
            text = (await detect_form(engine, request, asked)).model_dump_json()
        else:
            with engine.slot():
                limits = engine.args.limits
                with engine.counted():
                    body = await read_body(request, limits.body_mib, limits.body_s)
                found = await engine.detect(body, model, asked.deadline_s, asked.request_id)
            text = to_response(found, min_score).model_dump_json()
        headers = {REQUEST_ID: asked.request_id}
        return Response(text, media_type="application/json", headers=headers)

    return routes


class Asked(NamedTuple):
    """What a request wants of each of its images."""

    model: str
    min_score: float | None
    deadline_s: float | None
    request_id: str


async def detect_form(engine: Engine, request: Request, asked: Asked) -> FormResponse:
    """Raises BadRequest and ImageTooLarge for the form; what is wrong with a file is its own result."""

    async def answer(body: bytes) -> DetectResponse:
        found = await engine.detect(body, asked.model, asked.deadline_s, asked.request_id)
        return to_response(found, asked.min_score)

    done = await each_file(engine, request, answer)
    return FormResponse(
        results=[
            FormResult(name=one.name, status=one.status, answer=one.answer, problem=one.problem)
            for one in done
        ]
    )
