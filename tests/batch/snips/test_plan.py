"""Which snips are due, against detections picked by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from archive.schemas import SNIPS
from batch.policy import Snips
from batch.scope import Scope
from batch.snips.plan import SnipPlan, plan_snips
from batch.snips.settings import cut_of
from tests.batch.snips.conftest import KEY, Bench, Found, picture, spec_of
from tests.fixtures_local import encoded, put_results, result_rows

BOX = (10.0, 10.0, 30.0, 20.0)
LEAST_DOG = float(np.float32(0.7))


def due(plan: SnipPlan) -> dict[str, list[int]]:
    """Digest to the ranks that are cut."""
    rows = [row for window in plan.windows(2) for row in window.to_pylist()]
    assert len(rows) == plan.todo
    assert sum(len(row["boxes"]) for row in rows) == plan.files
    return {row["media_sha256"]: [box["rank"] for box in row["boxes"]] for row in rows}


def done(bench: Bench, shas: list[str], status: str = "ok", **more: Any) -> None:
    """Rows of `snips`, as another run has made them."""
    settings_key = cut_of(Snips(), bench.model.config).key
    row = {"inference_key": KEY, "settings_key": settings_key, "status": status, "run_id": "r0"}
    row |= {"names": [], "bytes": 0} | more
    rows = pa.Table.from_pylist([row | {"media_sha256": sha} for sha in shas], schema=SNIPS)
    bench.tables.append("snips", rows, "test", lambda _, wanted: wanted)


def png(seed: int) -> bytes:
    return encoded(picture(seed), "PNG")


def test_what_the_model_shows_is_cut(bench: Bench, three: Mapping[str, str]) -> None:
    plan = bench.snip_plan()
    assert due(plan) == {three["both"]: [0, 1], three["one"]: [1]}
    assert (plan.wanted, plan.todo, plan.files) == (2, 2, 3)
    sizes = {row["media_sha256"]: row["size_bytes"] for row in _todo(plan)}
    assert plan.todo_bytes == sum(sizes.values())
    assert plan.roots() == [str(bench.root)]


def _todo(plan: SnipPlan) -> list[dict[str, Any]]:
    return [row for window in plan.windows(100) for row in window.to_pylist()]


def test_a_row_has_all_that_is_needed_to_cut(bench: Bench, three: Mapping[str, str]) -> None:
    rows = {row["media_sha256"]: row for row in _todo(bench.snip_plan())}
    row = rows[three["one"]]
    assert row.pop("size_bytes") > 0
    assert row == {
        "media_sha256": three["one"],
        "source_root": str(bench.root),
        "path": "one/a.png",
        "elsewhere": [],
        "quick_digest": None,
        "replaces": False,
        "width_px": 60,
        "height_px": 40,
        "boxes": [{"rank": 1, "x1_px": 10.0, "y1_px": 10.0, "x2_px": 30.0, "y2_px": 20.0}],
    }


@pytest.mark.parametrize(
    ("score", "label", "cut"),
    [
        (0.5, "cat", True),
        (float(np.nextafter(np.float32(0.5), np.float32(0))), "cat", False),
        (LEAST_DOG, "dog", True),  # a little less than 0.7, and what a network means by it
        (float(np.nextafter(np.float32(0.7), np.float32(0))), "dog", False),
        (0.6, "dog", False),
    ],
)
def test_at_the_threshold_it_is_shown_and_below_it_is_not(
    bench: Bench, score: float, label: str, cut: bool
) -> None:
    sha = bench.add("a.png", png(1), [(score, label, BOX)])
    assert due(bench.snip_plan()) == ({sha: [0]} if cut else {})


@pytest.mark.parametrize(("min_score", "ranks"), [(0.0, [0, 1, 2]), (0.8, [0, 1]), (0.9, [0])])
def test_a_score_that_is_given_holds_for_all_labels(
    bench: Bench, min_score: float, ranks: list[int]
) -> None:
    found: list[Found] = [(0.9, "dog", BOX), (0.8, "cat", BOX), (0.0, "cat", BOX)]
    sha = bench.add("a.png", png(1), found)
    assert due(bench.snip_plan(Snips(min_score=min_score))) == {sha: ranks}


def test_images_without_a_result_of_this_model_or_with_a_failed_one_have_none(bench: Bench) -> None:
    bench.catalogue("unseen.png", png(1))
    failed = bench.catalogue("failed.png", png(2))
    put_results(bench.tables, result_rows([failed], KEY, "failed", error_code="decode"))
    other = bench.catalogue("other.png", png(3))
    put_results(bench.tables, result_rows([other], "another key", "ok"))
    plan = bench.snip_plan()
    assert (plan.wanted, plan.todo, plan.files, plan.some(8).num_rows) == (0, 0, 0, 0)


def test_only_images_of_the_scope_have_them(bench: Bench, three: Mapping[str, str]) -> None:
    plan = bench.plan(Scope(camera=("one",)))
    snips = plan_snips(bench.tables, plan, spec_of(snips=Snips()))
    assert (due(snips), snips.wanted) == ({three["one"]: [1]}, 1)


def test_a_sample_has_only_those_of_the_sample(bench: Bench) -> None:
    shas = [bench.add(f"c/{i}.png", png(i), [(0.9, "cat", BOX)]) for i in range(6)]
    plan = bench.plan(Scope(sample=2))
    snips = plan_snips(bench.tables, plan, spec_of(snips=Snips()))
    assert set(due(snips)) == set(plan.requested_ids().to_pylist()) < set(shas)


def test_copies_are_one_image_at_all_of_its_places(bench: Bench) -> None:
    sha = bench.add("b/1.png", png(1), [(0.9, "cat", BOX)])
    bench.catalogue("a/1.png", png(1))
    (row,) = _todo(bench.snip_plan())
    assert (row["media_sha256"], row["path"]) == (sha, "a/1.png")
    assert [place["path"] for place in row["elsewhere"]] == ["b/1.png"]


def test_what_has_a_row_is_not_due_and_another_cut_is(
    bench: Bench, three: Mapping[str, str]
) -> None:
    done(bench, [three["both"], three["one"]])
    plan = bench.snip_plan()
    assert (plan.wanted, plan.todo) == (2, 0)
    assert bench.snip_plan(Snips(quality=80)).todo == 2


@pytest.mark.parametrize(
    ("code", "again"),
    [("access", True), ("changed", True), ("differs", True), ("decode", False), ("crop", False)],
)
def test_failures_that_are_not_the_images_own_are_due_again(
    bench: Bench, three: Mapping[str, str], code: str, again: bool
) -> None:
    done(bench, [three["one"]], "failed", error_code=code)
    done(bench, [three["both"]])
    plan = bench.snip_plan()
    assert due(plan) == ({three["one"]: [1]} if again else {})
    assert [row["replaces"] for row in _todo(plan)] == ([True] if again else [])


def test_too_large_is_due_again_once_the_limit_lets_it_through(bench: Bench) -> None:
    sha = bench.add("a.png", png(1), [(0.9, "cat", BOX)], size_px=(2000, 1000))
    done(bench, [sha], "failed", error_code="too_large")
    assert bench.snip_plan(megapixels=1).todo == 0
    assert bench.snip_plan(megapixels=2).todo == 1


def test_read_only_makes_no_table_and_plans_the_same(
    bench: Bench, three: Mapping[str, str]
) -> None:
    dry = plan_snips(bench.tables, bench.plan(), spec_of(snips=Snips()), read_only=True)
    assert bench.tables.existing("snips") is None
    assert due(dry) == due(bench.snip_plan())
    assert bench.tables.existing("snips") is not None
