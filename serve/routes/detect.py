"""POST /v1/detect: encoded images in, detections out; one as the body, or several in a form."""

from __future__ import annotations

import asyncio
from typing import Annotated, NamedTuple

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from model_store.errors import ResightError
from model_store.names import REF
from serve.contract import DetectAnswer, FormResponse, FormResult, Problem, to_response
from serve.engine import Engine
from serve.problems import of_error, problem
from serve.routes.bodies import IMAGE_BODY, PROBLEMS, read_body
from serve.routes.headers import REQUEST_ID, deadline_of, request_id_of
from serve.routes.multipart import FormFile, files_of, is_form

log = structlog.get_logger("resight.serve")


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
        model: Annotated[
            str,
            Query(
                description="name, name@version or name:alias",
                json_schema_extra={"pattern": f"^{REF}$"},  # documented; parse_ref says more
            ),
        ],
        min_score: Annotated[
            float | None, Query(ge=0, le=1, description="default: the model's own thresholds")
        ] = None,
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
    """Each file is worked on as soon as it is here, while the next ones arrive.

    Raises BadRequest and ImageTooLarge for the form; what is wrong with a file is its own result.
    """

    async def result(file: FormFile) -> FormResult:
        try:
            found = await engine.detect(
                file.take(), asked.model, asked.deadline_s, asked.request_id
            )
            answer = to_response(found, asked.min_score)
        except ResightError as error:
            wrong = of_error(error)
        except Exception as error:
            log.exception("form_file_failed", name=file.name)
            wrong = problem(500, "InternalError", f"{type(error).__name__}; see the replica's log")
        else:
            return FormResult(name=file.name, status=200, answer=answer)
        told = Problem.model_validate_json(bytes(wrong.body))
        return FormResult(name=file.name, status=wrong.status_code, problem=told)

    results: list[asyncio.Task[FormResult]] = []
    try:
        async for file in files_of(request, engine.args.limits, engine.slot):
            results.append(asyncio.create_task(result(file)))
            results[-1].add_done_callback(lambda _, file=file: file.slot.close())
        return FormResponse(results=await asyncio.gather(*results))
    finally:
        for task in results:
            task.cancel()
        await asyncio.gather(*results, return_exceptions=True)
