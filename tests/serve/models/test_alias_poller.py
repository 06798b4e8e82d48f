"""Alias files that are followed, over a real store folder."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from model_store.errors import Conflict, ModelNotReady, ModelRefused, Overloaded, StorageUnreachable
from model_store.names import VersionId
from serve.models import alias_poller
from serve.models.alias_poller import StoreReading
from serve.rollout.state import AliasState, read_state
from tests.fixtures_local import write_json
from tests.serve.models.shelf import Shelf, state, stocked, write_state


async def test_a_moved_alias_switches_and_the_old_version_stays_warm(shelf: Shelf) -> None:
    await shelf.aliases.refresh()
    shelf.alias("deer", production="2")
    assert await shelf.answers("deer") == "detector of deer@1"
    await shelf.aliases.refresh()
    assert await shelf.answers("deer") == "detector of deer@2"
    assert shelf.aliases.table.aliases_of(VersionId("deer", "2")) == ["production"]
    assert shelf.aliases.table.aliases_of(VersionId("deer", "1")) == []
    shelf.alias("deer", production="1")
    await shelf.aliases.refresh()
    assert await shelf.answers("deer") == "detector of deer@1"
    assert shelf.loads == ["deer@1", "deer@2"]


async def test_a_new_version_that_fails_keeps_the_old_one_and_the_reason(shelf: Shelf) -> None:
    await shelf.aliases.refresh()
    shelf.broken.add("deer@2")
    shelf.alias("deer", production="2")
    await shelf.aliases.refresh()
    assert await shelf.answers("deer:production") == "detector of deer@1"
    assert shelf.failures == {"deer:production": "deer@2: deer@2 is broken"}


@pytest.mark.parametrize("share", ["canary", "shadow"])
async def test_a_canary_or_shadow_that_fails_to_load_leaves_the_active_version(tmp_path: Path, share: str) -> None:
    shelf = stocked(tmp_path, has_rollout=True)
    write_state(shelf.store, "deer", state(1, "2", **{share: {"version": "1", "percent": 100}}))
    shelf.alias("deer", production="2")
    shelf.broken.add("deer@1")
    await shelf.aliases.start()
    assert await shelf.answers("deer") == "detector of deer@2"
    assert shelf.loads == ["deer@2", "deer@1"], "the active version has the memory first"
    assert shelf.failures == {"deer:production": "deer@1: deer@1 is broken"}
    shelf.broken.clear()
    await shelf.aliases.refresh()
    assert (shelf.loaded, shelf.failures) == (["deer@1", "deer@2"], {})


async def test_a_store_that_vanishes_changes_nothing(shelf: Shelf) -> None:
    await shelf.aliases.refresh()
    shutil.rmtree(shelf.place)
    await shelf.aliases.refresh()
    assert await shelf.answers("deer") == "detector of deer@1"
    assert shelf.loaded == ["deer@1"]


async def test_a_damaged_alias_file_is_a_failure_of_its_model_alone(shelf: Shelf) -> None:
    shelf.add("bee", "1")
    (shelf.place / "bee" / "aliases.json").write_text("{")
    await shelf.aliases.refresh()
    assert await shelf.answers("deer") == "detector of deer@1"
    assert "aliases.json is not JSON" in shelf.failures["bee"]
    shelf.alias("bee", production="1")
    await shelf.aliases.refresh()
    assert shelf.failures == {}


async def test_activation_loads_what_is_missing_and_switches_only_then(shelf: Shelf) -> None:
    """A replica may have come after the rollout had all others load it."""
    await shelf.aliases.refresh()
    shelf.broken.add("deer@2")
    with pytest.raises(ModelRefused, match="deer@2 is broken"):
        await shelf.aliases.activate("deer", state(1, "2"), "2")
    assert await shelf.answers("deer") == "detector of deer@1"
    shelf.broken.clear()
    await shelf.aliases.activate("deer", state(1, "2"), "2")
    assert await shelf.answers("deer") == "detector of deer@2"


async def test_a_version_of_another_alias_that_fails_to_load_blocks_no_activation(shelf: Shelf) -> None:
    shelf.add("deer", "9")
    shelf.alias("deer", production="2", staging="9")
    shelf.broken.add("deer@9")
    await shelf.aliases.refresh()
    new = state(1, "1")
    await shelf.aliases.activate("deer", new.with_alias("staging", AliasState(active="9")), "1")
    assert await shelf.answers("deer") == "detector of deer@1"
    assert shelf.failures == {"deer:staging": "deer@9: deer@9 is broken"}
    shelf.alias("deer", production="1")
    await shelf.aliases.refresh()
    assert shelf.failures == {}, "the alias was removed before it had a version"


async def test_a_version_nobody_has_rolled_out_is_proved_before_it_is_loaded(shelf: Shelf) -> None:
    shelf.add("deer", "3")
    prover = shelf.prover
    prover.refused = ("1",)
    prover.needs_bytes["deer@3"] = 1 << 60
    assert await shelf.answers("deer@2") == "detector of deer@2"
    with pytest.raises(ModelRefused, match="ended the process"):
        await shelf.answers("deer@1")
    with pytest.raises(ModelNotReady, match="no memory for deer@3"):
        await shelf.answers("deer@3")
    assert prover.proved == ["deer@2", "deer@1", "deer@3"]
    assert shelf.loads == ["deer@2"]


async def test_any_number_of_models_starts(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    for number in range(70):
        shelf.add(f"m{number}", "1")
        shelf.alias(f"m{number}", production="1")
    await shelf.aliases.start()
    assert len(shelf.loaded) == 70


async def test_a_start_waits_for_room_among_the_proofs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alias_poller, "ROOM_S", 0.0)
    shelf = stocked(tmp_path, has_rollout=True)
    shelf.prover.errors["deer@1"] = Overloaded("16 versions are being proved")
    start = asyncio.create_task(shelf.aliases.start())
    while shelf.prover.proved.count("deer@1") < 2 and not start.done():
        await asyncio.sleep(0)
    shelf.prover.errors.clear()
    await start
    assert (shelf.loaded, shelf.failures) == (["deer@1"], {})


async def test_all_versions_of_a_start_share_one_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=10.0)
    monkeypatch.setattr(alias_poller, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(alias_poller, "ROOM_S", 0.0)
    shelf = stocked(tmp_path, has_rollout=True)
    shelf.alias("deer", production="1", staging="2")
    shelf.prover.errors = dict.fromkeys(("deer@1", "deer@2"), Overloaded("16 versions are being proved"))
    await shelf.aliases.start()
    assert set(shelf.prover.proved) == {"deer@1"}
    assert set(shelf.failures) == {"deer:production", "deer:staging"}


async def test_whether_the_store_could_be_read_is_said(tmp_path: Path) -> None:
    assert await Shelf(tmp_path).aliases.refresh()
    nowhere = Shelf(tmp_path).aliases
    nowhere._read = _unreachable  # type: ignore[method-assign]
    assert not await nowhere.refresh()
    with pytest.raises(StorageUnreachable, match="cannot be read"):
        await nowhere.start()


def _unreachable() -> StoreReading:
    raise StorageUnreachable("it is away")


async def test_no_older_state_wins(shelf: Shelf) -> None:
    """A look at the file that began before a switch must not undo it."""
    await shelf.aliases.refresh()
    await shelf.models.ensure(VersionId("deer", "2"))
    await shelf.aliases.activate("deer", state(5, "2"))
    with pytest.raises(Conflict, match="has state 5, which is newer than 4"):
        await shelf.aliases.activate("deer", state(4, "1"))
    await shelf.aliases.refresh()
    assert await shelf.answers("deer") == "detector of deer@2"


async def test_a_version_that_does_not_load_is_not_tried_at_every_look(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, retry_s=60.0)
    shelf.add("deer", "1")
    shelf.alias("deer", production="1")
    shelf.broken.add("deer@1")
    for _ in range(3):
        await shelf.aliases.refresh()
    assert shelf.loads == ["deer@1"]
    assert "is broken" in shelf.failures["deer:production"]
    shelf.broken.clear()
    shelf.store.folder.write("deer/1/weights", b"repaired")
    await shelf.aliases.refresh()
    assert shelf.failures == {}


async def test_what_another_cluster_rolled_out_is_proved_here_before_it_is_loaded(tmp_path: Path) -> None:
    shelf = stocked(tmp_path, has_rollout=True)
    await shelf.aliases.start()
    prover = shelf.prover
    prover.refused, prover.proved, prover.granted = ("2",), [], []
    write_state(shelf.store, "deer", state(1, "2"))
    await shelf.aliases.refresh()
    assert await shelf.answers("deer") == "detector of deer@1"
    assert prover.proved == ["deer@2"]
    assert shelf.loads == ["deer@1"]
    assert "ended the process" in shelf.failures["deer:production"]
    prover.refused = ()
    await shelf.aliases.refresh()
    assert await shelf.answers("deer") == "detector of deer@2"
    assert prover.granted == ["deer@2"]


@pytest.mark.parametrize("how", ["first look", "activation"])
async def test_neither_a_restart_nor_an_activation_loads_what_is_not_proved(shelf: Shelf, how: str) -> None:
    shelf.prover.refused = ("1",)
    if how == "activation":
        with pytest.raises(ModelRefused, match="ended the process"):
            await shelf.aliases.activate("deer", state(1), "1")
    else:
        write_state(shelf.store, "deer", state(1))
        await shelf.aliases.refresh()
    assert shelf.loads == []


async def test_a_version_that_hangs_where_it_is_proved_delays_no_other_model(tmp_path: Path) -> None:
    shelf = stocked(tmp_path, has_rollout=True)
    shelf.add("ape", "1")
    shelf.add("owl", "1", "2")
    shelf.alias("owl", production="1")
    await shelf.aliases.start()
    shelf.prover.hanging = ("ape", "deer")
    shelf.alias("ape", production="1")
    write_state(shelf.store, "ape", state(1, "1"))
    write_state(shelf.store, "deer", state(1, "2"))
    write_state(shelf.store, "owl", state(1, "2"))
    await shelf.aliases.refresh()
    assert await shelf.answers("owl") == "detector of owl@2"
    assert await shelf.answers("deer") == "detector of deer@1"
    assert "is being proved" in shelf.failures["deer:production"]
    shelf.prover.ends.set()
    while shelf.models._loads:
        await asyncio.sleep(0.01)
    await shelf.aliases.refresh()
    assert await shelf.answers("deer") == "detector of deer@2"
    assert shelf.failures == {}


async def test_requests_that_wait_for_a_look_at_the_store_share_one_that_begins_after_them(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shelf.aliases.refresh()
    looks, read = 0, shelf.aliases._read
    entered, gate = threading.Event(), threading.Event()

    def read_at_the_gate() -> StoreReading:
        nonlocal looks
        looks += 1
        entered.set()
        assert gate.wait(20)
        return read()

    monkeypatch.setattr(shelf.aliases, "_read", read_at_the_gate)
    first = asyncio.create_task(shelf.aliases.refresh())
    await asyncio.to_thread(entered.wait, 20)
    shelf.alias("deer", production="1", staging="2")
    asking = [asyncio.create_task(shelf.aliases.refresh()) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    gate.set()
    assert await asyncio.gather(first, *asking[1:]) == [True] * 5
    assert (looks, await shelf.answers("deer:staging")) == (2, "detector of deer@2")


async def test_a_version_whose_files_were_replaced_is_not_loaded_for_its_alias(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, idle_versions=0)
    shelf.add("deer", "1")
    shelf.alias("deer", production="1")
    rolled_out = (await shelf.prover.prove(VersionId("deer", "1"))).digest
    write_state(shelf.store, "deer", state(1).model_copy(update={"digests": {"1": rolled_out}}))
    await shelf.aliases.refresh()
    write_json(shelf.place / "deer" / "1" / "READY", {"files": {"model.onnx": "0" * 64}})
    await shelf.aliases.refresh()
    assert await shelf.answers("deer") == "detector of deer@1", "as it was loaded"
    restarted = Shelf(tmp_path)
    await restarted.aliases.refresh()
    assert restarted.loads == []
    assert "the files of deer@1 were replaced" in restarted.failures["deer:production"]
    with pytest.raises(ModelRefused, match="the files of deer@1 were replaced"):
        await restarted.aliases.activate("deer", read_state(shelf.store, "deer"), "1")
