"""Test the rows of a chunk: one per image, in the schema of `results`, for every outcome."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from archive.schemas import RESULTS
from batch.pipeline.detect_stage import result_table
from batch.pipeline.read_image import MAX_DETAIL, ReadImage
from model_store.config import Preprocess
from model_store.decoders.layout import OutputNonsense
from model_store.detections import Detections, RunLengths
from model_store.images.decode import DecodedImage
from model_store.transform.preprocess import prepare
from serve.inference.chunks import ChunkAnswer, pack_answers
from serve.inference.results import ImageResult
from tests.fixtures_local import model_info

MODEL = model_info(key="key")


def good(sha: str, note: str | None = None) -> ReadImage:
    pixels = np.zeros((30, 40, 3), np.uint8)
    prepared = prepare(pixels, Preprocess(side_px=16))
    facts = DecodedImage(pixels, note, "image/jpeg").facts
    return ReadImage(sha, prepared, facts, read_ms=1.5, decode_ms=2.5)


def unreadable(sha: str) -> ReadImage:
    return ReadImage(sha, error_code="decode", error_detail="cut")


def found(*scores: float, saturated: bool = False) -> tuple[ImageResult, float]:
    n = len(scores)
    boxes = np.arange(n * 4, dtype=np.float32).reshape(n, 4)
    ids = np.arange(n, dtype=np.int32) % 2
    one = Detections(boxes, np.array(scores, np.float32), ids, saturated)
    return ImageResult(one, 3.0, 0.5), 7.0


def answer(*outcomes: Any) -> ChunkAnswer:
    return pack_answers(MODEL, outcomes)


def rows(images: list[ReadImage], reply: ChunkAnswer | None) -> list[dict[str, Any]]:
    table = result_table("run", MODEL, images, reply)
    assert table.schema == RESULTS
    return list(table.to_pylist())


def test_an_image_with_detections_is_ok_and_has_them_ranked() -> None:
    (row,) = rows([good("a", "cmyk_converted")], answer(found(0.75, 0.5, saturated=True)))
    assert row["finished_at"] is not None
    assert {k: v for k, v in row.items() if k not in ("finished_at", "detections")} == {
        "inference_key": "key",
        "media_sha256": "a",
        "status": "ok",
        "error_code": None,
        "error_detail": None,
        "decode_note": "cmyk_converted",
        "width_px": 40,
        "height_px": 30,
        "n_detections": 2,
        "max_score": 0.75,
        "saturated": True,
        "read_ms": 1.5,
        "decode_ms": 2.5,
        "queue_ms": 7.0,
        "inference_ms": 3.0,
        "postprocess_ms": 0.5,
        "run_id": "run",
        "model_name": "blobs",
        "model_version": "1",
        "weights_sha256": "w" * 64,
    }
    corners = ("x1_px", "y1_px", "x2_px", "y2_px")
    no_mask = {"mask_rle": None, "mask_area_px": None}
    assert row["detections"] == [
        {"rank": 0, "label": "cat", "class_id": 0, "score": 0.75, **no_mask}
        | dict(zip(corners, (0.0, 1.0, 2.0, 3.0), strict=True)),
        {"rank": 1, "label": "dog", "class_id": 1, "score": 0.5, **no_mask}
        | dict(zip(corners, (4.0, 5.0, 6.0, 7.0), strict=True)),
    ]


def test_an_image_without_detections_has_a_row() -> None:
    (row,) = rows([good("a")], answer(found()))
    assert (row["status"], row["n_detections"], row["max_score"]) == ("ok", 0, None)
    assert (row["detections"], row["saturated"], row["width_px"]) == ([], False, 40)


def test_an_image_of_which_the_network_says_nonsense_is_failed_with_its_words() -> None:
    nonsense = OutputNonsense("the network returned class 5, but the model has 2 labels")
    odd, plain = rows([good("a"), good("b")], answer(nonsense, found(0.5)))
    assert (odd["status"], odd["error_code"]) == ("failed", "model")
    assert odd["error_detail"] == "the network returned class 5, but the model has 2 labels"
    assert (plain["status"], plain["detections"][0]["label"]) == ("ok", "cat")


def test_a_long_reason_is_cut() -> None:
    (row,) = rows([ReadImage("a", error_code="access", error_detail="x" * 999)], None)
    assert len(row["error_detail"]) == MAX_DETAIL


def test_answers_go_to_the_images_that_could_be_read_in_order() -> None:
    images = [unreadable("a"), good("b"), unreadable("c"), good("d"), good("e")]
    made = rows(images, answer(found(0.5), ValueError("odd"), found()))
    assert [(row["media_sha256"], row["status"]) for row in made] == [
        ("a", "failed"),
        ("b", "ok"),
        ("c", "failed"),
        ("d", "failed"),
        ("e", "ok"),
    ]


def test_masks_stand_beside_their_boxes() -> None:
    reply, queue_ms = found(0.75, 0.5)
    masks = RunLengths(("04", "13"), np.array([4, 3]))
    reply = replace(reply, detections=replace(reply.detections, masks=masks))
    (row,) = rows([good("a")], answer((reply, queue_ms)))
    assert [(d["mask_rle"], d["mask_area_px"]) for d in row["detections"]] == [("04", 4), ("13", 3)]
