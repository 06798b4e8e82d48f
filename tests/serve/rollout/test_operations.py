"""Accepted operations outlive their process: the next one completes them, or records why not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from model_store.errors import Overloaded, StorageUnreachable
from model_store.names import VersionId
from model_store.storage import Folder
from model_store.store import ModelStore
from serve.rollout import operator
from serve.rollout.operations import (
    Accepted,
    Operation,
    Outcome,
    events,
    new_outcome,
    open_operations,
    outcome_of,
    record,
    remove_operation,
    save_operation,
)
from serve.rollout.operator import RolloutOperator
from serve.rollout.sandbox import Proof
from serve.rollout.state import AliasState, read_state
from serve.rollout.steps import PreparedOperation
from serve.settings import DetectArgs, Pool
from tests.fixtures_local import motion_store
from tests.serve.rollout.test_steps import FakeReplicas
from tests.support.disks import deny

NAME = "blobs"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    monkeypatch.setenv("RESIGHT_HOME", str(tmp_path / "home"))
    return motion_store(tmp_path / "models", "1", "2", "3")


def operation(kind: str = "promote", **fields: Any) -> Operation:
    return Operation.model_validate({"kind": kind, "name": NAME, **fields})


def accepted(kind: str = "promote", age_s: float = 0, **fields: Any) -> Accepted:
    wanted = operation(kind, **fields)
    asked_at = datetime.now(UTC) - timedelta(seconds=age_s)
    outcome = new_outcome(wanted).model_copy(update={"asked_at": asked_at})
    return Accepted(
        outcome=outcome, prepared=PreparedOperation(operation=wanted, before=AliasState(active="1"), wanted="1")
    )


def test_what_is_kept_is_found_by_its_id_until_it_ended_and_then_by_its_event(store: ModelStore) -> None:
    one = accepted(version="2")
    assert save_operation(store, one) == one
    moved = one.prepared.model_copy(update={"before": AliasState(active="3")})
    assert save_operation(store, one.model_copy(update={"prepared": moved})) == one
    assert list(open_operations(store, NAME)) == [one]
    assert outcome_of(store, one.outcome.id) == one.outcome
    done = one.outcome.model_copy(update={"state": "done"})
    record(store, done, None, None)
    assert outcome_of(store, done.id) == done
    remove_operation(store, done)
    assert list(open_operations(store, NAME)) == []
    assert outcome_of(store, done.id) == done


@pytest.mark.parametrize("text", ["", "x", "../../etc-0", "blobs-", "blobs-00", "no-such-00"])
def test_an_id_that_was_never_given_is_of_no_operation(store: ModelStore, text: str) -> None:
    save_operation(store, accepted(version="2"))
    assert outcome_of(store, text) is None


class Process:
    """A process of the rollout, with replicas that hold version 1. Proofs wait for `gate`."""

    def __init__(self, store: ModelStore) -> None:
        self.store, self.fakes = store, FakeReplicas(store, {"1"})
        self.gate = threading.Event()
        self.gate.set()
        self.operator = RolloutOperator(DetectArgs(models=store.url, poll_s=0.05), self)

    def replicas(self, store: ModelStore, args: DetectArgs) -> FakeReplicas:
        return self.fakes

    def is_alive(self, holder: str) -> bool:
        return True

    def prove(self, url: str, version: VersionId, pool: Pool, limit_s: float, digest: str) -> Proof:
        assert self.gate.wait(60)
        return Proof(1, 0.1, digest)

    async def ask(self, outcome: Outcome) -> Outcome:
        return await self.operator.ask(outcome)

    async def ended(self, outcome_id: str) -> Outcome:
        while True:
            found = await self.operator.wait(outcome_id, 60)
            if found is not None and found.state in ("done", "refused"):
                return found
            await asyncio.sleep(0.02)


@pytest.fixture
def process(store: ModelStore) -> Callable[[], Process]:
    return lambda: Process(store)


async def test_what_was_accepted_is_in_the_store_before_it_is_answered(
    store: ModelStore, process: Callable[[], Process]
) -> None:
    one = process()
    one.gate.clear()
    outcome = await one.ask(new_outcome(operation(version="2")))
    assert [a.outcome.id for a in open_operations(store, NAME)] == [outcome.id]
    one.gate.set()
    done = await one.ended(outcome.id)
    assert (done.state, read_state(store, NAME).aliases["production"].active) == ("done", "2")
    assert list(open_operations(store, NAME)) == []
    assert events(store, NAME)[0].outcome == done


async def test_a_successor_does_what_was_accepted_and_answers_for_it(
    store: ModelStore, process: Callable[[], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.folder.write("bees/1/README.md", b"")
    deny(monkeypatch, "bees")
    save_operation(store, accepted(version="2"))
    (left,) = open_operations(store, NAME)
    successor = process()
    early = await successor.operator.wait(left.outcome.id, 0)
    assert early is not None
    assert early.state == "waiting"
    await successor.operator.work()
    done = await successor.ended(left.outcome.id)
    assert (done.state, store.aliases(NAME)) == ("done", {"production": "2"})
    ids = [event.outcome.id for event in events(store, NAME)]
    assert ids.count(left.outcome.id) == 1
    third = process()
    assert await third.operator.wait(left.outcome.id, 0) == done


async def test_what_was_recorded_already_is_not_done_again(store: ModelStore, process: Callable[[], Process]) -> None:
    left = accepted(version="2")
    save_operation(store, left)
    record(store, left.outcome.model_copy(update={"state": "done"}), None, None)
    successor = process()
    await successor.operator.work()
    while list(open_operations(store, NAME)):
        await asyncio.sleep(0.02)
    await asyncio.gather(*successor.operator._tasks.values())
    assert store.aliases(NAME) == {"production": "1"}


async def test_what_is_too_old_is_recorded_as_not_done(store: ModelStore, process: Callable[[], Process]) -> None:
    left = accepted(age_s=operator.RESUME_S + 60, version="2")
    save_operation(store, left)
    successor = process()
    await successor.operator.work()
    done = await successor.ended(left.outcome.id)
    assert (done.state, store.aliases(NAME)) == ("refused", {"production": "1"})
    assert "ended before this was done" in done.detail
    while list(open_operations(store, NAME)):
        await asyncio.sleep(0.02)
    assert done in [event.outcome for event in events(store, NAME)]


async def test_the_store_is_never_read_on_the_event_loop(
    store: ModelStore, process: Callable[[], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt, on_the_loop = Folder._attempt, list[str]()

    def noted(folder: Folder, action: str, relative: str = "", *arguments: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            on_the_loop.append(f"{action} {relative}")
        return attempt(folder, action, relative, *arguments)

    store.folder.write(f"{NAME}/aliases.json", b'{"production": "9"}')
    one = process()
    monkeypatch.setattr(Folder, "_attempt", noted)
    await one.operator.work()
    (refused,) = await one.operator.sync()
    promoted = await one.ended((await one.ask(new_outcome(operation(version="1", alias="a")))).id)
    assert (refused.state, promoted.state) == ("refused", "done")
    one.operator.stop()
    assert on_the_loop == []


async def test_calls_that_are_repeated_while_it_is_written_begin_one_operation(
    store: ModelStore, process: Callable[[], Process]
) -> None:
    one, outcome = process(), new_outcome(operation("rollback"))
    await one.ended((await one.ask(new_outcome(operation(version="2")))).id)
    one.operator._start(one.operator._resume())
    await asyncio.gather(*(one.ask(outcome) for _ in range(5)))
    await one.ended(outcome.id)
    await asyncio.gather(*one.operator._background, *one.operator._tasks.values())
    assert len([e for e in events(store, NAME) if e.outcome.id == outcome.id]) == 1
    assert store.aliases(NAME) == {"production": "1"}


async def test_what_cannot_be_written_is_not_accepted(
    store: ModelStore, process: Callable[[], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StorageUnreachable("no route to the store")

    one = process()
    monkeypatch.setattr(Folder, "create", away)
    with pytest.raises(StorageUnreachable):
        await one.operator.ask(new_outcome(operation(version="2")))
    assert store.aliases(NAME) == {"production": "1"}


async def test_an_event_that_cannot_be_written_at_once_is_written_later(
    store: ModelStore, process: Callable[[], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, real, failures = process(), operator.record, [1, 2, 3]

    def sometimes(*arguments: Any) -> Any:
        if failures:
            failures.pop()
            raise StorageUnreachable("no route to the store")
        return real(*arguments)

    monkeypatch.setattr(operator, "record", sometimes)
    done = await one.ended((await one.ask(new_outcome(operation(version="2")))).id)
    while list(open_operations(store, NAME)):
        await asyncio.sleep(0.02)
    assert done in [event.outcome for event in events(store, NAME)]


async def test_a_store_that_lets_nothing_be_removed_gets_one_event_for_each_operation(
    store: ModelStore, process: Callable[[], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError("no DeleteObject")

    monkeypatch.setattr(Folder, "remove", denied)
    one = process()
    done = await one.ended((await one.ask(new_outcome(operation(version="2")))).id)
    assert not one.operator._background
    assert list(open_operations(store, NAME)) == []
    assert [event.outcome for event in events(store, NAME)] == [done]


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_an_operation_whose_task_fails_or_is_cancelled_takes_no_place(
    store: ModelStore, process: Callable[[], Process], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The operation stays in the store, and a repeated request begins it again."""
    one = process()
    with monkeypatch.context() as patch:

        async def broken(*_: object) -> None:
            raise RuntimeError("broken")

        patch.setattr(one.operator, "_end", broken)
        outcome = await one.ask(new_outcome(operation(version="2")))
        task = one.operator._tasks[outcome.id]
        if how == "is cancelled":
            task.cancel()
        await asyncio.wait([task])
        found = await one.operator.wait(outcome.id, 60)
    assert not one.operator._tasks
    assert found is not None
    assert found.state == "waiting"
    done = await one.ended((await one.ask(outcome)).id)
    assert done.state == "done"
    assert not one.operator._tasks


