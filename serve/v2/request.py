"""The body of an infer request: a JSON header, and behind it the binary data of its inputs in order.

JSON unfolds to many times its size, so it is read in turn, and its `data` is an array or bytes at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from model_store.errors import BadRequest, ImageTooLarge
from serve.v2.bodies import in_turn
from serve.v2.contract import InferRequest, InputTensor, OutputRequest, parsed
from serve.v2.tensors import TensorData, from_json

HEADER_LENGTH = "Inference-Header-Content-Length"
_LENGTH = re.compile(r"[0-9]{1,18}")
"""Bytes of JSON in front; without this HTTP header the whole body is JSON."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """One request; its header and its input are without `data`."""

    header: InferRequest
    input: InputTensor
    data: TensorData | None
    """Binary as a view of the body; None where there is none that the input takes."""
    size_bytes: int
    """Of the body: about how much work its tensors are."""

    def outputs(self, known: list[str]) -> list[tuple[str, bool]]:
        """Which are wanted, and whether in binary; all, if none is named. Raises BadRequest."""
        default = self.header.parameters.binary_data_output
        wanted = self.header.outputs
        names = [output.name for output in wanted]
        unknown = [name for name in names if name not in known]
        if unknown or len(set(names)) < len(names):
            raise BadRequest(
                f"output '{(unknown or names)[0]}' is unknown or asked for twice; input "
                f"'{self.input.name}' gives {', '.join(known)}"
            )
        if not wanted:
            return [(name, default) for name in known]
        return [(output.name, _in_binary(output, default)) for output in wanted]


async def read_request(body: bytes, header_length: str | None) -> Asked:
    """Raises BadRequest, ImageTooLarge."""
    length = _length(header_length, len(body))
    return await in_turn(length, _asked, body, length)


def _asked(body: bytes, length: int) -> Asked:
    """Raise errors of its own: the traceback of the first would keep what was parsed."""
    try:
        return _parsed(body, length)
    except (BadRequest, ImageTooLarge) as error:
        kind, why = type(error), str(error)
    raise kind(why)


def _parsed(body: bytes, length: int) -> Asked:
    header = parsed(InferRequest, body if length == len(body) else body[:length])
    if len(header.inputs) > 1:
        names = ", ".join(f"'{one.name}'" for one in header.inputs)
        raise BadRequest(f"one input is answered at a time, 'image' or 'images'; got {names}")
    (tensor,) = header.inputs
    binary = _binary(tensor, memoryview(body)[length:])
    data = from_json(tensor) if binary is None else binary
    light = tensor.model_copy(update={"data": None})
    return Asked(header.model_copy(update={"inputs": [light]}), light, data, len(body))


def _length(header_length: str | None, size: int) -> int:
    if header_length is None:
        return size
    if not _LENGTH.fullmatch(header_length) or not 0 < int(header_length) <= size:
        raise BadRequest(
            f"{HEADER_LENGTH} is '{header_length[:20]}': it must be the bytes of JSON in front, 1 to "
            f"{size} here"
        )
    return int(header_length)


def _binary(tensor: InputTensor, rest: memoryview) -> memoryview | None:
    if tensor.parameters.shared_memory_region is not None:
        raise BadRequest(f"input '{tensor.name}': there is no shared memory here; send the data")
    size = tensor.parameters.binary_data_size
    if size is not None and tensor.data is not None:
        raise BadRequest(f"input '{tensor.name}' has both `data` and binary_data_size")
    if (size or 0) != len(rest):
        raise BadRequest(
            f"input '{tensor.name}': binary_data_size is {size or 0}, {len(rest)} bytes follow the "
            f"JSON (whose length the header {HEADER_LENGTH} says)"
        )
    return None if size is None else rest


def _in_binary(output: OutputRequest, default: bool) -> bool:
    if output.parameters.classification or output.parameters.shared_memory_region is not None:
        raise BadRequest(
            f"output '{output.name}': neither classification nor shared memory are offered here"
        )
    asked = output.parameters.binary_data
    return default if asked is None else asked
