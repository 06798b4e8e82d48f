"""POST /v1/detect, /v1/classify and /v1/embed: encoded images to detections and their classes, classes, or vectors.

The body is one image, or a form of several. `DetectShortcut` answers one image with a plain query without the
framework's routing and validation, which take a fifth of the event loop's time (docs/decisions/0032).
"""

from __future__ import annotations

import math
import re
from typing import Annotated
from urllib.parse import unquote

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from model_store.classifier import Classifier
from model_store.embedder import Embedder
from model_store.errors import BadRequest, ResightError
from model_store.images.crops import Box
from model_store.names import REF, parse_ref
from serve.api import schemas
from serve.api.answers import TOP, to_classes, to_response, to_vector, with_classes
from serve.api.bodies import IMAGE_BODY, PROBLEMS
from serve.api.headers import REQUEST_ID, deadline_of, request_id_of
from serve.api.multipart import answer_images, is_form
from serve.api.problems import CLIENT_CLOSED_REQUEST, of_error, with_id
from serve.inference.engine import Engine, sample_of
from serve.models.resolver import ResolvedModel

MAX_CLASSES = 1000
DETECT_PATH = "/v1/detect"
# parameters that are not here take the route, with the same answer
_PLAIN = re.compile(rb"model=((?:[\w.:@-]|%40|%3[Aa]){1,200})(?:&min_score=(0|1|0?\.[0-9]{1,9}))?")
_NUMBER = r"[+-]?[0-9]{1,9}(\.[0-9]{1,9})?"
BOX = rf"^{_NUMBER}(,{_NUMBER}){{3}}$"
PATTERN = {"pattern": f"^{REF}$"}  # for OpenAPI; parse_ref validates
DetectorRef = Annotated[str, Query(description="name, name@version or name:alias", json_schema_extra=PATTERN)]
ClassifierRef = Annotated[
    str, Query(description="name, name@version or name:alias of a classifier", json_schema_extra=PATTERN)
]
EmbedderRef = Annotated[
    str, Query(description="name, name@version or name:alias of an embedder", json_schema_extra=PATTERN)
]
MinScore = Annotated[
    float | None, Query(ge=0, le=1, description="minimum score of a detection; default: the model's own thresholds")
]
ThenRef = Annotated[
    str | None,
    Query(
        description="name, name@version or name:alias of a classifier of each detection's crop",
        json_schema_extra=PATTERN,
    ),
]
Top = Annotated[int, Query(ge=1, le=MAX_CLASSES, description="number of classes, best first")]
CropBox = Annotated[
    str | None,
    Query(description="x1,y1,x2,y2 in px of the upright image: only this crop", json_schema_extra={"pattern": BOX}),
]


def router(engine: Engine) -> APIRouter:
    routes = APIRouter()

    @routes.post(DETECT_PATH, response_model=schemas.DetectAnswer, responses=PROBLEMS, openapi_extra=IMAGE_BODY)
    async def detect(
        request: Request, model: DetectorRef, min_score: MinScore = None, then: ThenRef = None
    ) -> Response:
        """Detect in one image, sent as the raw body, or in each file of a form; then classify each detection."""
        return await answer_detect(engine, request, model, min_score, then)

    @routes.post("/v1/classify", response_model=schemas.ClassifyAnswer, responses=PROBLEMS, openapi_extra=IMAGE_BODY)
    async def classify(request: Request, model: ClassifierRef, top: Top = TOP, box: CropBox = None) -> Response:
        """Classify one image, sent as the raw body, or each file of a form."""
        deadline_s, request_id, box_xyxy_px = deadline_of(request), request_id_of(request), box_of(box)

        async def answer(body: bytes) -> schemas.ClassifyResponse:
            values = await engine.infer_crop(Classifier, body, model, box_xyxy_px, deadline_s, request_id)
            return to_classes(values, top)

        text = (await answer_images(engine, request, answer, schemas.ClassifyFormResponse)).model_dump_json()
        return Response(text, headers={REQUEST_ID: request_id}, media_type="application/json")

    @routes.post("/v1/embed", response_model=schemas.EmbedAnswer, responses=PROBLEMS, openapi_extra=IMAGE_BODY)
    async def embed(request: Request, model: EmbedderRef, box: CropBox = None) -> Response:
        """Return a vector of one image, sent as the raw body, or of each file of a form."""
        deadline_s, request_id, box_xyxy_px = deadline_of(request), request_id_of(request), box_of(box)

        async def answer(body: bytes) -> schemas.EmbedResponse:
            return to_vector(await engine.infer_crop(Embedder, body, model, box_xyxy_px, deadline_s, request_id))

        text = (await answer_images(engine, request, answer, schemas.EmbedFormResponse)).model_dump_json()
        return Response(text, headers={REQUEST_ID: request_id}, media_type="application/json")

    return routes


