"""What a change of each field of a model's config costs, and why, in words.

dotted name of a leaf of ModelConfig ("preprocess.tiling.tile_px") -> (need, why)
A field that needs inference is in the inference key, and no other is (tests/batch/test_changes.py).
"""

from __future__ import annotations

from typing import Literal

Need = Literal["nothing", "view", "postprocess", "inference"]
NEEDS: tuple[Need, ...] = ("nothing", "view", "postprocess", "inference")
"""Cheapest first."""

_PIXELS = "the network is given other pixels"
_BOXES = "other boxes are kept of what the network answers, and only what is kept is stored"
_TILES = "the image is cut into other tiles"
_MERGED = "boxes of different tiles are made one in another way before they are stored"
_BLOBS = "it is what a motion detector has in place of weights"
_WORDS = "words for people: no row comes of them"
_PACE = "how images are put together for one call: rows are the same"

FIELD_NEEDS: dict[str, tuple[Need, str]] = {
    "kind": ("inference", "a classifier gives no boxes: nothing of a detector's rows is its own"),
    "runtime.kind": (
        "nothing",
        "the digest of the weights tells runtimes apart; which one reads them is not in the key",
    ),
    "runtime.weights": ("nothing", "a file's name: its bytes decide, by their digest"),
    "runtime.min_contrast": ("inference", _BLOBS),
    "runtime.min_area_frac": ("inference", _BLOBS),
    "runtime.background_sigma_px": ("inference", _BLOBS),
    "runtime.max_blobs": ("inference", _BLOBS),
    "decoder": ("inference", "the network's numbers are read as other boxes"),
    "preprocess.resize": ("inference", _PIXELS),
    "preprocess.side_px": ("inference", _PIXELS),
    "preprocess.height_px": ("inference", _PIXELS),
    "preprocess.stride_px": ("inference", f"{_PIXELS} where it is resized by rect"),
    "preprocess.interpolation": ("inference", _PIXELS),
    "preprocess.pad_value": ("inference", _PIXELS),
    "preprocess.channel_order": ("inference", _PIXELS),
    "preprocess.divide_by": ("inference", _PIXELS),
    "preprocess.mean": ("inference", _PIXELS),
    "preprocess.std": ("inference", _PIXELS),
    "preprocess.jpeg_shrink": ("inference", "JPEGs are decoded at another size"),
    "preprocess.damaged": ("inference", "damaged JPEGs have detections, or fail, in its place"),
    "preprocess.tiling": ("inference", "objects are looked for in tiles, or no longer"),
    "preprocess.tiling.tile_px": ("inference", _TILES),
    "preprocess.tiling.overlap_frac": ("inference", _TILES),
    "preprocess.tiling.whole": ("inference", "the whole image is seen besides, or no longer"),
    "preprocess.tiling.merge.kind": ("inference", _MERGED),
    "preprocess.tiling.merge.measure": ("inference", _MERGED),
    "preprocess.tiling.merge.over": ("inference", _MERGED),
    "nms.kind": ("inference", _BOXES),
    "nms.iou": ("inference", _BOXES),
    "nms.class_aware": ("inference", _BOXES),
    "nms.inclusive_px": ("inference", _BOXES),
    "nms.max_detections": ("inference", _BOXES),
    "labels": (
        "inference",
        "rows hold the label itself, and the key the list: a label that is only renamed would stand under "
        "two names in one result (to rename what is shown without inference, keep the model and use a layer)",
    ),
    "score_floor": (
        "inference",
        "it decides what is stored; to show less or more of what is stored, move a threshold",
    ),
    "thresholds.default": ("view", "all scores down to score_floor are stored: publish again"),
    "thresholds.per_label": ("view", "all scores down to score_floor are stored: publish again"),
    "batch.max": ("nothing", _PACE),
    "batch.wait_ms": ("nothing", _PACE),
    "licence": ("nothing", _WORDS),
    "source": ("nothing", _WORDS),
    "description": ("nothing", _WORDS),
}
"""`preprocess.tiling` itself is a change between none and some."""
