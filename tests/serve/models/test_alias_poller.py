"""The models of a replica over a real store folder; loading is a function of the test, so that it can fail."""

from __future__ import annotations

import asyncio
import shutil
import threading
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from model_store.errors import (
    SOON_S,
    Conflict,
    Forbidden,
    ModelNotFound,
    ModelNotReady,
    ModelRefused,
    Overloaded,
    ResightError,
    StorageUnreachable,
)
from model_store.names import VersionId, parse_ref
from model_store.store import ModelStore
from serve.inference.admission import Threads
from serve.models.alias_poller import AliasPoller, AliasTable, StoreReading
from serve.models.loaded_models import LoadedModels, NoProver
from serve.models.pools import Placement
from serve.models.resolver import ModelResolver, loads_if
from serve.rollout.sandbox import Proof
from serve.rollout.state import AliasState, ModelState, read_state, update_state
from tests.fixtures_local import write_json


class Shelf:
    """A store of empty versions and the models over it; `loads` lists what was loaded."""

    def __init__(self, place: Path, idle_versions: int = 2, **options: Any) -> None:
        self.place = place
        self.loads: list[str] = []
        self.broken: set[str] = set()
        self.store = ModelStore(str(place))
        self.prover = FakeProver(self.store)
        self.models = LoadedModels(self._load, self.prover, idle_versions)
        self.aliases = AliasPoller(
            self.store,
            self.models,
            Placement(self.store),
            lambda model: model,
            poll_s=3600,
            **{"retry_s": 0, **options},
        )
        self.resolver = ModelResolver(self.store, self.models, self.aliases, Threads(1, "", 64))

    def add(self, name: str, *versions: str) -> None:
        for version in versions:
            write_json(self.place / name / version / "READY", {"files": {}})

    def alias(self, name: str, **aliases: str) -> None:
        write_json(self.place / name / "aliases.json", aliases)

    @property
    def failures(self) -> dict[str, str]:
        return {label: str(error) for label, error in self.aliases.errors.items()}

    @property
    def loaded(self) -> list[str]:
        return [str(version) for version in self.models.names]

    async def answers(self, ref: str) -> str:
        """Which version answers to a reference."""
        return str((await self.resolver.get(ref)).detector)

    def _load(self, version: VersionId, digest: str = "") -> Any:
        self.loads.append(str(version))
        if str(version) in self.broken:
            raise ModelRefused(f"{version} is broken")
        return f"detector of {version}"


class FakeProver(NoProver):
    """Refuses some versions; lists what it was asked for, and what was loaded inside `loading`."""

    def __init__(self, store: ModelStore) -> None:
        super().__init__(store)
        self.refused: tuple[str, ...] = ()
        self.hanging: tuple[str, ...] = ()
        self.ends = asyncio.Event()
        self.proved: list[str] = []
        self.granted: list[str] = []
        self.needs_bytes: dict[str, int] = {}
        self.errors: dict[str, Exception] = {}

    async def prove(self, version: VersionId) -> Proof:
        if version.name in self.hanging:
            await self.ends.wait()
        self.proved.append(str(version))
        if error := self.errors.get(str(version)):
            raise error
        if version.version in self.refused:
            raise ModelRefused("it ended the process that loaded it")
        proof = await super().prove(version)
        return replace(proof, rss_bytes=self.needs_bytes.get(str(version), 1000))

    def loading(self, version: VersionId) -> AbstractAsyncContextManager[None]:
        self.granted.append(str(version))
        return super().loading(version)


def stocked(place: Path, **options: Any) -> Shelf:
    shelf = Shelf(place / "models", **options)
    shelf.add("deer", "1", "2")
    shelf.alias("deer", production="1")
    return shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return stocked(tmp_path)


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