async def test_a_roll_back_does_not_wait_for_a_promotion_that_hangs(
    store: ModelStore, process: Callable[[], Process]
) -> None:
    one = process()
    await one.ended((await one.ask(new_outcome(operation(version="2")))).id)
    one.gate.clear()
    hanging = await one.ask(new_outcome(operation(version="3")))
    done = await one.ended((await one.ask(new_outcome(operation("rollback")))).id)
    assert (done.state, store.aliases(NAME)) == ("done", {"production": "1"})
    one.gate.set()
    assert (await one.ended(hanging.id)).error == "Conflict"


async def test_operations_under_way_are_bounded(store: ModelStore, process: Callable[[], Process]) -> None:
    one = process()
    one.gate.clear()
    aliases = [f"a{i}" for i in range(operator.MAX_OPERATIONS)]
    outcomes = [await one.ask(new_outcome(operation(version="2", alias=alias))) for alias in aliases]
    with pytest.raises(Overloaded):
        await one.operator.ask(new_outcome(operation("pin")))
    one.gate.set()
    assert {(await one.ended(outcome.id)).state for outcome in outcomes} == {"done"}


async def test_alias_files_that_name_versions_that_hang_leave_room_for_requests(
    store: ModelStore, process: Callable[[], Process]
) -> None:
    one = process()
    await one.ended((await one.ask(new_outcome(operation(version="1")))).id)
    one.gate.clear()
    for i in range(2 * operator.MAX_OPERATIONS):
        store.set_alias(NAME, f"a{i}", "2")
    for _ in range(3):
        await one.operator._follow()
    assert len(one.operator._open()) == operator.MAX_OPERATIONS // 2
    assert (await one.ended((await one.ask(new_outcome(operation("pin")))).id)).state == "done"
    one.gate.set()
    await one.operator.sync()


