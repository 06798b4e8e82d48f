"""Prune: what is kept and why, case by case; what goes; and who may work meanwhile."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

import archive.prune
from archive.exports import export
from archive.needs import of_view
from archive.prune import KeyUse, hold, plan_prune, prune
from archive.query import query
from archive.schemas import ASSERTIONS, CLASSIFICATIONS, EXPORTS, RUNS, SNIPS
from archive.tables import MAINTENANCE, Tables
from archive.views import View, Views
from model_store.errors import StorageUnreachable, TableConflict
from tests.archive.racing_writer import absent
from tests.fixtures_local import put_results, result_rows, rows_of

NOW = datetime.now(UTC)
KEYS = ("a", "b", "c", "d")


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def view(key: str, **more: Any) -> View:
    fields = {"inference_key": key, "model_name": f"m-{key}", "model_version": "1"}
    return View.model_validate({**fields, "weights_sha256": "w", **more})


def add(tables: Tables, name: str, schema: pa.Schema, *rows: dict[str, Any]) -> None:
    table = pa.Table.from_pylist(list(rows), schema=schema)
    tables.append(name, table, "test", lambda _, wanted: wanted)


def event(key: str, days: float, state: str = "sealed", run_id: str = "r") -> dict[str, Any]:
    model = {"model_name": f"m-{key}", "model_version": "2"}
    at = {"event": 0, "event_at": days_ago(days)}
    return {"run_id": f"{run_id}-{key}", "state": state, "inference_key": key, **model, **at}


@pytest.fixture
def old_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing counts as written lately."""
    monkeypatch.setattr(archive.prune, "WRITTEN", timedelta(seconds=-1))


@pytest.fixture
def four(tables: Tables, old_files: None) -> Tables:
    """Four keys with two files of three rows, snips of one of them and classifications of two."""
    for key in KEYS:
        put_results(tables, result_rows([f"{key}1", f"{key}2"], key=key))
        put_results(tables, result_rows([f"{key}3"], key=key))
    add(tables, "snips", SNIPS, {"inference_key": "a", "media_sha256": "a1", "names": ["x"]})
    for key in ("a", "b"):
        rows = [{"inference_key": key, "media_sha256": "a1", "rank": rank} for rank in (0, 1)]
        add(tables, "classifications", CLASSIFICATIONS, *rows)
    return tables


def kept(tables: Tables, **options: Any) -> dict[str, tuple[str, ...]]:
    return {use.inference_key: use.kept for use in plan_prune(tables, {}, **options) if use.kept}


def keys_of(tables: Tables, name: str = "results") -> set[str]:
    return {row["inference_key"] for row in rows_of(tables, name)}


def publish(tables: Tables, *keys: str, name: str = "production") -> None:
    views = Views(tables.url)
    for key in keys:
        now = views.current(name)
        views.publish(view(key, name=name), after=now.serial if now else 0)


def test_of_nothing_nothing_is_pruned(tables: Tables) -> None:
    assert plan_prune(tables, {}) == []
    assert prune(tables, {}) == []
    assert tables.existing("results") is None


def test_the_plan_counts_what_each_key_holds(four: Tables) -> None:
    add(four, "runs", RUNS, event("b", 5), event("a", 2), event("a", 40, run_id="older"))
    uses = plan_prune(four, {})
    assert [use.inference_key for use in uses] == ["a", "b", "c", "d"]
    held = [(use.rows, use.snips, use.classifications, use.files) for use in uses]
    assert held == [(3, 1, 2, 4), (3, 0, 2, 3), (3, 0, 0, 2), (3, 0, 0, 2)]
    assert [use.model for use in uses] == ["m-a@2", "m-b@2", None, None]
    assert [use.last_run_at for use in uses] == [days_ago(2), days_ago(5), None, None]
    on_disk = {
        key: sum(
            file.stat().st_size
            for name in ("results", "snips", "classifications")
            for file in Path(four.url, name, f"inference_key={key}").glob("*.parquet")
        )
        for key in KEYS
    }
    assert {use.inference_key: use.bytes for use in uses} == on_disk


def setup_published(tables: Tables) -> None:
    publish(tables, "a")


def setup_before_the_current(tables: Tables) -> None:
    publish(tables, "a", "b")


def setup_rolled_back(tables: Tables) -> None:
    publish(tables, "a", "b", "c")
    Views(tables.url).rollback()


def setup_other_view(tables: Tables) -> None:
    publish(tables, "a", name="trial")
    publish(tables, "b")


