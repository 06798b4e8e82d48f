"""Test the rows made from answers of a replica: logits of each crop, as stored."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import batch.crops.model_rows
from archive.annotations.classes import classes_digest
from archive.schemas import CLASSIFICATIONS
from batch.classify.rows import classification_table, classify_target
from batch.crops.model_rows import EXTRA, Crop
from serve.inference.chunks import CropsAnswer
from tests.batch.box_bench import KEY
from tests.batch.classify.bench import COLOURS, classifier

MODEL = classifier()
TARGET = classify_target(KEY, MODEL, 0.25)
PICTURE = np.zeros((8, 8, 3), np.uint8)


def table(crops: list[Crop], answer: CropsAnswer | None) -> pa.Table:
    found = classification_table("r", MODEL.info, TARGET, crops, answer, 12.0, "here")
    assert found.schema == pa.schema([*CLASSIFICATIONS, *EXTRA])
    return found


def answer(logits: list[list[float]], *errors: str | None) -> CropsAnswer:
    times = np.arange(len(logits), dtype=np.float32) + 1
    given = tuple(errors) or (None,) * len(logits)
    return CropsAnswer(MODEL.info, np.array(logits, np.float32), times, 10 * times, given)


def test_rows_are_in_the_order_of_the_crops_also_where_some_failed() -> None:
    crops = [
        Crop("a", 0, False, PICTURE, (1, 2, 3, 4), read_ms=5.0),
        Crop("b", 0, True, error_code="decode", error_detail="no: picture"),
        Crop("c", 3, False, PICTURE, (5, 6, 7, 8)),
        Crop("d", 1, False, PICTURE, (0, 0, 1, 1)),
    ]
    logits = [[1.0, 3.0, 2.0], [math.nan] * 3, [5.0, 5.0, 4.0]]
    rows = table(crops, answer(logits, None, "model: too dark", None)).to_pylist()
    assert [(r["media_sha256"], r["rank"], r["detection_id"]) for r in rows] == [
        ("a", 0, "a-0"),
        ("b", 0, "b-0"),
        ("c", 3, "c-3"),
        ("d", 1, "d-1"),
    ]
    assert [(r["status"], r["error_code"], r["error_detail"]) for r in rows] == [
        ("ok", None, None),
        ("failed", "decode", "no: picture"),
        ("failed", "model", "too dark"),
        ("ok", None, None),
    ]
    assert [r["logits"] for r in rows] == [[1.0, 3.0, 2.0], None, None, [5.0, 5.0, 4.0]]
    assert [r["label"] for r in rows] == ["green", None, None, "red"]  # the first of equals
    raised = [math.exp(1), math.exp(3), math.exp(2)]
    assert rows[0]["score"] == pytest.approx(raised[1] / sum(raised), rel=1e-6)
    assert rows[1]["score"] is None
    assert [r["crop_x1_px"] for r in rows] == [1, None, 5, 0]
    assert [r["replaces"] for r in rows] == [False, True, False, False]
    assert [r["queue_ms"] for r in rows] == [1.0, 0.0, 2.0, 3.0]
    assert [r["inference_ms"] for r in rows] == [10.0, 0.0, 20.0, 30.0]
    assert [r["waited_ms"] for r in rows] == [4.0, 0.0, 4.0, 4.0]
    assert {r["margin_frac"] for r in rows} == {0.25}
    assert {r["classifier_key"] for r in rows} == {TARGET.key["classifier_key"]}


def test_a_long_reason_is_cut() -> None:
    crops = [Crop("a", 0, False, PICTURE, (0, 0, 1, 1))]
    (row,) = table(crops, answer([[0.0] * 3], "model: " + "x" * 400)).to_pylist()
    assert row["error_detail"] == "x" * 300


def test_logits_are_kept_as_numbers_of_16_bits_and_the_score_is_of_all_of_them() -> None:
    values = [10.001, 9.999, -1e6]
    (row,) = table([Crop("a", 0, False, PICTURE, (0, 0, 1, 1))], answer([values])).to_pylist()
    assert row["logits"] == [10.0, 10.0, -65504.0]
    assert row["label"] == "red"
    assert row["score"] == pytest.approx(1 / (1 + math.exp(9.999 - 10.001)), rel=1e-5)


def test_the_key_is_the_digest_of_model_margin_and_classes() -> None:
    labels = hashlib.sha256(
        json.dumps({"lineage": ["", "", ""], "names": list(COLOURS)}, separators=(",", ":")).encode()
    ).hexdigest()
    text = f'{{"cropping":1,"inference_key":"{"c" * 64}","labels":"{labels}","margin_frac":0.25}}'
    target = classify_target(KEY, classifier(), 0.25)
    assert target.key["classifier_key"] == hashlib.sha256(text.encode()).hexdigest()
    assert target.constants["labels_digest"] == labels == classes_digest(COLOURS, ("", "", ""))
    assert target.key == {"inference_key": KEY, "classifier_key": target.key["classifier_key"]}


def test_each_of_them_is_in_it_and_the_detector_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    first = classify_target(KEY, classifier(), 0.0).key["classifier_key"]
    assert classify_target("another", classifier(), 0).key["classifier_key"] == first
    others = [
        classify_target(KEY, classifier("d" * 64), 0.0),
        classify_target(KEY, classifier(labels=("red", "green", "cyan")), 0.0),
        classify_target(KEY, classifier(), 0.1),
    ]
    monkeypatch.setattr(batch.crops.model_rows, "CROPPING", 2)
    keys = {one.key["classifier_key"] for one in [*others, classify_target(KEY, classifier(), 0.0)]}
    assert len(keys - {first}) == 4


def test_other_lineages_are_another_key() -> None:
    plain = classifier()
    lineage = ("a;b", "a;c", "")
    config = plain.classifier_config.model_copy(update={"lineage": lineage})
    target = classify_target(KEY, replace(plain, config=config), 0.0)
    assert target.constants["labels_digest"] == classes_digest(COLOURS, lineage)
    assert target.key["classifier_key"] != classify_target(KEY, plain, 0.0).key["classifier_key"]
