"""Every call of NVIDIA's own client, `tritonclient.http`, against a server on a separate port.

The results are compared with ONNX Runtime, the oracles and POST /v1/detect.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import onnxruntime as ort
import pytest
import tritonclient.http as triton

from model_store.config import parse_config
from model_store.names import version_id
from tests.fixtures_local import ROOT, photo
from tests.model_store.classifiers import SIDE_PX
from tests.model_store.classifiers import WEIGHT as COLOURS
from tests.model_store.embedders import WEIGHT as LOOKS
from tests.serve.api.v2.server import (
    SSD_FILE,
    Server,
    images,
    labelled,
    network_input,
    refused,
    rows_of,
    serving,
    ssd_outputs,
    stocked,
    tensor_input,
)

NAMES = ("cat", "moose", "person")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    store = stocked(tmp_path_factory.mktemp("v2"))
    with serving(store.url) as address, triton.InferenceServerClient(address, concurrency=4) as one:
        yield Server(address, one, store)


def test_the_server_is_live_and_ready_and_says_what_it_can(server: Server) -> None:
    assert server.client.is_server_live()
    assert server.client.is_server_ready()
    found = server.client.get_server_metadata()
    assert found["name"] == "resight"
    assert {"binary_tensor_data", "model_repository", "statistics"} <= set(found["extensions"])


@pytest.mark.parametrize(
    ("model", "version", "ready"),
    [
        ("ssdlite-coco", "", True),
        ("ssdlite-coco:production", "", True),
        ("labelled@2026-11+a", "", True),
        ("labelled", "", True),  # its only version
        ("motion", "7", False),
        ("deer", "", False),
    ],
)
def test_a_model_is_ready_when_it_is_loaded(server: Server, model: str, version: str, ready: bool) -> None:
    assert server.client.is_model_ready(model, version) is ready


CROP_MODELS = {
    "looks": ("/v1/embed", {"vector": 5}, "embedding", LOOKS),
    "colours": ("/v1/classify", {"scores": 4, "logits": 4}, "output0", COLOURS),
}
"""Route of /v1, outputs of an image with their lengths, output of the network, and its matrix of mean colours."""


@pytest.mark.parametrize("name", CROP_MODELS)
def test_metadata_of_a_model_of_crops_has_the_shape_of_its_outputs(server: Server, name: str) -> None:
    _, lengths, raw, matrix = CROP_MODELS[name]
    found = server.client.get_model_metadata(name)
    inputs = {one["name"]: (one["datatype"], one["shape"]) for one in found["inputs"]}
    assert inputs == {"image": ("BYTES", [-1, 1]), "images": ("FP32", [-1, 3, SIDE_PX, SIDE_PX])}
    outputs = {one["name"]: (one["datatype"], one["shape"]) for one in found["outputs"]}
    wanted = {output: ("FP32", [-1, length]) for output, length in lengths.items()}
    assert outputs == {raw: ("FP32", [-1, matrix.shape[1]])} | wanted
    config = server.client.get_model_config(name)
    assert {one["name"]: one["dims"] for one in config["output"]} == {n: shape[1:] for n, (_, shape) in outputs.items()}


@pytest.mark.parametrize("name", CROP_MODELS)
def test_images_give_the_values_of_v1(server: Server, name: str) -> None:
    route, lengths, _, _ = CROP_MODELS[name]
    result = server.client.infer(name, [images("cat", "moose")])
    for row, photograph in enumerate(("cat", "moose")):
        url = f"http://{server.address}{route}"
        body = httpx2.post(url, content=photo(photograph), params={"model": name}).json()
        assert result.get_response()["parameters"]["inference_key"] == body["model"]["inference_key"]
        wanted = {"vector": body["vector"]} if name == "looks" else {}
        for output in lengths.keys() - {"vector"}:
            by_id = sorted(body["classes"], key=lambda one: one["class_id"])
            wanted[output] = [one[output.removesuffix("s")] for one in by_id]
        for output, values in wanted.items():
            assert result.as_numpy(output)[row].tolist() == values


@pytest.mark.parametrize("name", CROP_MODELS)
def test_a_tensor_gives_the_outputs_of_a_network_of_crops(server: Server, name: str) -> None:
    _, _, raw, matrix = CROP_MODELS[name]
    tensor = np.random.default_rng(3).random((3, 3, SIDE_PX, SIDE_PX), np.float32)
    result = server.client.infer(name, [tensor_input(tensor)])
    np.testing.assert_allclose(result.as_numpy(raw), tensor.mean(axis=(2, 3)) @ matrix, rtol=1e-5)
    wrong = tensor_input(np.zeros((1, 3, 8, 8), np.float32))
    refused(400, f"must have the shape [n, 3, {SIDE_PX}, {SIDE_PX}]", server.client.infer, name, [wrong])


def test_an_output_of_a_detector_is_unknown_to_an_embedder(server: Server) -> None:
    output = triton.InferRequestedOutput("boxes")
    words = "output 'boxes' is unknown or requested twice; input 'image' gives vector"
    refused(400, words, server.client.infer, "looks", [images("cat")], outputs=[output])


def test_metadata_names_inputs_and_outputs_with_their_shapes(server: Server) -> None:
    found = server.client.get_model_metadata("ssdlite-coco")
    assert (found["name"], found["versions"]) == ("ssdlite-coco", ["1"])
    session = ort.InferenceSession(str(SSD_FILE), providers=["CPUExecutionProvider"])
    (raw,) = session.get_outputs()
    inputs = {one["name"]: (one["datatype"], one["shape"]) for one in found["inputs"]}
    assert inputs == {"image": ("BYTES", [-1, 1]), "images": ("FP32", [-1, 3, 300, 300])}
    outputs = {one["name"]: (one["datatype"], one["shape"]) for one in found["outputs"]}
    assert outputs == {
        "num_detections": ("INT32", [-1, 1]),
        "boxes": ("FP32", [-1, -1, 4]),
        "scores": ("FP32", [-1, -1]),
        "class_ids": ("INT32", [-1, -1]),
        raw.name: ("FP32", [-1, *raw.shape[1:]]),
    }
    assert server.client.get_model_metadata("ssdlite-coco", "1") == found


def test_the_config_is_tritons_and_carries_ours(server: Server) -> None:
    found = server.client.get_model_config("ssdlite-coco", "1")
    assert found["name"] == "ssdlite-coco"
    assert found["max_batch_size"] == 64
    assert found["input"][1] == {"name": "images", "data_type": "TYPE_FP32", "dims": [3, 300, 300], "optional": True}
    own = {key: value["string_value"] for key, value in found["parameters"].items()}
    config = parse_config(own["config"], "config")
    assert config == server.store.describe(version_id("ssdlite-coco", "1")).config
    assert json.loads(own["labels"])[0] == "person"


def test_the_index_lists_every_version_and_whether_it_is_loaded(server: Server) -> None:
    found = {(one["name"], one["version"]): one for one in server.client.get_model_repository_index()}
    assert set(found) == {
        ("blobs", "1"),
        ("blobs", "2"),
        ("colours", "1"),
        ("labelled", "2026-11+a"),
        ("looks", "1"),
        ("motion", "1"),
        ("ssdlite-coco", "1"),
    }
    assert found["blobs", "1"]["state"] == "READY"


def test_what_is_in_use_or_immutable_is_refused(server: Server) -> None:
    refused(409, "resight models promote", server.client.unload_model, "blobs")
    refused(400, "immutable", server.client.load_model, "blobs", config="{}")
    assert server.client.is_model_ready("blobs", "1")


@pytest.mark.parametrize(("names", "binary", "column"), [(("cat",), False, True), (NAMES, True, False)])
def test_images_are_answered_as_v1_answers_them(
    server: Server, names: tuple[str, ...], binary: bool, column: bool
) -> None:
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary)
        for name in ("num_detections", "boxes", "scores", "class_ids")
    ]
    result = server.client.infer("ssdlite-coco", [images(*names, column=column)], outputs=outputs, request_id="seven")
    for place, name in enumerate(names):
        wanted = [(one["class_id"], one["score"], list(one["box_xyxy_px"])) for one in server.v1(name)]
        assert wanted
        assert rows_of(result, place) == wanted
    body = result.get_response()
    info = server.store.describe(version_id("ssdlite-coco", "1")).info
    assert (body["id"], body["model_name"], body["model_version"]) == ("seven", info.name, "1")
    assert body["parameters"] == {"weights_sha256": info.weights_sha256, "inference_key": info.inference_key}


@pytest.mark.parametrize("least", [0.05, 0.7])
def test_min_score_is_that_of_v1(server: Server, least: float) -> None:
    result = server.client.infer("ssdlite-coco", [images("cat")], parameters={"min_score": least})
    assert [score for _, score, _ in rows_of(result, 0)] == [one["score"] for one in server.v1("cat", min_score=least)]


def test_images_as_base64_in_json(server: Server) -> None:
    text = np.array([base64.b64encode(photo("cat"))], np.object_)
    tensor = triton.InferInput("image", [1], "BYTES").set_data_from_numpy(text, binary_data=False)
    found = rows_of(server.client.infer("ssdlite-coco", [tensor]), 0)
    assert found == rows_of(server.client.infer("ssdlite-coco", [images("cat")]), 0)


@pytest.mark.parametrize(("binary_in", "binary_out"), [(False, False), (True, True)])
def test_a_tensor_gives_what_onnx_runtime_gives(server: Server, binary_in: bool, binary_out: bool) -> None:
    names = NAMES if binary_in and binary_out else NAMES[:1]  # more is too much for JSON
    values = np.stack([network_input(name) for name in names])
    wanted = ssd_outputs(values)
    output = triton.InferRequestedOutput("output0", binary_data=binary_out)
    result = server.client.infer("ssdlite-coco", [tensor_input(values, binary_in)], "1", outputs=[output])
    found = result.as_numpy("output0")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert result.get_response()["model_version"] == "1"


@pytest.mark.parametrize("binary", [False, True])
def test_outputs_keep_their_types_and_rows(server: Server, binary: bool) -> None:
    wanted = labelled(4)
    values = np.zeros((3, 3, 64, 64), np.float32)
    values[:, 0, 0, 0] = np.array([2, 0, 3]) / 255  # which row each image gets
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in reversed(wanted)]
    result = server.client.infer("labelled:canary", [tensor_input(values)], outputs=outputs)
    assert [one["name"] for one in result.get_response()["outputs"]] == list(reversed(wanted))
    assert {array.dtype for array in wanted.values()} == {np.dtype("i8"), np.dtype("f4")}
    for name, rows in wanted.items():
        found = result.as_numpy(name)
        assert found.dtype == rows.dtype
        np.testing.assert_array_equal(found, rows[[2, 0, 3]])


@pytest.mark.parametrize(("coding_in", "coding_out"), [("gzip", "deflate"), ("deflate", "gzip"), (None, None)])
def test_both_ways_compressed(server: Server, coding_in: str | None, coding_out: str | None) -> None:
    values = network_input("cat")[np.newaxis]
    result = server.client.infer(
        "ssdlite-coco",
        [tensor_input(values)],
        request_compression_algorithm=coding_in,
        response_compression_algorithm=coding_out,
    )
    np.testing.assert_allclose(result.as_numpy("output0"), ssd_outputs(values), rtol=1e-4, atol=1e-4)


def test_statistics_count_images_requests_and_time(server: Server) -> None:
    def stats() -> dict[str, Any]:
        (found,) = server.client.get_inference_statistics("motion")["model_stats"]
        return found

    before = stats()
    server.client.infer("motion", [images(*NAMES)])
    server.client.infer("motion", [tensor_input(np.zeros((2, 3, 320, 320), np.float32))])
    refused(400, "element 1", server.client.infer, "motion", [_damaged()])
    after = stats()
    assert (after["name"], after["version"]) == ("motion", "1")
    assert after["inference_count"] - before["inference_count"] == 5
    assert after["execution_count"] - before["execution_count"] == 2
    assert abs(after["last_inference"] / 1000 - time.time()) < 60
    ns = {key: after["inference_stats"][key]["ns"] for key in after["inference_stats"]}
    counts = {key: after["inference_stats"][key]["count"] for key in ns}
    for key in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert counts[key] - before["inference_stats"][key]["count"] == 2
        assert 0 < ns[key] <= ns["success"]
    assert counts["fail"] - before["inference_stats"]["fail"]["count"] == 1
    everything = server.client.get_inference_statistics()["model_stats"]
    assert {one["name"] for one in everything} >= {"motion", "ssdlite-coco", "blobs"}
    assert server.client.get_inference_statistics("motion", "1")["model_stats"] == [after]
    refused(404, "deer", server.client.get_inference_statistics, "deer")


def _damaged() -> triton.InferInput:
    sent = np.array([photo("cat"), photo("cat")[:300]], np.object_)
    return triton.InferInput("image", [2], "BYTES").set_data_from_numpy(sent)


@pytest.mark.parametrize("language", ["python", "sh"])
def test_the_examples_of_the_page_work(server: Server, language: str) -> None:
    page = (ROOT / "docs/reference" / "v2.md").read_text()
    (example_of,) = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    command = {"python": [sys.executable, "-c"], "sh": ["sh", "-c"]}[language]
    text = example_of.replace("127.0.0.1:8000", server.address)
    done = subprocess.run([*command, text], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    best = server.v1("cat")[0]
    if language == "sh":
        outputs = {one["name"]: one["data"] for one in json.loads(done.stdout)["outputs"]}
        assert outputs["boxes"][:4] == pytest.approx(best["box_xyxy_px"], rel=1e-6)
    else:
        assert done.stdout.startswith("1 [[[")


def test_what_is_not_offered_is_refused(server: Server) -> None:
    client = server.client
    shared = triton.InferInput("images", [1, 3, 300, 300], "FP32")
    shared.set_shared_memory("region", 3 * 300 * 300 * 4)
    refused(400, "shared memory", client.infer, "ssdlite-coco", [shared])
    output = triton.InferRequestedOutput("scores", class_count=2)
    refused(400, "classification", client.infer, "ssdlite-coco", [images("cat")], outputs=[output])
    refused(404, "unknown path", client.get_trace_settings)
    refused(404, "unknown path", client.get_log_settings)
    refused(404, "unknown path", client.get_system_shared_memory_status)


def test_triton_parameters_of_scheduling_change_nothing(server: Server) -> None:
    result = server.client.infer(
        "ssdlite-coco", [images("cat")], sequence_id=3, sequence_start=True, priority=1, timeout=10_000_000
    )
    assert rows_of(result, 0) == rows_of(server.client.infer("ssdlite-coco", [images("cat")]), 0)
