"""Answers of infer: a JSON object, and behind it the outputs that were asked for in binary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi.responses import Response
from numpy.typing import NDArray

from model_store.errors import BadRequest
from model_store.store import ModelInfo
from serve.v2.bodies import LOOKED_THROUGH, accepted_coding, deflated, off_loop
from serve.v2.contract import MOST_VALUES, InferResponse
from serve.v2.request import HEADER_LENGTH, Asked
from serve.v2.tensors import written


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What the model said: arrays (n, …) by output, and which version it was."""

    model: ModelInfo
    outputs: Mapping[str, NDArray[Any]]


async def infer_response(asked: Asked, outcome: Outcome, accept_encoding: str) -> Response:
    """Raises BadRequest for outputs that do not exist, or that JSON cannot hold, Overloaded."""
    wanted = asked.outputs(list(outcome.outputs))
    values = sum(outcome.outputs[name].size for name, binary in wanted if not binary)
    if values > MOST_VALUES:
        raise BadRequest(
            f"the outputs have {values} values, at most {MOST_VALUES} are written as JSON: ask for them in binary, "
            "with the parameter binary_data of an output or binary_data_output of the request"
        )
    size = sum(
        outcome.outputs[name].nbytes * (LOOKED_THROUGH if binary else 1) for name, binary in wanted
    )
    text, buffers = await off_loop(size, _written, asked, outcome, wanted)
    headers = {HEADER_LENGTH: str(len(text))} if buffers else {}
    body = b"".join([text, *buffers])
    coding = accepted_coding(accept_encoding)
    if coding is not None:
        body = await off_loop(len(body), deflated, body, coding)
        headers["Content-Encoding"] = coding
    kind = "application/octet-stream" if buffers else "application/json"
    return Response(body, headers=headers, media_type=kind)


def _written(
    asked: Asked, outcome: Outcome, wanted: list[tuple[str, bool]]
) -> tuple[bytes, list[memoryview]]:
    outputs: list[bytes] = []
    buffers: list[memoryview] = []
    for name, binary in wanted:
        output, buffer = written(name, outcome.outputs[name], binary)
        outputs.append(output)
        if buffer is not None:
            buffers.append(buffer)
    model = outcome.model
    response = InferResponse.model_construct(
        model_name=model.name,
        model_version=model.version,
        id=asked.header.id,
        parameters={"weights_sha256": model.weights_sha256, "inference_key": model.inference_key},
        outputs=[],
    )
    head = response.model_dump_json(exclude_none=True).encode()  # its last field is `outputs`
    return b"%s%s]}" % (head[: -len(b"]}")], b",".join(outputs)), buffers
