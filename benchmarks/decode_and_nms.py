"""Measure decoding, suppression and masks per image and decoder, and compare with the time of an inference.

python benchmarks/decode_and_nms.py [--calls 30] [--quick]
Inputs are random raw outputs at the sizes of real heads, with 80 classes and 50 boxes that survive. Heads before
suppression have 8,400 and 25,200 anchors, three on each object; heads that rank in the graph have 300 rows, one on
each. Masks have 32 prototypes at the sizes of two photographs. Times are medians of single images on one core.
The negative control is textbook suppression (pairwise_nms.py) of the same boxes with one label: it must keep the same
rows and take longer. With the actual labels, one per object, it has almost nothing to compare; this time is also shown.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import harness
import numpy as np

import cv2  # isort: skip
from benchmarks.pairwise_nms import pairwise_nms
from model_store.config import Nms
from model_store.decoders import DECODERS
from model_store.decoders.layout import DecodeSpec
from model_store.detections import Detections
from model_store.images.decode import decode
from model_store.load import load_detector
from model_store.names import parse_ref
from model_store.store import ModelStore
from model_store.transform.letterbox import SizePx, fit
from model_store.transform.masks import PrototypeMasks, run_lengths
from model_store.transform.nms import suppress
from tests.oracles.decoders import ORACLES
from tests.oracles.scenes import Scene
from tests.oracles.tensors import raw_outputs

OBJECTS, CLASSES, FLOOR = 50, 80, 0.05
QUERIES = 300
NETWORK_PX: dict[int, SizePx] = {8_400: (640, 640), 25_200: (1280, 960), QUERIES: (640, 640)}
"""Input sizes by number of rows: the number of their cells at strides 8, 16 and 32."""
ANCHORS = [name for name, oracle in ORACLES.items() if oracle.per_cell]
CASES = [(name, rows) for name in ANCHORS for rows in (8_400, 25_200)]
CASES += [(name, QUERIES) for name in ORACLES if name not in ANCHORS]
"""Decoders, with the rows of their outputs."""
PROTOTYPES, PROTOTYPE_PX = 32, 4
PHOTOS_PX: dict[str, SizePx] = {"masks_2mp_ms": (1920, 1080), "masks_12mp_ms": (4000, 3000)}
TARGET_MS, TARGET_SHARE = 2.0, 0.10


def scene_of(rows: int, per_object: int) -> Scene:
    """Return one image; objects lie on a lattice with several rows each, other scores are noise below the floor."""
    random = np.random.default_rng(0)
    px = NETWORK_PX[rows]
    boxes = random.uniform(8, min(px), (rows, 4))
    scores = random.uniform(0, 0.005, (rows, CLASSES))
    objectness = random.uniform(0, 0.01, rows)
    for k in range(OBJECTS):
        seen = slice(per_object * k, per_object * (k + 1))
        place = [60 * (k % 10) + 30, 110 * (k // 10) + 40, 50, 90]
        boxes[seen] = place + random.normal(0, 0.5, (per_object, 4))
        scores[seen, k % CLASSES] = random.uniform(0.4, 0.95, per_object)
        objectness[seen] = 0.9
    weights = random.normal(0, 1, (rows, PROTOTYPES))
    parts = (boxes, objectness, scores, weights, prototypes(random, px))
    return Scene(px, *(part[np.newaxis] for part in parts))


def prototypes(random: np.random.Generator, px: SizePx) -> np.ndarray:
    """Return prototypes (PROTOTYPES, h, w) at a quarter of the input's sides, as smooth as those of a network."""
    across, down = (side // PROTOTYPE_PX for side in px)
    coarse = random.normal(0, 1, (PROTOTYPES, 10, 10)).astype(np.float32)
    return np.stack([cv2.resize(one, (across, down)) for one in coarse])


def median_us(call: Callable[[], object], calls: int) -> float:
    call()
    times: list[float] = []
    for _ in range(calls):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def masks_ms(kept: Detections, network_px: SizePx, calls: int) -> dict[str, float | None]:
    """Return the time of the masks of all kept boxes at the sizes of the photographs."""
    masks, few = kept.masks, max(3, calls // 10)
    if not isinstance(masks, PrototypeMasks):
        return dict.fromkeys(PHOTOS_PX)

    def of(photo_px: SizePx) -> float:
        placed = fit("letterbox", photo_px, network_px)
        boxes = placed.to_image(kept.boxes_xyxy)
        return median_us(lambda: run_lengths(masks, boxes, placed, photo_px), few) / 1e3

    return {name: of(photo_px) for name, photo_px in PHOTOS_PX.items()}


def measured(decoder: str, rows: int, calls: int) -> dict[str, Any]:
    scene = scene_of(rows, 1 if rows == QUERIES else 3)
    outputs, nms = raw_outputs(decoder, scene), Nms.model_validate(DECODERS[decoder].nms)
    spec = DecodeSpec(scene.network_px, CLASSES, FLOOR)
    (found,) = DECODERS[decoder](outputs, spec)
    decode_us = median_us(lambda: DECODERS[decoder](outputs, spec), calls)
    nms_us = median_us(lambda: suppress(found, nms), calls)
    kept = suppress(found, nms)
    assert len(kept) == OBJECTS, (decoder, rows, len(kept))
    return {
        "decoder": decoder,
        "rows": rows,
        "decode_us": round(decode_us),
        "nms_us": round(nms_us),
        "both_ms": (decode_us + nms_us) / 1e3,
        "kept": len(kept),
        **masks_ms(kept, scene.network_px, calls),
    }


def shipped(calls: int) -> dict[str, float]:
    """Measure decoding and suppression of the shipped model on a photograph as a share of its inference."""
    store = ModelStore(str(harness.ROOT / "examples" / "models"))
    detector = load_detector(store, store.resolve(parse_ref(harness.MODEL)))
    prepared = detector.prepare(decode(harness.PHOTO.read_bytes()).pixels)
    done = [detector.infer([prepared]) for _ in range(calls)]
    inference = statistics.median(d.inference_ms for d in done)
    after = statistics.median(d.postprocess_ms for d in done)
    return {"inference_ms": inference, "postprocess_ms": after, "share": after / inference}


def textbook(calls: int) -> list[dict[str, Any]]:
    """Measure suppression of yolov8's boxes by Resight and by the control, with one label and with their labels."""
    scene = scene_of(8_400, 3)
    spec = DecodeSpec(scene.network_px, CLASSES, FLOOR)
    (found,) = DECODERS["yolov8"](raw_outputs("yolov8", scene), spec)
    columns = (found.boxes_xyxy.astype(np.float64), found.scores, found.class_ids)
    told: list[dict[str, Any]] = []
    for labels, class_aware in (("one", False), ("theirs", True)):
        nms = Nms.model_validate({**DECODERS["yolov8"].nms, "class_aware": class_aware})
        ours = partial(suppress, found, nms)
        rows = (column.tolist() for column in columns)
        theirs = partial(pairwise_nms, *rows, nms.iou, class_aware)
        same = np.array_equal(ours().boxes_xyxy, found.boxes_xyxy[theirs()])
        us = {"nms_us": median_us(ours, calls), "textbook_us": median_us(theirs, calls)}
        told.append({"labels": labels, "boxes": len(found), "same rows": same, **us})
    return told


def main() -> None:
    options = harness.arguments_of(__doc__, calls=30)
    calls = 3 if options.quick else options.calls
    result = harness.facts("decode_and_nms", vars(options))
    cv2.setNumThreads(1)
    result["decoders"] = [measured(decoder, rows, calls) for decoder, rows in CASES]
    result["shipped"] = shipped(calls)
    result["textbook"] = textbook(calls)
    harness.table([{**row, "rows": f"{row['rows']:,}"} for row in result["decoders"]])
    harness.table([result["shipped"]])
    harness.table(result["textbook"])
    control, nms_us = (result["textbook"][0][name] for name in ("textbook_us", "nms_us"))
    same = all(row["same rows"] for row in result["textbook"])
    slowest = max(result["decoders"], key=lambda row: row["both_ms"])
    share = result["shipped"]["share"]
    harness.verdicts(
        result,
        [
            (
                f"slowest: {slowest['decoder']} of {slowest['rows']:,}, ms",
                slowest["both_ms"],
                f"{TARGET_MS}",
                slowest["both_ms"] <= TARGET_MS,
            ),
            ("shipped model / its inference", share, f"{TARGET_SHARE}", share <= TARGET_SHARE),
            ("rows kept as the textbook's", "yes" if same else "no", "yes", same),
            ("control: textbook, one label, µs", control, f"> {nms_us:.0f}", control > nms_us),
        ],
    )
    harness.keep(result)


if __name__ == "__main__":
    main()
