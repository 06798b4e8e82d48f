"""What the first lines of a comparison say: what was compared, what changes, and the next command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.delta.tables import Tables
from archive.schemas import RUNS
from archive.views.views import View, Views
from batch.publishing.impact.compare import compared
from batch.publishing.impact.result_sets import ResultSet
from batch.publishing.impact.verdict import Verdict, judge, verdict
from batch.schedule.policy import Gates
from tests.batch.publishing.impact.scene import NEW, NOON, OLD, Seen, World

DEER: Seen = ("deer", 0.75, (0.0, 0.0, 40.0, 40.0))
PUBLISHED = ResultSet(name="published", inference_key=OLD, model_name="deer", model_version="1")
NEXT = ResultSet(name="run-7", inference_key=NEW, model_name="deer", model_version="2")


def publish(tables: Tables, key: str = OLD, name: str = "production") -> None:
    view = View(name=name, inference_key=key, model_name="deer", model_version="1", weights_sha256="w" * 64)
    Views(tables.url).publish(view, after=0)


def sealed(tables: Tables, requested: int, population: int | None) -> None:
    """The run of NEW, with what it records of itself."""
    row: dict[str, Any] = dict.fromkeys(RUNS.names) | {
        "run_id": "run-7",
        "event": 0,
        "state": "sealed",
        "event_at": NOON,
        "inference_key": NEW,
        "counts": {"requested": requested},
        "metrics": json.dumps({"population": population}) if population else None,
    }
    rows = pa.Table.from_pylist([row], schema=RUNS)
    tables.append("runs", rows, "test", lambda _, wanted: wanted)


@pytest.fixture
def world() -> World:
    """Four images: the same, emptied, filled, and one that NEW has not seen."""
    world = World().image("a", [DEER], [DEER]).image("b", [DEER], []).image("c", [], [DEER])
    world.image("d", [DEER], [])
    del world.new["d"]
    return world


@pytest.fixture
def tables(world: World, tmp_path: Path) -> Tables:
    return world.write(Tables(str(tmp_path / "tables")))


def told(tables: Tables, old: ResultSet = PUBLISHED, new: ResultSet = NEXT, **gates: Any) -> Verdict:
    with compared(tables, old, new) as comparison:
        return verdict(tables, comparison, judge(comparison.impact, Gates(**gates)))


def test_a_sample_says_that_it_is_one_with_an_interval_and_what_to_run(tables: Tables) -> None:
    publish(tables)
    sealed(tables, requested=3, population=40)
    found = told(tables)
    assert found.headline == "deer@2 fails 1 of 3 gates"
    assert found.compared == ("deer@1 (published) with deer@2 (run-7), over a random sample of 3 of 40 images")
    assert found.changes == (
        "2 of 3 images (66.7 %): in 1 all detections are gone, in 1 the first ones appear; "
        "detections 2 → 2: 1 lost, 1 new, 0 with another label"
    )
    assert found.estimate.startswith("of all 40 images 27 (95 % interval: ")
    assert found.command == "resight reprocess --model deer@2"


@pytest.mark.parametrize(
    ("requested", "population"), [(3, None), (3, 3), (2, 40)], ids=["unknown", "all", "others too"]
)
def test_nothing_is_estimated_from_what_is_no_sample(tables: Tables, requested: int, population: int | None) -> None:
    publish(tables)
    sealed(tables, requested, population)
    found = told(tables)
    assert found.estimate == ""
    assert "over 3 images; 1 more have a result only in OLD, 0 only in NEW" in found.compared
    assert found.command == "resight reprocess --model deer@2", "min_coverage_frac fails"


def test_the_next_command_publishes_what_passes(tables: Tables) -> None:
    publish(tables)
    found = told(tables, min_coverage_frac="off")
    assert found.headline == "deer@2 passes all 2 gates"
    assert (found.passed, found.command) == (True, "resight runs publish run-7")
    assert found.compared.startswith("deer@1 (published) with deer@2 (run-7), over")
    low = PUBLISHED.model_copy(update={"threshold": 0.25, "label_thresholds": {"fox": 0.4}})
    both = "deer@1 (published, shown from 0.25, fox 0.4) with deer@2 (run-7, shown from 0), over"
    assert told(tables, old=low).compared.startswith(both)


def test_gates_that_fail_need_a_reason(tables: Tables) -> None:
    publish(tables)
    found = told(tables, min_coverage_frac="off", max_lost_frac=0.1)
    assert not found.passed
    assert found.command == 'resight runs publish run-7 --override "REASON"'


def test_a_view_is_published_by_its_model(tables: Tables) -> None:
    publish(tables)
    publish(tables, NEW, "next")
    found = told(tables, new=NEXT.model_copy(update={"name": "next"}), min_coverage_frac="off")
    assert found.command == "resight runs publish deer@2"


def test_what_is_not_compared_with_the_published_view_is_to_be(tables: Tables) -> None:
    publish(tables, NEW)
    found = told(tables, old=NEXT, new=PUBLISHED.model_copy(update={"name": "deer@1"}))
    assert found.command == "resight runs publish deer@1"
    found = told(tables)
    assert (found.next, found.command) == ("deer@2 is already published.", "")
    other = PUBLISHED.model_copy(update={"name": "deer@1", "inference_key": "c" * 64})
    assert told(tables, new=other).command == "resight runs diff published deer@1"


def test_nothing_in_common_says_so(tmp_path: Path) -> None:
    found = told(Tables(str(tmp_path / "none")))
    assert "no image has results on both sides" in found.changes
    assert "over all 0 images" in found.compared
