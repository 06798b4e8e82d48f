"""Test the classifier key: different rows have different keys, equal rows equal keys."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

import batch.classify.target
from archive.annotations.classes import classes_digest
from batch.classify.target import target_of
from tests.batch.box_bench import KEY
from tests.batch.classify.bench import COLOURS, classifier


def test_the_key_is_the_digest_of_model_margin_and_classes() -> None:
    labels = hashlib.sha256(
        json.dumps({"lineage": ["", "", ""], "names": list(COLOURS)}, separators=(",", ":")).encode()
    ).hexdigest()
    text = f'{{"cropping":1,"inference_key":"{"c" * 64}","labels":"{labels}","margin_frac":0.25}}'
    target = target_of(KEY, classifier(), 0.25)
    assert target.classifier_key == hashlib.sha256(text.encode()).hexdigest()
    assert target.labels_digest == labels == classes_digest(COLOURS, ("", "", ""))
    assert target.key == {"inference_key": KEY, "classifier_key": target.classifier_key}


def test_each_of_them_is_in_it_and_the_detector_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    first = target_of(KEY, classifier(), 0.0).classifier_key
    assert target_of("another", classifier(), 0).classifier_key == first
    others = [
        target_of(KEY, classifier("d" * 64), 0.0),
        target_of(KEY, classifier(labels=("red", "green", "cyan")), 0.0),
        target_of(KEY, classifier(), 0.1),
    ]
    monkeypatch.setattr(batch.classify.target, "CROPPING", 2)
    keys = {one.classifier_key for one in [*others, target_of(KEY, classifier(), 0.0)]}
    assert len(keys - {first}) == 4


def test_other_lineages_are_another_key() -> None:
    plain = classifier()
    lineage = ("a;b", "a;c", "")
    config = plain.classifier_config.model_copy(update={"lineage": lineage})
    target = target_of(KEY, replace(plain, config=config), 0.0)
    assert target.lineage == lineage
    assert target.classifier_key != target_of(KEY, plain, 0.0).classifier_key
