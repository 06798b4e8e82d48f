"""Unit tests of /v2: bodies, tensors, padding, statistics, and responses of the repository."""

from __future__ import annotations

import asyncio
import json
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as shapes
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor, triton_to_np_dtype

from model_store.config import ModelConfig
from model_store.detections import Detections
from model_store.errors import BadRequest, Conflict, ModelNotFound, ModelNotReady, ModelRefused
from model_store.names import VersionId
from model_store.transform.thresholds import least_scores, shown
from serve.api.v2 import repository
from serve.api.v2.bodies import accepted_coding, deflated, inflated
from serve.api.v2.inference import padded
from serve.api.v2.metadata import RequestTimes, Statistics
from serve.api.v2.schemas import IndexEntry, InputTensor, OutputTensor
from serve.api.v2.tensors import DATATYPES, binary_outputs, byte_strings, datatype_of, floats, json_outputs
from serve.inference.engine import Engine
from serve.settings import DetectArgs
from tests.fixtures_local import MOTION, motion_store

ONE = VersionId("blobs", "1")


def found(*scores: float, class_id: int = 0) -> Detections:
    n = len(scores)
    boxes = np.arange(4 * n, dtype=np.float32).reshape(n, 4)
    return Detections(boxes, np.array(scores, np.float32), np.full(n, class_id, np.int32))


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("", None),
        ("identity", None),
        ("br, zstd", None),
        ("*", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip", "gzip"),
        ("GZIP;q=0.5, br", "gzip"),
        ("gzip;q=0, deflate;q=0.1", "deflate"),
        ("gzip; q=0.000", None),
        ("gzip;q=0.001", "gzip"),
        (";;,,=;q", None),
    ],
)
def test_which_coding_an_answer_gets(header: str, coding: str | None) -> None:
    assert accepted_coding(header) == coding


@given(st.binary(max_size=5000), st.sampled_from(["gzip", "deflate"]))
def test_what_is_compressed_unfolds_to_itself(plain: bytes, coding: str) -> None:
    assert inflated(deflated(plain, coding), coding, 5000) == plain


def test_exactly_the_limit_unfolds() -> None:
    limit = 1 << 20
    assert len(inflated(deflated(bytes(limit), "gzip"), "gzip", limit)) == limit


@pytest.mark.parametrize("datatype", DATATYPES)
def test_datatypes_are_the_clients(datatype: str) -> None:
    assert np.dtype(triton_to_np_dtype(datatype)) == DATATYPES[datatype]
    assert np_to_triton_dtype(DATATYPES[datatype]) == datatype
    assert datatype_of("x", DATATYPES[datatype].newbyteorder("=")) == datatype


def test_a_type_without_a_name_is_refused() -> None:
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
    flat = InputTensor(name="images", shape=shape, datatype="FP32", data=values.ravel().tolist())
    nested = InputTensor(name="images", shape=shape, datatype="FP32", data=values.tolist())
    binary = InputTensor(name="images", shape=shape, datatype="FP32")
    for one in (floats(flat, None), floats(nested, None)):
        np.testing.assert_array_equal(one, values)
    view = floats(binary, memoryview(b"x" + values.tobytes())[1:])  # at an odd address
    np.testing.assert_array_equal(view, values)


def test_binary_floats_are_not_copied() -> None:
    body = np.arange(12, dtype=np.float32).tobytes()
    tensor = InputTensor(name="images", shape=[1, 3, 2, 2], datatype="FP32")
    values = floats(tensor, memoryview(body))
    assert np.shares_memory(values, np.frombuffer(body, np.float32))


@pytest.mark.parametrize("dtype", ["?", "u1", "<i4", "<f2", "<f4", "<f8"])
@pytest.mark.parametrize("shape", [(0, 4), (2, 3), (1,)])
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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_json_has_no_words_for_nan(value: float) -> None:
    with pytest.raises(BadRequest, match="binary_data"):
        json_outputs({"x": np.array([value], np.float32)})


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


def test_no_image_has_any() -> None:
    assert padded([found(), found()])["boxes"].shape == (2, 0, 4)


@pytest.mark.parametrize(("least", "kept"), [(0.0, 2), (0.6, 1), (0.7, 1), (0.70001, 0), (1.0, 0)])
def test_scores_are_compared_as_v1_compares_them(least: float, kept: int) -> None:
    """float32(0.7) is less than 0.7, and is shown from 0.7 up."""
    config = ModelConfig.model_validate(MOTION)
    assert len(shown(found(0.7, 0.5), least_scores(config, least))) == kept


