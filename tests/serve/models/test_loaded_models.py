"""Versions in memory: loaded once, kept while they are needed, released when idle."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from model_store.errors import SOON_S, Conflict, ModelNotReady
from model_store.names import VersionId
from tests.fixtures_local import write_json
from tests.serve.models.shelf import Shelf, state, write_state


@pytest.mark.parametrize(("limit", "kept"), [(0, []), (2, ["4", "5"])])
async def test_idle_versions_beyond_the_limit_are_released_oldest_first_never_an_aliased_one(
    tmp_path: Path, limit: int, kept: list[str]
) -> None:
    shelf = Shelf(tmp_path, idle_versions=limit)
    shelf.add("deer", "1", "2", "3", "4", "5")
    shelf.alias("deer", production="1")
    await shelf.aliases.refresh()
    for version in ("2", "3", "4", "5"):
        await shelf.answers(f"deer@{version}")
    await shelf.aliases.refresh()
    assert shelf.loaded == ["deer@1", *(f"deer@{version}" for version in kept)]


async def test_a_released_version_is_not_ready_for_what_still_waits(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, idle_versions=0)
    shelf.add("deer", "1")
    await shelf.answers("deer@1")
    await shelf.aliases.refresh()
    with pytest.raises(ModelNotReady, match="was released") as raised:
        shelf.models.model(VersionId("deer", "1"))
    assert raised.value.retry_after_s == SOON_S
    assert await shelf.answers("deer@1") == "detector of deer@1"


async def test_what_is_used_leased_or_activated_while_idle_ones_are_released_stays(shelf: Shelf) -> None:
    """Each release takes time, and the world goes on meanwhile."""
    shelf.add("deer", "3", "4", "5")
    shelf.models._idle_versions = 0
    await shelf.aliases.refresh()
    for version in ("2", "3", "4", "5"):
        await shelf.answers(f"deer@{version}")
    versions = shelf.models
    real = versions.release

    async def release(version: VersionId) -> bool:
        versions.lease(VersionId("deer", "3"), "run x", 60)
        versions.use(VersionId("deer", "4"))
        await shelf.aliases.activate("deer", state(1, "5"), "5")
        return await real(version)

    versions.release = release  # type: ignore[method-assign]
    await shelf.aliases.release_idle()
    assert shelf.loaded == ["deer@1", "deer@3", "deer@4", "deer@5"]


async def test_what_serves_or_is_held_is_not_released(shelf: Shelf) -> None:
    await shelf.aliases.refresh()
    one, two = VersionId("deer", "1"), VersionId("deer", "2")
    with pytest.raises(Conflict, match="deer@1 serves"):
        await shelf.aliases.release(one)
    await shelf.answers("deer@2")
    shelf.models.lease(two, "run a", 60)
    with pytest.raises(Conflict, match="held by run a"):
        await shelf.aliases.release(two)
    shelf.models.lease(two, "run a", 0)
    assert await shelf.aliases.release(two)
    assert not await shelf.aliases.release(two)
    assert shelf.loaded == ["deer@1"]


async def test_the_way_back_stays_warm_whatever_else_is_asked_for(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, idle_versions=1)
    shelf.add("deer", "1", "2", "3", "4")
    shelf.alias("deer", production="1")
    await shelf.aliases.refresh()
    await shelf.models.ensure(VersionId("deer", "2"))
    shelf.models._used_s[VersionId("deer", "1")] -= 86_400  # no image came for a day
    await shelf.aliases.activate("deer", state(1, "2"))
    write_state(shelf.store, "deer", state(1, "2"))
    for version in ("3", "4"):
        await shelf.answers(f"deer@{version}")
        await shelf.aliases.refresh()
    assert "deer@1" in shelf.loaded
    assert len(shelf.loaded) == 3


async def test_requests_that_go_away_share_the_loading_that_they_began(shelf: Shelf) -> None:
    gate = threading.Event()
    load = shelf.models._load

    def load_at_the_gate(version: VersionId, digest: str) -> Any:
        assert gate.wait(20)
        return load(version, digest)

    shelf.models._load = load_at_the_gate
    for _ in range(5):
        asking = asyncio.create_task(shelf.answers("deer@2"))
        while not shelf.models._loads:
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    gate.set()
    assert await shelf.answers("deer@2") == "detector of deer@2"
    assert shelf.loads == ["deer@2"]


async def test_an_idle_version_whose_files_were_replaced_is_loaded_again_where_it_is_rolled_out(shelf: Shelf) -> None:
    await shelf.answers("deer@2")
    write_json(shelf.place / "deer" / "2" / "READY", {"files": {"model.onnx": "0" * 64}})
    two = VersionId("deer", "2")
    digest = (await shelf.prover.prove(two)).digest
    assert not shelf.models.holds(two, digest)
    await shelf.aliases.ensure(two, digest)
    assert shelf.models.holds(two, digest)
    assert shelf.loads == ["deer@2", "deer@2"]
