"""Compare the detections that are due with plain Python over the same rows, and with examples."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from archive.views.views import Views
from batch.crops.model_pass import view_of_crops
from batch.runs.scope import Scope
from model_store.errors import BadRequest
from model_store.store import ModelStore
from tests.batch.box_bench import BOX, Found, png
from tests.batch.classify.bench import ClassifyBench, spec_of
from tests.fixtures_local import motion_store


@pytest.mark.parametrize(
    ("score", "label", "shown"),
    [
        (0.5, "animal", True),
        (float(np.nextafter(np.float32(0.5), np.float32(0))), "animal", False),
        (float(np.float32(0.7)), "person", True),  # slightly less than 0.7, as a network outputs it
        (float(np.nextafter(np.float32(0.7), np.float32(0))), "person", False),
    ],
)
def test_at_the_threshold_of_the_view_it_is_shown(bench: ClassifyBench, score: float, label: str, shown: bool) -> None:
    bench.publish(person=0.7)
    sha = bench.add("a.png", png(1), [(score, label, BOX)])
    assert bench.due(bench.plan()) == ({sha: [0]} if shown else {})


def test_it_is_the_published_key_that_counts_and_another_view_has_its_own(
    bench: ClassifyBench, three: dict[str, str]
) -> None:
    other = bench.add("other.png", png(9), [(0.9, "animal", BOX)], key="other")
    assert other not in bench.due(bench.plan())
    bench.publish("other", name="trial")
    assert bench.due(bench.plan(view="trial")) == {other: [0]}


@pytest.mark.parametrize(
    ("scope", "names"),
    [(Scope(label="person"), ["both"]), (Scope(latest_per_camera=True), ["both", "one"]), (Scope(sample=1), None)],
    ids=lambda value: getattr(value, "kind", None),
)
def test_only_images_of_the_scope_are_due(
    bench: ClassifyBench, three: dict[str, str], scope: Scope, names: list[str] | None
) -> None:
    found = set(bench.due(bench.plan(scope=scope)))
    if names is None:  # a sample has only images with detections
        assert len(found) == 1
        assert found < {three["both"], three["one"]}
    else:
        assert found == {three[name] for name in names}


def test_each_detection_is_done_by_itself(bench: ClassifyBench, three: dict[str, str]) -> None:
    bench.put([(three["both"], 1)])
    plan = bench.plan()
    assert bench.due(plan) == {three["both"]: [0], three["one"]: [1]}
    assert (plan.requested, plan.reused) == (3, 1)


def test_the_status_scopes_are_about_detections(bench: ClassifyBench, three: dict[str, str]) -> None:
    bench.put([(three["both"], 0)])
    bench.put([(three["both"], 1)], "failed", error_code="decode")
    missing = bench.plan(scope=Scope(status="missing"))
    assert (bench.due(missing), missing.requested) == ({three["one"]: [1]}, 1)
    failed = bench.plan(scope=Scope(status="failed"))
    assert (bench.due(failed), failed.requested) == ({three["both"]: [1]}, 1)


@pytest.mark.parametrize("seed", range(2))
def test_random_tables_against_plain_python(bench: ClassifyBench, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Combine all rules: thresholds, labels, sides, finished rows, failures to retry; boxes are listed in parts."""
    monkeypatch.setattr("archive.delta.scratch_db.MOST_LISTED", 3)
    draw = random.Random(seed)
    limits = {"person": 0.7}
    bench.publish(threshold=0.4, person=0.7)
    asked: dict[str, Any] = {
        "labels": draw.choice([(), ("animal",), ("person", "vehicle")]),
        "least_score": draw.choice([0.0, 0.5]),
        "min_side_px": draw.choice([0.0, 8.0]),
    }
    scores = (0.3, 0.4, 0.5, 0.6, 0.7, 0.9)
    wanted: dict[str, list[int]] = {}
    requested = 0
    for number in range(12):
        found: list[Found] = [
            (
                draw.choice(scores),
                draw.choice(["animal", "person", "vehicle"]),
                (0.0, 0.0, float(draw.randint(1, 20)), float(draw.randint(1, 20))),
            )
            for _ in range(draw.randint(0, 5))
        ]
        sha = bench.add(f"c{number % 3}/{number}.png", png(number), found)
        for rank, (score, label, (_, _, x2, y2)) in enumerate(found):
            state = draw.choice([None, "ok", "access", "decode"])
            if state:
                status = "ok" if state == "ok" else "failed"
                code = None if state == "ok" else state
                bench.put([(sha, rank)], status, error_code=code)
            shown = np.float32(score) >= np.float32(limits.get(label, 0.4))
            shown &= score >= asked["least_score"] and min(x2, y2) >= asked["min_side_px"]
            if shown and (not asked["labels"] or label in asked["labels"]):
                requested += 1
                if state in (None, "access"):
                    wanted.setdefault(sha, []).append(rank)
    plan = bench.plan(**asked)
    assert (bench.due(plan), plan.requested) == (wanted, requested)


def test_without_a_publication_there_is_nothing_to_classify(bench: ClassifyBench) -> None:
    store = ModelStore(str(bench.root.parent / "models"))
    with pytest.raises(BadRequest, match="nothing is published as production"):
        view_of_crops(bench.tables, store, spec_of())


def test_a_label_that_the_detector_does_not_have_is_refused(
    bench: ClassifyBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = bench.publish()
    gone = ModelStore(str(bench.root.parent / "models"))
    assert view_of_crops(bench.tables, gone, spec_of(labels=("anmal",))) == view
    store = motion_store(bench.root.parent / "store", "1")
    now = view.model_copy(update={"model_name": "blobs", "model_version": "1"})
    Views(bench.tables.url).publish(now, after=1)
    assert view_of_crops(bench.tables, store, spec_of(labels=("blob",))).serial == 2
    with pytest.raises(BadRequest, match="--labels: unknown label 'anmal'; labels of blobs@1: blob$"):
        view_of_crops(bench.tables, store, spec_of(labels=("blob", "anmal")))
    monkeypatch.setattr("batch.crops.model_pass.MAX_NAMED", 0)
    with pytest.raises(BadRequest, match=" and 1 more$"):
        view_of_crops(bench.tables, store, spec_of(labels=("anmal",)))