def setup_exported(tables: Tables) -> None:
    common = {"exported_at": days_ago(400), "rows": 3}
    add(tables, "exports", EXPORTS, common | {"inference_keys": ["a", "c"], "file": "/x/1.csv"})
    add(tables, "exports", EXPORTS, common | {"inference_keys": [], "file": "/x/2.csv"})
    later = {"exported_at": days_ago(1), "inference_keys": ["c"], "file": "/x/3.csv"}
    add(tables, "exports", EXPORTS, common | later)


def setup_asserted(tables: Tables) -> None:
    add(
        tables,
        "assertions",
        ASSERTIONS,
        {"method": "human", "inference_key": "a", "media_sha256": "a1"},
        {"method": "human", "inference_key": "a", "media_sha256": "a2"},
        {"method": "human", "inference_key": None, "media_sha256": "b1"},
        {"method": "machine", "inference_key": "c", "media_sha256": "c1"},
    )


def setup_runs(tables: Tables) -> None:
    events = [event("a", 0.9), event("b", 1.1), event("c", 1.1, "running")]
    add(tables, "runs", RUNS, *events, event("c", 0, "running", run_id="other"), event("d", 300))


@pytest.mark.parametrize(
    ("setup", "want"),
    [
        (lambda _: None, {}),
        (setup_published, {"a": ["view production shows it"]}),
        (
            setup_before_the_current,
            {
                "a": ["view production can go back to it (number 1)"],
                "b": ["view production shows it"],
            },
        ),
        (
            setup_rolled_back,
            {
                "a": ["view production can go back to it (number 1)"],
                "b": ["view production shows it"],
                "c": ["view production can go back to it (number 3)"],
            },
        ),
        (
            setup_other_view,
            {"a": ["view trial shows it"], "b": ["view production shows it"]},
        ),
        (
            setup_exported,
            {
                "a": [f"/x/1.csv holds it, exported on {days_ago(400):%Y-%m-%d}"],
                "c": [f"/x/3.csv holds it, exported on {days_ago(1):%Y-%m-%d} (and 1 more)"],
            },
        ),
        (setup_asserted, {"a": ["2 human assertions name it"]}),
        (
            setup_runs,
            {
                "a": [f"run r-a was at work on {days_ago(0.9):%Y-%m-%d %H:%M} UTC"],
                "c": [f"run other-c was at work on {NOW:%Y-%m-%d %H:%M} UTC"],
            },
        ),
    ],
)
def test_a_key_is_kept_for_each_of_these_reasons_and_the_others_go(
    four: Tables, setup: Callable[[Tables], None], want: dict[str, list[str]]
) -> None:
    setup(four)
    assert kept(four, keep_days=0) == {key: tuple(words) for key, words in want.items()}
    before = {use.inference_key: use for use in plan_prune(four, {}, 0)}
    gone = set(KEYS) - set(want)
    assert prune(four, {}, 0) == [use for key, use in before.items() if key in gone]
    assert keys_of(four) == set(want)
    assert keys_of(four, "snips") == {"a"} & set(want)
    assert keys_of(four, "classifications") == {"a", "b"} & set(want)
    assert prune(four, {}, 0) == []


@pytest.mark.parametrize(
    ("days", "state", "keep_days", "words"),
    [
        (80, "sealed", 90, "sealed"),
        (100, "sealed", 90, None),
        (80, "cancelled", 90, "cancelled"),
        (80, "failed", 90, "failed"),
        (80, "running", 90, "interrupted"),
        (80, "sealed", 70, None),
    ],
)
def test_what_a_run_did_is_kept_for_as_long_as_what_was_shown(
    four: Tables, days: float, state: str, keep_days: float, words: str | None
) -> None:
    started = event("a", days + 1, "running", run_id="x")
    add(four, "runs", RUNS, started, event("a", days, state, run_id="x") | {"event": 1})
    want = {"a": (f"run x-a was {words} on {days_ago(days):%Y-%m-%d}",)} if words else {}
    assert kept(four, keep_days=keep_days) == want


@pytest.mark.parametrize(("state", "kept_too"), [("sealed", set()), ("cancelled", {"a"})])
def test_of_a_sealed_run_that_was_published_its_views_decide(
    four: Tables, monkeypatch: pytest.MonkeyPatch, state: str, kept_too: set[str]
) -> None:
    add(four, "runs", RUNS, event("a", 2, state))
    monkeypatch.setattr(Views, "history", lambda *_: shown(500, 400, 300))
    publish(four, "d")
    assert set(kept(four)) == {"b", "c"} | kept_too


