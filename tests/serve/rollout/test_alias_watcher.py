"""A change of aliases.json outside the rollout is followed, and not tried for ever."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from model_store.store import ModelStore
from serve.rollout import operator
from serve.rollout.operations import Operation, Outcome, events, new_outcome, record
from serve.rollout.operator import AliasWatcher
from serve.rollout.state import AliasState, update_state
from tests.fixtures_local import motion_store


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    store = motion_store(tmp_path, "1", "2")
    store.set_alias("blobs", "production", "1")
    state = AliasState(active="1", since=datetime.now(UTC))
    update_state(store, "blobs", lambda now: now.with_alias("production", state))
    return store


def refused(operation: Operation, why: str = "it does not load") -> Outcome:
    return new_outcome(operation).model_copy(update={"state": "refused", "detail": why})


def refuse(follower: AliasWatcher, operation: Operation) -> None:
    follower.note(refused(operation))


def test_an_edited_alias_is_due(store: ModelStore) -> None:
    store.set_alias("blobs", "production", "2")
    store.set_alias("blobs", "staging", "1")
    due = AliasWatcher(store).due()
    assert [(one.kind, one.alias, one.version) for one in due] == [
        ("follow", "production", "2"),
        ("follow", "staging", "1"),
    ]


def test_what_was_refused_waits_until_something_changes(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.set_alias("blobs", "production", "2")
    follower = AliasWatcher(store)
    (operation,) = follower.due()
    refuse(follower, operation)
    assert follower.due() == []
    assert follower.failures("blobs") == {"production": "it does not load"}
    store.folder.write("blobs/2/config.json", store.folder.read("blobs/2/config.json"))  # a repair
    assert len(follower.due()) == 1
    refuse(follower, operation)
    monkeypatch.setattr(operator, "RETRY_S", -1.0)
    assert len(follower.due()) == 1
    store.set_alias("blobs", "production", "1")
    assert follower.due() == []
    assert follower.failures("blobs") == {}


@pytest.mark.parametrize("whole_model", [False, True])
def test_a_refusal_ends_with_its_alias(store: ModelStore, whole_model: bool) -> None:
    store.set_alias("blobs", "staging", "2")
    follower = AliasWatcher(store)
    for operation in follower.due():
        refuse(follower, operation)
    assert follower.failures("blobs") == {"staging": "it does not load"}
    if whole_model:
        shutil.rmtree(Path(store.url) / "blobs")
    else:
        store.set_alias("blobs", "staging", None)
    assert follower.due() == []
    assert (follower.failures("blobs"), follower.refused) == ({}, 0)


def test_a_damaged_model_does_not_keep_others_from_being_followed(store: ModelStore) -> None:
    store.folder.write("aaa/aliases.json", b"not JSON")
    store.set_alias("blobs", "production", "2")
    assert [one.name for one in AliasWatcher(store).due()] == ["blobs"]


def test_a_refusal_is_news_again_when_anything_about_it_has_changed(store: ModelStore) -> None:
    store.set_alias("blobs", "production", "2")
    follower = AliasWatcher(store)
    (operation,) = follower.due()
    for changed in (
        refused(operation),
        refused(operation, "its probe fails"),
        refused(operation.model_copy(update={"version": "1"})),
        refused(operation.model_copy(update={"alias": "staging"})),
    ):
        assert follower.note(changed)
        assert not follower.note(changed)
    ready = store.folder.read("blobs/1/READY")
    store.folder.write("blobs/1/READY", ready + b"\n")
    assert follower.note(refused(operation.model_copy(update={"version": "1"})))


def test_what_was_asked_for_or_was_done_is_always_news(store: ModelStore) -> None:
    follower = AliasWatcher(store)
    operation = Operation(kind="follow", name="blobs", version="2")
    follower.note(refused(operation))
    assert follower.note(refused(operation.model_copy(update={"kind": "promote"})))
    assert follower.note(new_outcome(operation).model_copy(update={"state": "done"}))
    assert follower.note(refused(operation))


def test_failures_are_listed_while_another_thread_finds_that_they_are_over(store: ModelStore) -> None:
    class Interrupting(str):
        """A name whose comparison lets the other thread run."""

        def __eq__(self, other: object) -> bool:
            follower.due()
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    store.set_alias("blobs", "staging", "1")
    state = AliasState(active="1", since=datetime.now(UTC))
    update_state(store, "blobs", lambda now: now.with_alias("staging", state))
    follower = AliasWatcher(store)
    for alias in ("production", "staging"):
        refuse(follower, Operation(kind="follow", name="blobs", alias=alias, version="2"))
    assert set(follower.failures(Interrupting("blobs"))) == {"production", "staging"}
    assert follower.failures("blobs") == {}


def test_a_refusal_is_noted_though_the_store_is_away(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(store.folder.fs, "ls", away)
    follower = AliasWatcher(store)
    operation = Operation(kind="follow", name="blobs", version="2")
    assert follower.note(refused(operation))
    assert follower.failures("blobs") == {"production": "it does not load"}


def test_events_come_newest_first_and_a_damaged_one_is_left_out(store: ModelStore) -> None:
    for version in ("1", "2", "1"):
        operation = Operation(kind="promote", name="blobs", version=version)
        record(store, new_outcome(operation), None, AliasState(active=version))
    newest = sorted(store.folder.names("blobs/.rollout/events"))[-1]
    assert [e.after and e.after.active for e in events(store, "blobs")] == ["1", "2", "1"]
    assert len(events(store, "blobs", max_events=2)) == 2
    store.folder.write(f"blobs/.rollout/events/{newest}", b"{")
    assert [e.after and e.after.active for e in events(store, "blobs")] == ["2", "1"]


def test_looks_of_two_threads_take_turns(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request can look while the poll does: the older list of files must not come after the newer one."""
    follower, steps, began = AliasWatcher(store), list[str](), threading.Event()

    def list_slowly() -> None:
        steps.append("begins")
        began.set()
        time.sleep(0.2)
        steps.append("ends")

    monkeypatch.setattr(follower._store, "list_again", list_slowly)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(follower.due)
        began.wait()
        assert threads.submit(follower.due).result() == first.result()
    assert steps == ["begins", "ends"] * 2
