"""The endpoint of a real cluster: HAProxy, one replica, real weights."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from examples.make_models import SSDLITE
from model_store.adding.add import add_version
from model_store.names import version_id
from model_store.store import ModelStore

pytestmark = pytest.mark.cluster


def test_a_cat_is_a_cat_with_full_lineage(cluster: Any, photo: Any) -> None:
    answer = cluster.detect(photo("cat"))
    assert answer.status_code == 200
    body = answer.json()
    assert [d["label"] for d in body["detections"]] == ["cat"]
    model = ModelStore(cluster.settings.models_url).describe(version_id("ssdlite-coco", "1"))
    assert body["model"] == {
        "name": "ssdlite-coco",
        "version": "1",
        "alias": "production",
        "weights_sha256": model.info.weights_sha256,
        "inference_key": model.info.inference_key,
    }
    assert set(body["timings_ms"]) == {"queue", "preprocess", "inference", "postprocess"}


def test_problems_reach_the_client_through_the_proxy(cluster: Any, photo: Any) -> None:
    unknown = cluster.detect(photo("cat"), model="no-such-model")
    assert unknown.status_code == 404
    assert "ssdlite-coco" in unknown.json()["detail"]
    cut_in_header = cluster.detect(photo("cat")[:100])
    assert cut_in_header.status_code == 400
    assert cut_in_header.headers["content-type"] == "application/problem+json"
    assert cluster.detect(b"<html>not found</html>").status_code == 415
    assert cluster.detect(b"\xff\xd8\xff" + bytes(33 * 1024 * 1024)).status_code == 413


def test_promote_swaps_live_without_a_failed_or_mixed_answer(cluster: Any, photo: Any) -> None:
    """Version 2 differs from 1 in its floor, so each answer shows which version computed it."""
    store = ModelStore(cluster.settings.models_url)
    first = store.describe(version_id("ssdlite-coco", "1"))
    weights = store.read_file(first, "model.onnx")
    probe = {"probe/cat.jpg": photo("cat")}
    add_version(
        store, version_id("ssdlite-coco", "2"), weights, SSDLITE | {"score_floor": 0.5}, probe
    )
    expected = {
        version: len(
            cluster.detect(photo("person"), f"ssdlite-coco@{version}", min_score=0).json()[
                "detections"
            ]
        )
        for version in ("1", "2")
    }
    assert expected["1"] > expected["2"]
    answers: list[Any] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set() and len(answers) < 2000:
            answers.append(cluster.detect(photo("person"), min_score=0))

    clients = [threading.Thread(target=ask) for _ in range(3)]
    for client in clients:
        client.start()
    try:
        assert cluster.resight("models", "promote", "ssdlite-coco@2").returncode == 0
        after = [cluster.detect(photo("person"), min_score=0).json() for _ in range(10)]
    finally:
        stop.set()
        for client in clients:
            client.join()
        back = cluster.resight("models", "promote", "ssdlite-coco@1")
    assert back.returncode == 0, back.stderr
    assert {answer["model"]["version"] for answer in after} == {"2"}
    assert {answer.status_code for answer in answers} == {200}
    bodies = [answer.json() for answer in answers]
    assert {body["model"]["version"] for body in bodies} == {"1", "2"}
    assert all(len(b["detections"]) == expected[b["model"]["version"]] for b in bodies)