def test_what_an_alias_means_is_kept(four: Tables) -> None:
    uses = plan_prune(four, {"b": "alias m:production has version 2", "unknown": "…"})
    assert {use.inference_key: use.kept for use in uses if use.kept} == {
        "b": ("alias m:production has version 2",)
    }
    prune(four, {"b": "alias"})
    assert keys_of(four) == {"b"}


def test_all_reasons_are_given(four: Tables) -> None:
    publish(four, "a")
    setup_asserted(four)
    setup_exported(four)
    assert len(kept(four)["a"]) == 3


def shown(*days: float) -> list[View]:
    """Publications of keys a, b, c, … so many days ago."""
    return [
        view(chr(ord("a") + i), serial=i + 1, published_at=days_ago(ago))
        for i, ago in enumerate(days)
    ]


@pytest.mark.parametrize(
    ("history", "keep_days", "want"),
    [
        ([], 90, set()),
        (shown(500), 90, {"a"}),
        (shown(500, 400), 90, {"a", "b"}),
        (shown(500, 400, 300), 90, {"b", "c"}),
        (shown(500, 80, 70), 90, {"a", "b", "c"}),
        (shown(500, 80, 70), 79, {"b", "c"}),
        (shown(500, 80, 70), 0, {"b", "c"}),
        (shown(500, 400, 91, 89, 1), 90, {"c", "d", "e"}),
    ],
)
def test_what_a_view_showed_is_kept_for_so_many_days_after(
    history: Sequence[View], keep_days: float, want: set[str]
) -> None:
    assert {key for key, _ in of_view(history, keep_days, NOW)} == want


def test_a_key_that_is_shown_again_is_named_once(tables: Tables) -> None:
    publish(tables, "a", "a", "b", "a")
    words = [words for key, words in of_view(Views(tables.url).history(), 90, NOW) if key == "a"]
    assert words == ["view production shows it"]


def test_what_was_written_lately_is_kept(tables: Tables) -> None:
    put_results(tables, result_rows(["x"], key="a"))
    assert kept(tables) == {"a": ("it was written to in the last day",)}
    assert prune(tables, {}, 0) == []


def test_keys_are_quoted(tables: Tables, old_files: None) -> None:
    keys = {"it's", "a b", "c%20/ü=", "x') or ('1'='1"}
    for key in keys:
        put_results(tables, result_rows(["x"], key=key))
    publish(tables, "a b")
    assert {use.inference_key for use in prune(tables, {})} == keys - {"a b"}
    assert keys_of(tables) == {"a b"}


def test_the_rows_that_stay_are_the_same_and_views_and_runs_can_be_read(four: Tables) -> None:
    publish(four, "a", "b", "d")
    add(four, "runs", RUNS, event("c", 5), event("d", 5))
    before = sorted(
        (row for row in rows_of(four, "results") if row["inference_key"] in "bd"),
        key=lambda row: row["media_sha256"],
    )
    gone = prune(four, {}, 0)
    assert {use.inference_key for use in gone} == {"a", "c"}
    after = sorted(rows_of(four, "results"), key=lambda row: row["media_sha256"])
    assert after == before
    assert [v.inference_key for v in Views(four.url).history()] == ["a", "b", "d"]
    assert query(four, "select count(*) as n from runs").to_pylist() == [{"n": 2}]
    assert query(four, "select count(*) as n from views").to_pylist() == [{"n": 3}]
    assert query(four, "select count(*) as n from results").to_pylist() == [{"n": 3}]


def test_whole_files_leave_the_table_and_stay_on_disk_for_delta_s_retention(four: Tables) -> None:
    before = four.snapshot("results").version()
    publish(four, "a")
    prune(four, {})
    last = four.snapshot("results").history(1)[0]
    assert last["operationMetrics"]["num_added_files"] == 0
    assert len(list(Path(four.url, "results", "inference_key=b").glob("*.parquet"))) == 2
    old = DeltaTable(f"{four.url}/results", version=before).to_pyarrow_dataset()
    assert old.count_rows() == 12


def during_delete(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], times: int = 1) -> None:
    """`act` once the plan is made and before the first delete."""
    delete, left = archive.prune._delete, [act] * times

    def late(*arguments: Any) -> None:
        if left:
            left.pop()()
        delete(*arguments)

    monkeypatch.setattr(archive.prune, "_delete", late)


