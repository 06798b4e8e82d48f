"""Test filter runs over real tables: assertions, each stored once, and views with and without them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import Field

from archive.annotations.assertions import append
from archive.annotations.import_file import read_assertions
from archive.annotations.layers import read_layers
from archive.delta.tables import Tables
from archive.views.query import query
from archive.views.views import Views
from batch.filters import load, registry
from batch.filters.contract import Filter, FilterAction, FilterConfig, Rows
from batch.filters.evaluate import Evaluated, FilterCounts
from batch.filters.layers import outdated_warnings, switch
from batch.filters.prepare import prepare
from batch.filters.registry import FILTERS
from batch.filters.run import FilterReport, dry_run, execute, here
from batch.planning.id_list import name_ids
from batch.publishing.publish import rollback
from batch.runs.accounting import Counts
from batch.runs.record import RunLog
from batch.runs.scope import FilterScope
from batch.runs.spec import RunSpec
from model_store.errors import AccountingOpen, BadRequest, StorageUnreachable
from tests.batch.filters.make import NOTHING, detection, invalid, rows
from tests.batch.filters.scene import KEY, NOON, box, copied, publish, put, sha, shown, tables_at
from tests.fixtures_local import model_info, put_results, result_rows, rows_of

EVERYTHING = FilterScope()
SMALL, LARGE = 20.0, 200.0  # 400 and 40,000 px2 of 800,000: 0.0005 and 0.05


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Two cameras; each image has a large box, every second one also a small box, one is empty."""
    tables = tables_at(tmp_path_factory.mktemp("template"))
    images: dict[int, Any] = {}
    for n in range(8):
        found = [box(0, 10, 10, LARGE)] + ([box(1, 500, 500, SMALL, "fox", 0.5)] if n % 2 else [])
        images[n] = ("north" if n < 4 else "south", 60.0 * n, found)
    images[8] = ("south", 480.0, [])
    put(tables, images)
    publish(tables)
    return tables


@pytest.fixture
def tables(template: Tables, tmp_path: Path) -> Tables:
    return copied(template, tmp_path)


def run(tables: Tables, kind: str, scope: FilterScope = EVERYTHING, **fields: Any) -> FilterReport:
    spec = prepare(tables, kind, fields, scope)
    return execute(spec, tables, here)


def said(tables: Tables) -> list[dict[str, Any]]:
    return [row for row in rows_of(tables, "assertions") if row["method"] == "machine"]


def human(tables: Tables, **row: Any) -> None:
    file = Path(tables.url).parent / "said.jsonl"
    who = {"actor": "kim", "asserted_at": datetime.now(UTC).isoformat()}
    file.write_text(json.dumps({**who, **row}))
    append(tables, read_assertions(tables, file).rows)


def test_a_filter_matches_a_plain_count(tables: Tables) -> None:
    report = run(tables, "small-size")
    small = [(sha(n), 1) for n in range(8) if n % 2]
    assert sorted((row["media_sha256"], row["rank"]) for row in said(tables)) == small
    tally = report.tally
    assert (tally.checked, tally.flagged, tally.changed, tally.added) == (12, 4, 4, 4)
    assert report.standing == 4
    assert report.images == 9
    again = run(tables, "small-size").tally
    assert (again.flagged, again.added, again.changed, len(said(tables))) == (4, 0, 0, 4)


def test_a_dry_run_has_the_same_figures_and_writes_nothing(tables: Tables) -> None:
    spec = prepare(tables, "small-size", {})
    before = sorted(path.name for path in Path(tables.url).rglob("*"))
    dry = dry_run(spec, tables, here)
    assert sorted(path.name for path in Path(tables.url).rglob("*")) == before
    wet = execute(spec, tables, here)
    assert dry.tally == wet.tally
    assert dry.layer_id == wet.layer_id


def test_a_layer_off_shows_the_rows_of_before_exactly(tables: Tables) -> None:
    before = shown(tables)
    layer = run(tables, "small-size").layer_id
    assert shown(tables) == before, "a layer that no view shows changes nothing"
    switch(tables, on=[layer])
    assert len(shown(tables)) == len(before) - 4
    assert query(tables, "select count(*) as n from hidden where said_by = $$" + layer + "$$").to_pylist() == [{"n": 4}]
    switch(tables, off=["small-size"])
    assert shown(tables) == before
    rollback(tables)
    assert len(shown(tables)) == len(before) - 4, "the view is a pointer like any other"