def test_a_model_that_is_not_there_gets_no_folder(store: ModelStore) -> None:
    one = accepted(version="2")
    elsewhere = one.outcome.operation.model_copy(update={"name": "other"})
    save_operation(store, one.model_copy(update={"outcome": new_outcome(elsewhere)}))
    assert store.names() == [NAME]


async def test_a_roll_back_that_was_done_but_not_recorded_is_not_done_again(
    store: ModelStore, process: Callable[[], Process]
) -> None:
    one = process()
    await one.ended((await one.ask(new_outcome(operation(version="2")))).id)
    prepared = one.operator._rollout.prepare(operation("rollback"))
    outcome = new_outcome(operation("rollback"))
    save_operation(store, Accepted(outcome=outcome, prepared=prepared))
    one.operator._rollout.apply(prepared)  # and then the process ends
    two = process()
    await two.operator.work()
    done = await two.ended(outcome.id)
    assert (done.state, store.aliases(NAME)) == ("done", {"production": "1"})
    assert "is unchanged" in done.detail


async def test_what_contradicts_what_happened_since_is_refused_by_the_successor(
    store: ModelStore, process: Callable[[], Process]
) -> None:
    one = process()
    prepared = one.operator._rollout.prepare(operation(version="2"))
    outcome = new_outcome(operation(version="2"))
    save_operation(store, Accepted(outcome=outcome, prepared=prepared))
    await one.ended((await one.ask(new_outcome(operation(version="3")))).id)
    two = process()
    await two.operator.work()
    done = await two.ended(outcome.id)
    assert (done.state, done.error) == ("refused", "Conflict")
    assert "was moved from 1 to 3" in done.detail
    assert store.aliases(NAME) == {"production": "3"}


def test_an_event_of_a_store_that_is_not_mounted_is_not_dropped(store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "models").rename(tmp_path / "elsewhere")
    with pytest.raises(StorageUnreachable, match="is it mounted"):
        record(store, accepted(version="2").outcome, None, None)
