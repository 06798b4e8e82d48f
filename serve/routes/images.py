"""POST /v1/images: encoded images in, detections out, and both kept: the picture as a file, what was seen as rows.

GET /v1/images: what is in the archive, by what the published view says of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import Response

from archive.find import Wanted
from archive.uploads import CAMERA, require_camera
from serve.bounds import Room
from serve.contract import (
    DetectResponse,
    FoundImages,
    UploadAnswer,
    UploadFormResponse,
    UploadFormResult,
    UploadResponse,
    to_found,
    to_response,
    to_upload,
)
from serve.engine import Engine
from serve.parameters import any_query
from serve.routes.bodies import FULL, IMAGE_BODY, PROBLEMS, read_body
from serve.routes.detect import DetectorRef, MinScore
from serve.routes.forms import each_file
from serve.routes.headers import REQUEST_ID, deadline_of, request_id_of
from serve.routes.multipart import is_form
from serve.uploads import Recording, Uploads, recorded, wait_for_rows

MOST_WAIT_S = 30.0
OTHERS = ["HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


def router(engine: Engine, uploads: Uploads) -> APIRouter:
    routes = APIRouter()
    waiting = Room(2 * engine.args.limits.online_queue, "requests wait for their rows")

    @routes.post(
        "/v1/images",
        response_model=UploadAnswer,
        status_code=201,
        responses={200: {"model": UploadAnswer, "description": "it was kept before"}}
        | PROBLEMS
        | FULL,
        openapi_extra=IMAGE_BODY,
    )
    async def upload(
        request: Request,
        model: DetectorRef,
        camera: Annotated[
            str,
            Query(
                description="where it is filed; the camera, unless the picture names its own",
                json_schema_extra={"pattern": f"^({CAMERA})?$"},  # require_camera says more
            ),
        ] = "",
        min_score: MinScore = None,
        wait_s: Annotated[
            float, Query(ge=0, le=MOST_WAIT_S, description="for its rows to be in the tables")
        ] = 0.0,
    ) -> Response:
        """Detect in one image, sent as the raw body, or in each file of a form, and keep both."""
        require_camera(camera)
        asked = Asked(
            model, camera, min_score, wait_s, deadline_of(request), request_id_of(request)
        )
        if is_form(request):
            form = await _form(engine, uploads, request, asked, waiting)
            status, text = 200, form.model_dump_json()
        else:
            with engine.slot():
                limits = engine.args.limits
                with engine.counted():
                    body = await read_body(request, limits.body_mib, limits.body_s)
                one = await _kept(engine, uploads, body, asked)
            await _wait(waiting, [one.recording], wait_s)  # its place is free again
            answer = one.told()
            status, text = 201 if answer.media.is_new else 200, answer.model_dump_json()
        headers = {REQUEST_ID: asked.request_id}
        return Response(text, status, media_type="application/json", headers=headers)

    @routes.get("/v1/images", responses=PROBLEMS)
    async def images(wanted: Annotated[Wanted, Query()]) -> FoundImages:
        """Images for which all that is asked holds: the newest first, undated ones last."""
        return to_found(await uploads.tables.find(wanted))

    @routes.api_route("/v1/images", methods=OTHERS, include_in_schema=False)
    @any_query
    async def other() -> None:
        """Starlette would name the methods of the first route alone."""
        raise HTTPException(405, headers={"Allow": "GET, POST"})

    return routes


class Asked(NamedTuple):
    """What a request wants of each of its images."""

    model: str
    camera: str
    min_score: float | None
    wait_s: float
    deadline_s: float | None
    request_id: str


class Sent(NamedTuple):
    """What was seen in a picture that is kept."""

    seen: DetectResponse
    recording: Recording

    def told(self) -> UploadResponse:
        return to_upload(self.seen, self.recording.kept, recorded(self.recording))


async def _kept(engine: Engine, uploads: Uploads, body: bytes, asked: Asked) -> Sent:
    """Of one image; call it inside a slot. An image that cannot be answered is not kept."""
    found = await engine.detect(body, asked.model, asked.deadline_s, asked.request_id)
    recording = await uploads.keep(body, asked.camera, found)
    return Sent(to_response(found, asked.min_score), recording)


async def _wait(waiting: Room, recordings: Sequence[Recording], wait_s: float) -> None:
    """Wait for rows, unless too many requests already do: the answer then tells what is known at once."""
    if wait_s and not waiting.is_full:
        with waiting.place():
            await wait_for_rows(recordings, wait_s)


async def _form(
    engine: Engine, uploads: Uploads, request: Request, asked: Asked, waiting: Room
) -> UploadFormResponse:
    """Raises BadRequest and ImageTooLarge for the form; what is wrong with a file is its own result."""

    async def answer(body: bytes) -> Sent:
        return await _kept(engine, uploads, body, asked)

    done = await each_file(engine, request, answer)
    recordings = [one.answer.recording for one in done if one.answer]
    await _wait(waiting, recordings, asked.wait_s)
    return UploadFormResponse(
        results=[
            UploadFormResult(
                name=one.name,
                status=one.status,
                answer=one.answer.told() if one.answer else None,
                problem=one.problem,
            )
            for one in done
        ]
    )
