"""Test `resight filters` and `resight layers`: requests, refusals and output, without a cluster."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import cli.filters
import cli.follow
from archive.annotations.layers import Layer, keep_layer, read_layers
from archive.delta.tables import Tables
from archive.views.views import Views
from batch.filters.registry import FILTERS
from batch.filters.run import execute, here
from batch.filters.spec import FilterSpec
from batch.jobs.control import JobOutcome, Jobs
from cli.follow import Followed
from model_store.storage import Folder
from tests.batch.filters.scene import box, publish, put, sha, shown, tables_at
from tests.cli.conftest import Done, Resight
from tests.fixtures_local import rows_of

JSON = ("--format", "json")
DAY_S = timedelta(days=1).total_seconds()


@pytest.fixture
def tables(home: Path) -> Tables:
    """Camera north has a large and a small box in three images of three days; south has one small box."""
    tables = tables_at(home)
    large, small = box(0, 10, 10, 200.0), box(1, 500, 500, 20.0, "fox", 0.5)
    images: dict[int, Any] = {n: ("north", DAY_S * n, [large, small]) for n in range(3)}
    put(tables, {**images, 3: ("south", 0.0, [box(0, 1, 1, 20.0)])})
    publish(tables)
    return tables


@pytest.fixture
def asked(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> list[FilterSpec]:
    """Specs of the last submitted job, which runs in this process and reports like a job."""
    specs: list[FilterSpec] = []

    def submit(these: Sequence[FilterSpec], *more: object, followed: bool) -> str:
        specs[:] = these
        return "job-1"

    def reports(_: object, job: str, run_ids: list[str], *more: object) -> Followed:
        assert (job, run_ids) == ("job-1", [one.run_id for one in specs])
        found = {one.run_id: execute(one, tables, here).metrics() for one in specs}
        return Followed(JobOutcome("SUCCEEDED", 0, ""), found, {})

    monkeypatch.setattr(cli.filters, "submit_filters", submit)
    monkeypatch.setattr(cli.follow, "follow", reports)
    return specs


def test_list_has_every_kind_in_the_order_of_layers(resight: Resight) -> None:
    rows = json.loads(resight("filters", "list", *JSON).ok())
    assert {row["kind"] for row in rows} == set(FILTERS)
    orders = [row["order"] for row in rows]
    assert orders == sorted(orders)
    by_kind = {row["kind"]: row for row in rows}
    assert (by_kind["events"]["judges"], by_kind["events"]["groups"]) == ("whole cameras", "event")
    assert (by_kind["small-size"]["judges"], by_kind["small-size"]["groups"]) == ("images", "")
    assert all(row["what"] for row in rows)
    header, *lines = csv.reader(io.StringIO(resight("filters", "list", "--format", "csv").ok()))
    assert (header[0], len(lines)) == ("kind", len(FILTERS))
    assert "small-size" in resight("filters", "list").ok()


def test_show_has_every_field_with_default_unit_and_meaning(resight: Resight) -> None:
    for kind in FILTERS:
        facts = json.loads(resight("filters", "show", kind, *JSON).ok())
        fields = {row["field"]: row for row in facts["fields"]}
        assert set(fields) == set(facts["schema"]["properties"]) - {"kind"}
        assert facts["schema"]["additionalProperties"] is False
        assert all(row["meaning"] for row in fields.values())
    text = resight("filters", "show", "small-size").ok()
    (line,) = [line for line in text.splitlines() if line.startswith("min_area_frac")]
    assert "0.0008" in line
    assert "share of the image's area" in line


def test_a_dry_run_has_the_figures_and_writes_nothing(resight: Resight, tables: Tables) -> None:
    words = ("filters", "run", "small-size", "--dry-run")
    (row,) = json.loads(resight(*words, *JSON).ok())
    figures = {"images": 4, "checked": 7, "flagged": 4, "changed": 4, "added": 4, "withdrawn": 0}
    assert {name: row[name] for name in figures} == figures
    assert (row["filter"], row["scope"]) == ("small-size", "all")
    for name in ("assertions", "layers", "runs"):
        assert tables.existing(name) is None
    assert Views(tables.url).history()[-1].serial == 1


def test_options_of_a_scope_narrow_it_together(resight: Resight, tables: Tables) -> None:
    scope = ("--camera", "north", "--camera", "south", "--since", "2026-05-15", "--label", "fox")
    (row,) = json.loads(resight("filters", "run", "small-size", *scope, "--dry-run", *JSON).ok())
    words = "camera north or south, since 2026-05-15, label fox"
    assert (row["scope"], row["images"], row["flagged"]) == (words, 2, 2)


def test_set_takes_numbers_json_words_and_files(
    resight: Resight, asked: list[FilterSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labels.txt").write_text("\ufefffox\n\n  roe deer \r\n", "utf-8")
    (tmp_path / "LABELS.JSON").write_text('["hare", "fox"]')
    monkeypatch.chdir(tmp_path)
    for kind, value, wanted in (
        ("small-size", "min_area_frac=0.5", {"min_area_frac": 0.5}),
        ("small-size", "max_area_frac=null", {"max_area_frac": None}),
        ("small-size", 'action="relabel"', {"action": "relabel"}),
        ("score-threshold", 'per_label={"fox": 0.6}', {"per_label": {"fox": 0.6}}),
        ("fixed-slots", 'exclude_labels=["fox", "a=b"]', {"exclude_labels": ["a=b", "fox"]}),
        ("fixed-slots", "exclude_labels=@labels.txt", {"exclude_labels": ["fox", "roe deer"]}),
        ("fixed-slots", "exclude_labels=@LABELS.JSON", {"exclude_labels": ["fox", "hare"]}),
    ):
        resight("filters", "run", kind, "--set", value, "--no-follow").ok()
        (spec,) = asked
        assert {name: spec.config[name] for name in wanted} == wanted


def test_the_last_of_two_values_holds(resight: Resight, asked: list[FilterSpec]) -> None:
    values = ("--set", "min_area_frac=0.5", "--set", "min_side_px=9", "--set", "min_area_frac=0.1")
    resight("filters", "run", "small-size", *values, "--no-follow").ok()
    assert (asked[0].config["min_area_frac"], asked[0].config["min_side_px"]) == (0.1, 9.0)


RUN = ("filters", "run", "small-size")
DRY = (*RUN, "--dry-run")
MASK = ("filters", "run", "class-mask", "--dry-run")


def test_invalid_requests_are_rejected_before_submission(
    resight: Resight, asked: list[FilterSpec], tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "review.json").write_text('{"layer_id": "x", "slots": [{"id": "1"}]}')
    monkeypatch.chdir(tmp_path)
    for words, said in (
        ((*RUN, "--camera", "nort"), ["unknown camera 'nort'; did you mean 'north'?"]),
        ((*RUN, "--camera", ""), ["--camera: String should have at least 1 character"]),
        ((*RUN, "--until", "2020-01-01"), ["no image matches until 2020-01-01; images were taken"]),
        ((*RUN, "--since", "noon"), ["--since: invalid time 'noon': use 2026-05-01 or 2026-"]),
        ((*RUN, "--run", "nope"), ["nope"]),
        ((*RUN, "--ids", "away.txt"), ["cannot read away.txt"]),
        (("filters", "run", "small"), ["unknown filter 'small'; available: duplicates, small"]),
        (("filters", "show", "small"), ["unknown filter 'small'"]),
        ((*DRY, "--set", "size=1"), ["size: unknown field", "fields of small-size: min_area_frac, min"]),
        ((*DRY, "--set", "kind=events"), ["kind"]),
        ((*DRY, "--set", "min_area_frac"), ["invalid --set 'min_area_frac'", "filters show small-"]),
        ((*DRY, "--set", "min_area_frac=much"), ["min_area_frac: Input should be a valid number"]),
        ((*DRY, "--set", "min_area_frac=NaN"), ["min_area_frac: "]),
        ((*MASK, "--set", "classifier=12e4"), ["'12e4' matches 0 classifiers"]),
        ((*MASK, "--set", 'classifier="7"'), ["'7' matches 0 classifiers"]),
        ((*DRY, "--set", "min_area_frac=@away.json"), ["cannot read away.json"]),
        ((*DRY, "--set", "min_area_frac=@bad.json"), ["cannot read bad.json"]),
        ((*DRY, "--set", "per_camera=@review.json"), ["review.json", "slots.0"]),
        ((*DRY, "--show"), ["--show waits for the end of the run"]),
        ((*RUN, "--no-follow", "--show"), ["leave out --dry-run and --no-follow"]),
        ((*RUN, "--view", "trial"), ["nothing is published as trial: resight runs publish RUN"]),
        (("filters", "rerun"), ["view production has no layers; see: resight filters run --help"]),
        (("filters", "review", "repeat-detections", "--out", "out"), ["unknown layer 'repeat-det"]),
        (("layers", "on", "abcd"), ["unknown layer 'abcd': create one with resight filters run"]),
        (("layers", "off", "small-size"), ["unknown layer 'small-size'"]),
        (("layers", "on", "abcd", "--view", "trial"), ["nothing is published as trial"]),
    ):
        error = resight(*words).refused(2)
        for one in said:
            assert one in error
    assert asked == []
    assert tables.existing("runs") is None


def test_a_run_that_is_not_followed_prints_its_id(resight: Resight, asked: list[FilterSpec]) -> None:
    (row,) = json.loads(resight(*RUN, "--no-follow", *JSON).ok())
    assert row == {"run_id": asked[0].run_id, "job": "job-1"}


def test_a_job_that_never_started_is_submitted_again(
    resight: Resight, asked: list[FilterSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[str] = []
    whole = cli.follow.follow

    def watch(jobs: Jobs, job: str, run_ids: list[str], *more: Any) -> Followed:
        began.append(job)
        if len(began) > 1:
            return whole(jobs, job, run_ids, *more)
        return Followed(JobOutcome("FAILED", None, "runtime_env setup failed: gone"), {}, {})

    monkeypatch.setattr(cli.follow, "follow", watch)
    (row,) = rows_in(resight(*RUN, *JSON))
    assert (row["flagged"], len(began)) == (4, 2)


def rows_in(done: Done) -> list[dict[str, Any]]:
    """Return the JSON list in the last line of standard output, after the logs of runs in this process."""
    text = done.ok()
    rows: list[dict[str, Any]] = json.loads(text.splitlines()[-1])
    return rows


def test_layers_are_listed_switched_off_and_on(resight: Resight, asked: list[FilterSpec], tables: Tables) -> None:
    before = shown(tables)
    assert json.loads(resight("layers", "list", *JSON).ok()) == []
    done = resight(*RUN, "--show", *JSON)
    (row,) = rows_in(done)
    assert (row["flagged"], row["added"]) == (4, 4)
    after = shown(tables)
    counts = f"detections: {len(before)} before, {len(after)} now"
    assert f"production 2 shows the layer; {counts}\n" in done.err
    assert len(after) == len(before) - 4

    (layer,) = json.loads(resight("layers", "list", *JSON).ok())
    assert layer["layer"].startswith(row["layer"])
    assert (layer["kind"], layer["on"], layer["says"]) == ("small-size", 1, 4)
    assert layer["config"]["min_area_frac"] == 0.0008
    assert row["layer"] in resight("layers", "list").ok()

    off = json.loads(resight("layers", "off", "small-size", "--reason", "a look", *JSON).ok())
    assert off == {"view": "production", "number": 3, "layers": []}
    assert Views(tables.url).history()[-1].reason == "a look"
    assert shown(tables) == before
    (layer,) = json.loads(resight("layers", "list", *JSON).ok())
    assert (layer["on"], layer["says"]) == ("", 4)
    assert "does not show small-size" in resight("layers", "off", layer["layer"][:8]).refused(2)
    digits = layer["layer"]
    for name in (digits[:4], f"small-size {digits[:12]}", "small-size"):
        on = json.loads(resight("layers", "on", name, *JSON).ok())
        assert on["layers"] == [f"small-size {row['layer']}"]
        back = resight("runs", "rollback").err
        assert f"undone: number {on['number']} (layer small-size {digits[:12]} on)" in back
        assert f"would undo: number 3 (layer small-size {digits[:12]} off)" in back
    assert f"layers            small-size {digits[:12]}\n" in resight("runs", "rollback").ok()
    assert shown(tables) == after
    assert len(rows_of(tables, "assertions")) == 4


def test_a_name_that_is_more_than_one_layer_is_refused_with_both(
    resight: Resight, asked: list[FilterSpec], tables: Tables
) -> None:
    made = [f"abcd{n}" + "0" * 59 for n in range(2)]
    for layer_id in made:
        keep_layer(tables, Layer(layer_id, "small-size", 1, {}, (), None), "0")
    error = resight("layers", "on", "abcd").refused(2)
    assert "ambiguous layer 'abcd'" in error
    assert all(f"small-size {layer_id[:12]}" in error for layer_id in made)
    for name in ("small-size", "small"):
        error = resight("layers", "on", name).refused(2)
        assert f"ambiguous layer '{name}'" in error
    error = resight("layers", "on", "abc").refused(2)
    assert "unknown layer 'abc'" in error, "three digits are no name"
    resight("layers", "on", "abcd1").ok()
    assert Views(tables.url).history()[-1].layers == (made[1],)
    both = resight("filters", "review", "small-size", "--out", "out").refused(2)
    assert "only repeat-detections layers can be reviewed" in both


def test_a_layer_over_changed_layers_gives_a_warning(resight: Resight, asked: list[FilterSpec], tables: Tables) -> None:
    resight("filters", "run", "duplicates", "--show").ok()
    resight(*RUN, "--show").ok()
    assert [one.kind for one in read_layers(tables).values()] == ["duplicates", "small-size"]
    assert "made over other layers" not in resight("layers", "list").err
    done = resight("layers", "off", "duplicates")
    assert "small-size" in done.ok()
    assert "was made over other layers than those below it now" in done.err
    assert "was made over other layers" in resight("layers", "list").err
    done = resight("filters", "rerun", *JSON)
    (row,) = rows_in(done)
    assert (row["filter"], row["flagged"]) == ("small-size", 4)
    assert asked[0].input_layers == ()
    assert f"show them with: resight layers on {row['layer']}" in done.err
    resight("layers", "on", row["layer"]).ok()
    assert "made over other layers" not in resight("layers", "list").err


def test_a_review_is_written_accepted_and_given_back(
    resight: Resight, asked: list[FilterSpec], tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("--set", "min_images=3", "--set", "max_score=0.6")
    repeats = ("filters", "run", "repeat-detections", *few)
    before = shown(tables)
    done = resight(*repeats)
    done.ok()
    resight(*done.err.splitlines()[-1].partition(": resight ")[2].split()).ok()
    assert len(json.loads(resight("layers", "list", *JSON).ok())) == 1
    done = resight(*repeats)
    done.ok()
    assert "the layer is off" not in done.err
    assert shown(tables) == before
    done = resight("filters", "review", "repeat-detections", "--out", tmp_path / "r", *JSON)
    (slot,) = json.loads(done.ok())
    facts = {"camera": "north", "label": "fox", "images": 3, "days": 3, "accepted": False}
    assert slot == {"id": slot["id"], **facts}
    assert "shows 1 slots; accept them in" in done.err
    assert f"{' '.join(('resight', *repeats))} --set accepted=@{tmp_path / 'r'}/review.json --show\n" in done.err
    assert "not empty" in resight("filters", "review", "repeat-detections", "--out", tmp_path / "r").refused(2)

    file = tmp_path / "r" / "review.json"
    file.write_text(file.read_text().replace('"accepted": false', '"accepted": true'), "utf-8-sig")
    reads = list[str]()
    monkeypatch.setattr(Folder, "read", lambda at, name, read=Folder.read: reads.append(name) or read(at, name))
    resight(*repeats, "--set", f"accepted=@{file}", "--show").ok()
    assert reads.count(file.name) == 1
    assert asked[0].config["accepted"] == [slot["id"]]
    foxes = [(sha(n), 1, "fox", 0.5) for n in range(3)]
    assert shown(tables) == [row for row in before if row not in foxes]
    assert len(json.loads(resight("layers", "list", *JSON).ok())) == 2, "one in place of the other"
    again = resight("filters", "review", "repeat-detections", "--out", tmp_path / "s", *JSON)
    assert [one["accepted"] for one in json.loads(again.ok())] == [True]
