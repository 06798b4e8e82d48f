"""The wire contract of /v2: the objects in requests, the responses without tensors, and their OpenAPI.

Unknown fields are ignored, and null counts as absent. Unknown parameters of a request are refused, since they would
change the answer. The OpenAPI of bodies that are read by hand is here, as FastAPI cannot derive it.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal, TypeVar

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model_store.errors import BadRequest, ImageTooLarge
from model_store.frozen import wrong_fields
from model_store.names import VERSION
from serve.api.bodies import PROBLEMS
from serve.api.schemas import Wire

MAX_OBJECTS, MAX_LISTS = 1_000, 200_000
"""Maximum objects and lists in a request: it needs few objects, and one list a row of its tensor. Each takes at least
60 bytes."""
MAX_VALUES, JSON_MIB = 500_000, 8
"""Maximum values and size of the JSON in a request, and values in a response: they hold the interpreter for less than
0.1 s. Compressed, such a body is a few KiB."""
IN_BINARY = "send tensors in binary: parameter binary_data_size, see docs/reference/v2.md"
MAX_FIELDS = 256
"""Maximum fields of a validated object: each invalid one costs an error."""

Length = Annotated[int, Field(ge=0, lt=2**63)]
"""The range of INT64; a product of 8 lengths can still be printed."""
Name = Annotated[str, Field(max_length=256)]


class RequestObject(BaseModel):
    """Base of the objects in a request."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if len(value) > MAX_FIELDS:
            raise ValueError(f"{len(value)} fields are more than {MAX_FIELDS}")
        return {key: item for key, item in value.items() if item is not None}


class InputParameters(RequestObject):
    binary_data_size: Length | None = None
    shared_memory_region: str | None = None


class InputTensor(RequestObject):
    name: Name
    shape: list[Length] = Field(max_length=8)
    datatype: str = Field(max_length=16)
    parameters: InputParameters = InputParameters()
    data: Any = Field(default=None, description="row-major, flat or nested; absent if binary")


class OutputParameters(RequestObject):
    binary_data: bool | None = None
    classification: int | None = None
    shared_memory_region: str | None = None


class OutputRequest(RequestObject):
    name: Name
    parameters: OutputParameters = OutputParameters()


class RequestParameters(RequestObject):
    """Resight's parameters, and those of Triton's schedulers, which have no effect."""

    model_config = ConfigDict(extra="forbid")

    min_score: float | None = Field(
        default=None, ge=0, le=1, description="for `image`; default: the model's own thresholds"
    )
    binary_data_output: bool = False
    sequence_id: int | str | None = None
    sequence_start: bool = False
    sequence_end: bool = False
    priority: int | None = None
    timeout: int | None = None


class InferRequest(RequestObject):
    id: str | None = Field(default=None, max_length=1024)
    parameters: RequestParameters = RequestParameters()
    inputs: list[InputTensor] = Field(min_length=1, max_length=64)
    outputs: list[OutputRequest] = Field(default=[], max_length=1024)


class IndexRequest(RequestObject):
    ready: bool = Field(default=False, description="only loaded versions")


class RepositoryRequest(RequestObject):
    parameters: dict[str, Any] = Field(
        default={},
        description="`version`: only this version",
        json_schema_extra={
            "properties": {
                "version": {"type": ["string", "null"], "pattern": f"^{VERSION.pattern}$"},
                "unload_dependents": {},
            },
            "additionalProperties": False,
        },
    )


class ErrorBody(Wire):
    """Body of every response of /v2 that is not 200."""

    error: str


class Live(Wire):
    live: Literal[True] = True


class Ready(Wire):
    ready: Literal[True] = True


class ModelReady(Ready):
    name: str


class ServerMetadata(Wire):
    name: str
    version: str
    extensions: list[str]


class TensorMetadata(Wire):
    name: str
    datatype: str
    shape: list[int] = Field(description="-1 for a variable length")


class ModelMetadata(Wire):
    name: str
    versions: list[str] = Field(description="all available versions, unordered")
    platform: str
    inputs: list[TensorMetadata] = Field(description="a request has exactly one of them")
    outputs: list[TensorMetadata]


class IndexEntry(Wire):
    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class OutputTensor(Wire):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] | None = Field(default=None, description="`binary_data_size`")
    data: list[Any] | None = Field(default=None, description="flat; absent if binary")


class InferResponse(Wire):
    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, str] = Field(description="weights_sha256 and inference_key")
    outputs: list[OutputTensor]


S = TypeVar("S", bound=RequestObject)


def parsed(kind: type[S], text: bytes) -> S:
    """Parse the JSON object in a body. Raises BadRequest that names the invalid fields, ImageTooLarge."""
    _require_modest(text)
    try:
        return kind.model_validate(pydantic_core.from_json(text, allow_inf_nan=False))
    except ValidationError as error:
        raise BadRequest(wrong_fields(error, whole="the body")) from error
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


def _require_modest(text: bytes) -> None:
    """Raise BadRequest or ImageTooLarge for JSON that would take much more memory or time than a request needs."""
    if len(text) > JSON_MIB << 20:
        raise ImageTooLarge(f"the JSON is {len(text) / 2**20:.1f} MiB, the limit is {JSON_MIB}: {IN_BINARY}")
    objects, lists, values = text.count(b"{"), text.count(b"["), text.count(b",") + 1
    if objects > MAX_OBJECTS or lists > MAX_LISTS:
        raise BadRequest(
            f"the JSON has {objects} '{{' and {lists} '['; the limits are {MAX_OBJECTS} and "
            f"{MAX_LISTS}: send tensors flat, or in binary"
        )
    if values > MAX_VALUES:
        raise BadRequest(f"the JSON has {values} values, the limit is {MAX_VALUES}: {IN_BINARY}")


# schemas, not `model`: FastAPI would build a validator for each status of each route, which is most of its start
_ERROR: dict[str, Any] = {"application/json": {"schema": ErrorBody.model_json_schema()}}
_TEXTS = {status: answer["description"] for status, answer in PROBLEMS.items() if status != 415} | {
    400: "the request cannot be understood, or an image in it is damaged",
    404: "unknown model; the error lists what exists",
    413: "too many bytes",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": _ERROR} for status, text in _TEXTS.items()
}
BINARY: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
TENSOR_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"description": "JSON, followed by the outputs requested in binary", "content": BINARY}
}


def json_body(kind: type[RequestObject], required: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": schema_of(kind)}}
    return {"requestBody": {"required": required, "content": content}}


def tensor_body(kind: type[RequestObject]) -> dict[str, Any]:
    """Describe a JSON body that binary data may follow."""
    body = json_body(kind, required=True)
    body["requestBody"]["content"] |= BINARY
    return body


@functools.cache
def schema_of(kind: type[RequestObject]) -> dict[str, Any]:
    """Return the JSON schema without references, for request bodies that FastAPI does not read."""
    whole = kind.model_json_schema()
    parts: dict[str, Any] = whole.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, list):
            return [inlined(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return inlined(parts[value["$ref"].rpartition("/")[2]])
        schema = {key: inlined(item) for key, item in value.items()}
        if "properties" in schema:
            schema["properties"] = _null_allowed(schema["properties"], schema.get("required", []))
        return schema

    return inlined(whole)


def _null_allowed(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    null = {"type": "null"}
    return {
        name: schema if name in required or null in schema.get("anyOf", ()) else {"anyOf": [schema, null]}
        for name, schema in properties.items()
    }
