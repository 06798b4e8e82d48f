"""The endpoint of both hosts, with real weights: one process, and HAProxy with a replica."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from model_store.names import version_id
from model_store.store import ModelStore
from tests.cluster.hosts import Host

pytestmark = pytest.mark.cluster


def test_a_cat_is_a_cat_with_full_lineage(host: Host, photo: Any) -> None:
    answer = host.detect(photo("cat"))
    assert answer.status_code == 200
    body = answer.json()
    assert [d["label"] for d in body["detections"]] == ["cat"]
    model = ModelStore(host.settings.models_url).describe(version_id("ssdlite-coco", "1"))
    assert body["model"] == {
        "name": "ssdlite-coco",
        "version": "1",
        "alias": "production",
        "weights_sha256": model.info.weights_sha256,
        "inference_key": model.info.inference_key,
    }
    assert set(body["timings_ms"]) == {"queue", "preprocess", "inference", "postprocess"}


def test_problems_reach_the_client(host: Host, photo: Any) -> None:
    unknown = host.detect(photo("cat"), model="no-such-model")
    assert unknown.status_code == 404
    assert "ssdlite-coco" in unknown.json()["detail"]
    cut_in_header = host.detect(photo("cat")[:100])
    assert cut_in_header.status_code == 400
    assert cut_in_header.headers["content-type"] == "application/problem+json"
    assert host.detect(b"<html>not found</html>").status_code == 415
    assert host.detect(b"\xff\xd8\xff" + bytes(33 * 1024 * 1024)).status_code == 413


def test_antenna_finds_its_pipelines_and_an_image_that_is_not_permitted_is_an_entry(host: Host) -> None:
    ready = httpx2.get(f"{host.url}/antenna/readyz", timeout=60).json()["status"]
    slug = next(slug for slug in ready if slug.startswith("ssdlite-coco-1-"))
    images = [{"id": "1", "url": "http://127.0.0.1/cat.jpg"}]
    body = {"pipeline": slug, "source_images": images}
    results = httpx2.post(f"{host.url}/process", json=body, timeout=60).json()
    assert results["source_images"] == []
    (error,) = results["errors"]
    assert "127.0.0.1:80 is not a host of images" in error["error"]
