"""Malformed requests of /v2: each gets a 4xx with the reason, and the server continues."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve.inference.engine import Engine
from serve.settings import DetectArgs
from tests.fixtures_local import motion_store
from tests.graphs import pooling
from tests.serve.api.v2.test_inference import (
    CAT,
    HEADER,
    PATH,
    SIDE,
    ZEROS,
    RequestObject,
    client,
    engine_of,
    error_of,
    joined,
    of_images,
    of_tensor,
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine for the same store, for requests that change nothing."""
    store = motion_store(tmp_path_factory.mktemp("v2"), "1", "2")
    engine = Engine(DetectArgs(models=store.url, workers=1))
    asyncio.run(engine.aliases.refresh())
    yield engine
    engine.stop()


def in_json(data: Any = ..., more: dict[str, Any] | None = None, **changes: Any) -> RequestObject:
    data = ZEROS.ravel().tolist() if data is ... else data
    tensor = {"name": "images", "shape": [1, 3, SIDE, SIDE], "datatype": "FP32", "data": data}
    body = {"inputs": [tensor | changes], **(more or {})}
    return json.dumps(body).encode(), {}


def with_headers(sent: RequestObject, **headers: str) -> RequestObject:
    return sent[0], sent[1] | {name.replace("_", "-"): value for name, value in headers.items()}


WHOLE, WHOLE_HEADERS = of_images(CAT)
TEXT_BYTES = int(WHOLE_HEADERS[HEADER])

