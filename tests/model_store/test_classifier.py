"""Compare the logits of classifiers with plain loops, and run real weights."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from model_store.adding.add import add_version
from model_store.classifier import Classifier, best, softmax
from model_store.config import Batch, ClassifierConfig
from model_store.decoders.layout import OutputNonsense
from model_store.errors import BadRequest
from model_store.images.decode import decode
from model_store.inference_key import inference_key
from model_store.load import load_model
from model_store.names import version_id
from model_store.store import ModelStore
from tests.fixtures_local import encoded, photo
from tests.graphs import constant_graph, mean_colours
from tests.model_store.classifiers import LABELS, NAMES, ONE, PLAIN, SIDE_PX, WEIGHT, colours, loaded
from tests.oracles.geometry import resize_picture
from tests.shared_data import shared

SCALED: dict[str, Any] = {"preprocess": {"divide_by": 2.0, "mean": [60, 50, 40], "std": [30, 20, 10]}}


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def by_hand(image: np.ndarray, spec: dict[str, Any]) -> list[float]:
    """Compute the logits of an image in plain loops: stretch, scale, average, multiply."""
    small = resize_picture(image, "stretch", SIDE_PX, SIDE_PX).tolist()
    order = (2, 1, 0) if spec.get("channel_order") == "BGR" else (0, 1, 2)
    means = []
    for place, channel in enumerate(order):
        values = [
            (pixel[channel] / spec["divide_by"] - spec["mean"][place]) / spec["std"][place]
            for row in small
            for pixel in row
        ]
        means.append(math.fsum(values) / len(values))
    return [sum(means[c] * float(WEIGHT[c, k]) for c in range(3)) for k in range(len(LABELS))]


@pytest.mark.parametrize("size", [(40, 25), (1, 1)])
@pytest.mark.parametrize(("scale", "order"), [(PLAIN, "RGB"), (SCALED, "BGR")])
def test_logits_are_those_of_plain_loops(
    tmp_path: Path, scale: dict[str, Any], order: str, size: tuple[int, int]
) -> None:
    spec = {**scale["preprocess"], "channel_order": order}
    classifier = loaded(tmp_path, colours(), {"preprocess": spec})
    image = picture(*size)
    found = classifier.of_images([image])
    assert (found.shape, found.dtype) == ((1, len(LABELS)), np.float32)
    np.testing.assert_allclose(found[0], by_hand(image, spec), rtol=1e-4, atol=1e-3)
    assert (classifier.labels, classifier.info.labels) == (LABELS, LABELS)


@pytest.mark.parametrize("most", [1, 3])
def test_batches_of_any_size_give_the_same_logits_in_order(tmp_path: Path, most: int) -> None:
    classifier = replace(loaded(tmp_path, colours(), PLAIN), batch=Batch(max=most))
    images = [picture(20, 20, seed) for seed in range(7)]
    alone = np.concatenate([classifier.of_images([image]) for image in images])
    np.testing.assert_array_equal(classifier.of_images(images), alone)


def test_probabilities_become_their_logarithms(tmp_path: Path) -> None:
    images = [picture(20, 20, seed) for seed in range(3)]
    logits = loaded(tmp_path / "a", colours(), PLAIN).of_images(images)
    classifier = loaded(tmp_path / "b", colours(softmax=True), PLAIN)
    assert classifier.config.scores == "probabilities"
    found = classifier.of_images(images)
    for row, wanted in zip(found.tolist(), logits.tolist(), strict=True):
        total = sum(math.exp(x) for x in wanted)
        for one, x in zip(row, wanted, strict=True):
            assert one == pytest.approx(math.log(math.exp(x) / total), abs=1e-4)
    np.testing.assert_allclose(softmax(found), softmax(logits), atol=1e-6)


def fixed(tmp_path: Path, rows: list[list[float]], scores: str) -> Classifier:
    """Return a classifier that selects a row by an image's first red value; its probe is row 0."""
    graph = constant_graph({"output0": np.array(rows, np.float32)}, SIDE_PX, NAMES)
    store = ModelStore(str(tmp_path))
    black = encoded(np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8), "PNG")
    add_version(store, ONE, graph, PLAIN | {"scores": scores}, {"probe/black.png": black})
    return load_model(store, ONE)


def test_a_probability_of_nothing_is_a_small_finite_logit(tmp_path: Path) -> None:
    classifier = fixed(tmp_path, [[1, 0, 0, 0]], "probabilities")
    (found,) = classifier.of_images([picture(9, 9)])
    assert found[0] == 0
    assert found[1:] == pytest.approx([math.log(2.0**-126)] * 3)
    assert softmax(found[None])[0].tolist() == pytest.approx([1, 0, 0, 0], abs=1e-30)


@pytest.mark.parametrize(
    ("scores", "row", "said"),
    [
        ("logits", [1, math.nan, 0, 0], "NaN"),
        ("logits", [1, math.inf, 0, 0], "infinity"),
        ("probabilities", [0.5, 0.5, 0.5, 0.5], "the sum 1"),
        ("probabilities", [1.5, -0.5, 0, 0], "0 or more"),
    ],
)
def test_what_means_nothing_is_said(tmp_path: Path, scores: str, row: list[float], said: str) -> None:
    classifier = fixed(tmp_path, [[1, 0, 0, 0], row], scores)
    red = np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)
    red[0, 0, 0] = 1
    with pytest.raises(OutputNonsense, match=said):
        classifier.of_images([red])


