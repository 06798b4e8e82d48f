"""Test `--if-needed`: what it returns, what it records, and that only one of several starts a run."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from archive.annotations.layers import Layer, keep_layer
from archive.delta.tables import Tables
from archive.views.views import View, Views
from batch.filters.layers import switch
from batch.planning.plan import pinned
from batch.publishing.publish import publish as publish_version
from batch.publishing.publish import rollback
from batch.runs.scope import Scope
from batch.schedule.archive_state import gather
from batch.schedule.policy import DueConditions, Policy
from batch.schedule.run_if_due import Needed, if_needed, local_time, recorded_publication, rolled_back_since
from model_store.errors import GateClosed
from model_store.store import ModelStore, ModelVersion
from tests.batch.schedule.test_archive_state import publish, put_media
from tests.batch.schedule.test_decision_log import put_event
from tests.fixtures_local import motion_store, put_results, result_rows, rows_of

MONDAY = datetime(2026, 5, 18, 12, 0).astimezone()
"""Noon in local time: outside of the window in every time zone."""
MISSING = Scope(status="missing")


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    found = Tables(str(tmp_path / "tables"))
    put_media(found, "a", "b", "c")
    return found


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return motion_store(tmp_path / "models", "1")


@pytest.fixture
def model(store: ModelStore) -> ModelVersion:
    return pinned(store, "blobs")


def see(tables: Tables, model: ModelVersion, *shas: str) -> None:
    put_results(tables, result_rows(list(shas), key=model.info.inference_key))


def ask(tables: Tables, store: ModelStore, **more: Any) -> Needed:
    return if_needed(tables, store, more.pop("policy", Policy()), **{"now": MONDAY, **more})


def decisions(tables: Tables) -> list[tuple[str, bool, str | None]]:
    rows = sorted(rows_of(tables, "decisions"), key=lambda row: row["decided_at"])
    return [(row["action"], row["acted"], row["run_id"]) for row in rows]


def test_what_was_never_seen_is_run_in_full_and_published_after(
    tables: Tables, store: ModelStore, model: ModelVersion
) -> None:
    needed = ask(tables, store, model="blobs", publish=True)
    assert (needed.decision.action, needed.scope) == ("full", Scope())
    assert needed.run_id is not None
    assert needed.publish == needed.run_id
    assert needed.model == model
    assert decisions(tables) == [("full", True, needed.run_id)]
    assert ask(tables, store, model="blobs@1", now=MONDAY + timedelta(hours=1)).publish is None


def test_few_new_images_are_run_alone_and_the_view_has_them_without_a_publication(
    tables: Tables, store: ModelStore, model: ModelVersion
) -> None:
    see(tables, model, "a", "b")
    publish(tables, model)
    needed = ask(tables, store, publish=True)
    assert (needed.decision.action, needed.scope) == ("incremental", MISSING)
    assert (needed.publish, needed.run_id is None) == (None, False)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_threshold_that_moved_is_published_only_where_that_is_asked_for(
    tables: Tables, store: ModelStore, model: ModelVersion, wanted: bool
) -> None:
    see(tables, model, "a", "b", "c")
    publish(tables, model, threshold=0.9)
    needed = ask(tables, store, publish=wanted)
    assert needed.decision.action == "view"
    assert (needed.scope, needed.run_id) == (None, None)
    assert needed.publish == ("blobs@1" if wanted else None)
    assert ("--publish is not given" in needed.decision.reasons[-1]) is not wanted
    assert decisions(tables) == ([] if wanted else [("view", False, None)])
    with recorded_publication(tables, needed) if wanted else contextlib.nullcontext():
        pass
    assert decisions(tables) == [("view", wanted, None)]
    assert len(Views(tables.url).history()) == 1


def test_a_publication_that_a_gate_refused_was_not_carried_out(
    tables: Tables, store: ModelStore, model: ModelVersion
) -> None:
    see(tables, model, "a", "b", "c")
    publish(tables, model, threshold=0.9)
    needed = ask(tables, store, publish=True)
    with pytest.raises(GateClosed), recorded_publication(tables, needed):
        raise GateClosed("too many images are lost")
    (row,) = rows_of(tables, "decisions")
    assert (row["acted"], row["decision_id"]) == (False, needed.decision_id)
    assert row["reasons"][-1] == "not done: too many images are lost"


def test_a_run_s_decision_is_not_recorded_again(tables: Tables, store: ModelStore) -> None:
    needed = ask(tables, store, model="blobs", publish=True)
    with pytest.raises(GateClosed), recorded_publication(tables, needed):
        raise GateClosed("closed")
    assert decisions(tables) == [("full", True, needed.run_id)]


def test_where_nothing_is_due_nothing_is_done_and_that_is_kept(
    tables: Tables, store: ModelStore, model: ModelVersion
) -> None:
    see(tables, model, "a", "b", "c")
    publish(tables, model)
    needed = ask(tables, store, publish=True)
    assert (needed.decision.action, needed.scope, needed.run_id) == ("nothing", None, None)
    assert needed.publish is None
    assert decisions(tables) == [("nothing", False, None)]


def test_what_waits_says_until_when(tables: Tables, store: ModelStore, model: ModelVersion) -> None:
    see(tables, model, "a")
    publish(tables, model)
    policy = Policy(due=DueConditions(incremental_under=2))
    needed = ask(tables, store, policy=policy)
    assert (needed.decision.action, needed.scope) == ("wait", None)
    assert needed.decision.until == datetime(2026, 5, 24, 2, 0)
    in_window = datetime(2026, 5, 24, 2, 30).astimezone()
    assert ask(tables, store, policy=policy, now=in_window).scope == Scope()


@pytest.mark.parametrize("killed", [True, False])
def test_a_run_that_is_under_way_is_left_to_do_it(
    tables: Tables, store: ModelStore, model: ModelVersion, killed: bool
) -> None:
    put_event(tables, "r1", "running", MONDAY - timedelta(minutes=4), model.info.inference_key)
    needed = ask(tables, store, model="blobs", publish=True)
    assert (needed.decision.action, needed.scope, needed.publish) == ("nothing", None, None)
    assert "run r1 of this inference key was started" in needed.decision.reasons[0]
    gone = {"ended": {"r1"}} if killed else {"now": MONDAY + timedelta(minutes=2)}
    next_one = ask(tables, store, model="blobs", **gone)
    assert next_one.scope == Scope()
    put_event(tables, str(next_one.run_id), "running", MONDAY, model.info.inference_key)
    assert ask(tables, store, model="blobs", ended={"r1", next_one.run_id}).scope == Scope()


def test_of_two_at_the_same_moment_one_starts_a_run(
    tables: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both gather their facts before either decides."""
    both = threading.Barrier(2)

    def slowly(*arguments: Any) -> Any:
        facts = gather(*arguments)
        both.wait(30)
        return facts

    monkeypatch.setattr("batch.schedule.run_if_due.gather", slowly)
    tables.snapshot("decisions")
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask, Tables(tables.url), store, model="blobs") for _ in range(2)]
        found = [one.result(60) for one in asked]
    (started,) = [one for one in found if one.scope]
    (other,) = [one for one in found if not one.scope]
    assert other.decision.action == "nothing"
    assert str(started.run_id) in other.decision.reasons[0]
    kept = sorted(decisions(tables))
    assert kept == [("full", True, started.run_id), ("nothing", False, None)]