MALFORMED: dict[str, tuple[RequestObject, str]] = {
    "nothing": ((b"", {}), "not JSON"),
    "cut json": ((in_json()[0][:-9], {}), "not JSON"),
    "huge number": ((b'{"inputs": [{"shape": [' + b"9" * 5000 + b"]}]}", {}), "JSON"),
    "a list": ((b"[]", {}), "the body"),
    "no inputs": ((b"{}", {}), "inputs: Field required"),
    "no name": ((b'{"inputs": [{"shape": [1], "datatype": "BYTES"}]}', {}), "inputs.0.name"),
    "both inputs": (
        joined({"inputs": [{"name": n, "shape": [1], "datatype": "FP32"} for n in ("image", "b")]}),
        "send one input per request",
    ),
    "unknown input": (in_json(name="pixels"), "unknown input 'pixels'"),
    "unknown datatype": (in_json(datatype="FP31"), "is not a datatype of v2"),
    "another datatype": (in_json(datatype="INT64"), "'images' must be FP32, not 'INT64'"),
    "no data": (in_json(None), "neither `data` nor the parameter binary_data_size"),
    "words as data": (in_json(["a"] * 3 * SIDE * SIDE), "must be numbers"),
    "ragged data": (in_json([[1, 2], [3]]), "must be numbers"),
    "too little data": (in_json([0.0]), "needs 12288 numbers of 4 bytes; 1 numbers"),
    "numbers over float32": (in_json([1e39] * 3 * SIDE * SIDE), "NaN or infinity"),
    "NaN in json": ((b'{"inputs": [NaN]}', {}), "not JSON"),
    "NaN in binary": (of_tensor(np.full_like(ZEROS, np.nan)), "NaN or infinity"),
    "rank 3": (in_json(shape=[3, SIDE, SIDE]), "must have the shape [n, 3, height, width]"),
    "negative shape": (in_json(shape=[-1, 3, SIDE, SIDE]), "inputs.0.shape.0"),
    "fractional shape": (in_json(shape=[1.0, 3, SIDE, SIDE]), "inputs.0.shape.0"),
    "no images": (in_json(shape=[0, 3, SIDE, SIDE], data=[]), "0 images in one request"),
    "huge batch": (in_json(shape=[2**62, 3, SIDE, SIDE]), "images in one request"),
    "sides over INT64": (in_json(shape=[1, int("9" * 4000), int("9" * 4000), 1]), "inputs.0.shape.1"),
    "a size over INT64": (in_json(parameters={"binary_data_size": 2**63}), "binary_data_size"),
    "huge sides without numbers": (in_json([], shape=[1, 3, 0, 2**63 - 1]), "has a length of 0"),
    "channels last": (of_tensor(np.zeros((1, 64, 64, 3), np.float32)), "[n, 3, 64, 64]"),
    "images as a square": (of_images(CAT, shape=[1, 2]), "must have the shape [n] or [n, 1]"),
    "more images than bytes": (of_images(CAT, shape=[2]), "needs 2 elements, 1 were sent"),
    "an image that ends early": (
        joined(
            {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 10}}]},
            struct.pack("<I", 7) + b"abcdef",
        ),
        "ends within element 0",
    ),
    "a length of 4 GiB": (
        joined(
            {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 8}}]},
            b"\xff\xff\xff\xffabcd",
        ),
        "ends within element 0",
    ),
    "an image in json as text": (in_json(["ÿØÿà"], name="image", shape=[1], datatype="BYTES"), "base64"),
    "a damaged picture": (of_images(CAT, CAT[:300], CAT), "element 1"),
    "data twice": (of_images(CAT, data=["AA=="]), "both `data` and binary_data_size"),
    "binary size over the body": (
        of_images(CAT, parameters={"binary_data_size": 10**12}),
        "binary_data_size is 1000000000000",
    ),
    "bytes that belong to nothing": (of_images(CAT, parameters={}), "binary_data_size is 0"),
    "binary without the header": ((WHOLE, {}), "not JSON"),
    "header length over the body": (
        (WHOLE, {HEADER: str(len(WHOLE) + 1)}),
        "it must be the number of bytes of JSON in front",
    ),
    "endless header length": ((WHOLE, {HEADER: "9" * 6000}), "bytes of JSON in front"),
    "header length too short": ((WHOLE, {HEADER: str(TEXT_BYTES - 1)}), "not JSON"),
    "unknown output": (in_json(more={"outputs": [{"name": "masks"}]}), "gives blobs"),
    "an output twice": (in_json(more={"outputs": [{"name": "blobs"}] * 2}), "requested twice"),
    "unknown parameter": (in_json(more={"parameters": {"min_scor": 0.5}}), "parameters.min_scor"),
    "min_score over 1": (in_json(more={"parameters": {"min_score": 2}}), "parameters.min_score"),
    "unknown coding": (with_headers(of_images(CAT), Content_Encoding="br"), "use gzip or deflate"),
    "not gzip": (with_headers(of_images(CAT), Content_Encoding="gzip"), "the body is not gzip"),
    "cut gzip": ((gzip.compress(WHOLE)[:-20], {**WHOLE_HEADERS, "Content-Encoding": "gzip"}), "is truncated"),
    "more than gzip": (
        (gzip.compress(WHOLE) + b"more", {**WHOLE_HEADERS, "Content-Encoding": "gzip"}),
        "data follows it",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_request_is_a_400_that_says_why(engine: Engine, case: str) -> None:
    (body, headers), words = MALFORMED[case]
    async with client(engine) as api:
        text = error_of(await api.post(PATH, content=body, headers=headers), 400)
    assert words in text
    assert len(text) < 2000


async def test_the_well_formed_ones_are_answered(engine: Engine) -> None:
    """The table above must not pass because every request is refused."""
    nulls = {"outputs": None, "parameters": None, "id": None, "model_name": "x"}
    nested = in_json(ZEROS.tolist(), nulls)
    for body, headers in (of_images(CAT), of_tensor(), in_json(), nested):
        async with client(engine) as api:
            answer = await api.post(PATH, content=body, headers=headers)
        assert answer.status_code == 200, answer.text


async def test_mutations_are_answered_or_refused_and_never_more(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, pooling(5, {"names": "['deer']"}, (SIDE, SIDE)))
    await engine.aliases.refresh()
    rng = random.Random(7)
    statuses: set[int] = set()
    async with client(engine) as api:
        for body, headers in [of_images(CAT), of_tensor(), in_json(ZEROS[0].tolist())] * 30:
            changed = bytearray(body)
            for _ in range(rng.randint(1, 4)):
                at = rng.randrange(min(len(changed), rng.choice([200, len(changed)])))
                match rng.randrange(4):
                    case 0:
                        changed[at] = rng.randrange(256)
                    case 1:
                        del changed[at : at + rng.randint(1, 30)]
                    case 2:
                        changed[at:at] = bytes(rng.randrange(256) for _ in range(5))
                    case _:
                        changed[at : at + 1] = rng.choice([b"-", b"9", b"[", b'"', b"}", b"e9"])
            path = "/v2/models/deer/infer"
            answer = await api.post(path, content=bytes(changed), headers=headers)
            statuses.add(answer.status_code)
            if answer.status_code != 200:
                error_of(answer, 400)
    engine.stop()
    assert statuses == {200, 400}


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", PATH, 405, "use POST here"),
        ("POST", "/v2", 405, "use GET here"),
        ("GET", "/v2/models", 404, "unknown path /v2/models"),
        ("POST", "/v2/models/blobs/versions/9/infer", 404, "available: blobs@1, blobs@2"),
        ("POST", "/v2/models/blobs:canary/infer", 404, "no alias 'canary'"),
        ("POST", "/v2/models/blobs@1/versions/1/infer", 400, "is not a model"),
        ("POST", "/v2/models/%2e%2e/infer", 400, "is not a model"),
    ],
)
async def test_wrong_paths_and_methods(engine: Engine, method: str, path: str, status: int, words: str) -> None:
    async with client(engine) as api:
        answer = await api.request(method, path, content=WHOLE, headers=WHOLE_HEADERS)
    assert words in error_of(answer, status)
    assert ("allow" in answer.headers) is (status == 405)
