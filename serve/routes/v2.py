"""/v2: the Open Inference Protocol over HTTP, with Triton's extensions (`docs/v2.md`).

Without a version in the path the model's alias `production` answers; `name:alias` and `name@version`
stand for a name everywhere.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from model_store.errors import ImageTooLarge
from serve.bounds import SMALL_BODIES, Room
from serve.engine import Engine
from serve.parameters import any_query
from serve.routes.bodies import SMALL_BYTES
from serve.routes.headers import REQUEST_ID, deadline_of, request_id_of
from serve.sending import HeldUntilSent
from serve.serving import Everywhere, serving_everywhere
from serve.v2 import contract, repository
from serve.v2.bodies import read_body
from serve.v2.errors import V2Route
from serve.v2.inference import Wanted
from serve.v2.inference import infer as infer_asked
from serve.v2.metadata import RawOutputs, model_config, model_metadata, server_metadata
from serve.v2.openapi import ERRORS, MODEL, TENSOR_ANSWER, each, json_body, tensor_body
from serve.v2.request import HEADER_LENGTH, read_request
from serve.v2.response import infer_response
from serve.v2.statistics import Statistics

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
SMALL_MIB = 1
S = TypeVar("S", bound=contract.Sent)


async def model_ref(request: Request) -> str:
    """What the path names: a model as it stands, or with its version. (FastAPI runs a `def` in a thread.)"""
    name, version = request.path_params["model"], request.path_params.get("version")
    return name if version is None else f"{name}@{version}"


Ref = Annotated[str, Depends(model_ref)]


def router(
    engine: Engine, statistics: Statistics | None = None, pools: Everywhere | None = None
) -> APIRouter:
    """Routes over an engine; `statistics` are its own unless others feed them too."""
    routes = APIRouter(route_class=V2Route, responses=ERRORS, tags=["v2"])
    counted = statistics or Statistics()
    raw_outputs = RawOutputs(engine)
    residents, limits = engine.residents, engine.args.limits
    questions = Room(SMALL_BODIES, "bodies are being read")
    commands = Room(SMALL_BODIES, "bodies are being read")  # those of admins wait for no others

    @routes.get("/v2/health/live")
    @any_query
    async def live() -> contract.Live:
        """The process answers."""
        return contract.Live()

    @routes.get("/v2/health/ready")
    @any_query
    async def ready() -> contract.Ready:
        """Succeed if at least one model is loaded and each pool answers."""
        found = await serving_everywhere(residents, pools)
        found.require_ready(engine.store.url)
        return contract.Ready()

    @routes.get("/v2/", include_in_schema=False)
    @routes.get("/v2")
    async def server() -> contract.ServerMetadata:
        """Name, version and extensions."""
        return server_metadata()

    @routes.get("/v2/models/stats")
    async def all_stats() -> dict[str, Any]:
        """Counters of every version loaded in the replica that answers."""
        return {"model_stats": [counted.of(version) for version in residents.loaded]}

    @each(routes, "GET", "")
    async def metadata(ref: Ref) -> contract.ModelMetadata:
        """Inputs, outputs and versions; an exact version is loaded when it is not yet here."""
        detector = (await residents.get(ref)).detector
        versions = await engine.lookups.run(engine.store.versions, detector.info.name)
        return model_metadata(detector, versions, await raw_outputs.of(detector))

    @each(routes, "GET", "/config")
    async def config(ref: Ref) -> dict[str, Any]:
        """Triton's model configuration."""
        detector = (await residents.get(ref)).detector
        found = model_metadata(detector, [], await raw_outputs.of(detector))
        return model_config(detector, found, engine.args.limits.online_queue)

    @each(routes, "GET", "/ready")
    async def model_ready(ref: Ref) -> contract.ModelReady:
        """Whether it is loaded in the replica that answers; loads nothing."""
        return contract.ModelReady(name=(await repository.loaded_version(engine, ref)).name)

    @each(routes, "GET", "/stats")
    async def stats(ref: Ref) -> dict[str, Any]:
        """Counters in the replica that answers; without a version, of all that are loaded."""
        found = await repository.loaded_versions(engine, ref)
        return {"model_stats": [counted.of(version) for version in found]}

    @each(
        routes,
        "POST",
        "/infer",
        tensor_body(contract.InferRequest),
        response_model=contract.InferResponse,
        responses=TENSOR_ANSWER,
    )
    async def infer(request: Request, ref: Ref, slots: HeldUntilSent) -> Response:
        """Encoded images to detections, or a tensor to the network's outputs; JSON or binary."""
        wanted = Wanted(ref, deadline_of(request), request_id_of(request))
        slots.enter_context(engine.slot())
        with engine.counted():
            body = await read_body(request, limits.body_mib, limits.body_s)
        asked = await read_request(body, request.headers.get(HEADER_LENGTH))
        outcome = await infer_asked(engine, counted, asked, wanted, slots)
        coding = request.headers.get("accept-encoding", "")
        answer = await infer_response(asked, outcome, coding)
        answer.headers[REQUEST_ID] = wanted.request_id
        return answer

    @routes.post("/v2/repository/index", openapi_extra=json_body(contract.IndexRequest))
    async def index(request: Request) -> list[contract.IndexEntry]:
        """Every version, and whether it is loaded in the replica that answers, or in one of its pool."""
        asked = await _optional(request, contract.IndexRequest, limits.body_s, questions)
        found = await serving_everywhere(residents, pools)
        return await repository.index(engine, found, asked.ready)

    about_model = {"parameters": [MODEL], **json_body(contract.RepositoryRequest)}

    @routes.post("/v2/repository/models/{model}/load", openapi_extra=about_model)
    async def load(request: Request, ref: Ref) -> dict[str, Any]:
        """Load what the aliases mean, or the parameter `version`, into the replica that answers."""
        asked = await _optional(request, contract.RepositoryRequest, limits.body_s, commands)
        await repository.load(engine, ref, asked.parameters)
        return {}

    @routes.post("/v2/repository/models/{model}/unload", openapi_extra=about_model)
    async def unload(request: Request, ref: Ref) -> dict[str, Any]:
        """Release versions that no alias means from the replica that answers."""
        asked = await _optional(request, contract.RepositoryRequest, limits.body_s, commands)
        await repository.unload(engine, ref, asked.parameters)
        return {}

    @routes.api_route("/v2", methods=METHODS, include_in_schema=False)
    @routes.api_route("/v2/{rest:path}", methods=METHODS, include_in_schema=False)
    @any_query
    async def unknown(request: Request) -> Response:
        """What no route above answers, or answers by another method."""
        partly = [r for r in routes.routes if r.matches(request.scope)[0] is Match.PARTIAL]
        allowed = sorted({m for r in partly for m in getattr(r, "methods", None) or ()})
        if allowed:
            headers = {"Allow": ", ".join(allowed)}
            raise HTTPException(405, f"use {' or '.join(allowed)} here", headers)
        raise HTTPException(404, f"there is no {request.url.path[:200]}; see docs/v2.md")

    return routes


async def _optional(request: Request, kind: type[S], within_s: float, room: Room) -> S:
    """Return a small JSON body; no body is an empty object.

    Raises BadRequest, ImageTooLarge, TooSlow, Overloaded.
    """
    with room.place():
        body = await read_body(request, SMALL_MIB, within_s)
    if len(body) > SMALL_BYTES:  # inflated, it is read on the event loop
        raise ImageTooLarge(f"the body is over the limit of {SMALL_BYTES >> 10} KiB")
    return contract.parsed(kind, body or b"{}")