def test_each_label_has_its_own_threshold() -> None:
    thresholds = {"default": 0.5, "per_label": {"fox": 0.8}}
    config = ModelConfig.model_validate({**MOTION, "labels": ["deer", "fox"], "thresholds": thresholds})
    both = Detections.join([found(0.6), found(0.6, class_id=1)])
    assert shown(both, least_scores(config, None)).class_ids.tolist() == [0]


def test_nobody_has_asked_yet() -> None:
    stats = Statistics().of(ONE)
    assert (stats["name"], stats["version"], stats["last_inference"]) == ("blobs", "1", 0)
    assert stats["inference_count"] == stats["execution_count"] == 0
    assert all(one == {"count": 0, "ns": 0} for one in stats["inference_stats"].values())


def test_statistics_add_up_by_version_from_any_thread() -> None:
    statistics = Statistics()

    def feed() -> None:
        for _ in range(200):
            statistics.succeeded(ONE, 3, RequestTimes(10, 1, 2, 3, 4))
            statistics.failed(ONE, 7)

    threads = [threading.Thread(target=feed) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = statistics.of(ONE)
    assert (stats["inference_count"], stats["execution_count"]) == (4800, 1600)
    assert stats["inference_stats"] == {
        "fail": {"count": 1600, "ns": 11200},
        "success": {"count": 1600, "ns": 16000},
        "queue": {"count": 1600, "ns": 1600},
        "compute_input": {"count": 1600, "ns": 3200},
        "compute_infer": {"count": 1600, "ns": 4800},
        "compute_output": {"count": 1600, "ns": 6400},
    }
    assert statistics.of(VersionId("blobs", "2"))["inference_count"] == 0


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """`blobs` 1 is production, 2 has no alias, 3 is damaged."""
    motion_store(tmp_path, "1", "2", "3")
    (tmp_path / "blobs" / "3" / "config.json").write_text("{}")
    engine = Engine(DetectArgs(models=str(tmp_path), workers=1))
    await engine.aliases.refresh()
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with version 1 only, for refusals."""
    store = motion_store(tmp_path_factory.mktemp("v2"), "1")
    engine = Engine(DetectArgs(models=store.url, workers=1))
    asyncio.run(engine.aliases.refresh())
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


@pytest.mark.parametrize(
    ("ref", "parameters"), [("blobs@2", {}), ("blobs", {"version": "2"}), ("blobs", {"version": 2})]
)
async def test_a_version_is_loaded_and_released(engine: Engine, ref: str, parameters: dict[str, Any]) -> None:
    await repository.load(engine, ref, parameters)
    assert (await states(engine))["2"] == "READY"
    assert await repository.loaded_version(engine, "blobs@2") == VersionId("blobs", "2")
    assert await repository.loaded_versions(engine, "blobs") == [ONE, VersionId("blobs", "2")]
    await repository.unload(engine, ref, {**parameters, "unload_dependents": False})
    assert (await states(engine))["2"] == "UNAVAILABLE"
    await repository.unload(engine, ref, parameters)  # it may be repeated
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


@pytest.mark.parametrize(
    ("ref", "parameters", "error", "words"),
    [
        ("deer", {}, ModelNotFound, "available: blobs"),
        ("blobs@9", {}, ModelNotFound, "available: blobs@1"),
        ("blobs", {"version": "9"}, ModelNotFound, "available: blobs@1"),
        ("blobs", {"version": "../1"}, BadRequest, "is not a version"),
        ("blobs", {"version": ["1"]}, BadRequest, "is not a version"),
        ("blobs@1", {"version": "1"}, BadRequest, "already"),
        ("Blobs", {}, BadRequest, "is not a model"),
        ("blobs", {"config": "{}"}, BadRequest, "immutable"),
        ("blobs", {"file:1/model.onnx": "AA=="}, BadRequest, "immutable"),
    ],
)
@pytest.mark.parametrize("operation", [repository.load, repository.unload])
async def test_what_cannot_be_meant_is_refused(
    unchanged: Engine, operation: Any, ref: str, parameters: dict[str, Any], error: Any, words: str
) -> None:
    with pytest.raises(error, match=words):
        await operation(unchanged, ref, parameters)


async def test_a_version_that_does_not_load_says_so(engine: Engine) -> None:
    with pytest.raises(Exception, match="READY lists"):
        await repository.load(engine, "blobs@3", {})
    with pytest.raises(ModelNotReady, match="not loaded in this replica"):
        await repository.loaded_version(engine, "blobs@2")
    with pytest.raises(ModelNotFound, match="no alias 'canary'"):
        await repository.loaded_version(engine, "blobs:canary")
