"""Measure how well an embedder identifies made-up animals with known identities: rank-1, mAP and suggestions.

python benchmarks/individuals.py --weights efficientnet_lite0_imagenet_224.classifier.fp16.onnx
Each animal has a coat of spots of its own. Each camera has its own light, tint, scale, blur and background; each crop
its own pose. The embedder is the classifier's layer before its scores. Half of the animals have no profile.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import helper

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from archive.views.sightings import separability  # noqa: E402
from archive.views.suggestions import similarity  # noqa: E402
from model_store.adding.add import add_version  # noqa: E402
from model_store.embedder import Embedder, unit  # noqa: E402
from model_store.load import load_model  # noqa: E402
from model_store.names import version_id  # noqa: E402
from model_store.store import ModelStore  # noqa: E402

SIDE_PX, SPOTS = 256, 22


def coat(animal: int) -> np.ndarray:
    """Return the coat (side, side, 3) of an animal: dark spots on brown."""
    random = np.random.default_rng(animal)
    picture = np.full((SIDE_PX, SIDE_PX, 3), (150, 105, 70), np.uint8)
    for x, y, axis, ratio, angle in random.uniform((0, 0, 8, 0.4, 0), (256, 256, 26, 1, 180), (SPOTS, 5)):
        axes = (int(axis), max(3, int(axis * ratio)))
        cv2.ellipse(picture, (int(x), int(y)), axes, angle, 0, 360, (60, 40, 25), -1, cv2.LINE_AA)
    return picture


def crop(animal: int, camera: int, shot: int) -> np.ndarray:
    """Return a crop (side, side, 3) of an animal, as a camera takes it in one pose."""
    place, pose = np.random.default_rng((camera, 7)), np.random.default_rng((animal, camera, shot))
    tint, light = place.uniform(0.75, 1.25, 3), place.uniform(0.6, 1.2)
    ground = place.uniform(40, 160, 3)
    noise = cv2.resize(place.uniform(-40, 40, (16, 16, 3)), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
    turn, scale = pose.uniform(-15, 15), pose.uniform(0.8, 1.1) * place.uniform(0.8, 1.0)
    matrix = cv2.getRotationMatrix2D((SIDE_PX / 2, SIDE_PX / 2), turn, scale)
    matrix[:, 2] += pose.uniform(-20, 20, 2)
    body = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    cv2.ellipse(body, (SIDE_PX // 2, SIDE_PX // 2), (115, 75), 0, 0, 360, 255, -1)
    mask = cv2.warpAffine(body, matrix, (SIDE_PX, SIDE_PX))[..., None] / 255.0
    seen = cv2.warpAffine(coat(animal), matrix, (SIDE_PX, SIDE_PX))
    picture = (mask * seen + (1 - mask) * (ground + noise)) * light * tint + pose.normal(0, 6, seen.shape)
    blurred = cv2.GaussianBlur(np.clip(picture, 0, 255).astype(np.uint8), (0, 0), place.uniform(0.5, 1.8))
    return np.ascontiguousarray(blurred)


def embedder_of(weights: Path, place: str) -> Embedder:
    """Return the classifier without its last layer as an embedder."""
    graph = onnx.load(str(weights))
    last = graph.graph.node[-1]
    graph.graph.output.append(helper.make_tensor_value_info(last.input[0], onnx.TensorProto.FLOAT, ["batch", 1280]))
    store, version = ModelStore(place), version_id("efficientnet-lite0-vectors", "1")
    config = {"kind": "embedder", "runtime": {"kind": "onnx"}, "output": last.input[0], "size": 1280}
    picture = cv2.imencode(".png", crop(0, 0, 0))[1].tobytes()
    del graph.metadata_props[:]
    graph.metadata_props.add(key="source", value="efficientnet-lite0")
    add_version(store, version, graph.SerializeToString(), config, {"probe/animal.png": picture})
    model = load_model(store, version)
    assert isinstance(model, Embedder)
    return model


def suggested(vectors: np.ndarray, who: np.ndarray, where: np.ndarray, known: np.ndarray, top: int) -> np.ndarray:
    """Return (n, 2) per crop: the similarity of the best known animal by other cameras, and whether it is right."""
    gallery = np.flatnonzero(np.isin(who.astype(int), known))
    cosines = vectors @ vectors[gallery].T
    cosines[where[:, None] == where[gallery]] = -np.inf
    means, _ = similarity(cosines, np.searchsorted(who[gallery].astype(int), known), top)
    return np.stack([means.max(axis=1), known[means.argmax(axis=1)] == who], axis=1).astype(float)


def measure(embedder: Embedder, animals: int, cameras: int, shots: int) -> dict[str, Any]:
    keys = [(a, c, s) for a in range(animals) for c in range(cameras) for s in range(shots)]
    vectors, _ = unit(embedder.of_images([crop(*key) for key in keys]))
    who, where = np.array([a for a, _, _ in keys], object), np.array([c for _, c, _ in keys], object)
    known = np.arange(animals // 2)
    is_known = np.isin(who.astype(int), known)
    figures: dict[str, Any] = {"crops": len(keys)} | separability(vectors, who, where).model_dump()
    figures["chance_rank1"] = 1 / animals
    for top in (1, 3, 5):
        found = suggested(vectors, who, where, known, top)
        rows = {}
        for threshold in (0.8, 0.85, 0.9, 0.92, 0.94):
            above = found[:, 0] >= threshold
            right = above & (found[:, 1] == 1)
            rows[threshold] = {
                "suggested": round(float(above.mean()), 3),
                "right_of_suggested": round(float(right.sum() / max(above.sum(), 1)), 3),
                "known_found": round(float(right[is_known].mean()), 3),
                "new_said_new": round(float((~above)[~is_known].mean()), 3),
            }
        figures[f"mean_of_{top}"] = {"rank1_known": round(float(found[is_known, 1].mean()), 3)} | rows
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="EfficientNet-Lite0 classifier, ONNX")
    parser.add_argument("--animals", type=int, default=20)
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--shots", type=int, default=4, help="crops of each animal at each camera")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        embedder = embedder_of(wanted.weights, place)
        print(json.dumps(measure(embedder, wanted.animals, wanted.cameras, wanted.shots), indent=1))


if __name__ == "__main__":
    main()