def test_scopes_of_one_layer_add_up(tables: Tables) -> None:
    first = run(tables, "small-size", FilterScope(camera=("north",)))
    assert (first.images, first.tally.flagged) == (4, 2)
    rest = run(tables, "small-size")
    assert (rest.layer_id, rest.tally.added) == (first.layer_id, 2)
    put(tables, {9: ("new", 0.0, [])}, key="o" * 64)
    without = run(tables, "small-size", FilterScope(camera=("new",)))
    assert (without.images, without.tally) == (0, FilterCounts()), "the view's run has no result of these images"


@pytest.mark.parametrize(
    ("scope", "images"),
    [
        ({"camera": ["south", "north"], "since": "2026-05-14T12:03:00"}, 6),
        ({"camera": ["north"], "label": "fox", "min_score": 0.6}, 0),
        ({"ids": [1, 2, 5], "until": "2026-05-14T12:05:00"}, 2),
        ({"path": "south/*", "latest_per_camera": True}, 1),
        ({"label": "fox", "sample": 3}, 3),
        ({}, 9),
    ],
)
def test_a_filter_has_the_images_of_its_scope(
    tables: Tables, tmp_path: Path, scope: dict[str, Any], images: int
) -> None:
    if "ids" in scope:
        file = tmp_path / "ids.txt"
        file.write_text("\n".join(sha(n) for n in scope["ids"]))
        scope = scope | {"ids": name_ids(file)}
    asked = FilterScope.model_validate(scope)
    if images:
        assert dry_run(prepare(tables, "small-size", {}, asked), tables, here).images == images
    else:
        with pytest.raises(BadRequest, match=r"no image matches label fox, min score 0\.6"):
            prepare(tables, "small-size", {}, asked)


def test_labels_are_those_of_the_run_and_its_layers(tables: Tables) -> None:
    """Hidden detections do not match, and another run has other labels."""
    switch(tables, on=[run(tables, "small-size").layer_id])
    with pytest.raises(BadRequest, match="no image matches label fox; available: deer"):
        prepare(tables, "events", {}, FilterScope(label="fox"))
    size: dict[str, Any] = {"width_px": 1000, "height_px": 800, "n_detections": 1}
    seen = result_rows([sha(3)], "o" * 64, detections=[box(0, 1, 1, LARGE, "hare")], **size)
    put_results(tables, seen)
    RunLog(tables, RunSpec(run_id="other", model="m@2"), model_info("m", "2", "o" * 64)).write("sealed", Counts())
    spec = prepare(tables, "score-threshold", {}, FilterScope(run="other", label="hare"))
    assert (spec.view.inference_key, spec.scope.words()) == ("o" * 64, "label hare, run other")
    assert dry_run(spec, tables, here).images == 1


def test_a_sample_is_refused_where_whole_cameras_are_judged(tables: Tables) -> None:
    with pytest.raises(BadRequest, match="--sample: events judges all images of a camera"):
        prepare(tables, "events", {}, FilterScope(sample=3))


def test_an_occurrence_is_a_scope(tables: Tables) -> None:
    """Two frames of one animal, then one of another camera: tracking makes the first two an occurrence."""
    for kind in ("events", "tracking"):
        switch(tables, on=[run(tables, kind).layer_id])
    found = query(tables, "select occurrence_id, n_detections, camera_id from occurrences order by 2 desc").to_pylist()
    scope = FilterScope(occurrence=found[0]["occurrence_id"])
    report = run(tables, "small-size", scope)
    assert report.images == found[0]["n_detections"]
    other = "south" if found[0]["camera_id"] == "north" else "north"
    with pytest.raises(BadRequest, match=f"no image matches all of camera {other} .*, occurrence"):
        run(tables, "small-size", scope.model_copy(update={"camera": (other,)}))


def test_a_filter_that_needs_whole_cameras_gets_them(tables: Tables) -> None:
    """A time range touches one camera; its events are judged over all of that camera's images."""
    report = run(tables, "events", FilterScope(until=NOON + timedelta(minutes=1)), gap_s=60.0)
    assert report.images == 4
    assert len({row["group_id"] for row in said(tables)}) == 1


def test_people_outrank_layers_before_and_after(tables: Tables) -> None:
    corners = {"x1_px": 501.0, "y1_px": 500.0, "x2_px": 521.0, "y2_px": 520.0}
    human(tables, action="relabel", media_sha256=sha(1), label="hare", **corners)
    report = run(tables, "small-size")
    assert (report.tally.flagged, report.tally.changed, report.tally.skipped_human) == (4, 3, 1)
    switch(tables, on=[report.layer_id])
    kept = [row for row in shown(tables) if row[:2] == (sha(1), 1)]
    assert [row[2] for row in kept] == ["hare"]
    human(tables, action="suppress", media_sha256=sha(0), x1_px=10, y1_px=10, x2_px=210, y2_px=210)
    assert not [row for row in shown(tables) if row[0] == sha(0)]