def test_rows_that_are_appended_meanwhile_are_kept(
    four: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(four, "a")
    during_delete(monkeypatch, lambda: put_results(four, result_rows(["a4"], key="a")))
    assert {use.inference_key for use in prune(four, {})} == {"b", "c", "d"}
    assert sorted(row["media_sha256"] for row in rows_of(four, "results")) == [
        "a1",
        "a2",
        "a3",
        "a4",
    ]


def test_a_writer_whose_snapshot_is_older_than_the_prune_goes_through(four: Tables) -> None:
    publish(four, "a")
    base = four.snapshot("results")
    prune(four, {})
    four.append("results", result_rows(["a4"], key="a"), "results:a", absent, base=base)
    assert sorted(row["media_sha256"] for row in rows_of(four, "results")) == [
        "a1",
        "a2",
        "a3",
        "a4",
    ]


def test_a_key_that_is_published_meanwhile_is_kept(
    four: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish_and_hold() -> None:
        publish(four, "b")
        hold(four)

    during_delete(monkeypatch, publish_and_hold)
    assert {use.inference_key for use in prune(four, {})} == {"a", "c", "d"}
    assert keys_of(four) == {"b"}


def test_of_two_prunes_at_once_both_end_well(four: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(four, "a")
    inner: list[list[KeyUse]] = []

    def other() -> None:
        inner.append(prune(four, {}))

    during_delete(monkeypatch, other)
    assert prune(four, {}) == []
    assert {use.inference_key for use in inner[0]} == {"b", "c", "d"}
    assert keys_of(four) == {"a"}


def test_when_snips_are_refused_what_went_before_is_told_too(
    four: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard of `snips` is taken between its snapshot and its delete; `results` are deleted by then."""
    delete, left = archive.prune._delete, [True]

    def late(table: DeltaTable, keys: Any) -> None:
        if table.table_uri.rstrip("/").endswith("snips") and left:
            left.pop()
            snips = four.snapshot("snips")
            guard = archive.prune.properties_of(snips, MAINTENANCE)
            snips.create_write_transaction([], "append", SNIPS, commit_properties=guard)
        delete(table, keys)

    monkeypatch.setattr(archive.prune, "_delete", late)
    assert [use.rows for use in prune(four, {})] == [3, 3, 3, 3]
    assert keys_of(four) == keys_of(four, "snips") == set()


def test_a_prune_that_is_always_refused_gives_up(
    four: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive.prune, "COMMIT_ATTEMPTS", 3)
    during_delete(monkeypatch, lambda: hold(four), times=100)
    with pytest.raises(TableConflict, match="prunes were refused"):
        prune(four, {})
    assert keys_of(four) == set(KEYS)


def test_in_doubt_nothing_goes(four: Tables) -> None:
    publish(four, "a")
    Path(four.url, "views", "production", "00000001.json").write_text("{")
    with pytest.raises(StorageUnreachable):
        prune(four, {})
    assert keys_of(four) == set(KEYS)


def test_a_hold_adds_no_row(four: Tables) -> None:
    before = len(rows_of(four, "results"))
    hold(four)
    hold(four)
    assert len(rows_of(four, "results")) == before
    assert four.snapshot("results").transaction_version(MAINTENANCE) == 2


def test_a_hold_leaves_an_older_table_as_it_is(tables: Tables) -> None:
    old = result_rows(["a"]).drop_columns(["read_ms", "saturated"])
    write_deltalake(f"{tables.url}/results", old, partition_by=["inference_key"])
    before = tables.snapshot("results").schema()
    hold(tables)
    after = tables.snapshot("results")
    assert after.schema() == before
    assert after.version() == 1
    put_results(tables, result_rows(["b"], read_ms=1.0))
    assert sorted(row["media_sha256"] for row in rows_of(tables, "results")) == ["a", "b"]


def test_on_s3_it_is_the_same(s3_endpoint: str, old_files: None, tmp_path: Path) -> None:
    name = f"b{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=name)
    tables = Tables(f"s3://{name}/with space/tables")
    for key in ("a b", "k", "m", "n"):
        put_results(tables, result_rows([f"{key}1", f"{key}2"], key=key))
    publish(tables, "m", "k")
    assert export(tables, "results", tmp_path / "k.csv") == 2
    assert query(tables, "select count(*) as n from all_results").to_pylist() == [{"n": 8}]
    view_of_n = view("n", run_id="r")
    assert export(tables, "results", tmp_path / "n.csv", view_of_n) == 2
    assert [(use.inference_key, use.rows) for use in prune(tables, {})] == [("a b", 2)]
    hold(tables)
    assert keys_of(tables) == {"k", "m", "n"}
    Views(tables.url).rollback()
    assert query(tables, "select distinct inference_key as k from results").to_pylist() == [
        {"k": "m"}
    ]
