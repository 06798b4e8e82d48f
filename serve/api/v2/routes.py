"""/v2: the Open Inference Protocol over HTTP, with Triton's extensions (`docs/reference/v2.md`).

A path without a version selects the model's alias `production`; every path also accepts `name:alias` and
`name@version` as the name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from model_store.errors import ImageTooLarge
from model_store.libraries import resight_version
from model_store.names import NAME, REF, VERSION
from serve.api.base import any_query
from serve.api.bodies import SMALL_BYTES
from serve.api.headers import REQUEST_ID, deadline_of, request_id_of
from serve.api.limits import HeldUntilSent
from serve.api.v2 import repository, schemas
from serve.api.v2.bodies import read_body
from serve.api.v2.codec import HEADER_LENGTH, infer_response, read_request
from serve.api.v2.inference import infer as run_inference
from serve.api.v2.metadata import RawOutputs, Statistics, model_config, model_metadata
from serve.inference.admission import Room
from serve.inference.engine import Engine
from serve.models.pools import Pools, serving_everywhere

EXTENSIONS = ["model_repository", "model_configuration", "binary_tensor_data", "statistics"]
SMALL_MIB = 1
S = TypeVar("S", bound=schemas.RequestObject)
F = TypeVar("F", bound=Callable[..., Any])


def _path(name: str, text: str, pattern: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": text,
        "schema": {"type": "string", "pattern": f"^{pattern}$"},
    }


_MODEL = _path("model", "name, name:alias or name@version; a bare name selects its alias `production`", REF)
_ALONE = _path("model", "name, without an alias or a version", NAME.pattern)
_VERSION = _path("version", "an exact version", VERSION.pattern)


def each(
    routes: APIRouter, method: str, tail: str, extra: dict[str, Any] | None = None, **options: Any
) -> Callable[[F], F]:
    """Register an endpoint at a model's path, with the version in it and without; the endpoint gets neither."""

    def register(endpoint: F) -> F:
        for path, parameters in (
            ("/v2/models/{model}", [_MODEL]),
            ("/v2/models/{model}/versions/{version}", [_ALONE, _VERSION]),
        ):
            routes.add_api_route(
                path + tail,
                endpoint,
                methods=[method],
                openapi_extra={"parameters": parameters, **(extra or {})},
                **options,
            )
        return endpoint

    return register


async def model_ref(request: Request) -> str:
    """Return the model that the path names, with its version if any. Async, since FastAPI runs a `def` in a thread."""
    name, version = request.path_params["model"], request.path_params.get("version")
    return name if version is None else f"{name}@{version}"


Ref = Annotated[str, Depends(model_ref)]


