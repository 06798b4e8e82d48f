"""Test that graphs without labels, with outputs named as embeddings, are recognised as embedders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_store.adding.recognise import Recognised, recognise
from model_store.config import EmbedderConfig
from model_store.errors import ModelRefused
from tests.graphs import constant_graph
from tests.model_store.classifiers import SIDE_PX
from tests.model_store.embedders import looks


def recognised(weights: bytes, **overrides: Any) -> Recognised:
    return recognise("onnx", weights, overrides)


def outputs(**shapes: tuple[int, ...]) -> bytes:
    rows = {name: np.ones((1, *shape), np.float32) for name, shape in shapes.items()}
    return constant_graph(rows, SIDE_PX)


def test_a_graph_with_one_named_vector_is_an_embedder() -> None:
    found = recognised(looks())
    config = found.config
    assert isinstance(config, EmbedderConfig)
    assert (config.size, config.output, config.labels) == (5, "", ())
    assert (config.preprocess.resize, config.preprocess.side_px) == ("stretch", SIDE_PX)
    assert config.preprocess.mean == pytest.approx((0.485, 0.456, 0.406))
    why = {reason.what: (reason.found, reason.why) for reason in found.reasons}
    assert why["kind"] == ("embedder", "outputs embedding [1, 5]: named as an embedding, without labels")
    assert why["vector"] == ("5 numbers", "output embedding")
    assert "labels" not in why


def test_the_named_vector_is_chosen_among_outputs() -> None:
    config = recognised(outputs(last_hidden_state=(50, 768), image_embeds=(512,))).config
    assert isinstance(config, EmbedderConfig)
    assert (config.size, config.output) == (512, "image_embeds")


def test_the_config_file_declares_the_kind_and_the_output() -> None:
    graph = outputs(logits=(1000,), flat=(1280, 1, 1))
    config = recognised(graph, kind="embedder", output="flat").config
    assert isinstance(config, EmbedderConfig)
    assert (config.size, config.output) == (1280, "flat")
    with pytest.raises(ModelRefused, match=r'one output of shape.*\{"output": "logits"\} or \{"output": "flat"\}'):
        recognised(graph, kind="embedder")


@pytest.mark.parametrize(
    ("graph", "overrides", "words"),
    [
        (outputs(last_hidden_state=(50, 768)), {}, "none of them is one vector per image"),
        (looks(), {"kind": "embedder", "labels": ["deer"]}, "labels"),
        (looks(), {"kind": "embedder", "preprocess": {"tiling": {"tile_px": 64}}}, "preprocess cannot use tiling"),
    ],
)
def test_what_cannot_be_is_refused(graph: bytes, overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelRefused, match=words):
        recognised(graph, **overrides)


def test_labels_make_it_a_classifier() -> None:
    assert recognised(looks(), labels=list("abcde")).config.kind == "classifier"
