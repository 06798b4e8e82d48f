"""What decoding, suppression and masks cost per image and family, beside the time of an inference.

python benchmarks/decode_and_nms.py
Random raw outputs at the sizes of real heads (8,400 anchors of 80 classes, 25,200 for YOLOv5, 300
queries), with about 50 boxes that survive; masks of 32 prototypes, at the size of a photograph of 12
megapixels. Median of 30 calls of one image; one core.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from model_store.config import Nms  # noqa: E402
from model_store.decoders import DECODERS  # noqa: E402
from model_store.decoders.layout import DecodeSpec, Outputs  # noqa: E402
from model_store.decoders.yolox import grid  # noqa: E402
from model_store.detections import Detections  # noqa: E402
from model_store.detector import load_detector  # noqa: E402
from model_store.fit import fit  # noqa: E402
from model_store.masks import PrototypeMasks, run_lengths  # noqa: E402
from model_store.names import parse_ref  # noqa: E402
from model_store.nms import suppress  # noqa: E402
from model_store.presets import PRESETS  # noqa: E402
from model_store.store import ModelStore  # noqa: E402

CALLS, OBJECTS, SIDE_PX, CLASSES = 30, 50, 640, 80
PROTOTYPES, GRID_PX = 32, 160
PHOTO_PX = (4000, 3000)
FAMILIES = ("yolov8", "yolov5", "yolox", "yolox_raw", "ssd", "end2end", "rtdetr", "rfdetr")
SEGMENTING = ("yolov8_seg", "yolov5_seg", "end2end_seg")
QUERIES = ("rtdetr", "rfdetr", "end2end", "end2end_seg")


def anchors(family: str) -> int:
    return 300 if family in QUERIES else 25_200 if "yolov5" in family else 8_400


def raw_outputs(family: str) -> Outputs:
    """Boxes on a lattice, three rows for each of OBJECTS; noise below the floor elsewhere."""
    random = np.random.default_rng(0)
    rows = anchors(family)
    boxes = random.uniform(0, SIDE_PX, (rows, 4)).astype(np.float32)
    scores = random.uniform(0, 0.005, (rows, CLASSES)).astype(np.float32)
    for k in range(OBJECTS):
        place = [60 * (k % 10) + 30, 110 * (k // 10) + 40, 50, 90]
        chosen = slice(3 * k, 3 * k + 3)
        boxes[chosen] = np.array(place) + random.normal(0, 0.5, (3, 4))
        scores[chosen, k % CLASSES] = random.uniform(0.4, 0.95, 3)
    objectness = random.uniform(0, 0.01, (rows, 1)).astype(np.float32)
    objectness[: 3 * OBJECTS] = 0.9
    fractions, best = boxes / SIDE_PX, scores.max(axis=1)
    x1y1x2y2 = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    ranked = np.column_stack([x1y1x2y2, best, scores.argmax(axis=1)]).astype(np.float32)
    anchored = np.concatenate([boxes, scores], 1)
    objects = np.concatenate([boxes, objectness, scores], 1)
    made: dict[str, dict[str, np.ndarray]] = {
        "yolov8": {"output0": anchored.T},
        "yolov5": {"output0": objects},
        "yolox": {"output0": objects},
        "end2end": {"output0": ranked},
        "rtdetr": {"output0": np.concatenate([fractions, scores], 1)},
        "rfdetr": {"dets": fractions, "labels": np.log(scores / (1 - scores))},
        "ssd": {"boxes": x1y1x2y2[:, [1, 0, 3, 2]] / SIDE_PX, "scores": scores},
    }
    if family == "yolox_raw":
        cells, strides = grid((SIDE_PX, SIDE_PX))
        place, size = boxes[:, :2] / strides - cells, np.log(boxes[:, 2:] / strides)
        made[family] = {"output0": np.concatenate([place, size, objects[:, 4:]], 1)}
    if family in SEGMENTING:
        plain = made[family.removesuffix("_seg")]["output0"]
        weights = random.normal(0, 1, (rows, PROTOTYPES))
        columns = np.concatenate([plain.T if family == "yolov8_seg" else plain, weights], 1)
        made[family] = {
            "output0": columns.T if family == "yolov8_seg" else columns,
            "output1": prototypes(random),
        }
    return {
        name: np.ascontiguousarray(raw[np.newaxis], np.float32)
        for name, raw in made[family].items()
    }


def prototypes(random: np.random.Generator) -> np.ndarray:
    """(PROTOTYPES, GRID_PX, GRID_PX): as smooth as a network's."""
    coarse = random.normal(0, 1, (PROTOTYPES, 10, 10)).astype(np.float32)
    return np.stack([cv2.resize(one, (GRID_PX, GRID_PX)) for one in coarse])


def median_us(call: Callable[[], object]) -> float:
    call()
    times: list[float] = []
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def masks_us(kept: Detections) -> float | None:
    """Of all kept boxes, at the size of the photograph."""
    masks, placed = kept.masks, fit("letterbox", PHOTO_PX, (SIDE_PX, SIDE_PX))
    if not isinstance(masks, PrototypeMasks):
        return None
    boxes = placed.to_image(kept.boxes_xyxy)
    return median_us(lambda: run_lengths(masks, boxes, placed, PHOTO_PX))


def main() -> None:
    cv2.setNumThreads(1)
    spec = DecodeSpec((SIDE_PX, SIDE_PX), CLASSES, 0.05)
    result: dict[str, dict[str, float | None]] = {}
    print(f"{'family':12}{'anchors':>9}{'decode µs':>11}{'nms µs':>9}{'kept':>6}{'masks µs':>10}")
    for family in (*FAMILIES, *SEGMENTING):
        outputs, nms = raw_outputs(family), Nms.model_validate(PRESETS[family]["nms"])
        (found,) = DECODERS[family](outputs, spec)
        decode_us = median_us(lambda f=family, o=outputs: DECODERS[f](o, spec))
        nms_us = median_us(lambda d=found, n=nms: suppress(d, n))
        kept = suppress(found, nms)
        mask_us = masks_us(kept)
        result[family] = {
            "anchors": anchors(family),
            "decode_us": decode_us,
            "nms_us": nms_us,
            "kept": len(kept),
            "masks_us": mask_us,
        }
        print(
            f"{family:12}{anchors(family):>9}{decode_us:>11.0f}{nms_us:>9.0f}{len(kept):>6}"
            f"{'' if mask_us is None else round(mask_us):>10}"
        )
    whole = shipped()
    result["ssdlite-coco"] = {**whole}
    print("shipped model: " + ", ".join(f"{k} {v:.3g}" for k, v in whole.items()))
    print(json.dumps({"benchmark": "decode_and_nms", "families": result}))


def shipped() -> dict[str, float]:
    """Decoding and suppression of the shipped model on a photograph, as a share of its inference."""
    from model_store.images import decode

    store = ModelStore(str(ROOT / "examples" / "models"))
    detector = load_detector(store, store.resolve(parse_ref("ssdlite-coco")))
    pixels = decode((ROOT / "examples" / "photos" / "person.jpg").read_bytes()).pixels
    prepared = detector.prepare(pixels)
    done = [detector.infer([prepared]) for _ in range(CALLS)]
    inference = statistics.median(d.inference_ms for d in done)
    after = statistics.median(d.postprocess_ms for d in done)
    return {"inference_ms": inference, "postprocess_ms": after, "share": after / inference}


if __name__ == "__main__":
    main()
