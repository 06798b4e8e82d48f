"""POST /v1/images: detect in encoded images; store each image as a file and its detections as rows.

GET /v1/images: search the images of the archive by the rows of the published view.
GET /v1/detections/ID/similar: the detections of the view that look like one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import Response

from archive.catalogue.uploads import CAMERA, require_camera
from archive.views.indexed_search import IndexedSearch
from archive.views.search import ImageSearch
from archive.views.similar import DETECTION_ID, SimilarOptions, SimilarSearch
from serve.api.answers import to_found, to_response, to_similar, to_upload
from serve.api.base import any_query
from serve.api.bodies import FULL, IMAGE_BODY, PROBLEMS
from serve.api.detect import DetectorRef, MinScore
from serve.api.headers import REQUEST_ID, deadline_of, request_id_of
from serve.api.multipart import FormFile, answer_image, each_file, is_form
from serve.api.schemas import (
    DetectResponse,
    FoundImages,
    SimilarDetections,
    UploadAnswer,
    UploadFormResponse,
    UploadResponse,
)
from serve.auth.scopes import IDENTITY
from serve.inference.engine import Engine
from serve.inference.results import Answer
from serve.settings import Settings
from serve.uploads.uploads import Recording, Uploads

MAX_WAIT_S = 30.0
DetectionId = Annotated[
    str, Path(description="<media_sha256>-<rank>", json_schema_extra={"pattern": f"^{DETECTION_ID}$"})
]
OTHERS = ["HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


def router(engine: Engine, uploads: Uploads) -> APIRouter:
    routes = APIRouter()

    @routes.post(
        "/v1/images",
        response_model=UploadAnswer,
        status_code=201,
        responses={200: {"model": UploadAnswer, "description": "the image was already stored"}} | PROBLEMS | FULL,
        openapi_extra=IMAGE_BODY,
    )
    async def upload(
        request: Request,
        model: DetectorRef,
        camera: Annotated[
            str,
            Query(
                description="where the image is filed; also its camera, unless the image names one",
                # for OpenAPI; require_camera validates
                json_schema_extra={"pattern": f"^({CAMERA})?$"},
            ),
        ] = "",
        min_score: MinScore = None,
        wait_s: Annotated[
            float, Query(ge=0, le=MAX_WAIT_S, description="maximum wait for the rows to be in the tables, in s")
        ] = 0.0,
    ) -> Response:
        """Detect in one image, sent as the raw body, or in each file of a form; store images and detections."""
        require_camera(camera)
        deadline_s, request_id = deadline_of(request), request_id_of(request)

        async def detect(body: bytes) -> tuple[bytes, Answer]:
            return body, await engine.detect(body, model, deadline_s, request_id)

        async def store(body: bytes, answer: Answer) -> StoredImage:
            """Store an image, which has no place among the images: its disk may hang."""
            with engine.observer.errors():
                recording = await uploads.keep(body, camera, answer, request.scope.get(IDENTITY))
            return StoredImage(to_response(answer, min_score), recording)

        async def detect_and_store(file: FormFile) -> StoredImage:
            """Detect in one file and store it. An image that fails is not stored."""
            detected = await detect(file.take())
            file.slot.close()
            return await store(*detected)

        if is_form(request):
            files = await each_file(engine, request, detect_and_store)
            await wait([file.answer.recording for file in files if file.answer], wait_s)
            results = [file._asdict() | {"answer": file.answer and file.answer.response()} for file in files]
            status, text = 200, UploadFormResponse.model_validate({"results": results}).model_dump_json()
        else:
            stored = await store(*await answer_image(engine, request, detect))
            await wait([stored.recording], wait_s)
            response = stored.response()
            status, text = 201 if response.media.is_new else 200, response.model_dump_json()
        headers = {REQUEST_ID: request_id}
        return Response(text, status, headers=headers, media_type="application/json")

    async def wait(recordings: Sequence[Recording], wait_s: float) -> None:
        """Wait for rows, unless too many requests already wait; the response then reports the current state."""
        room = engine.admission.uploads
        if recordings and wait_s and not room.is_full:
            with room.place():
                await asyncio.wait({recording.rows for recording in recordings}, timeout=wait_s)

    @routes.get("/v1/images", responses=PROBLEMS)
    async def images(wanted: Annotated[ImageSearch, Query()]) -> FoundImages:
        """Return the images that match all parameters: newest first, undated ones last."""
        search = IndexedSearch(folder=str(Settings().index_path), **wanted.model_dump())
        return to_found(await uploads.tables.find(search))

    @routes.get("/v1/detections/{detection}/similar", responses=PROBLEMS)
    async def similar(wanted: Annotated[SimilarOptions, Query()], detection: DetectionId) -> SimilarDetections:
        """Return the detections of a view that look like one of them, nearest first."""
        search = SimilarSearch(detection=detection, folder=str(Settings().vectors_path), **wanted.model_dump())
        return to_similar(await uploads.tables.find(search))

    @routes.api_route("/v1/images", methods=OTHERS, include_in_schema=False)
    @any_query
    async def other() -> None:
        """Raise 405 with the methods of both routes; Starlette would name those of the first route only."""
        raise HTTPException(405, headers={"Allow": "GET, POST"})

    return routes


class StoredImage(NamedTuple):
    """Detections of a stored image."""

    detected: DetectResponse
    recording: Recording

    def response(self) -> UploadResponse:
        return to_upload(self.detected, self.recording.kept, self.recording.is_recorded())
