"""The wire contract of /v2: what is read from requests, and what the answers without tensors are.

Fields that v2 does not know are ignored, and null is as absent; parameters of a request are refused
when unknown, since they change the answer.
"""

# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false
# (validators before the model see any JSON)

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model_store.errors import BadRequest, ImageTooLarge
from model_store.names import VERSION
from serve.contract import Wire

MOST_OBJECTS, MOST_LISTS = 1_000, 200_000
"""A request has a few objects, and not more lists than its tensor has rows. Each takes 60 bytes and more."""
MOST_VALUES, JSON_MIB = 500_000, 8
"""Values and size of the JSON in a request, and values in that of an answer: reading or writing so much holds the
interpreter for less than 0.1 s. Compressed, it is a body of a few KiB."""
IN_BINARY = "send tensors in binary: parameter binary_data_size, see docs/v2.md"
MOST_FIELDS = 256
"""Of an object that is looked at: each that is wrong costs an error."""

Length = Annotated[int, Field(ge=0, lt=2**63)]
"""The range of INT64; a product of 8 lengths can still be printed."""
Name = Annotated[str, Field(max_length=256)]


class Sent(BaseModel):
    """Something in a request."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if len(value) > MOST_FIELDS:
            raise ValueError(f"{len(value)} fields are more than {MOST_FIELDS}")
        return {key: item for key, item in value.items() if item is not None}


class InputParameters(Sent):
    binary_data_size: Length | None = None
    shared_memory_region: str | None = None


class InputTensor(Sent):
    name: Name
    shape: list[Length] = Field(max_length=8)
    datatype: str = Field(max_length=16)
    parameters: InputParameters = InputParameters()
    data: Any = Field(default=None, description="row-major, flat or nested; absent if binary")


class OutputParameters(Sent):
    binary_data: bool | None = None
    classification: int | None = None
    shared_memory_region: str | None = None


class OutputRequest(Sent):
    name: Name
    parameters: OutputParameters = OutputParameters()


class RequestParameters(Sent):
    """Ours, and those of Triton's schedulers, which change nothing here."""

    model_config = ConfigDict(extra="forbid")

    min_score: float | None = Field(
        default=None, ge=0, le=1, description="of `image`; default: the model's own thresholds"
    )
    binary_data_output: bool = False
    sequence_id: int | str | None = None
    sequence_start: bool = False
    sequence_end: bool = False
    priority: int | None = None
    timeout: int | None = None


class InferRequest(Sent):
    id: str | None = Field(default=None, max_length=1024)
    parameters: RequestParameters = RequestParameters()
    inputs: list[InputTensor] = Field(min_length=1, max_length=64)
    outputs: list[OutputRequest] = Field(default=[], max_length=1024)


class IndexRequest(Sent):
    ready: bool = Field(default=False, description="only what is loaded")


class RepositoryRequest(Sent):
    parameters: dict[str, Any] = Field(
        default={},
        description="`version`: only this one",
        json_schema_extra={
            "properties": {
                "version": {"type": ["string", "null"], "pattern": f"^{VERSION.pattern}$"},
                "unload_dependents": {},
            },
            "additionalProperties": False,
        },
    )


class ErrorBody(Wire):
    """Every answer of /v2 that is not 200."""

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
    shape: list[int] = Field(description="-1 where any length will do")


class ModelMetadata(Wire):
    name: str
    versions: list[str] = Field(description="all that can be asked for, in no order")
    platform: str
    inputs: list[TensorMetadata] = Field(description="one of them to a request")
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


S = TypeVar("S", bound=Sent)


def parsed(kind: type[S], text: bytes) -> S:
    """Return the JSON object in a body. Raises BadRequest that names the wrong fields, ImageTooLarge."""
    _require_modest(text)
    try:
        return kind.model_validate(pydantic_core.from_json(text, allow_inf_nan=False))
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, e['loc'])) or 'the body'}: {e['msg']}" for e in error.errors()[:5]
        ]
        raise BadRequest("; ".join(wrong)) from error
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


def _require_modest(text: bytes) -> None:
    """Raise BadRequest or ImageTooLarge for JSON that would take much more memory or time than a request needs."""
    if len(text) > JSON_MIB << 20:
        raise ImageTooLarge(
            f"the JSON is {len(text) / 2**20:.1f} MiB, at most {JSON_MIB} are read: {IN_BINARY}"
        )
    objects, lists, values = text.count(b"{"), text.count(b"["), text.count(b",") + 1
    if objects > MOST_OBJECTS or lists > MOST_LISTS:
        raise BadRequest(
            f"the JSON has {objects} '{{' and {lists} '['; at most {MOST_OBJECTS} and {MOST_LISTS} are "
            "read. Send tensors flat, or in binary"
        )
    if values > MOST_VALUES:
        raise BadRequest(
            f"the JSON has {values} values, at most {MOST_VALUES} are read: {IN_BINARY}"
        )


def schema_of(kind: type[Sent]) -> dict[str, Any]:
    """Its JSON schema in one piece, for request bodies that FastAPI does not read itself."""
    whole = kind.model_json_schema()
    parts: dict[str, Any] = whole.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, list):
            return [inlined(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return inlined(parts[value["$ref"].rpartition("/")[2]])
        found = {key: inlined(item) for key, item in value.items()}
        if "properties" in found:
            found["properties"] = _null_allowed(found["properties"], found.get("required", []))
        return found

    return inlined(whole)


def _null_allowed(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """What may be absent may be null as well."""
    null = {"type": "null"}
    return {
        name: one if name in required or null in one.get("anyOf", ()) else {"anyOf": [one, null]}
        for name, one in properties.items()
    }
