"""Test filters and layers with tables of earlier versions, changing results, and layers over other layers."""

from __future__ import annotations

import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner

from archive.annotations.assertions import human_assertions, make_standing
from archive.annotations.classes import write_classes
from archive.delta.tables import Tables
from archive.retention import plan_prune
from archive.schemas import ASSERTIONS, CLASSIFICATIONS
from archive.views.exports import export
from archive.views.query import query
from archive.views.views import Views
from batch.filters import load
from batch.filters.contract import COLUMNS, rows_of_table
from batch.filters.layers import never_run, never_run_warnings, outdated_warnings, switch
from batch.filters.prepare import prepare, prepare_again
from batch.filters.run import FilterReport, dry_run, execute, execute_all, here
from batch.runs.scope import FilterScope
from cli import filters
from model_store.errors import BadRequest, StorageUnreachable
from tests.batch.filters.scene import KEY, box, copied, publish, put, sha, shown, tables_at
from tests.fixtures_local import put_results, result_rows, rows_of

SMALL, LARGE = 20.0, 200.0


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Six images, each with a large box, a duplicate of it, and a small box."""
    tables = tables_at(tmp_path_factory.mktemp("template"))
    put(tables, {n: ("north", 60.0 * n, _found()) for n in range(6)})
    publish(tables)
    return tables


@pytest.fixture
def tables(template: Tables, tmp_path: Path) -> Tables:
    return copied(template, tmp_path)


def _found() -> list[dict[str, Any]]:
    two = [box(0, 10, 10, LARGE), box(1, 12, 10, LARGE, score=0.8)]
    return [*two, box(2, 600, 500, SMALL, "fox", 0.5)]


def run(tables: Tables, kind: str, camera: str = "", **fields: Any) -> FilterReport:
    scope = FilterScope(camera=(camera,) if camera else ())
    spec = prepare(tables, kind, fields, scope)
    return execute(spec, tables, here)


def show(tables: Tables, kind: str, **fields: Any) -> str:
    layer = run(tables, kind, **fields).layer_id
    switch(tables, on=[layer])
    return layer


def replace_result(tables: Tables, number: int, found: list[dict[str, Any]]) -> None:
    """Replace the result of an image under the same key, as after a prune and another detection."""
    size: dict[str, Any] = {"width_px": 1000, "height_px": 800}
    rows = result_rows([sha(number)], KEY, "ok", n_detections=len(found), detections=found, **size)
    same = ("inference_key", "media_sha256")
    tables.append("results", rows, "test", lambda _, wanted: wanted, replace=same)


def test_assertions_from_before_a_column_was_added_are_kept(tables: Tables) -> None:
    old = pa.schema([field for field in ASSERTIONS if field.name != "group_id"])
    row: dict[str, Any] = dict.fromkeys(old.names) | {
        "assertion_id": "a" * 64,
        "layer_id": "human",
        "method": "human",
        "actor": "kim",
        "action": "relabel",
        "label": "elk",
        "media_sha256": sha(1),
        "asserted_at": datetime(2026, 1, 1, tzinfo=UTC),
        "x1_px": 10.0,
        "y1_px": 10.0,
        "x2_px": 210.0,
        "y2_px": 210.0,
    }
    write_deltalake(f"{tables.url}/assertions", pa.Table.from_pylist([row], schema=old))
    report = run(tables, "small-size")
    assert report.tally.added == 6
    assert human_assertions(tables)["label"].to_pylist() == ["elk"]
    with duckdb.connect() as sql:
        make_standing(sql, tables)
        assert sql.sql("select label from standing").fetchall() == [("elk",)]
    assert (sha(1), 0, "elk") in [one[:3] for one in shown(tables)]
    assert run(tables, "small-size").tally.added == 0


def test_assertions_on_removed_detections_do_not_keep_accounts_open(tables: Tables) -> None:
    assert run(tables, "small-size").tally.flagged == 6
    replace_result(tables, 1, [box(0, 10, 10, LARGE)])
    report = run(tables, "small-size")
    assert (report.tally.flagged, report.standing, report.tally.added) == (5, 5, 0)
    replace_result(tables, 1, _found())
    assert run(tables, "small-size").tally.flagged == 6


def test_a_withdrawal_above_does_not_change_what_is_hidden_below(tables: Tables) -> None:
    """A detection hidden by the upper layer is now also hidden below, so a withdrawal changes nothing."""
    put(tables, {9: ("south", 0.0, [box(0, 10, 10, LARGE)])})
    switch(tables, on=[run(tables, "small-size", "south").layer_id])
    first = run(tables, "score-threshold", min_score=0.6).tally
    assert (first.flagged, first.changed) == (6, 6)
    assert run(tables, "small-size", "north").tally.changed == 6
    after = run(tables, "score-threshold", min_score=0.6).tally
    assert (after.flagged, after.withdrawn, after.changed) == (0, 6, 0)


def test_layers_not_run_over_another_model_are_listed_until_they_are(tables: Tables) -> None:
    """A run without actions counts as a run over these results."""
    layer = show(tables, "small-size")
    mine = Views(tables.url).current()
    assert mine is not None
    assert never_run(tables, mine) == []
    other = "o" * 64
    size: dict[str, Any] = {"width_px": 1000, "height_px": 800}
    put_results(tables, result_rows([sha(n) for n in range(6)], other, **size))
    view = publish(tables, other, model_version="2", layers=mine.layers, run_id="second")
    (words,) = never_run_warnings(tables, view)
    assert [one.layer_id for one in never_run(tables, view)] == [layer]
    assert words.startswith(f"small-size {layer[:12]} was never run over the results of m@2")
    assert words.endswith("resight filters rerun --run second")
    assert never_run(tables, mine) == []
    assert run(tables, "small-size").tally.flagged == 0
    assert never_run(tables, view) == []


def test_a_rerun_without_layers_is_rejected(tables: Tables) -> None:
    with pytest.raises(BadRequest, match="has no layers"):
        prepare_again(tables)


def test_rerun_shows_new_layers_with_show(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIGHT_TABLES", tables.url)

    def here_and_now(specs: Any, _settings: Any, _tables: Any, *_: Any) -> list[dict[str, Any]]:
        return [{"layer": execute(spec, tables, here).layer_id} for spec in specs]

    monkeypatch.setattr(filters, "_run", here_and_now)
    events = show(tables, "events")
    small = show(tables, "small-size")
    told = CliRunner().invoke(filters.app, ["rerun"])
    assert told.exit_code == 0, told.output
    assert "resight layers on" in told.output
    view = Views(tables.url).current()
    assert view is not None
    assert view.layers == (small, events)
    told = CliRunner().invoke(filters.app, ["rerun", "--show"])
    now = Views(tables.url).current()
    assert now is not None
    assert now.layers[0] == small
    assert now.layers[1] != events
    assert outdated_warnings(tables, now) == []
    CliRunner().invoke(filters.app, ["rerun", "--show"])
    assert Views(tables.url).current() == now, "nothing has become another layer"


def test_show_is_rejected_without_following_the_run(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIGHT_TABLES", tables.url)
    words = ["run", "small-size", "--show", "--no-follow"]
    refused = CliRunner().invoke(filters.app, words)
    assert isinstance(refused.exception, BadRequest)
    assert "--show waits" in str(refused.exception)
    assert tables.existing("runs") is None


def test_a_view_with_missing_layers_names_them(tables: Tables) -> None:
    layer = show(tables, "small-size")
    view = Views(tables.url).current()
    assert view is not None
    shutil.rmtree(f"{tables.url}/layers")
    for look in (
        lambda: query(tables, "from detections"),
        lambda: outdated_warnings(tables, view),
        lambda: prepare(tables, "events", {}),
        lambda: prepare_again(tables),
        lambda: switch(tables, on=["events"]),
    ):
        with pytest.raises(StorageUnreachable, match=layer[:12]):
            look()


def test_runs_after_a_failed_one_are_recorded(tables: Tables) -> None:
    """The caller has received their ids."""

    def breaks(*_: Any) -> Any:
        raise OSError("no disk")

    judges = iter([here, breaks, here])
    specs = [prepare(tables, "small-size", {}) for _ in range(4)]
    done: list[str] = []
    with pytest.raises(OSError, match="no disk"):
        done.extend(report.run_id for report in execute_all(specs, tables, lambda *a: next(judges)(*a)))
    runs = {row["run_id"]: row for row in query(tables, "select * from runs").to_pylist()}
    states = [runs[spec.run_id]["state"] for spec in specs]
    assert states == ["sealed", "failed", "cancelled", "cancelled"]
    assert specs[1].run_id in runs[specs[3].run_id]["message"]


def test_an_export_of_layers_keeps_its_inference_key(tables: Tables, tmp_path: Path) -> None:
    show(tables, "small-size")
    serial = Views(tables.url).current().serial  # type: ignore[union-attr]
    assert export(tables, "hidden", tmp_path / "out.parquet") > 0
    (row,) = rows_of(tables, "exports")
    assert (row["inference_keys"], row["view"]) == ([KEY], f"production {serial}")
    (use,) = plan_prune(tables, [])
    assert any("exported" in words for words in use.kept)


def test_concurrent_runs_of_one_layer_store_each_assertion_once(tables: Tables) -> None:
    wrong: list[BaseException] = []

    def go() -> None:
        try:
            run(tables, "small-size")
        except BaseException as error:  # asserted below
            wrong.append(error)

    threads = [threading.Thread(target=go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(rows_of(tables, "assertions")) == 6
    assert len(rows_of(tables, "layers")) == 1


def _classify(tables: Tables, logits: dict[tuple[int, int], list[float] | None]) -> None:
    digest = write_classes(tables.url, ["cat", "deer", "fox"], ["", "", ""])
    rows = [
        {
            "inference_key": KEY,
            "media_sha256": sha(number),
            "rank": rank,
            "classifier_key": "c" * 64,
            "model_name": "crops",
            "model_version": "1",
            "margin_frac": 0.0,
            "status": "ok",
            "labels_digest": digest,
            "logits": values,
            "finished_at": datetime.now(UTC),
        }
        for (number, rank), values in logits.items()
    ]
    table = pa.Table.from_pylist(rows, schema=CLASSIFICATIONS)
    tables.append("classifications", table, "test", lambda _, wanted: wanted)


def test_logits_stay_with_their_detections_across_parts(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {(n, rank): [n + 0.5, rank, 1.0] for n in range(6) for rank in (0, 2)}
    _classify(tables, {**wanted, (5, 1): [1.0, 2.0], (4, 1): None})
    monkeypatch.setattr(load, "PART_ROWS", 40)  # two images a part
    found: dict[tuple[str, int], list[float]] = {}

    def look(parts: Any, _question: Any) -> Any:
        for part in parts:
            rows = rows_of_table(part.select([*COLUMNS.names, "logits"]), ("cat", "deer", "fox"))
            assert len(rows) <= 6
            assert rows.logits is not None
            for place, (media, rank) in enumerate(zip(rows.media_sha256, rows.rank, strict=True)):
                found[media, int(rank)] = rows.logits[place].tolist()
        return iter(())

    spec = prepare(tables, "class-mask", {"keep": ["deer"]})
    dry_run(spec, tables, look)
    assert len(found) == 18
    there = {target: values for target, values in found.items() if np.isfinite(values).all()}
    assert there == {(sha(n), rank): values for (n, rank), values in wanted.items()}
