"""A classifier is ready only if it reproduces its recorded classes and logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.adding.add import add_version
from model_store.classifier import Classifier
from model_store.crop_probe import LEAST_TOLERANCE
from model_store.errors import ModelRefused, ProbeFailed
from model_store.probe import EXPECTED, check_probe, record_probe
from model_store.store import ModelStore
from tests.fixtures_local import photo
from tests.graphs import constant_graph, mean_colours
from tests.model_store import embedders
from tests.model_store.classifiers import NAMES, ONE, PLAIN, SIDE_PX, WEIGHT, colours, loaded


@pytest.fixture
def classifier(tmp_path: Path) -> Classifier:
    return loaded(tmp_path, colours(), PLAIN)


@pytest.fixture
def files(classifier: Classifier) -> dict[str, bytes]:
    return record_probe(classifier, {name: photo(name[:-4]) for name in ("cat.jpg", "moose.jpg")})


def prepared_otherwise(classifier: Classifier, **changes: Any) -> Classifier:
    spec = classifier.config.preprocess.model_copy(update=changes)
    return replace(classifier, config=classifier.config.model_copy(update={"preprocess": spec}))


def test_the_best_classes_of_each_picture_are_recorded(classifier: Classifier, files: dict[str, bytes]) -> None:
    expected = json.loads(files[EXPECTED])
    assert expected["images"].keys() == {"cat.jpg", "moose.jpg"}
    (logits,) = classifier.infer(classifier.read(photo("cat"))[1].pixels)
    order = sorted(range(4), key=lambda i: -float(logits[i]))
    assert expected["images"]["cat.jpg"] == [
        {"label": classifier.labels[i], "class_id": i, "logit": pytest.approx(float(logits[i]))} for i in order
    ]
    spread = max(
        float(row.max() - np.median(row))
        for row in (classifier.infer(classifier.read(photo(n))[1].pixels)[0] for n in ("cat", "moose"))
    )
    assert expected["tolerance"]["logit"] == pytest.approx(0.02 * spread)


@pytest.mark.parametrize(
    "change",
    [
        lambda one: prepared_otherwise(one, channel_order="BGR"),
        lambda one: prepared_otherwise(one, divide_by=1.0),
        lambda one: prepared_otherwise(one, mean=(0.5, 0.5, 0.5)),
        lambda one: replace(one, info=replace(one.info, labels=one.labels[::-1])),
    ],
    ids=["colours turned", "not divided", "mean", "labels turned"],
)
def test_it_fails_for_what_is_subtly_wrong(
    classifier: Classifier, files: dict[str, bytes], change: Callable[[Classifier], Classifier]
) -> None:
    with pytest.raises(ProbeFailed, match=r"^colours@1 does not reproduce its probe \w+\.jpg: "):
        check_probe(change(classifier), files)


def six(tmp_path: Path, logits: list[float]) -> Classifier:
    """Return a classifier with these logits for every image."""
    metadata = {"names": str(list("abcdef")), "task": "classify"}
    graph = constant_graph({"output0": np.array([logits], np.float32)}, SIDE_PX, metadata)
    return loaded(tmp_path, graph, PLAIN)


RECORDED = [9.0, 8.0, 7.0, 6.0, 5.0, -4.0]  # 0.02 of 9 - 6.5 is 0.05


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ([9.049, 8, 7, 6, 5, -4], None),
        ([9.051, 8, 7, 6, 5, -4], "expected a 9.000, found 9.051"),
        ([9, 8, 7, 6, 5, 5.049], None),  # it exceeds the fifth by less than the tolerance
        ([9, 8, 7, 6, 5, 5.051], "unexpected f 5.051"),
        ([9, 8, 7, 6, 5, -40], None),  # none of the best
    ],
)
def test_the_tolerance_is_exact_on_both_sides(tmp_path: Path, now: list[float], said: str | None) -> None:
    files = record_probe(six(tmp_path / "a", RECORDED), {"cat.jpg": photo("cat")})
    other = six(tmp_path / "b", now)
    if said is None:
        check_probe(other, files)
        return
    with pytest.raises(ProbeFailed, match=f"cat.jpg: {said}"):
        check_probe(other, files)


@pytest.mark.parametrize("spread", [0.0, 0.9 * LEAST_TOLERANCE])
def test_a_probe_in_which_all_classes_tie_is_refused(tmp_path: Path, spread: float) -> None:
    """It would accept the classes in any order."""
    with pytest.raises(ModelRefused, match=r"cannot distinguish colours@1 .* another image with --probe"):
        six(tmp_path, [2.0, 2.0, 2.0, 2.0, 2.0, 2.0 + spread])


def test_scores_that_are_no_probabilities_are_refused_when_added(tmp_path: Path) -> None:
    store = ModelStore(str(tmp_path))
    said = {**PLAIN, "scores": "probabilities"}
    with pytest.raises(ModelRefused, match="colours@1 cannot be trusted: .* the sum 1"):
        add_version(store, ONE, colours(), said, {})
    assert store.folder.names() == []
    assert mean_colours(WEIGHT, SIDE_PX, NAMES) == colours()


# embedders


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weight: weight[::-1], "found one with a cosine of"),  # channels turned
        (lambda weight: weight * 1.03, "expected a vector of length"),
        (lambda weight: weight[:, :4], "expected 5 numbers, found 4"),
        (lambda weight: weight * 1.01 + 1e-5, ""),  # within the tolerance
    ],
)
def test_the_vectors_of_a_probe_are_reproduced(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], words: str
) -> None:
    recorded = record_probe(embedders.loaded(tmp_path / "a", embedders.looks()), {"cat.jpg": photo("cat")})
    other = embedders.loaded(tmp_path / "b", embedders.looks(change(embedders.WEIGHT)))
    if words:
        with pytest.raises(ProbeFailed, match=rf"^looks@1 does not reproduce its probe cat.jpg: .*{words}"):
            check_probe(other, recorded)
    else:
        check_probe(other, recorded)
