"""Raw outputs of each decoder's networks: random ones with the statistics of real heads, and those of given boxes.

In an example, a few objects an image are each found by several rows (so NMS has work, and heads without NMS must show
them all). Scores of boxes are distinct and lie between 0.4 and 0.98, all others below 0.01, so no
usual floor cuts between two rounding errors. Boxes may reach over the square's edge.
Floats are float32 and labels int64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.graphs import constant_graph
from tests.oracles.anchor_decoders import Box
from tests.oracles.decoders import ORACLES
from tests.oracles.scenes import Outputs, Scene, grid, padded

PROTOS = 8  # coefficients a box of the heads with masks
PROTO_STRIDE = 4
ROWS = 40  # of lists of given boxes
COEFFICIENTS = 4


def raw_outputs(decoder: str, scene: Scene) -> Outputs:
    """Raw outputs by name, as the decoder's exports give them for the scene."""
    return {
        name: np.ascontiguousarray(values, np.int64 if values.dtype == np.int64 else np.float32)
        for name, values in ORACLES[decoder].write(scene).items()
    }


def scored(
    rng: np.random.Generator, images: int, rows: int, classes: int
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Objectness, class scores, and the rows (objects, rows of one) that see an object."""
    objectness = rng.uniform(0, 0.01, (images, rows))
    scores = rng.uniform(0, 0.01, (images, rows, classes))
    seen = []
    for image in range(images):
        # Starts are 4 apart, so that no two objects share one of their three rows.
        starts = rng.choice(rows // 4, int(rng.integers(3, 6)), replace=False) * 4
        objects = starts[:, np.newaxis] + np.arange(3)
        seen.append(objects)
        for group in objects:
            label = int(rng.integers(classes))
            objectness[image, group] = rng.uniform(0.75, 0.98, 3)
            scores[image, group, label] = rng.uniform(0.65, 0.98, 3)
            if classes > 1:  # a second opinion on the first row, above most floors
                scores[image, group[0], (label + 1) % classes] = rng.uniform(0.4, 0.6)
        # An object without a class, and a class without an object: no detection of a product.
        objectness[image, starts[0] + 3] = rng.uniform(0.5, 0.9)
        objectness[image, starts[0] + 2] = rng.uniform(0, 0.01)
    return objectness, scores, seen


def anchored(
    rng: np.random.Generator, images: int, classes: int, side_px: int, per_cell: int
) -> tuple[np.ndarray, ...]:
    """Boxes, objectness and scores of one row per anchor, each box near its cell."""
    cells, strides = grid((side_px, side_px), per_cell)
    objectness, scores, seen = scored(rng, images, len(cells), classes)
    centres = (cells + rng.uniform(-0.3, 1.3, (images, len(cells), 2))) * strides
    sizes = np.exp(rng.normal(0.8, 0.4, centres.shape)) * strides
    boxes = np.concatenate([centres, sizes], axis=2)
    for image, objects in enumerate(seen):
        for group in objects:
            if len({(float(strides[row, 0]), float(cells[row, 1])) for row in group}) == 1:
                wobble = rng.normal(0, 0.02, (3, 4)) * strides[group[0]]
                boxes[image, group] = boxes[image, group[1]] + wobble
    return boxes, objectness, scores


def listed(rng: np.random.Generator, images: int, classes: int, side_px: int, rows: int) -> tuple[np.ndarray, ...]:
    """Boxes anywhere in the square, objectness and scores, in no order."""
    objectness, scores, seen = scored(rng, images, rows, classes)
    centres = rng.uniform(0.1, 0.9, (images, rows, 2)) * side_px
    sizes = rng.uniform(0.05, 0.4, (images, rows, 2)) * side_px
    boxes = np.concatenate([centres, sizes], axis=2)
    for image, objects in enumerate(seen):
        for group in objects:
            boxes[image, group] = boxes[image, group[0]] + rng.normal(0, 0.01 * side_px, (3, 4))
    return boxes, objectness, scores


def example(decoder: str, rng: np.random.Generator, images: int = 2, classes: int = 3, side_px: int = 64) -> Outputs:
    """Random raw outputs by name of `images` images."""
    oracle = ORACLES[decoder]
    if oracle.per_cell:
        parts = anchored(rng, images, classes, side_px, oracle.per_cell)
    else:
        parts = listed(rng, images, classes, side_px, oracle.rows)
    small_px = side_px // PROTO_STRIDE
    weights = rng.normal(size=(*parts[1].shape, PROTOS))
    prototypes = rng.normal(size=(images, PROTOS, small_px, small_px))
    scene = Scene((side_px, side_px), *parts, weights, prototypes)
    return raw_outputs(decoder, padded(scene, oracle.padding) if oracle.padding else scene)


def encode(decoder: str, boxes: Sequence[Box], classes: int, side_px: int) -> Outputs:
    """Raw outputs of one image that show `boxes`; in rows of anchors they lie apart."""
    oracle, px = ORACLES[decoder], (side_px, side_px)
    rows = len(grid(px, oracle.per_cell)[0]) if oracle.per_cell else ROWS
    step = rows // max(1, len(boxes)) if oracle.per_cell else 1
    places, objectness = np.ones((1, rows, 4)), np.zeros((1, rows))
    scores = np.zeros((1, rows, classes))
    for row, box in zip(range(0, rows, step), boxes, strict=False):
        centre = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2
        places[0, row] = (*centre, box.x2 - box.x1, box.y2 - box.y1)
        objectness[0, row], scores[0, row, box.class_id] = 1, box.score
    weights = np.ones((1, rows, COEFFICIENTS))
    prototypes = np.zeros((1, COEFFICIENTS, side_px // PROTO_STRIDE, side_px // PROTO_STRIDE))
    return raw_outputs(decoder, Scene(px, places, objectness, scores, weights, prototypes))


def export(
    decoder: str, outputs: Outputs, side_px: int, metadata: dict[str, str] | None = None, fp16: bool = False
) -> bytes:
    """A graph that returns the outputs, with the inputs of the decoder's exports."""
    oracle = ORACLES[decoder]
    sized = ["orig_target_sizes"] if oracle.sized else []
    return constant_graph(outputs, side_px, metadata, fp16, sized, batchless=oracle.batchless)
