"""Changes of a model while an operation proves a version are kept, or the operation is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from model_store.errors import Conflict, ModelNotReady, ModelRefused, StorageUnreachable
from model_store.inference_key import sha256_hex
from model_store.names import VersionId
from model_store.storage import Folder
from model_store.store import READY, ModelStore
from serve.rollout.operations import Operation
from serve.rollout.sandbox import Proof
from serve.rollout.state import AliasState, ModelState, read_state
from serve.rollout.steps import PreparedOperation, Rollout
from tests.fixtures_local import motion_store
from tests.serve.rollout.test_steps import FakeReplicas

NAME = "blobs"
VERSIONS = ("1", "2", "3", "4")


class Cluster:
    """A rollout with replicas that hold version 1. `meanwhile` is called during its proofs."""

    def __init__(self, store: ModelStore, *held: str) -> None:
        self.store, self.replicas = store, FakeReplicas(store, {"1", *held})
        self.meanwhile: Callable[[], object] = lambda: None
        self.rollout = Rollout(store, self.replicas, self._prove)

    def prepare(self, kind: str, **fields: Any) -> PreparedOperation:
        return self.rollout.prepare(Operation.model_validate({"kind": kind, "name": NAME, **fields}))

    def __call__(self, kind: str, **fields: Any) -> str:
        return self.rollout.apply(self.prepare(kind, **fields))

    def _prove(self, version: VersionId) -> Proof:
        act, self.meanwhile = self.meanwhile, lambda: None
        act()
        return Proof(1, 0.1)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return motion_store(tmp_path, *VERSIONS)


@pytest.fixture
def here(store: ModelStore) -> Cluster:
    return Cluster(store)


@pytest.fixture
def there(store: ModelStore) -> Cluster:
    """Another cluster, or the command line without one: all versions are proved and held."""
    return Cluster(store, *VERSIONS)


def serving(store: ModelStore, alias: str = "production") -> AliasState:
    return read_state(store, NAME).aliases[alias]


def edit(store: ModelStore, **aliases: str) -> None:
    store.folder.write(f"{NAME}/aliases.json", json.dumps(aliases).encode())


def test_a_pin_during_a_proof_is_kept(store: ModelStore, here: Cluster, there: Cluster) -> None:
    here.meanwhile = lambda: there("pin")
    with pytest.raises(Conflict, match="pinned to 1"):
        here("promote", version="2")
    assert (serving(store).active, serving(store).pinned) == ("1", True)
    assert store.aliases(NAME) == {"production": "1"}


@pytest.mark.parametrize(("kind", "fields"), [("promote", {}), ("canary", {"percent": 10})])
def test_a_promotion_during_a_proof_is_kept(
    store: ModelStore, here: Cluster, there: Cluster, kind: str, fields: dict[str, Any]
) -> None:
    here.meanwhile = lambda: there("promote", version="3")
    with pytest.raises(Conflict, match="was moved from 1 to 3 after this was requested"):
        here(kind, version="2", **fields)
    assert store.aliases(NAME) == {"production": "3"}
    assert (serving(store).active, serving(store).canary) == ("3", None)


def test_a_promotion_of_what_serves_ends_those_that_were_requested_before(
    store: ModelStore, here: Cluster, there: Cluster
) -> None:
    """A server ended during a promotion, and a person promoted the old version while its successor completed it."""
    here("promote", version="1")
    here.meanwhile = lambda: there("promote", version="1")
    with pytest.raises(Conflict, match="or promoted to it again, after this was requested"):
        here("promote", version="2")
    assert serving(store).active == store.aliases(NAME)["production"] == "1"


def test_another_alias_may_be_moved_during_a_proof(store: ModelStore, here: Cluster, there: Cluster) -> None:
    there("promote", alias="staging", version="1")
    here.meanwhile = lambda: there("promote", alias="staging", version="3")
    here("promote", version="2")
    assert store.aliases(NAME) == {"production": "2", "staging": "3"}
    assert (serving(store).active, serving(store, "staging").active) == ("2", "3")
    assert serving(store, "staging").previous == ("1",)


def test_an_alias_edited_by_hand_during_a_promotion_is_a_conflict(store: ModelStore, here: Cluster) -> None:
    here("promote", version="1")
    before = read_state(store, NAME)
    here.meanwhile = lambda: edit(store, production="3")
    with pytest.raises(Conflict, match="production is 3"):
        here("promote", version="2")
    assert store.aliases(NAME) == {"production": "3"}
    assert read_state(store, NAME) == before


def test_an_alias_edited_by_hand_during_a_canary_is_left(store: ModelStore, here: Cluster) -> None:
    here("promote", version="1")
    here.meanwhile = lambda: edit(store, production="3")
    here("canary", version="2", percent=10)
    assert store.aliases(NAME) == {"production": "3"}


def test_a_roll_back_that_is_repeated_does_not_go_forth_again(store: ModelStore, here: Cluster) -> None:
    here("promote", version="2")
    prepared = here.prepare("rollback")
    here.rollout.apply(prepared)
    assert "is unchanged" in here.rollout.apply(PreparedOperation.model_validate_json(prepared.model_dump_json()))
    assert serving(store).active == "1"


def test_a_promotion_that_was_rolled_back_is_not_repeated(store: ModelStore, here: Cluster, there: Cluster) -> None:
    """Its process ended before the event was recorded, and the alias was rolled back before the next start."""
    here("promote", version="1")
    prepared = here.prepare("promote", version="2")
    here.rollout.apply(prepared)
    there("rollback")
    with pytest.raises(Conflict, match="was moved from 1 and back, or promoted to it again, after"):
        here.rollout.apply(prepared)
    assert store.aliases(NAME) == {"production": "1"}


def test_a_roll_back_during_a_proof_does_not_wait_for_it(store: ModelStore) -> None:
    store.set_alias(NAME, "production", "2")
    here, entered, ends = Cluster(store, "2"), threading.Event(), threading.Event()
    here("promote", version="2")
    here("promote", version="1")

    def hang() -> None:
        entered.set()
        assert ends.wait(60)

    here.meanwhile = hang
    with ThreadPoolExecutor(1) as pool:
        promotion = pool.submit(here, "promote", version="3")
        assert entered.wait(60)
        here("rollback")
        assert serving(store).active == "2"
        ends.set()
        with pytest.raises(Conflict, match="was moved from 1 to 2"):
            promotion.result(60)
    assert serving(store).active == "2"


def test_a_newer_state_that_another_cluster_activated_first_counts_as_acknowledged(
    store: ModelStore, here: Cluster, there: Cluster
) -> None:
    class Ahead(FakeReplicas):
        def activate(self, name: str, state: ModelState, version: str | None = None) -> None:
            if self.log == []:
                there("promote", alias="staging", version="3")
                self.log.append("there")
                raise Conflict("this replica has a newer state")
            super().activate(name, state, version)

    here.rollout.replicas = replicas = Ahead(store, {"1", "2"})
    here("promote", version="2")
    assert replicas.log[1:] == ["activate production=2,staging=3 | wanted 2"]
    assert store.aliases(NAME) == {"production": "2", "staging": "3"}


def test_a_refusal_puts_back_its_own_alias_alone(store: ModelStore, here: Cluster, there: Cluster) -> None:
    class Late(FakeReplicas):
        def activate(self, name: str, state: ModelState, version: str | None = None) -> None:
            if self.log == []:
                self.log.append("")
                there("promote", alias="staging", version="3")
                raise ModelNotReady("no word from it")

    here.rollout.replicas = Late(store, {"1", "2"})
    with pytest.raises(ModelNotReady, match="no word"):
        here("promote", version="2")
    assert store.aliases(NAME) == {"production": "1", "staging": "3"}
    assert (serving(store).active, serving(store, "staging").active) == ("1", "3")


def test_a_refusal_removes_an_alias_that_was_new(store: ModelStore, here: Cluster) -> None:
    here.replicas.refuses["activate"] = ModelNotReady("no word from it")
    with pytest.raises(ModelNotReady, match="no word"):
        here("promote", alias="staging", version="1")
    assert store.aliases(NAME) == {"production": "1"}
    assert "staging" not in read_state(store, NAME).aliases


def test_a_store_that_goes_away_before_it_is_put_back_is_reported(
    store: ModelStore, here: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away(FakeReplicas):
        def activate(self, name: str, state: ModelState, version: str | None = None) -> None:
            monkeypatch.setattr(Folder, "update", away)
            raise ModelNotReady("no word from it")

    def away(*_: object) -> None:
        raise StorageUnreachable("no route to the store")

    here.rollout.replicas = Away(store, {"1", "2"})
    with pytest.raises(ModelNotReady, match="no word from it; and the alias could not be restored"):
        here("promote", version="2")


def replace_files(store: ModelStore, version: str) -> None:
    """Replace the files of a version by those of another model, with a matching READY."""
    place = f"{NAME}/{version}"
    store.folder.write(f"{place}/README.md", b"another model")
    ready = json.loads(store.folder.read(f"{place}/{READY}"))
    ready["files"]["README.md"] = sha256_hex(b"another model")
    store.folder.write(f"{place}/{READY}", json.dumps(ready).encode())
    store.verify(VersionId(NAME, version))


def test_a_version_whose_files_were_replaced_is_refused_while_an_alias_names_it(
    store: ModelStore, here: Cluster
) -> None:
    here("promote", version="2")
    replace_files(store, "2")
    with pytest.raises(ModelRefused, match="the files of blobs@2 were replaced"):
        here("promote", version="2")
    with pytest.raises(ModelRefused, match="the files of blobs@2 were replaced"):
        here("promote", alias="staging", version="2")
    here("promote", version="3")
    with pytest.raises(ModelRefused, match="the files of blobs@2 were replaced"):
        here("rollback")


def test_an_alias_whose_version_was_replaced_can_be_pinned_unpinned_and_rolled_back(
    store: ModelStore, here: Cluster
) -> None:
    here("promote", version="2")
    replace_files(store, "2")
    here("pin")
    here("unpin")
    here("rollback")
    assert serving(store).active == "1"
    here("promote", version="2")
    assert serving(store).active == "2", "proved as it is now: no alias named it any more"


def test_many_writers_lose_nothing(store: ModelStore) -> None:
    aliases = [f"a{i}" for i in range(8)]

    def promote(alias: str) -> None:
        Cluster(ModelStore(store.url), *VERSIONS)("promote", alias=alias, version="2")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(promote, aliases))
    assert store.aliases(NAME) == {"production": "1"} | dict.fromkeys(aliases, "2")
    state = read_state(store, NAME)
    assert {alias for alias, one in state.aliases.items() if one.since} == set(aliases)


def test_a_write_whose_acknowledgement_was_lost_is_not_done_twice(
    store: ModelStore, here: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    here("promote", version="1")
    real, lost = Folder._exchange, set[str]()

    def lose_first(folder: Folder, relative: str, old: bytes | None, new: bytes, mode: int) -> bool:
        written = real(folder, relative, old, new, mode)
        if relative in lost:
            return written
        lost.add(relative)
        return False

    monkeypatch.setattr(Folder, "_exchange", lose_first)
    assert here("promote", version="2") == "blobs:production is now blobs@2"
    assert lost == {f"{NAME}/aliases.json", f"{NAME}/.rollout/state.json"}
    assert (serving(store).active, serving(store).previous) == ("2", ("1",))