def test_the_weekly_window_is_by_the_clock_of_this_machine() -> None:
    now = datetime(2026, 5, 17, 1, 0, tzinfo=UTC)
    assert local_time(now) == datetime.fromtimestamp(now.timestamp())


def test_a_layer_that_is_switched_does_not_publish_a_model_that_was_rolled_back(
    tables: Tables, store: ModelStore, model: ModelVersion
) -> None:
    see(tables, model, "a", "b", "c")
    put_results(tables, result_rows(["a"], key="old"))
    publish(tables, model, "old")
    assert ask(tables, store, publish=True).publish == "blobs@1"
    publish(tables, model)
    rollback(tables)
    assert ask(tables, store, publish=True).decision.action == "nothing"
    layer = Layer("c" * 64, "small-size", 1, {}, (), None)
    keep_layer(tables, layer, "test")
    for switched in ({"on": ["c" * 64]}, {"off": ["small-size"]}):
        switch(tables, **switched)  # type: ignore[arg-type]
        needed = ask(tables, store, publish=True)
        assert (needed.decision.action, needed.publish) == ("nothing", None)
        assert "rolled back" in needed.decision.reasons[0]


def test_what_is_rolled_back_while_its_run_is_at_work_is_not_published_after_it(
    tables: Tables, store: ModelStore, model: ModelVersion
) -> None:
    put_results(tables, result_rows(["a"], key="old"))
    publish(tables, model, "old")
    due = ask(tables, store, publish=True)
    assert (due.decision.action, due.publish) == ("full", due.run_id)
    see(tables, model, "a", "b", "c")

    def check(_: View | None, new: View) -> list[str]:
        return rolled_back_since(tables, new)

    assert publish_version(tables, store, "blobs@1", complete=True, check=check)
    rollback(tables)
    with pytest.raises(GateClosed, match="rolled back after the decision"):
        publish_version(tables, store, "blobs@1", complete=True, check=check)
    assert publish_version(tables, store, "blobs@1", complete=True).serial == 4
