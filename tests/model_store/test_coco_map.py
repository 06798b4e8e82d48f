"""Compare the mAP by pycocotools of the product's and the oracle's output, on the same ground truth.

composites -> product | oracle -> Found rows per image -> COCOeval -> its 12 numbers
The configuration of ssdlite-coco is repeated for the oracle, not read from the product's.
"""

from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from model_store.load import load_detector
from model_store.names import parse_version
from model_store.store import ModelStore
from tests.oracles.composites import COMPOSITES, HEIGHT, OBJECTS, WIDTH, Composite, composites
from tests.oracles.geometry import Box
from tests.oracles.yolov8 import detect, names_of
from tests.shared_data import MODELS

AP, AP50 = 0, 1  # indices in COCOeval's stats
WEIGHTS = MODELS / "ssdlite-coco" / "1" / "model.onnx"


class Found(NamedTuple):
    """One detection: class name, score, x1, y1, x2, y2 in px of the image."""

    label: str
    score: float
    box: Box


Results = tuple[tuple[Found, ...], ...]
"""Return one tuple of detections per image, in the order of the images."""


@cache
def scenes() -> list[Composite]:
    return composites()


@cache
def by_product() -> Results:
    detector = load_detector(ModelStore(str(MODELS)), parse_version("ssdlite-coco@1"))
    labels = detector.info.labels
    return tuple(
        tuple(
            Found(labels[class_id], score, (x1, y1, x2, y2))
            for class_id, score, (x1, y1, x2, y2) in zip(
                found.class_ids.tolist(), found.scores.tolist(), found.boxes_xyxy.tolist(), strict=True
            )
        )
        for found in detector.detect([scene.pixels for scene in scenes()])
    )


@cache
def by_oracle() -> Results:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(WEIGHTS), options, providers=["CPUExecutionProvider"])
    names = names_of(session)
    results: list[tuple[Found, ...]] = []
    for scene in scenes():
        rows = detect(
            session,
            scene.pixels,
            side=300,
            geometry="stretch",
            score_floor=0.05,
            iou=0.5,
            class_aware=True,
            max_detections=100,
        )
        results.append(tuple(Found(names[row[0]], row[1], row[2:]) for row in rows))
    return tuple(results)


def xywh(box: Box) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]


def category_ids(results: Results) -> dict[str, int]:
    """Return an id for every class in the ground truth or the detections."""
    found = {row.label for image in results for row in image}
    return {label: index for index, label in enumerate(sorted(found | set(OBJECTS)), start=1)}


def ground_truth(ids: dict[str, int]) -> dict[str, Any]:
    """Return the composites as a COCO data set."""
    annotations: list[dict[str, Any]] = []
    for image_id, scene in enumerate(scenes(), start=1):
        for label, box in scene.objects:
            x, y, w, h = xywh(box)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": ids[label],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    return {
        "info": {},
        "images": [{"id": index, "width": WIDTH, "height": HEIGHT} for index in range(1, COMPOSITES + 1)],
        "categories": [{"id": index, "name": label} for label, index in ids.items()],
        "annotations": annotations,
    }


def coco_stats(results: Results) -> NDArray[np.float64]:
    """Return COCOeval's 12 numbers for boxes; -1 without ground truth of that size."""
    ids = category_ids(results)
    rows = [
        {"image_id": image_id, "category_id": ids[row.label], "bbox": xywh(row.box), "score": row.score}
        for image_id, image in enumerate(results, start=1)
        for row in image
    ]
    with redirect_stdout(StringIO()) as said:
        truth: Any = COCO()
        truth.dataset = ground_truth(ids)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert "Average Precision" in said.getvalue()
    stats = np.asarray(evaluation.stats, np.float64)
    assert stats.shape == (12,)
    return stats


def shifted(results: Results, right_px: float, down_px: float) -> Results:
    """Return the detections with every box moved."""
    return tuple(
        tuple(
            Found(label, score, (x1 + right_px, y1 + down_px, x2 + right_px, y2 + down_px))
            for label, score, (x1, y1, x2, y2) in image
        )
        for image in results
    )


def test_composites_hold_what_they_say_and_are_the_same_every_time() -> None:
    again = composites()
    assert len(again) == COMPOSITES
    assert {label for scene in again for label, _ in scene.objects} == set(OBJECTS)
    for one, other in zip(scenes(), again, strict=True):
        assert one.pixels.shape == (HEIGHT, WIDTH, 3)
        assert one.pixels.tobytes() == other.pixels.tobytes()
        assert one.objects == other.objects
        for _, (x1, y1, x2, y2) in one.objects:
            assert 0 <= x1 < x2 <= WIDTH
            assert 0 <= y1 < y2 <= HEIGHT


def test_map_of_our_output_is_map_of_the_oracles() -> None:
    ours, wanted = coco_stats(by_product()), coco_stats(by_oracle())
    assert wanted[AP50] > 0.3
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("way", [(8, 0), (-8, 0), (0, 8), (0, -8)])
def test_boxes_8_px_off_have_another_map(way: tuple[float, float]) -> None:
    off = coco_stats(shifted(by_product(), *way))
    assert abs(off[AP] - coco_stats(by_oracle())[AP]) > 1e-3
