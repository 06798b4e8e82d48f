"""Memory of JSON requests of /v2: floods are refused, and only the tensors of large requests are kept."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.errors import BadRequest
from model_store.store import ModelInfo
from serve.api.v2 import bodies
from serve.api.v2.codec import ParsedRequest, infer_response, parse_json, read_request
from serve.api.v2.schemas import (
    JSON_MIB,
    MAX_LISTS,
    MAX_OBJECTS,
    MAX_VALUES,
    InferRequest,
    InputTensor,
    RequestParameters,
    parsed,
)
from serve.api.v2.tensors import byte_strings, floats
from serve.inference.engine import Engine
from serve.settings import DetectArgs
from tests.fixtures_local import motion_store, photo
from tests.serve.api.v2.test_inference import PATH, client, error_of

MIB = 1 << 20
SHAPE = [1, 3, 320, 320]
COUNT = 3 * 320 * 320


def of_data(data: bytes, shape: list[int] | None = None) -> bytes:
    text = b'{"inputs": [{"name": "images", "shape": %s, "datatype": "FP32", "data": %s}]}'
    return text % (str(shape or [1]).encode(), data)


def fields(count: int) -> bytes:
    return b"{" + b",".join(b'"%x": 1' % i for i in range(count)) + b"}"


NUMBERS = of_data(b"[" + b"0.125," * (COUNT - 1) + b"0.125]", SHAPE)

MANY = b"[" + b"0," * MAX_VALUES + b"0]"
FLOODS: dict[str, tuple[bytes, str]] = {
    "objects": (of_data(b"[" + b"{}," * 700_000 + b"{}]"), "'{'"),
    "nested lists": (of_data(b"[" * 1_000_000 + b"]" * 1_000_000), "'['"),
    "values that are ignored": (b'{"x": %s}' % MANY, "the limit is 500000: send tensors in binary"),
    "parameters": (b'{"inputs": [], "parameters": %s}' % fields(200_000), "more than 256"),
    "fields": (fields(200_000), "more than 256"),
}


@pytest.mark.parametrize("case", FLOODS)
def test_a_flood_is_a_400_that_takes_little_time_and_memory(case: str) -> None:
    body, words = FLOODS[case]
    tracemalloc.start()
    began = time.process_time()  # of the processor: others may use it as well
    with pytest.raises(BadRequest) as refused:
        parse_json(body)
    assert words in str(refused.value)
    assert time.process_time() - began < 2
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 * len(body)


@pytest.mark.parametrize(("objects", "lists"), [(MAX_OBJECTS, 0), (MAX_OBJECTS - 1, MAX_LISTS - 2)])
def test_as_many_objects_and_lists_as_are_read(objects: int, lists: int) -> None:
    inner = ["{}"] * (objects - 2) + ["[]"] * max(0, lists - 1)
    parsed(InferRequest, of_data(f"[{','.join(inner)}]".encode()))
    with pytest.raises(BadRequest, match="flat, or in binary"):
        parsed(InferRequest, of_data(f"[{','.join([*inner, '{}', '{}', '[]', '[]'])}]".encode()))


async def test_of_numbers_in_json_only_the_array_is_kept() -> None:
    await read_request(NUMBERS, None)  # what is made once
    tracemalloc.start()
    asked = await read_request(NUMBERS, None)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(asked.data, np.ndarray)
    assert kept < asked.data.nbytes + 200_000
    assert asked.input.data is None
    assert asked.header.inputs == [asked.input]
    values = floats(asked.input, asked.data)
    assert values.shape == tuple(SHAPE)
    assert (values == 0.125).all()


@pytest.mark.parametrize(
    ("data", "words"), [(b'["a"' + b', "ab"' * 300_000 + b"]", "must be numbers"), (b'"a"', "neither")]
)
async def test_of_what_is_refused_nothing_is_kept(data: bytes, words: str) -> None:
    body = of_data(data)
    tracemalloc.start()
    with pytest.raises(BadRequest, match=words) as refused:
        await read_request(body, None)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert words in str(refused.value)  # the error itself is kept until here
    assert kept < 200_000


async def test_of_images_in_json_only_their_bytes_are_kept() -> None:
    cat = photo("cat")
    text = base64.b64encode(cat).decode()
    tensor = f'{{"name": "image", "shape": [2, 1], "datatype": "BYTES", "data": [["{text}"], ["{text}"]]}}'
    asked = await read_request(f'{{"inputs": [{tensor}]}}'.encode(), None)
    assert asked.data == [cat, cat] == byte_strings(asked.input, asked.data)
    assert asked.input.data is None
    assert asked.header.inputs == [asked.input]


def of_size(size: int) -> bytes:
    """JSON of few values."""
    body = of_data(b"[1]")
    return body + b" " * (size - len(body))


LARGEST = JSON_MIB * MIB


@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_json_is_read_up_to_its_limit_however_small_it_was_sent(tmp_path: Path, coding: str) -> None:
    """Binary data may have the size of a whole body."""
    engine = Engine(DetectArgs(models=motion_store(tmp_path, "1").url, workers=1))
    pack = {"identity": bytes, "gzip": gzip.compress}[coding]
    headers = {"content-encoding": coding}
    try:
        async with client(engine) as api:
            told = error_of(await api.post(PATH, content=pack(of_size(LARGEST + 1)), headers=headers), 413)
            assert "the limit is 8: send tensors in binary" in told
            read = await api.post(PATH, content=pack(of_size(LARGEST)), headers=headers)
            assert "needs 1 numbers" in error_of(read, 400) or "shape" in error_of(read, 400)
            small = b'{"ready": true}'
            for size, status in ((64 * 1024, 200), (64 * 1024 + 1, 413)):
                body = pack(small + b" " * (size - len(small)))
                answer = await api.post("/v2/repository/index", content=body, headers=headers)
                assert answer.status_code == status
    finally:
        engine.stop()


async def test_a_compressed_body_is_inflated_beside_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also a small body: the decompressed size decides the time."""
    threads: list[str] = []

    def inflate(*_: Any) -> bytes:
        threads.append(threading.current_thread().name)
        return b"{}"

    monkeypatch.setattr(bodies, "inflated", inflate)
    engine = Engine(DetectArgs(models=motion_store(tmp_path, "1").url, workers=1))
    try:
        async with client(engine) as api:
            await api.post(PATH, content=b"x", headers={"content-encoding": "gzip"})
    finally:
        engine.stop()
    assert threads
    assert threading.current_thread().name not in threads


async def test_outputs_in_json_are_written_up_to_their_limit() -> None:
    tensor = InputTensor(name="images", shape=[1], datatype="FP32")
    info, half = ModelInfo("m", "1", "w", "k", ()), np.zeros((1, MAX_VALUES // 2), np.float32)

    async def answer(binary: bool, values: np.ndarray) -> bytes:
        header = InferRequest(inputs=[tensor], parameters=RequestParameters(binary_data_output=binary))
        request = ParsedRequest(header, tensor, None, 0)
        return bytes((await infer_response(request, info, {"a": half, "b": values}, "")).body)

    more = np.zeros((1, MAX_VALUES // 2 + 2), np.float32)
    with pytest.raises(BadRequest, match="500002 values, the limit of JSON is 500000.* request them in binary"):
        await answer(False, more)
    assert len(json.loads(await answer(False, half))["outputs"][1]["data"]) == MAX_VALUES // 2
    assert len(await answer(True, more)) > 4 * MAX_VALUES
