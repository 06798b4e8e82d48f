"""Residents over a real store folder; loading is a function of the test, so that it can fail."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from model_store.errors import BadRequest, ModelNotFound, ModelNotReady, ModelRefused
from model_store.names import VersionId
from model_store.store import ModelStore
from serve.residents import Residents
from tests.fixtures_local import write_json


class Shelf:
    """A store of empty versions and the residents over it; `loads` lists what was loaded."""

    def __init__(self, place: Path, idle_versions: int = 2) -> None:
        self.place = place
        self.loads: list[str] = []
        self.broken: set[str] = set()
        self.residents = Residents(ModelStore(str(place)), self._load, idle_versions)

    def add(self, name: str, *versions: str) -> None:
        for version in versions:
            write_json(self.place / name / version / "READY", {"files": {}})

    def alias(self, name: str, **aliases: str) -> None:
        write_json(self.place / name / "aliases.json", aliases)

    @property
    def loaded(self) -> list[str]:
        return [str(version) for version in self.residents.loaded]

    async def answers(self, ref: str) -> str:
        """Which version answers to a reference."""
        return str((await self.residents.get(ref)).detector)

    def _load(self, version: VersionId) -> Any:
        self.loads.append(str(version))
        if str(version) in self.broken:
            raise ModelRefused(f"{version} is broken")
        return f"detector of {version}"


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path / "models")
    shelf.add("deer", "1", "2")
    shelf.alias("deer", production="1")
    return shelf


@pytest.mark.parametrize(
    ("aliases", "loaded"),
    [
        ({}, []),
        ({"production": "1"}, ["deer@1"]),
        ({"production": "1", "canary": "1"}, ["deer@1"]),
        ({"production": "1", "canary": "2"}, ["deer@1", "deer@2"]),
    ],
)
async def test_refresh_loads_every_aliased_version_once(
    shelf: Shelf, aliases: dict[str, str], loaded: list[str]
) -> None:
    shelf.alias("deer", **aliases)
    await shelf.residents.refresh()
    await shelf.residents.refresh()
    assert shelf.loaded == sorted(shelf.loads) == loaded


async def test_a_moved_alias_switches_and_the_old_version_stays_warm(shelf: Shelf) -> None:
    await shelf.residents.refresh()
    shelf.alias("deer", production="2")
    assert await shelf.answers("deer") == "detector of deer@1"
    await shelf.residents.refresh()
    assert await shelf.answers("deer") == "detector of deer@2"
    assert shelf.residents.aliases_of(VersionId("deer", "2")) == ["production"]
    assert shelf.residents.aliases_of(VersionId("deer", "1")) == []
    shelf.alias("deer", production="1")
    await shelf.residents.refresh()
    assert await shelf.answers("deer") == "detector of deer@1"
    assert shelf.loads == ["deer@1", "deer@2"]


async def test_a_new_version_that_fails_keeps_the_old_one_and_the_reason(shelf: Shelf) -> None:
    await shelf.residents.refresh()
    shelf.broken.add("deer@2")
    shelf.alias("deer", production="2")
    await shelf.residents.refresh()
    assert await shelf.answers("deer:production") == "detector of deer@1"
    assert shelf.residents.failures == {"deer:production": "deer@2: deer@2 is broken"}


async def test_a_failure_is_forgotten_once_the_version_loads(shelf: Shelf) -> None:
    shelf.broken.add("deer@1")
    await shelf.residents.refresh()
    assert list(shelf.residents.failures) == ["deer:production"]
    shelf.broken.clear()
    await shelf.residents.refresh()
    assert shelf.residents.failures == {}
    assert await shelf.answers("deer") == "detector of deer@1"


async def test_a_failure_is_forgotten_once_the_alias_is_moved_back(shelf: Shelf) -> None:
    await shelf.residents.refresh()
    shelf.broken.add("deer@2")
    shelf.alias("deer", production="2")
    await shelf.residents.refresh()
    shelf.alias("deer", production="1")
    await shelf.residents.refresh()
    assert shelf.residents.failures == {}


async def test_an_alias_that_never_loaded_is_not_ready_and_says_why(shelf: Shelf) -> None:
    shelf.broken.add("deer@1")
    with pytest.raises(ModelNotReady, match="deer@1 is broken"):
        await shelf.residents.get("deer")


async def test_a_store_that_vanishes_changes_nothing(shelf: Shelf) -> None:
    await shelf.residents.refresh()
    shutil.rmtree(shelf.place)
    await shelf.residents.refresh()
    assert await shelf.answers("deer") == "detector of deer@1"
    assert shelf.loaded == ["deer@1"]


async def test_a_store_that_cannot_be_listed_changes_nothing(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shelf.residents.refresh()

    def broken_pipe(*_: object, **__: object) -> None:
        raise OSError("the network is away")

    monkeypatch.setattr(shelf.residents._store.folder.fs, "ls", broken_pipe)
    await shelf.residents.refresh()
    assert await shelf.answers("deer") == "detector of deer@1"


async def test_a_damaged_alias_file_is_a_failure_of_its_model_alone(shelf: Shelf) -> None:
    shelf.add("bee", "1")
    (shelf.place / "bee" / "aliases.json").write_text("{")
    await shelf.residents.refresh()
    assert await shelf.answers("deer") == "detector of deer@1"
    assert "aliases.json is not JSON" in shelf.residents.failures["bee"]
    shelf.alias("bee", production="1")
    await shelf.residents.refresh()
    assert shelf.residents.failures == {}


async def test_an_exact_version_is_loaded_on_demand(shelf: Shelf) -> None:
    await shelf.residents.refresh()
    resident = await shelf.residents.get("deer@2")
    assert (resident.detector, resident.alias) == ("detector of deer@2", None)
    assert (await shelf.residents.get("deer")).alias == "production"


async def test_an_exact_version_is_loaded_once_under_concurrent_requests(tmp_path: Path) -> None:
    gate = threading.Event()
    shelf = Shelf(tmp_path)
    shelf.add("deer", "1")
    load = shelf.residents._load

    def load_at_the_gate(version: VersionId) -> Any:
        assert gate.wait(20)
        return load(version)

    shelf.residents._load = load_at_the_gate
    asking = [asyncio.create_task(shelf.answers("deer@1")) for _ in range(8)]
    await asyncio.sleep(0)
    gate.set()
    assert set(await asyncio.gather(*asking)) == {"detector of deer@1"}
    assert shelf.loads == ["deer@1"]


async def test_an_alias_promoted_a_moment_ago_is_followed_at_once(shelf: Shelf) -> None:
    await shelf.residents.refresh()
    shelf.alias("deer", production="1", canary="2")
    assert await shelf.answers("deer:canary") == "detector of deer@2"


@pytest.mark.parametrize(
    ("ref", "error", "words"),
    [
        ("", BadRequest, "not a model"),
        ("Deer", BadRequest, "not a model"),
        ("bee", ModelNotFound, "there is: deer"),
        ("deer@9", ModelNotFound, "there is: deer@1, deer@2"),
        ("deer:canary", ModelNotFound, "aliases: production"),
    ],
)
async def test_a_wrong_reference_says_what_is_wrong(
    shelf: Shelf, ref: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await shelf.residents.get(ref)


@pytest.mark.parametrize(
    ("limit", "kept"), [(0, []), (1, ["5"]), (2, ["4", "5"]), (9, ["2", "3", "4", "5"])]
)
async def test_idle_versions_beyond_the_limit_are_released_oldest_first_never_an_aliased_one(
    tmp_path: Path, limit: int, kept: list[str]
) -> None:
    shelf = Shelf(tmp_path, idle_versions=limit)
    shelf.add("deer", "1", "2", "3", "4", "5")
    shelf.alias("deer", production="1")
    await shelf.residents.refresh()
    for version in ("2", "3", "4", "5"):
        await shelf.answers(f"deer@{version}")
    await shelf.residents.refresh()
    assert shelf.loaded == ["deer@1", *(f"deer@{version}" for version in kept)]


async def test_a_released_version_is_not_ready_for_what_still_waits(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, idle_versions=0)
    shelf.add("deer", "1")
    await shelf.answers("deer@1")
    await shelf.residents.refresh()
    with pytest.raises(ModelNotReady, match="was released"):
        shelf.residents.detector(VersionId("deer", "1"))
    assert await shelf.answers("deer@1") == "detector of deer@1"
