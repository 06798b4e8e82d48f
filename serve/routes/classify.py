"""POST /v1/classify: encoded images in, the best classes out; one as the body, or several in a form."""

from __future__ import annotations

import math
import re
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from model_store.crops import Box
from model_store.errors import BadRequest
from model_store.names import REF
from serve.contract import (
    ClassifyAnswer,
    ClassifyFormResponse,
    ClassifyFormResult,
    ClassifyResponse,
    to_classes,
)
from serve.engine import Engine
from serve.routes.bodies import IMAGE_BODY, PROBLEMS, read_body
from serve.routes.forms import each_file
from serve.routes.headers import REQUEST_ID, deadline_of, request_id_of
from serve.routes.multipart import is_form

MOST_CLASSES = 1000
_NUMBER = r"[+-]?[0-9]{1,9}(\.[0-9]{1,9})?"
BOX = rf"^{_NUMBER}(,{_NUMBER}){{3}}$"


def router(engine: Engine) -> APIRouter:
    routes = APIRouter()

    @routes.post(
        "/v1/classify",
        response_model=ClassifyAnswer,
        responses=PROBLEMS,
        openapi_extra=IMAGE_BODY,
    )
    async def classify(
        request: Request,
        model: Annotated[
            str,
            Query(
                description="name, name@version or name:alias of a classifier",
                json_schema_extra={"pattern": f"^{REF}$"},  # documented; parse_ref says more
            ),
        ],
        top: Annotated[
            int, Query(ge=1, le=MOST_CLASSES, description="how many classes, best first")
        ] = 5,
        box: Annotated[
            str | None,
            Query(
                description="x1,y1,x2,y2 in px of the upright image: that crop instead of all of it",
                json_schema_extra={"pattern": BOX},
            ),
        ] = None,
    ) -> Response:
        """The best classes of one image, sent as the raw body, or of each file of a form."""
        asked = Asked(model, top, box_of(box), deadline_of(request), request_id_of(request))
        if is_form(request):
            text = (await classify_form(engine, request, asked)).model_dump_json()
        else:
            with engine.slot():
                limits = engine.args.limits
                with engine.counted():
                    body = await read_body(request, limits.body_mib, limits.body_s)
                text = (await answered(engine, body, asked)).model_dump_json()
        headers = {REQUEST_ID: asked.request_id}
        return Response(text, media_type="application/json", headers=headers)

    return routes


class Asked(NamedTuple):
    """What a request wants of each of its images."""

    model: str
    top: int
    box_xyxy_px: Box | None
    deadline_s: float | None
    request_id: str


async def answered(engine: Engine, body: bytes, asked: Asked) -> ClassifyResponse:
    """Of one image; call it inside a slot. Raises as `Engine.classify`."""
    found = await engine.classify(
        body, asked.model, asked.box_xyxy_px, asked.deadline_s, asked.request_id
    )
    return to_classes(found, asked.top)


async def classify_form(engine: Engine, request: Request, asked: Asked) -> ClassifyFormResponse:
    """The same box of each file. Raises BadRequest and ImageTooLarge for the form."""

    async def answer(body: bytes) -> ClassifyResponse:
        return await answered(engine, body, asked)

    done = await each_file(engine, request, answer)
    return ClassifyFormResponse(
        results=[
            ClassifyFormResult(
                name=one.name, status=one.status, answer=one.answer, problem=one.problem
            )
            for one in done
        ]
    )


def box_of(text: str | None) -> Box | None:
    """Raises BadRequest for what is no box."""
    if text is None:
        return None
    sides = [float(part) for part in text.split(",")] if re.fullmatch(BOX, text) else [math.nan] * 4
    x1, y1, x2, y2 = sides
    if not (x1 < x2 and y1 < y2):
        raise BadRequest(
            f"box: '{text[:64]}' is no box: write x1,y1,x2,y2 in px, left and top before right and bottom"
        )
    return x1, y1, x2, y2
