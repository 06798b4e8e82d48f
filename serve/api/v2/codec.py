"""Parse infer requests and build their responses: JSON, followed by the binary data of tensors in order.

JSON expands to many times its size, so large JSON is parsed one body at a time, in another process. `data` becomes an
array or bytes immediately.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi.responses import Response
from numpy.typing import NDArray

from model_store.errors import BadRequest
from model_store.store import ModelInfo
from serve.api.v2.bodies import LOOKED_THROUGH, accepted_coding, deflated, off_loop, with_json
from serve.api.v2.schemas import MAX_VALUES, InferRequest, InferResponse, InputTensor, OutputRequest, parsed
from serve.api.v2.tensors import TensorData, binary_outputs, from_json, json_outputs

HEADER_LENGTH = "Inference-Header-Content-Length"
_LENGTH = re.compile(r"[0-9]{1,18}")
"""Value of the HTTP header: bytes of JSON in front. Without the header the whole body is JSON."""


@dataclass(frozen=True, slots=True, eq=False)
class ParsedRequest:
    """A parsed request; `data` is removed from its header and its input."""

    header: InferRequest
    input: InputTensor
    data: TensorData | None
    """Binary data is a view of the body; None without data that the input accepts."""
    size_bytes: int
    """Size of the body, as a measure of the work for its tensors."""

    def outputs(self, available: list[str]) -> dict[str, bool]:
        """Return the requested outputs by name, and whether in binary; all, if none is named. Raises BadRequest."""
        default, wanted = self.header.parameters.binary_data_output, self.header.outputs
        names = [output.name for output in wanted]
        unknown = [name for name in names if name not in available]
        if unknown or len(set(names)) < len(names):
            raise BadRequest(
                f"output '{(unknown or names)[0]}' is unknown or requested twice; input "
                f"'{self.input.name}' gives {', '.join(available)}"
            )
        if not wanted:
            return dict.fromkeys(available, default)
        return {output.name: _in_binary(output, default) for output in wanted}


async def read_request(body: bytes, header_length: str | None) -> ParsedRequest:
    """Parse a body; `header_length` is the HTTP header. Raises BadRequest, ImageTooLarge."""
    length = _length(header_length, len(body))
    text = body if length == len(body) else body[:length]
    header, data = await with_json(length, parse_json, text)
    (tensor,) = header.inputs
    binary = _binary(tensor, memoryview(body)[length:])
    return ParsedRequest(header, tensor, data if binary is None else binary, len(body))


def parse_json(text: bytes) -> tuple[InferRequest, TensorData | None]:
    """Parse the JSON of a request into its header without `data`, and `data`. Raises BadRequest, ImageTooLarge."""
    header = parsed(InferRequest, text)
    if len(header.inputs) > 1:
        names = ", ".join(f"'{tensor.name}'" for tensor in header.inputs)
        raise BadRequest(f"send one input per request, 'image' or 'images'; got {names}")
    (tensor,) = header.inputs
    if tensor.data is not None and tensor.parameters.binary_data_size is not None:
        raise BadRequest(f"input '{tensor.name}' has both `data` and binary_data_size")
    light = tensor.model_copy(update={"data": None})
    return header.model_copy(update={"inputs": [light]}), from_json(tensor)


def _length(header_length: str | None, size: int) -> int:
    if header_length is None:
        return size
    if not _LENGTH.fullmatch(header_length) or not 0 < int(header_length) <= size:
        raise BadRequest(
            f"invalid {HEADER_LENGTH} '{header_length[:20]}': it must be the number of bytes of JSON in "
            f"front, 1 to {size}"
        )
    return int(header_length)


def _binary(tensor: InputTensor, rest: memoryview) -> memoryview | None:
    if tensor.parameters.shared_memory_region is not None:
        raise BadRequest(f"input '{tensor.name}': shared memory is not supported; send the data")
    size = tensor.parameters.binary_data_size
    if (size or 0) != len(rest):
        raise BadRequest(
            f"input '{tensor.name}': binary_data_size is {size or 0}, but {len(rest)} bytes follow the "
            f"JSON; {HEADER_LENGTH} must be the length of the JSON"
        )
    return None if size is None else rest


def _in_binary(output: OutputRequest, default: bool) -> bool:
    if output.parameters.classification or output.parameters.shared_memory_region is not None:
        raise BadRequest(f"output '{output.name}': classification and shared memory are not supported")
    binary = output.parameters.binary_data
    return default if binary is None else binary


async def infer_response(
    request: ParsedRequest, model: ModelInfo, outputs: Mapping[str, NDArray[Any]], accept_encoding: str
) -> Response:
    """Encode outputs of a model, arrays (n, …) by name. Raises BadRequest if JSON cannot represent one, Overloaded."""
    wanted = request.outputs(list(outputs))
    as_json = {name: outputs[name] for name, binary in wanted.items() if not binary}
    in_binary = {name: outputs[name] for name, binary in wanted.items() if binary}
    values = sum(array.size for array in as_json.values())
    if values > MAX_VALUES:
        raise BadRequest(
            f"the outputs have {values} values, the limit of JSON is {MAX_VALUES}: request them in binary, with "
            "the parameter binary_data of an output or binary_data_output of the request"
        )
    texts = await with_json(sum(array.nbytes for array in as_json.values()), json_outputs, as_json)
    work_bytes = LOOKED_THROUGH * sum(array.nbytes for array in in_binary.values())
    buffers = await off_loop(work_bytes, binary_outputs, in_binary)
    described = [buffers[name][0] if binary else texts[name] for name, binary in wanted.items()]
    text = b"%s%s]}" % (_head(request, model), b",".join(described))
    headers = {HEADER_LENGTH: str(len(text))} if buffers else {}
    body = b"".join([text, *(buffer for _, buffer in buffers.values())])
    coding = accepted_coding(accept_encoding)
    if coding is not None:
        body = await off_loop(len(body), deflated, body, coding)
        headers["Content-Encoding"] = coding
    kind = "application/octet-stream" if buffers else "application/json"
    return Response(body, headers=headers, media_type=kind)


def _head(request: ParsedRequest, model: ModelInfo) -> bytes:
    """Return the JSON of the response up to its outputs, which are its last field."""
    response = InferResponse(
        model_name=model.name,
        model_version=model.version,
        id=request.header.id,
        parameters={"weights_sha256": model.weights_sha256, "inference_key": model.inference_key},
        outputs=[],
    )
    return response.model_dump_json(exclude_none=True).encode()[: -len(b"]}")]