async def test_the_name_of_a_model_with_one_version_is_as_if_that_was_named_exactly(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.add("deer", "1")
    await shelf.aliases.refresh()
    assert shelf.loaded == [], "nothing is loaded for a name that nobody asked for"
    with loads_if(allowed=False), pytest.raises(Forbidden, match="deer@1 is not loaded here"):
        await shelf.resolver.get("deer")
    resident = await shelf.resolver.get("deer")
    assert (resident.detector, resident.alias) == ("detector of deer@1", None)
    with loads_if(allowed=False):
        assert await shelf.answers("deer:production") == "detector of deer@1"
    shelf.add("deer", "2")
    await shelf.aliases.refresh()
    with pytest.raises(ModelNotFound, match=r"deer@1, deer@2\), or set the alias"):
        await shelf.resolver.get("deer")
    shelf.alias("deer", production="2")
    assert await shelf.answers("deer") == "detector of deer@2"
    shelf.add("bee", "1")
    assert await shelf.answers("bee") == "detector of bee@1", "added since the last look"


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


def write_state(store: ModelStore, name: str, new: ModelState) -> None:
    update_state(store, name, lambda _: new)


def state(generation: int, active: str = "1", **more: Any) -> ModelState:
    now = datetime.now(UTC)
    alias = AliasState.model_validate({"active": active, "since": now, **more})
    return ModelState(generation=generation, aliases={"production": alias})


async def test_activation_loads_what_is_missing_and_switches_only_then(shelf: Shelf) -> None:
    """A replica may have come after the rollout had all others load it."""
    await shelf.aliases.refresh()
    shelf.broken.add("deer@2")
    with pytest.raises(ModelRefused, match="deer@2 is broken"):
        await shelf.aliases.activate("deer", state(1, "2"))
    assert await shelf.answers("deer") == "detector of deer@1"
    shelf.broken.clear()
    await shelf.aliases.activate("deer", state(1, "2"))
    assert await shelf.answers("deer") == "detector of deer@2"


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


async def test_what_is_used_or_leased_while_idle_ones_are_released_stays(shelf: Shelf) -> None:
    """Each release takes time, and the world goes on meanwhile."""
    shelf.add("deer", "3", "4")
    shelf.models._idle_versions = 0
    await shelf.aliases.refresh()
    for version in ("2", "3", "4"):
        await shelf.answers(f"deer@{version}")
    versions = shelf.models
    real = versions.release

    async def release(version: VersionId) -> bool:
        versions.lease(VersionId("deer", "3"), "run x", 60)
        versions.use(VersionId("deer", "4"))
        return await real(version)

    versions.release = release  # type: ignore[method-assign]
    await shelf.aliases.release_idle()
    assert shelf.loaded == ["deer@1", "deer@3", "deer@4"]


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


async def test_a_replica_born_late_sees_a_switch_before_its_first_answers(shelf: Shelf) -> None:
    await shelf.aliases.refresh()
    write_state(shelf.store, "deer", state(1, "2"))
    assert await shelf.answers("deer") == "detector of deer@2"
    write_state(shelf.store, "deer", state(2, "1"))
    assert await shelf.answers("deer") == "detector of deer@1"
    shelf.resolver._young_until = 0.0
    write_state(shelf.store, "deer", state(3, "2"))
    assert await shelf.answers("deer") == "detector of deer@1", "grown up: it is told, or looks later"
    await shelf.aliases.refresh()
    assert await shelf.answers("deer") == "detector of deer@2"


async def test_a_canary_answers_its_share_and_never_fails_a_request(shelf: Shelf) -> None:
    share = {"version": "2", "percent": 10}
    write_state(shelf.store, "deer", state(1, "1", canary=share))
    await shelf.aliases.refresh()
    assert shelf.loaded == ["deer@1", "deer@2"]
    versions = [str((await shelf.resolver.get("deer", i / 1000)).detector) for i in range(1000)]
    assert versions.count("detector of deer@2") == 100
    assert (await shelf.resolver.get("deer", 0.0)).alias == "production"
    del shelf.models._loaded[VersionId("deer", "2")]
    assert str((await shelf.resolver.get("deer", 0.0)).detector) == "detector of deer@1"


async def test_a_shadow_is_shown_its_share(shelf: Shelf) -> None:
    share = {"version": "2", "percent": 25}
    write_state(shelf.store, "deer", state(1, "1", shadow=share))
    await shelf.aliases.refresh()
    seen = [shelf.resolver.shadow("deer", "production", i / 100) for i in range(100)]
    assert seen == ["detector of deer@2"] * 25 + [None] * 75
    assert shelf.resolver.shadow("deer", None, 0.0) is None
    assert await shelf.answers("deer") == "detector of deer@1"


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
    await shelf.aliases.activate("deer", state(1, "2"))
    write_state(shelf.store, "deer", state(1, "2"))
    for version in ("3", "4"):
        await shelf.answers(f"deer@{version}")
        await shelf.aliases.refresh()
    assert "deer@1" in shelf.loaded
    assert len(shelf.loaded) == 3


async def test_where_a_rollout_proves_first_a_new_alias_is_not_loaded_unproved(tmp_path: Path) -> None:
    shelf = stocked(tmp_path, has_rollout=True)
    await shelf.aliases.start()
    shelf.alias("deer", production="1", staging="2")
    await shelf.aliases.refresh()
    assert shelf.loads == ["deer@1"]
    with pytest.raises(ModelNotReady, match="it is being proved, or was refused"):
        await shelf.answers("deer:staging")
    assert await shelf.answers("deer") == "detector of deer@1"


@pytest.mark.parametrize("error", [Overloaded("16 versions are being proved", 60.0), ModelRefused("its probe fails")])
async def test_an_alias_may_answer_soon_if_the_error_of_its_version_ends_by_itself(
    tmp_path: Path, error: ResightError
) -> None:
    shelf = stocked(tmp_path, has_rollout=True, retry_s=60.0)
    await shelf.aliases.start()
    shelf.add("ape", "1", "2")
    shelf.alias("ape", production="1")
    shelf.prover.errors["ape@1"] = error
    write_state(shelf.store, "ape", state(1, "1"))
    for _ in range(2):  # the second one is not tried again
        with pytest.raises(ModelNotReady, match=f"ape@1: {error}") as raised:
            await shelf.answers("ape:production")
        assert raised.value.retry_after_s == error.retry_after_s
    assert shelf.prover.proved == ["deer@1", "ape@1"]


async def test_a_version_that_does_not_load_is_not_tried_at_every_look(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, retry_s=60.0)
    shelf.add("deer", "1")
    shelf.alias("deer", production="1")
    shelf.broken.add("deer@1")
    for _ in range(3):
        await shelf.aliases.refresh()
    assert shelf.loads == ["deer@1"]
    assert "is broken" in shelf.failures["deer:production"]


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
            await shelf.aliases.activate("deer", state(1))
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
        await restarted.aliases.activate("deer", read_state(shelf.store, "deer"))


async def test_a_version_to_go_back_to_is_not_loaded_by_its_name_after_its_files_were_replaced(shelf: Shelf) -> None:
    rolled_out = (await shelf.prover.prove(VersionId("deer", "1"))).digest
    earlier = state(1, "2", previous=("1",)).model_copy(update={"digests": {"1": rolled_out}})
    write_state(shelf.store, "deer", earlier)
    shelf.alias("deer", production="2")
    await shelf.aliases.refresh()
    write_json(shelf.place / "deer" / "1" / "READY", {"files": {"model.onnx": "0" * 64}})
    with pytest.raises(ModelRefused, match="the files of deer@1 were replaced"):
        await shelf.answers("deer@1")
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


async def test_who_may_not_load_gets_what_is_here_aliased_or_held_by_a_run(shelf: Shelf) -> None:
    shelf.add("deer", "3", "4")
    await shelf.aliases.refresh()
    await shelf.answers("deer@2")
    shelf.models.lease(VersionId("deer", "3"), "run a", 60)
    del shelf.models._loaded[VersionId("deer", "1")]
    with loads_if(allowed=False):
        for version in ("1", "2", "3"):
            assert await shelf.answers(f"deer@{version}") == f"detector of deer@{version}"
        with pytest.raises(Forbidden, match="deer@4 is not loaded here.*scope admin"):
            await shelf.answers("deer@4")
        with pytest.raises(ModelNotFound), loads_if(allowed=True):
            await shelf.answers("deer@9")
        with pytest.raises(Forbidden), loads_if(allowed=True):
            await shelf.answers("deer@4")
    assert await shelf.answers("deer@4") == "detector of deer@4"


async def test_an_exact_version_is_loaded_once_under_concurrent_requests(tmp_path: Path) -> None:
    gate = threading.Event()
    shelf = Shelf(tmp_path)
    shelf.add("deer", "1")
    load = shelf.models._load

    def load_at_the_gate(version: VersionId, digest: str) -> Any:
        assert gate.wait(20)
        return load(version, digest)

    shelf.models._load = load_at_the_gate
    asking = [asyncio.create_task(shelf.answers("deer@1")) for _ in range(8)]
    await asyncio.sleep(0)
    gate.set()
    assert set(await asyncio.gather(*asking)) == {"detector of deer@1"}
    assert shelf.loads == ["deer@1"]


@pytest.mark.parametrize(("ref", "answers"), [("deer", True), ("deer:production", True), ("deer:staging", False)])
@pytest.mark.parametrize("is_set", [True, False])
def test_the_only_version_answers_for_production_alone_and_not_once_that_is_set(
    ref: str, answers: bool, is_set: bool
) -> None:
    state = ModelState(aliases={"production": AliasState(active="1")} if is_set else {})
    table = AliasTable({"deer": state}, {"deer": VersionId("deer", "2")})
    only = table.only_version(parse_ref(ref))
    assert only == (VersionId("deer", "2") if answers and not is_set else None)
    found = table.resolve(parse_ref(ref), 1.0, ())
    assert found == ((VersionId("deer", "1"), "production") if answers and is_set else (only, None) if only else None)
