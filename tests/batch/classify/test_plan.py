"""Which detections are due, against plain Python over the same rows, and picked by hand."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from archive.views import Views
from batch.classify.plan import view_to_classify
from batch.scope import Scope
from model_store.errors import BadRequest
from model_store.store import ModelStore
from tests.batch.classify.conftest import KEY, Bench, Found, classifier, due, png, spec_of
from tests.fixtures_local import motion_store, put_results, result_rows

BOX = (10.0, 10.0, 30.0, 20.0)


def test_what_the_view_shows_is_due(bench: Bench, three: dict[str, str]) -> None:
    plan = bench.plan()
    assert due(plan) == {three["both"]: [0, 1], three["one"]: [1]}
    assert (plan.requested, plan.todo, plan.images, plan.reused) == (3, 3, 2, 0)
    assert plan.roots() == [str(bench.root)]


def test_a_row_has_all_that_is_needed_to_cut(bench: Bench, three: dict[str, str]) -> None:
    (row,) = [
        row
        for window in bench.plan().windows(9)
        for row in window.to_pylist()
        if row["path"] == "one/a.png"
    ]
    assert row.pop("size_bytes") > 0
    assert row == {
        "media_sha256": three["one"],
        "source_root": str(bench.root),
        "path": "one/a.png",
        "elsewhere": [],
            "quick_digest": None,
        "width_px": 60,
        "height_px": 40,
        "boxes": [
            {"rank": 1, "x1_px": 10.0, "y1_px": 10.0, "x2_px": 30.0, "y2_px": 20.0, "replaces": False}
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("score", "label", "shown"),
    [
        (0.5, "animal", True),
        (float(np.nextafter(np.float32(0.5), np.float32(0))), "animal", False),
        (
            float(np.float32(0.7)),
            "person",
            True,
        ),  # a little less than 0.7, and what a network means
        (float(np.nextafter(np.float32(0.7), np.float32(0))), "person", False),
    ],
)
def test_at_the_threshold_of_the_view_it_is_shown(
    bench: Bench, score: float, label: str, shown: bool
) -> None:
    bench.publish(person=0.7)
    sha = bench.add("a.png", png(1), [(score, label, BOX)])
    assert due(bench.plan()) == ({sha: [0]} if shown else {})


@pytest.mark.parametrize(
    ("fields", "ranks"),
    [
        ({}, [0, 1, 2]),
        ({"labels": ("animal",)}, [0, 2]),
        ({"labels": ("animal", "vehicle")}, [0, 2]),
        ({"labels": ("vehicle",)}, []),
        ({"least_score": 0.8}, [0, 1]),
        ({"min_side_px": 10.0}, [0, 1, 2]),
        ({"min_side_px": 10.001}, [1]),
    ],
)
def test_labels_scores_and_sides_choose(
    bench: Bench, fields: dict[str, Any], ranks: list[int]
) -> None:
    bench.publish()
    large = (0.0, 0.0, 40.0, 30.0)
    found: list[Found] = [(0.9, "animal", BOX), (0.8, "person", large), (0.7, "animal", BOX)]
    sha = bench.add("a.png", png(1), found)
    assert due(bench.plan(**fields)) == ({sha: ranks} if ranks else {})


def test_it_is_the_published_key_that_counts_and_another_view_has_its_own(
    bench: Bench, three: dict[str, str]
) -> None:
    other = bench.add("other.png", png(9), [(0.9, "animal", BOX)], key="other")
    assert other not in due(bench.plan())
    bench.publish("other", name="trial")
    assert due(bench.plan(view="trial")) == {other: [0]}


def test_images_without_a_result_or_with_a_failed_one_have_nothing(bench: Bench) -> None:
    bench.publish()
    bench.catalogue("unseen.png", png(1))
    failed = bench.catalogue("failed.png", png(2))
    put_results(bench.tables, result_rows([failed], KEY, "failed", error_code="decode"))
    plan = bench.plan()
    assert (plan.requested, plan.todo, plan.images) == (0, 0, 0)


@pytest.mark.parametrize(
    ("scope", "names"),
    [
        (Scope(camera=("one",)), ["one"]),
        (Scope(path="both/*"), ["both"]),
        (Scope(label="person"), ["both"]),
        (Scope(latest_per_camera=True), ["both", "one"]),
        (Scope(sample=1), None),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_only_images_of_the_scope_are_due(
    bench: Bench, three: dict[str, str], scope: Scope, names: list[str] | None
) -> None:
    found = set(due(bench.plan(scope=scope)))
    if names is None:  # a sample is of images that show something
        assert len(found) == 1
        assert found < {three["both"], three["one"]}
    else:
        assert found == {three[name] for name in names}


def test_a_scope_without_images_is_refused(bench: Bench, three: dict[str, str]) -> None:
    with pytest.raises(BadRequest, match="no image of camera 'nowhere'; there is: both, none, one"):
        bench.plan(scope=Scope(camera=("nowhere",)))


def test_copies_are_one_image_at_all_of_its_places(bench: Bench) -> None:
    bench.publish()
    sha = bench.add("b/1.png", png(1), [(0.9, "animal", BOX)])
    bench.catalogue("a/1.png", png(1))
    plan = bench.plan()
    (row,) = [row for window in plan.windows(9) for row in window.to_pylist()]
    assert (row["media_sha256"], row["path"], plan.requested) == (sha, "a/1.png", 1)
    assert [place["path"] for place in row["elsewhere"]] == ["b/1.png"]


def test_each_detection_is_done_by_itself(bench: Bench, three: dict[str, str]) -> None:
    bench.classified([(three["both"], 1)])
    plan = bench.plan()
    assert due(plan) == {three["both"]: [0], three["one"]: [1]}
    assert (plan.requested, plan.reused) == (3, 1)


def test_another_margin_model_or_names_of_classes_is_another_classifier(
    bench: Bench, three: dict[str, str]
) -> None:
    bench.classified([(three["both"], 0), (three["both"], 1), (three["one"], 1)])
    assert bench.plan().todo == 0
    assert bench.plan(margin_frac=0.1).todo == 3
    for other in (classifier("d" * 64), classifier(labels=("red", "green", "cyan"))):
        bench.model = other
        assert bench.plan().todo == 3


@pytest.mark.parametrize(
    ("code", "again"),
    [("access", True), ("changed", True), ("model", True), ("decode", False), ("crop", False)],
)
def test_failures_that_may_be_over_are_due_again(
    bench: Bench, three: dict[str, str], code: str, again: bool
) -> None:
    bench.classified([(three["both"], 0), (three["both"], 1)])
    bench.classified([(three["one"], 1)], "failed", error_code=code)
    plan = bench.plan()
    assert due(plan) == ({three["one"]: [1]} if again else {})
    boxes = [box for w in plan.windows(9) for row in w.to_pylist() for box in row["boxes"]]
    assert [box["replaces"] for box in boxes] == ([True] if again else [])


def test_too_large_is_due_again_once_the_limit_lets_it_through(bench: Bench) -> None:
    bench.publish()
    sha = bench.add("a.png", png(1), [(0.9, "animal", BOX)], size_px=(2000, 1000))
    bench.classified([(sha, 0)], "failed", error_code="too_large")
    assert bench.plan(megapixels=1).todo == 0
    assert bench.plan(megapixels=2).todo == 1


def test_the_status_scopes_are_about_detections(bench: Bench, three: dict[str, str]) -> None:
    bench.classified([(three["both"], 0)])
    bench.classified([(three["both"], 1)], "failed", error_code="decode")
    missing = bench.plan(scope=Scope(status="missing"))
    assert (due(missing), missing.requested) == ({three["one"]: [1]}, 1)
    failed = bench.plan(scope=Scope(status="failed"))
    assert (due(failed), failed.requested) == ({three["both"]: [1]}, 1)


def test_read_only_makes_no_table_and_plans_the_same(bench: Bench, three: dict[str, str]) -> None:
    dry = bench.plan(read_only=True)
    assert bench.tables.existing("classifications") is None
    assert due(dry) == due(bench.plan(read_only=False))
    assert bench.tables.existing("classifications") is not None


@pytest.mark.parametrize("seed", range(6))
def test_random_tables_against_plain_python(bench: Bench, seed: int) -> None:
    """Every rule at once: thresholds, labels, sides, what is done, what failed and may be tried again."""
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
                bench.classified([(sha, rank)], status, error_code=code)
            shown = np.float32(score) >= np.float32(limits.get(label, 0.4))
            shown &= score >= asked["least_score"] and min(x2, y2) >= asked["min_side_px"]
            if shown and (not asked["labels"] or label in asked["labels"]):
                requested += 1
                if state in (None, "access"):
                    wanted.setdefault(sha, []).append(rank)
    plan = bench.plan(**asked)
    assert (due(plan), plan.requested) == (wanted, requested)


def test_without_a_publication_there_is_nothing_to_classify(bench: Bench) -> None:
    store = ModelStore(str(bench.root.parent / "models"))
    with pytest.raises(BadRequest, match="nothing is published as production"):
        view_to_classify(bench.tables, store, spec_of())


def test_a_label_that_the_detector_does_not_have_is_refused(bench: Bench) -> None:
    view = bench.publish()
    gone = ModelStore(str(bench.root.parent / "models"))
    assert view_to_classify(bench.tables, gone, spec_of(labels=("anmal",))) == view
    store = motion_store(bench.root.parent / "store", "1")
    now = view.model_copy(update={"model_name": "blobs", "model_version": "1"})
    Views(bench.tables.url).publish(now, after=1)
    assert view_to_classify(bench.tables, store, spec_of(labels=("blob",))).serial == 2
    with pytest.raises(BadRequest, match="--labels: blobs@1 knows no 'anmal'; there is: blob"):
        view_to_classify(bench.tables, store, spec_of(labels=("blob", "anmal")))