def router(engine: Engine, pools: Pools | None = None) -> APIRouter:
    routes = APIRouter(responses=schemas.ERRORS, tags=["v2"])
    statistics = Statistics()
    raw_outputs = RawOutputs(engine)
    limits = engine.args.limits

    @routes.get("/v2/health/live")
    @any_query
    async def live() -> schemas.Live:
        """Report that the process answers."""
        return schemas.Live()

    @routes.get("/v2/health/ready")
    @any_query
    async def ready() -> schemas.Ready:
        """Succeed if at least one model is loaded and each pool answers."""
        serving = await serving_everywhere(engine.serving(), pools)
        serving.require_ready(engine.store.url)
        return schemas.Ready()

    @routes.get("/v2/", include_in_schema=False)
    @routes.get("/v2")
    async def server() -> schemas.ServerMetadata:
        """Return name, version and extensions."""
        return schemas.ServerMetadata(name="resight", version=resight_version(), extensions=EXTENSIONS)

    @routes.get("/v2/models/stats")
    async def all_stats() -> dict[str, Any]:
        """Return the counters of every version loaded in the replica that answers."""
        return {"model_stats": [statistics.of(version) for version in engine.models.names]}

    @each(routes, "GET", "")
    async def metadata(ref: Ref) -> schemas.ModelMetadata:
        """Return inputs, outputs and versions; load an exact version that is not loaded yet."""
        model = (await engine.resolver.get(ref)).model
        versions = await engine.lookups.run(engine.store.versions, model.info.name)
        return model_metadata(model, versions, await raw_outputs.of(model))

    @each(routes, "GET", "/config")
    async def config(ref: Ref) -> dict[str, Any]:
        """Return Triton's model configuration."""
        model = (await engine.resolver.get(ref)).model
        described = model_metadata(model, [], await raw_outputs.of(model))
        return model_config(model, described, engine.args.limits.online_queue)

    @each(routes, "GET", "/ready")
    async def model_ready(ref: Ref) -> schemas.ModelReady:
        """Report whether it is loaded in the replica that answers; load nothing."""
        return schemas.ModelReady(name=(await repository.loaded_version(engine, ref)).name)

    @each(routes, "GET", "/stats")
    async def stats(ref: Ref) -> dict[str, Any]:
        """Return counters of the replica that answers; without a version, of all loaded versions."""
        versions = await repository.loaded_versions(engine, ref)
        return {"model_stats": [statistics.of(version) for version in versions]}

    @each(
        routes,
        "POST",
        "/infer",
        schemas.tensor_body(schemas.InferRequest),
        response_model=schemas.InferResponse,
        responses=schemas.TENSOR_ANSWER,
    )
    async def infer(request: Request, ref: Ref, slots: HeldUntilSent) -> Response:
        """Convert images to detections, scores or vectors, or a tensor to the network's outputs; JSON or binary."""
        deadline_s, request_id = deadline_of(request), request_id_of(request)
        slots.enter_context(engine.admission.images.place())
        with engine.observer.errors():
            body = await read_body(request, limits.body_mib, limits.body_s)
        with engine.observer.failures(ref, request_id):
            parsed = await read_request(body, request.headers.get(HEADER_LENGTH))
        model, outputs = await run_inference(engine, statistics, parsed, ref, deadline_s, request_id, slots)
        answer = await infer_response(parsed, model, outputs, request.headers.get("accept-encoding", ""))
        answer.headers[REQUEST_ID] = request_id
        return answer

    async def small(request: Request, kind: type[S], room: Room) -> S:
        """Return a small JSON body, or {} if absent. Raises BadRequest, ImageTooLarge, TooSlow, Overloaded."""
        with room.place():
            body = await read_body(request, SMALL_MIB, limits.body_s)
        if len(body) > SMALL_BYTES:  # the decompressed JSON is parsed on the event loop
            raise ImageTooLarge(f"the body is over the limit of {SMALL_BYTES >> 10} KiB")
        return schemas.parsed(kind, body or b"{}")

    @routes.post("/v2/repository/index", openapi_extra=schemas.json_body(schemas.IndexRequest))
    async def index(request: Request) -> list[schemas.IndexEntry]:
        """Return every version, and whether it is loaded in the replica that answers or in one of its pool."""
        body = await small(request, schemas.IndexRequest, engine.admission.index)
        serving = await serving_everywhere(engine.serving(), pools)
        return await repository.index(engine, serving, body.ready)

    about_model = {"parameters": [_MODEL], **schemas.json_body(schemas.RepositoryRequest)}

    @routes.post("/v2/repository/models/{model}/load", openapi_extra=about_model)
    async def load(request: Request, ref: Ref) -> dict[str, Any]:
        """Load the versions that the aliases refer to, or the parameter `version`, into the replica that answers."""
        body = await small(request, schemas.RepositoryRequest, engine.admission.repository)
        await repository.load(engine, ref, body.parameters)
        return {}

    @routes.post("/v2/repository/models/{model}/unload", openapi_extra=about_model)
    async def unload(request: Request, ref: Ref) -> dict[str, Any]:
        """Release versions that no alias refers to from the replica that answers."""
        body = await small(request, schemas.RepositoryRequest, engine.admission.repository)
        await repository.unload(engine, ref, body.parameters)
        return {}

    return routes