@pytest.mark.parametrize("row", [[1, 2, 3], [1000, 0], [-1000, -1001]])
def test_softmax_is_the_textbooks(row: list[float]) -> None:
    high = max(row)
    total = math.fsum(math.exp(x - high) for x in row)
    wanted = [math.exp(x - high) / total for x in row]
    found = softmax(np.array([row, row], np.float32))
    assert found.dtype == np.float32
    for one in found.tolist():
        assert one == pytest.approx(wanted, rel=1e-6)


def test_a_box_is_cut_out_of_the_upright_image_before_it_is_stretched(tmp_path: Path) -> None:
    classifier = loaded(tmp_path, colours(), PLAIN)
    image = picture(60, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(np.ascontiguousarray(np.rot90(image)), "PNG", exif=exif.tobytes())
    assert np.array_equal(decode(turned).pixels, image)
    for box, (left, top, right, bottom) in {
        (10.0, 5.0, 30.0, 25.0): (10, 5, 30, 25),
        (9.7, 4.2, 30.1, 24.9): (9, 4, 31, 25),
        (-50.0, 3.0, 12.5, 900.0): (0, 3, 13, 40),
    }.items():
        facts, prepared = classifier.read(turned, box)
        assert (facts.width_px, facts.height_px) == (60, 40)
        wanted = resize_picture(image[top:bottom, left:right], "stretch", SIDE_PX, SIDE_PX)
        np.testing.assert_array_equal(prepared.pixels, wanted[None])


@pytest.mark.parametrize("box", [(60, 0, 70, 10), (-9, 0, 0, 10), (9, 9, 5, 12)])
def test_a_box_that_holds_nothing_is_refused(tmp_path: Path, box: tuple[float, float, float, float]) -> None:
    classifier = loaded(tmp_path, colours(), PLAIN)
    with pytest.raises(BadRequest, match="does not overlap the image of 60 x 40 px"):
        classifier.read(encoded(picture(60, 40), "PNG"), box)


NAME = "models/efficientnet_lite0_imagenet_224.classifier.fp16.onnx"


def test_real_weights_know_a_panda_and_say_what_the_framework_says(tmp_path: Path) -> None:
    """Compare with onnxruntime and manual preprocessing: stretch to 224 px, (x - 127) / 128."""
    import onnxruntime

    twin = "test_weights_that_name_efficientnet_lite_are_fed_as_its_framework_feeds_it"
    weights = shared(NAME, twin).read_bytes()
    classifier = loaded(tmp_path, weights, version=version_id("efficientnet-lite0", "1"))
    session = onnxruntime.InferenceSession(weights, providers=["CPUExecutionProvider"])
    for name, label in {"panda": "giant panda", "cat": "Egyptian cat", "crocodile": "African crocodile"}.items():
        pixels = np.asarray(Image.open(io.BytesIO(photo(name))).convert("RGB"))
        small = resize_picture(pixels, "stretch", 224, 224).astype(np.float32)
        (wanted,) = session.run(None, {"images": ((small - 127) / 128).transpose(2, 0, 1)[None]})
        (found,) = classifier.infer(classifier.read(photo(name))[1].pixels)
        np.testing.assert_allclose(found, wanted[0], atol=0.05)  # decoders round JPEGs differently
        assert classifier.labels[best(found, 1)[0]] == label
        assert softmax(found[None]).max() > 0.7


def test_weights_that_name_efficientnet_lite_are_fed_as_its_framework_feeds_it(tmp_path: Path) -> None:
    metadata = {**NAMES, "source": "efficientnet-lite0"}
    classifier = loaded(tmp_path, mean_colours(WEIGHT, SIDE_PX, metadata))
    spec = {"divide_by": 1.0, "mean": [127.0] * 3, "std": [128.0] * 3}
    for name in ("panda", "cat", "crocodile"):
        pixels = np.asarray(Image.open(io.BytesIO(photo(name))).convert("RGB"))
        wanted = by_hand(pixels, spec)
        (found,) = classifier.infer(classifier.read(encoded(pixels, "BMP"))[1].pixels)
        np.testing.assert_allclose(found, wanted, atol=1e-3)
        assert best(found, 1) == [int(np.argmax(wanted))]


def test_a_lineage_is_one_line_for_each_label_and_no_part_of_the_key() -> None:
    plain = {"kind": "classifier", "runtime": {"kind": "onnx"}, "labels": ["lion", "oak"]}
    lineage = ["mammalia;carnivora;felidae;panthera;panthera leo", ""]
    with_it = ClassifierConfig.model_validate(plain | {"lineage": lineage})
    without = ClassifierConfig.model_validate(plain)
    assert with_it.lineage == tuple(lineage)
    assert inference_key(with_it, "w") == inference_key(without, "w")
    with pytest.raises(ValidationError, match="2 labels, 1 lineages"):
        ClassifierConfig.model_validate(plain | {"lineage": lineage[:1]})
