"""A classifier on both hosts: promoted without a restart, asked over HTTP, swapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from model_store.classifier import Classifier
from model_store.load import load_model
from model_store.names import version_id
from model_store.store import ModelStore
from tests.cluster.hosts import Host
from tests.model_store.classifiers import colour_store

pytestmark = pytest.mark.cluster
ONE = version_id("colours", "1")


@pytest.fixture(scope="module")
def colours(host: Host) -> Classifier:
    """colours@1 and @2 in the host's store; @1 in production."""
    store: ModelStore = colour_store(Path(host.settings.models_url), "1", "2")
    done = host.resight("models", "promote", "colours@1")
    assert done.returncode == 0, done.stderr
    return load_model(store, ONE)


def asked(host: Host, body: bytes, model: str = "colours", **query: Any) -> httpx2.Response:
    return httpx2.post(f"{host.url}/v1/classify", content=body, params={"model": model, **query}, timeout=60)


def test_a_promoted_classifier_answers(host: Host, colours: Classifier, photo: Any) -> None:
    answer = asked(host, photo("panda"), box="10,10,200,200", top=2)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    (wanted,) = colours.infer(colours.read(photo("panda"), (10, 10, 200, 200))[1].pixels)
    assert [one["class_id"] for one in body["classes"]] == np.argsort(-wanted)[:2].tolist()
    assert body["model"]["inference_key"] == colours.info.inference_key
    refused = asked(host, photo("panda"), model="ssdlite-coco")
    assert refused.status_code == 400
    assert "is a detector" in refused.json()["detail"]


def test_the_next_version_takes_over_and_goes_back(host: Host, colours: Classifier, photo: Any) -> None:
    for words, version in ((("promote", "colours@2"), "2"), (("rollback", "colours"), "1")):
        done = host.resight("models", *words)
        assert done.returncode == 0, done.stderr
        assert asked(host, photo("cat")).json()["model"]["version"] == version
