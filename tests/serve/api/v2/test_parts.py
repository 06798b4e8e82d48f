"""Unit tests of /v2: bodies, tensors, padding, statistics, and responses of the repository."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as shapes
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor, triton_to_np_dtype

from model_store.detections import Detections
from model_store.errors import BadRequest, Conflict, ModelNotFound, ModelNotReady, ModelRefused
from model_store.names import VersionId
from serve.api.v2 import repository
from serve.api.v2.bodies import accepted_coding, deflated, inflated
from serve.api.v2.inference import padded
from serve.api.v2.schemas import IndexEntry, InputTensor, OutputTensor
from serve.api.v2.tensors import DATATYPES, binary_outputs, byte_strings, datatype_of, floats, from_json, json_outputs
from serve.inference.engine import Engine
from serve.settings import DetectArgs
from tests.fixtures_local import motion_store

ONE = VersionId("blobs", "1")


def found(*scores: float, class_id: int = 0) -> Detections:
    n = len(scores)
    boxes = np.arange(4 * n, dtype=np.float32).reshape(n, 4)
    return Detections(boxes, np.array(scores, np.float32), np.full(n, class_id, np.int32))


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("*", None),
        ("deflate, gzip", "gzip"),
        ("GZIP;q=0.5, br", "gzip"),
        ("gzip;\tq=0, deflate;q=0.1", "deflate"),
        ("gzip;q=0.001", "gzip"),
        (";;,,=;q", None),
    ],
)
def test_which_coding_an_answer_gets(header: str, coding: str | None) -> None:
    assert accepted_coding(header) == coding


@given(st.binary(max_size=5000), st.sampled_from(["gzip", "deflate"]))
def test_what_is_compressed_unfolds_to_itself(plain: bytes, coding: str) -> None:
    assert inflated(deflated(plain, coding), coding, 5000) == plain


def test_datatypes_are_the_clients() -> None:
    for datatype, dtype in DATATYPES.items():
        assert np.dtype(triton_to_np_dtype(datatype)) == dtype
        assert np_to_triton_dtype(dtype) == datatype
        assert datatype_of("x", dtype.newbyteorder("=")) == datatype
    with pytest.raises(ModelRefused, match="complex64"):
        datatype_of("x", np.dtype(np.complex64))


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6))
def test_byte_elements_are_those_the_client_wrote(items: list[bytes]) -> None:
    data = serialize_byte_tensor(np.array([*items, None], np.object_)[:-1]).item()
    tensor = InputTensor(name="image", shape=[len(items)], datatype="BYTES")
    assert byte_strings(tensor, memoryview(data)) == items


@given(shapes.arrays(np.float32, (2, 3, 4), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_floats_are_the_same_in_json_and_in_binary(values: np.ndarray) -> None:
    shape = list(values.shape)
    for data in (values.ravel().tolist(), values.tolist()):
        sent = InputTensor(name="images", shape=shape, datatype="FP32", data=data)
        np.testing.assert_array_equal(floats(sent, from_json(sent)), values)
    binary = InputTensor(name="images", shape=shape, datatype="FP32")
    view = floats(binary, memoryview(b"x" + values.tobytes())[1:])  # at an odd address
    np.testing.assert_array_equal(view, values)


def test_binary_floats_are_not_copied() -> None:
    body = np.arange(12, dtype=np.float32).tobytes()
    tensor = InputTensor(name="images", shape=[1, 3, 2, 2], datatype="FP32")
    values = floats(tensor, memoryview(body))
    assert np.shares_memory(values, np.frombuffer(body, np.float32))


@pytest.mark.parametrize(("dtype", "shape"), [("?", (0, 4)), ("<i4", (2, 3)), ("<f2", (1,)), ("<f4", (2, 3))])
def test_outputs_are_written_row_major_and_little_endian(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape)).reshape(shape[::-1]).T.astype(dtype)
    text, buffer = binary_outputs({"x": values})["x"]
    output = OutputTensor.model_validate_json(text)
    assert output.parameters == {"binary_data_size": buffer.nbytes}
    read = np.frombuffer(buffer, DATATYPES[output.datatype]).reshape(output.shape)
    np.testing.assert_array_equal(read, values)
    output = OutputTensor.model_validate_json(json_outputs({"x": values})["x"])
    assert output.data == values.ravel().tolist()
    assert output.shape == list(shape)


def test_an_output_in_json_is_never_all_there_as_numbers_of_python() -> None:
    values = np.random.default_rng(3).random((500, 1000), np.float32)
    tracemalloc.start()
    text = json_outputs({"x": values})["x"]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(np.float32(json.loads(text)["data"]), values.ravel())
    assert most < 2.5 * len(text)  # its parts, and the whole that is made of them


def test_images_are_filled_up_to_the_longest() -> None:
    outputs = padded([found(), found(0.9, 0.8, class_id=2), found(0.7)])
    assert outputs["num_detections"].tolist() == [[0], [2], [1]]
    assert outputs["class_ids"].tolist() == [[-1, -1], [2, 2], [0, -1]]
    np.testing.assert_array_equal(outputs["scores"][1:], np.float32([[0.9, 0.8], [0.7, 0]]))
    assert outputs["boxes"][1].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert outputs["boxes"][2].tolist() == [[0, 1, 2, 3], [0, 0, 0, 0]]
    assert {name: a.dtype.str for name, a in outputs.items()} == {
        "num_detections": "<i4",
        "boxes": "<f4",
        "scores": "<f4",
        "class_ids": "<i4",
    }


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """`blobs` 1 is production, 2 has no alias, 3 is damaged."""
    motion_store(tmp_path, "1", "2", "3")
    (tmp_path / "blobs" / "3" / "config.json").write_text("{}")
    engine = Engine(DetectArgs(models=str(tmp_path), workers=1))
    await engine.aliases.refresh()
    yield engine
    engine.stop()


async def index(engine: Engine, ready_only: bool = False) -> list[IndexEntry]:
    return await repository.index(engine, engine.serving(), ready_only)


async def states(engine: Engine, ready_only: bool = False) -> dict[str, str]:
    return {one.version: one.state for one in await index(engine, ready_only)}


async def test_the_index_says_what_is_loaded_and_why_not(engine: Engine) -> None:
    assert await states(engine) == {"1": "READY", "2": "UNAVAILABLE", "3": "UNAVAILABLE"}
    assert await states(engine, ready_only=True) == {"1": "READY"}
    engine.store.set_alias("blobs", "canary", "3")
    await engine.aliases.refresh()
    reasons = {one.version: one.reason for one in await index(engine)}
    assert reasons["1"] == ""
    assert "a request for this version loads it" in reasons["2"]
    assert "READY lists" in reasons["3"]


async def test_a_version_is_loaded_and_released(engine: Engine) -> None:
    for ref, parameters in (("blobs@2", {}), ("blobs", {"version": 2})):
        await repository.load(engine, ref, parameters)
        assert (await states(engine))["2"] == "READY"
        assert await repository.loaded_version(engine, "blobs@2") == VersionId("blobs", "2")
        assert await repository.loaded_versions(engine, "blobs") == [ONE, VersionId("blobs", "2")]
        await repository.unload(engine, ref, {**parameters, "unload_dependents": False})
        assert (await states(engine))["2"] == "UNAVAILABLE"
    await repository.unload(engine, "blobs@2", {})  # it may be repeated
    assert (await states(engine))["1"] == "READY"


async def test_loading_a_bare_name_loads_what_its_aliases_mean(engine: Engine) -> None:
    engine.store.set_alias("blobs", "canary", "2")
    await repository.load(engine, "blobs", {})
    assert (await states(engine))["2"] == "READY"


async def test_of_a_bare_name_all_are_released_or_none(tmp_path: Path) -> None:
    """The first could be unloaded, the last is held by a run."""
    engine = Engine(DetectArgs(models=motion_store(tmp_path, "1", "2", alias=None).url, workers=1))
    try:
        for version in ("1", "2"):
            await repository.load(engine, f"blobs@{version}", {})
        versions = engine.models
        versions.lease(VersionId("blobs", "2"), "run-7", 60.0)
        with pytest.raises(Conflict, match="blobs@2 is held by run-7"):
            await repository.unload(engine, "blobs", {})
        assert [one.version for one in versions.names] == ["1", "2"]
        versions.lease(VersionId("blobs", "2"), "run-7", 0.0)
        await repository.unload(engine, "blobs", {})
        assert versions.names == []
    finally:
        engine.stop()


async def test_what_an_alias_means_is_not_unloaded_and_the_rest_stays_too(engine: Engine) -> None:
    await repository.load(engine, "blobs@2", {})
    for ref, parameters in (("blobs", {}), ("blobs@1", {}), ("blobs", {"version": "1"})):
        with pytest.raises(Conflict, match="answers as production: move the alias first"):
            await repository.unload(engine, ref, parameters)
    assert (await states(engine, ready_only=True)).keys() == {"1", "2"}


REFUSED: tuple[tuple[str, dict[str, Any], type[Exception], str], ...] = (
    ("deer", {}, ModelNotFound, "available: blobs"),
    ("blobs@9", {}, ModelNotFound, "available: blobs@1"),
    ("blobs", {"version": "9"}, ModelNotFound, "available: blobs@1"),
    ("blobs", {"version": "../1"}, BadRequest, "is not a version"),
    ("blobs", {"version": ["1"]}, BadRequest, "is not a version"),
    ("blobs@1", {"version": "1"}, BadRequest, "already"),
    ("Blobs", {}, BadRequest, "is not a model"),
    ("blobs", {"file:1/model.onnx": "AA=="}, BadRequest, "immutable"),
)


async def test_what_cannot_be_meant_is_refused(engine: Engine) -> None:
    for operation in (repository.load, repository.unload):
        for ref, parameters, error, words in REFUSED:
            with pytest.raises(error, match=words):
                await operation(engine, ref, parameters)


async def test_a_version_that_does_not_load_says_so(engine: Engine) -> None:
    with pytest.raises(Exception, match="READY lists"):
        await repository.load(engine, "blobs@3", {})
    with pytest.raises(ModelNotReady, match="not loaded in this replica"):
        await repository.loaded_version(engine, "blobs@2")
    with pytest.raises(ModelNotFound, match="no alias 'canary'"):
        await repository.loaded_version(engine, "blobs:canary")