def test_a_box_that_a_person_has_hidden_hides_no_other(tables: Tables) -> None:
    """Rank 1 duplicates rank 0; when a person suppresses rank 0, rank 1 is shown again."""
    put(tables, {60: ("west", 0.0, [box(0, 1, 1, LARGE), box(1, 21, 1, LARGE, score=0.8)])})
    layer = run(tables, "duplicates").layer_id
    switch(tables, on=[layer])
    assert [row[1] for row in shown(tables) if row[0] == sha(60)] == [0]
    corners = {"x1_px": 1, "y1_px": 1, "x2_px": 201, "y2_px": 201}
    human(tables, action="suppress", media_sha256=sha(60), **corners)
    again = run(tables, "duplicates")
    assert (again.tally.withdrawn, again.tally.changed) == (1, 1)
    assert [row[1] for row in shown(tables) if row[0] == sha(60)] == [1]


class _Newest(FilterConfig):
    """Hide the newest image of each camera, which depends on all its images."""

    kind: Literal["newest"] = "newest"
    label: str = Field(default="", description="none")


def _newest(config: _Newest, rows: Rows) -> Iterable[FilterAction]:
    del config
    last = dict(zip(rows.camera_id, rows.media_sha256, strict=True))
    for place in np.flatnonzero(rows.rank >= 0).tolist():
        if rows.media_sha256[place] == last[rows.camera_id[place]]:
            yield FilterAction(*rows.target(place), "suppress", "newest")