async def answer_detect(
    engine: Engine, request: Request, model: str, min_score: float | None, then: str | None = None
) -> Response:
    """Return the response of the image that is the body, or of each file of a form. Raises as `answer_images`."""
    deadline_s, request_id = deadline_of(request), request_id_of(request)

    async def answer(body: bytes) -> schemas.DetectResponse:
        second = None if then is None else await _classifier(engine, body, model, then, request_id)
        found = to_response(await engine.detect(body, model, deadline_s, request_id), min_score)
        if second is None:
            return found
        with engine.observer.failures(second, request_id):
            _require_few(len(found.detections), engine.args.limits.online_queue)
        boxes = [detection.box_xyxy_px for detection in found.detections]
        return with_classes(found, await engine.classify_boxes(body, second, boxes, deadline_s, request_id))

    text = (await answer_images(engine, request, answer, schemas.FormResponse)).model_dump_json()
    return Response(text, headers={REQUEST_ID: request_id}, media_type="application/json")


async def _classifier(engine: Engine, body: bytes, model: str, then: str, request_id: str) -> ResolvedModel:
    """Return the classifier of a detector's boxes. Raises what the resolver raises, and BadRequest for another kind of
    model, or one of another pool.
    """
    with engine.observer.failures(then, request_id):
        if not engine.placement.serves(parse_ref(then).name):
            raise BadRequest(f"{then} and {model} are in different pools: place both in one (deployment.json)")
        second = await engine.resolver.get(then, sample_of(body))
        second.crop_model(Classifier)
    return second


def _require_few(boxes: int, most: int) -> None:
    if boxes > most:
        raise BadRequest(
            f"then: {boxes} detections, and at most {most} are classified in a request (limits.online_queue): raise "
            "min_score"
        )


class DetectShortcut:
    """Middleware that answers POST /v1/detect with one image and a plain query; the routes answer all else.

    A query is plain if no framework is needed to see that it is valid. The response is that of the route.
    """

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        self.app, self._engine = app, engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_detect = scope["type"] == "http" and scope["path"] == DETECT_PATH and scope["method"] == "POST"
        query = _PLAIN.fullmatch(scope["query_string"]) if is_detect else None
        if query is None or is_form(request := Request(scope, receive)):
            await self.app(scope, receive, send)
            return
        model, score = unquote(query[1].decode()), query[2]
        try:
            response = await answer_detect(self._engine, request, model, None if score is None else float(score))
        except ResightError as error:
            response = with_id(of_error(error, DETECT_PATH), request)
        except ClientDisconnect:
            response = Response(status_code=CLIENT_CLOSED_REQUEST)
        await response(scope, receive, send)


def box_of(text: str | None) -> Box | None:
    """Parse `x1,y1,x2,y2`; return None for None. Raises BadRequest for an invalid box."""
    if text is None:
        return None
    x1, y1, x2, y2 = map(float, text.split(",")) if re.fullmatch(BOX, text) else [math.nan] * 4
    if not (x1 < x2 and y1 < y2):
        raise BadRequest(f"invalid box '{text[:64]}': use x1,y1,x2,y2 in px, with x1 < x2 and y1 < y2")
    return x1, y1, x2, y2
