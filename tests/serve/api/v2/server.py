"""A server of /v2 in a thread, NVIDIA's client for it, and helpers for their data."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx2
import numpy as np
import onnxruntime as ort
import pytest
import tritonclient.http as triton
import uvicorn
from fastapi import FastAPI
from tritonclient.utils import InferenceServerException

from model_store.adding.add import add_version
from model_store.images.decode import decode
from model_store.names import version_id
from model_store.store import ModelStore
from serve.api import detect, problems
from serve.api.v2 import routes as v2
from serve.cluster.ports import preferred_or_free
from serve.inference.engine import Engine
from serve.settings import DetectArgs
from tests.fixtures_local import MODELS, copy_of_models, motion_store, photo
from tests.graphs import constant_graph
from tests.model_store.classifiers import colour_store
from tests.model_store.embedders import look_store
from tests.oracles.tensors import example

SSD_FILE = MODELS / "ssdlite-coco" / "1" / "model.onnx"


@dataclass(frozen=True)
class Server:
    """A running server and a client of it."""

    address: str
    client: triton.InferenceServerClient
    store: ModelStore

    def v1(self, name: str, **query: Any) -> list[dict[str, Any]]:
        """Detections of a photograph by POST /v1/detect."""
        query = {"model": "ssdlite-coco", **query}
        url = f"http://{self.address}/v1/detect"
        answer = httpx2.post(url, content=photo(name), params=query)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["detections"]
        return found


def labelled(rows: int) -> dict[str, np.ndarray]:
    """Outputs of a detector that names classes in INT64: labels, boxes, scores."""
    return example("rtdetr_labels", np.random.default_rng(5), rows, 3, 64)


def stocked(place: Path) -> ModelStore:
    """The shipped models, two versions of `blobs`, a network with outputs of several types, and models of crops."""
    models = copy_of_models(place)
    motion_store(models, "1", "2")
    look_store(models)
    colour_store(models)
    store = ModelStore(str(models))
    weights = constant_graph(labelled(4), 64, {"names": "['deer', 'fox', 'hare']"})
    add_version(store, version_id("labelled", "2026-11+a"), weights, {}, {})
    store.set_alias("labelled", "canary", "2026-11+a")
    return store


@contextlib.contextmanager
def serving(models: str) -> Iterator[str]:
    """The address of a server in a thread, with an engine that loads every alias first."""
    engine = Engine(DetectArgs(models=models, workers=2))

    @contextlib.asynccontextmanager
    async def loaded(_: FastAPI) -> AsyncIterator[None]:
        await engine.aliases.refresh()
        yield

    api = FastAPI(lifespan=loaded)
    problems.install(api)
    api.include_router(v2.router(engine))
    api.include_router(detect.router(engine))
    port = preferred_or_free(0)
    server = uvicorn.Server(uvicorn.Config(api, "127.0.0.1", port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert server.started
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
        engine.stop()


def images(*names: str, column: bool = False) -> triton.InferInput:
    sent = np.array([photo(name) for name in names], np.object_)
    sent = sent[:, np.newaxis] if column else sent
    tensor = triton.InferInput("image", list(sent.shape), "BYTES")
    return tensor.set_data_from_numpy(sent)


def network_input(name: str, side_px: int = 300) -> np.ndarray:
    """(3, side, side) float32 0..1, stretched as the shipped model wants it."""
    pixels = cv2.resize(decode(photo(name)).pixels, (side_px, side_px))
    return pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)


def tensor_input(values: np.ndarray, binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("images", list(values.shape), "FP32")
    return tensor.set_data_from_numpy(values, binary_data=binary)


def ssd_outputs(values: np.ndarray) -> np.ndarray:
    """Outputs of ONNX Runtime, image by image."""
    session = ort.InferenceSession(str(SSD_FILE), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"images": one[np.newaxis]})[0] for one in values])


def rows_of(result: triton.InferResult, index: int) -> list[tuple[int, float, list[float]]]:
    """Class, score and box of each detection of one image; the padding must be empty."""
    count = result.as_numpy("num_detections")[index, 0]
    boxes, scores = result.as_numpy("boxes")[index], result.as_numpy("scores")[index]
    classes = result.as_numpy("class_ids")[index]
    assert (boxes[count:] == 0).all()
    assert (scores[count:] == 0).all()
    assert (classes[count:] == -1).all()
    return [(int(classes[i]), float(scores[i]), [float(x) for x in boxes[i]]) for i in range(count)]


def refused(status: int, words: str, call: Any, *args: Any, **more: Any) -> None:
    with pytest.raises(InferenceServerException) as raised:
        call(*args, **more)
    assert raised.value.status() == str(status)
    assert words in raised.value.message()