@pytest.fixture
def newest(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Filter(config=_Newest, apply=_newest, context="camera", order=5)
    monkeypatch.setitem(registry.FILTERS, "newest", one)


@pytest.mark.usefixtures("newest")
def test_assertions_are_withdrawn_and_can_be_added_again(tables: Tables) -> None:
    layer = run(tables, "newest", FilterScope(camera=("north",))).layer_id
    switch(tables, on=[layer])
    before = shown(tables)
    assert not [row for row in before if row[0] == sha(3)]
    put(tables, {20: ("north", 900.0, [box(0, 1, 1, LARGE)])})
    again = run(tables, "newest", FilterScope(camera=("north",)))
    assert (again.tally.added, again.tally.withdrawn, again.tally.changed) == (3, 2, 3)
    assert [row for row in shown(tables) if row[0] == sha(3)], "shown again"
    assert run(tables, "newest", FilterScope(camera=("north",))).tally.added == 0
    assert len(said(tables)) == 5, "nothing is deleted"


@pytest.mark.usefixtures("newest")
def test_the_result_does_not_depend_on_parts(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {kind: run(tables, kind).tally for kind in ("small-size", "newest", "events")}
    ids = sorted(row["assertion_id"] for row in said(tables))
    monkeypatch.setattr(load, "PART_ROWS", 1)
    for kind, tally in whole.items():
        again = run(tables, kind).tally
        assert (again.checked, again.flagged, again.added) == (tally.checked, tally.flagged, 0)
    assert sorted(row["assertion_id"] for row in said(tables)) == ids


def test_a_layer_is_made_over_those_below_it(tables: Tables) -> None:
    put(tables, {20: ("north", 900.0, [box(0, 1, 1, LARGE), box(1, 2, 1, LARGE, score=0.8)])})
    dupes = run(tables, "duplicates")
    assert dupes.tally.flagged == 1
    switch(tables, on=[dupes.layer_id])
    small = run(tables, "small-size", min_area_frac=0.4)
    layer = read_layers(tables)[small.layer_id]
    assert layer.input_layers == (dupes.layer_id,)
    assert (sha(20), 1) not in {
        (row["media_sha256"], row["rank"]) for row in said(tables) if row["layer_id"] == small.layer_id
    }
    view = switch(tables, on=[small.layer_id])
    assert view.layers == (dupes.layer_id, small.layer_id)
    assert outdated_warnings(tables, view) == []
    assert len(outdated_warnings(tables, switch(tables, off=["duplicates"]))) == 1


def test_an_image_with_all_detections_hidden_still_counts(tables: Tables) -> None:
    """Three frames a minute apart; the middle one shows only what the layer below hides."""
    found = [[box(0, 1, 1, LARGE)], [box(0, 1, 1, SMALL)], [box(0, 1, 1, LARGE)]]
    put(tables, {40 + n: ("west", 50.0 * n, found[n]) for n in range(3)})
    before = run(tables, "events", FilterScope(camera=("west",)))
    switch(tables, on=[run(tables, "small-size").layer_id])
    after = run(tables, "events", FilterScope(camera=("west",)))
    assert (before.tally.checked, after.tally.checked) == (3, 3)
    events = {row["group_id"] for row in said(tables) if row["layer_id"] == after.layer_id}
    assert len(events) == 1


def test_accounts_that_do_not_close_end_the_run(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch.filters.run.append_assertions", lambda *_: None)
    with pytest.raises(AccountingOpen, match="produced 4 assertions"):
        run(tables, "small-size")
    states = [row["state"] for row in sorted(rows_of(tables, "runs"), key=lambda row: row["event"])]
    assert states == ["running", "running", "failed"]


class Wrapped(StorageUnreachable):
    """Error as wrapped by Ray: also of the error's class, with a whole traceback as its text."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("ray::JudgeStage() Traceback (most recent call last): ...")
        self.cause = cause


def test_an_error_of_the_judge_ends_the_run_as_itself(tables: Tables) -> None:
    away = StorageUnreachable("the classes are away")

    def judge(*_: object) -> Iterator[Evaluated]:
        raise Wrapped(away)
        yield

    spec = prepare(tables, "small-size", {})
    with pytest.raises(StorageUnreachable) as raised:
        execute(spec, tables, judge)
    assert raised.value is away
    last = max(rows_of(tables, "runs"), key=lambda row: row["event"])
    assert (last["state"], last["message"]) == ("failed", "the classes are away")


def test_a_run_that_fails_records_what_it_had_committed(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch.filters.run.COMMIT_ROWS", 1)

    def judge(*of: Any) -> Iterator[Evaluated]:
        yield from here(*of)
        raise StorageUnreachable("the classes are away")

    with pytest.raises(StorageUnreachable):
        execute(prepare(tables, "small-size", {}), tables, judge)
    last = max(rows_of(tables, "runs"), key=lambda row: row["event"])
    assert (last["state"], last["counts"]["requested"]) == ("failed", 9)
    assert json.loads(last["stages"]).keys() == {"load_s", "judge_s", "commit_s"}
    assert json.loads(last["metrics"])["added"] == len(said(tables)) == 4


def test_a_run_is_a_run_like_any_other(tables: Tables) -> None:
    report = run(tables, "small-size")
    (row,) = query(tables, "select * from runs").to_pylist()
    assert (row["kind"], row["state"], row["inference_key"]) == ("filter", "sealed", KEY)
    assert json.loads(row["metrics"])["flagged"] == 4
    assert json.loads(row["stages"]).keys() == {"load_s", "judge_s", "commit_s", "recount_s"}
    assert report.line() == row["message"]


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        ({"camera": ("north", "nowhere")}, "unknown camera 'nowhere'; available: north, south"),
        ({"occurrence": "none"}, "no image matches occurrence none; see: resight sql"),
        ({"run": "none"}, "unknown run 'none'"),
    ],
)
def test_an_empty_scope_is_rejected_before_anything_starts(tables: Tables, scope: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        prepare(tables, "small-size", {}, FilterScope(**scope))
    assert tables.existing("runs") is None


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("small", {}, "unknown filter 'small'; available: duplicates"),
        ("small-size", {"size": 1}, "size: unknown field"),
        ("small-size", {"kind": "events"}, "kind"),
    ],
)
def test_an_invalid_config_names_its_fields(tables: Tables, kind: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        prepare(tables, kind, fields)


def test_a_missing_publication_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="nothing is published as production: resight runs pub"):
        prepare(tables_at(tmp_path), "small-size", {})


def test_layers_are_switched_only_in_a_published_view(tmp_path: Path) -> None:
    tables = tables_at(tmp_path)
    with pytest.raises(BadRequest, match="nothing is published"):
        switch(tables, on=["abcd"])
    put(tables, {1: ("north", 0.0, [])})
    publish(tables)
    with pytest.raises(BadRequest, match="unknown layer 'abcd'"):
        switch(tables, on=["abcd"])
    assert Views(tables.url).current() is not None


@pytest.mark.parametrize("kind", FILTERS)
def test_no_rows_give_no_actions(kind: str) -> None:
    filter_ = FILTERS[kind]
    for table in (rows(), rows(detection(**NOTHING), classes=("a",), lineage=("a",))):
        found = list(filter_.apply(filter_.config(), table))
        assert len(found) == (len(table) if kind == "events" else 0)
        assert not filter_.invalid or not any(invalid(filter_, filter_.config(), table))
