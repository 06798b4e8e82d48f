"""Test which snips are due, against detections picked by hand; more in `tests/batch/test_box_passes.py`."""

from __future__ import annotations

import numpy as np
import pytest

from batch.runs.scope import Scope
from batch.schedule.policy import Snips
from serve.settings import Settings
from tests.batch.box_bench import BOX, Found, png
from tests.batch.crops.bench import SnipBench

LEAST_DOG = float(np.float32(0.7))


@pytest.mark.parametrize(
    ("score", "label", "cut"),
    [
        (0.5, "cat", True),
        (float(np.nextafter(np.float32(0.5), np.float32(0))), "cat", False),
        (LEAST_DOG, "dog", True),  # a little less than 0.7, and what a network means by it
        (float(np.nextafter(np.float32(0.7), np.float32(0))), "dog", False),
    ],
)
def test_at_the_threshold_it_is_shown_and_below_it_is_not(
    bench: SnipBench, score: float, label: str, cut: bool
) -> None:
    sha = bench.add("a.png", png(1), [(score, label, BOX)])
    assert bench.due(bench.plan()) == ({sha: [0]} if cut else {})


@pytest.mark.parametrize(("min_score", "ranks"), [(0.0, [0, 1, 2]), (0.8, [0, 1]), (0.9, [0])])
def test_a_score_that_is_given_holds_for_all_labels(bench: SnipBench, min_score: float, ranks: list[int]) -> None:
    found: list[Found] = [(0.9, "dog", BOX), (0.8, "cat", BOX), (0.0, "cat", BOX)]
    sha = bench.add("a.png", png(1), found)
    assert bench.due(bench.plan(snips=Snips(min_score=min_score))) == {sha: ranks}


def test_a_sample_has_only_those_of_the_sample(bench: SnipBench) -> None:
    shas = [bench.add(f"c/{i}.png", png(i), [(0.9, "cat", BOX)]) for i in range(6)]
    plan = bench.detection_plan(Scope(sample=2))
    snips = bench.plan(scope=Scope(sample=2))
    assert set(bench.due(snips)) == set(plan.requested_ids().to_pylist()) < set(shas)


def test_a_run_leaves_space_on_the_disk_of_its_snips_too(bench: SnipBench) -> None:
    bench.add("a.png", png(1), [(0.9, "cat", BOX)])
    plan = bench.plan()
    assert set(plan.work.written(bench.tables)) == {bench.tables.url, Settings().snips_url}
