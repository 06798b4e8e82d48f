"""The rendered animals: known identities, and figures of the product equal to those of an oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from archive.views.sightings import separability
from benchmarks.individuals import crop, embedder_of, measure
from model_store.embedder import unit
from tests.oracles.reidentification import ranked
from tests.shared_data import shared

WEIGHTS = "models/efficientnet_lite0_imagenet_224.classifier.fp16.onnx"


def test_crops_differ_by_animal_camera_and_shot_and_are_the_same_each_time() -> None:
    crops = [crop(*key) for key in [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)]]
    assert len({one.tobytes() for one in crops}) == 4
    np.testing.assert_array_equal(crops[0], crop(1, 1, 1))


def test_rank_1_and_map_of_rendered_animals_are_those_of_an_oracle(tmp_path: Path) -> None:
    embedder = embedder_of(shared(WEIGHTS, "test_separability_is_that_of_an_oracle"), str(tmp_path))
    keys = [(a, c, s) for a in range(6) for c in range(3) for s in range(2)]
    vectors, _ = unit(embedder.of_images([crop(*key) for key in keys]))
    who, where = ([key[column] for key in keys] for column in (0, 1))
    found = separability(vectors, np.array(who, object), np.array(where, object)).model_dump()
    assert found == pytest.approx(ranked(vectors.tolist(), who, where), abs=1e-5)
    figures = measure(embedder, animals=6, cameras=3, shots=2)
    assert figures["rank1"] == found["rank1"] > 2 * figures["chance_rank1"]
    assert figures["mean_of_3"][0.94]["new_said_new"] > figures["mean_of_3"][0.8]["new_said_new"]
