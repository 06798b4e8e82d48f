"""A rollout moves an alias only when every replica has the version; otherwise nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_store.errors import BadRequest, Conflict, DigestMismatch, ModelNotFound, ModelNotReady, ProbeFailed
from model_store.names import VersionId
from model_store.store import ModelStore
from serve.rollout import steps
from serve.rollout.operations import Operation
from serve.rollout.sandbox import Proof
from serve.rollout.state import MAX_PREVIOUS, AliasState, ModelState, read_state
from serve.rollout.steps import Rollout
from tests.fixtures_local import motion_store, write_json
from tests.model_store.classifiers import colour_store

NAME = "blobs"
SIZE = 7 << 20


class FakeReplicas:
    """Replicas that log each call, with the state of the files at that moment."""

    def __init__(self, store: ModelStore, held: set[str]) -> None:
        self.store, self.held = store, held
        self.log: list[str] = []
        self.required: list[str | None] = []
        self.refuses: dict[str, Exception] = {}

    def holds(self, version: VersionId, digest: str) -> bool:
        return version.version in self.held

    def ensure(self, version: VersionId, digest: str) -> None:
        self._say(f"ensure {version.version}")
        self.held.add(version.version)

    def activate(self, name: str, state: ModelState, version: str | None = None) -> None:
        self.required.append(version)
        self._say(f"activate {self._serving(state)}")

    def release(self, version: VersionId) -> None:
        self._say(f"release {version.version}")

    def _say(self, words: str) -> None:
        wanted = self.store.aliases(NAME).get("production")
        self.log.append(f"{words} | wanted {wanted}")
        error = self.refuses.pop(words.split()[0], None)
        if error:
            raise error

    def _serving(self, state: ModelState) -> str:
        return ",".join(f"{alias}={one.active}" for alias, one in sorted(state.aliases.items()))


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """Store with blobs@1 to blobs@3; version 1 serves."""
    store = motion_store(tmp_path, "1", "2", "3")
    store.set_alias(NAME, "production", "1")
    return store


@pytest.fixture
def replicas(store: ModelStore) -> FakeReplicas:
    return FakeReplicas(store, {"1"})


@pytest.fixture
def apply(store: ModelStore, replicas: FakeReplicas) -> Callable[..., str]:
    def prove(version: VersionId) -> Proof:
        replicas._say(f"prove {version.version}")
        return Proof(SIZE, 0.1)

    rollout = Rollout(store, replicas, prove)

    def run(kind: str, **fields: Any) -> str:
        operation = Operation.model_validate({"kind": kind, "name": NAME, **fields})
        return rollout.apply(rollout.prepare(operation))

    return run


def serving(store: ModelStore, alias: str = "production") -> AliasState:
    return read_state(store, NAME).aliases[alias]


def test_the_order_never_leaves_a_request_without_its_model(
    apply: Any, store: ModelStore, replicas: FakeReplicas
) -> None:
    assert apply("promote", version="2") == "blobs:production is now blobs@2"
    assert replicas.log == ["prove 2 | wanted 1", "ensure 2 | wanted 1", "activate production=2 | wanted 2"]
    assert (serving(store).active, serving(store).previous) == ("2", ("1",))
    assert serving(store).since is not None


def test_the_same_again_changes_nothing_and_replicas_acknowledge_again(
    apply: Any, store: ModelStore, replicas: FakeReplicas
) -> None:
    apply("promote", version="2")
    replicas.log.clear()
    before = serving(store)
    assert "is unchanged" in apply("promote", version="2")
    assert serving(store) == before.model_copy(update={"since": serving(store).since})
    assert replicas.log == ["activate production=2 | wanted 2"]


@pytest.mark.parametrize("step", ["prove", "ensure"])
def test_what_fails_before_the_alias_moves_has_changed_nothing(
    apply: Any, store: ModelStore, replicas: FakeReplicas, step: str
) -> None:
    before = read_state(store, NAME)
    replicas.refuses[step] = ProbeFailed("sees other things")
    with pytest.raises(ProbeFailed):
        apply("promote", version="2")
    assert store.aliases(NAME) == {"production": "1"}
    assert read_state(store, NAME) == before
    assert not any(line.startswith("activate") for line in replicas.log)


def test_a_replica_that_does_not_acknowledge_puts_the_alias_back(
    apply: Any, store: ModelStore, replicas: FakeReplicas
) -> None:
    apply("follow", version="1")
    generation = read_state(store, NAME).generation
    replicas.log.clear()
    replicas.refuses["activate"] = ModelNotReady("no word from it")
    with pytest.raises(ModelNotReady, match="no word"):
        apply("promote", version="2")
    assert replicas.log[-2:] == ["activate production=2 | wanted 2", "activate production=1 | wanted 1"]
    assert store.aliases(NAME) == {"production": "1"}
    assert serving(store).active == "1"
    assert read_state(store, NAME).generation > generation, "replicas that switched go back"


@pytest.mark.parametrize("kind", ["promote", "follow", "canary"])
def test_a_held_version_with_damaged_files_is_refused_except_by_a_rollback(
    apply: Any, store: ModelStore, replicas: FakeReplicas, kind: str
) -> None:
    apply("promote", version="2")
    Path(store.url, NAME, "1", "README.md").write_text("damaged")
    with pytest.raises(DigestMismatch, match="README.md"):
        apply(kind, version="1", percent=10 if kind == "canary" else 0)
    assert store.aliases(NAME) == {"production": "2"}
    apply("rollback")
    assert serving(store).active == "1"


def test_rolling_back_twice_goes_back_twice_and_then_there_is_nothing(
    apply: Any, store: ModelStore, replicas: FakeReplicas
) -> None:
    apply("promote", version="2")
    apply("promote", version="3")
    replicas.log.clear()
    apply("rollback")
    assert (serving(store).active, store.aliases(NAME)) == ("2", {"production": "2"})
    assert replicas.log == ["activate production=2 | wanted 2"], "nothing is loaded: it is warm"
    apply("rollback")
    assert (serving(store).active, serving(store).previous) == ("1", ())
    with pytest.raises(BadRequest, match="no version before 1 to go back to: rolled-back versions"):
        apply("rollback")
    assert store.aliases(NAME) == {"production": "1"}


def test_a_rollback_to_an_expected_version_goes_to_no_other(apply: Any, store: ModelStore) -> None:
    apply("promote", version="2")
    apply("promote", version="3")
    with pytest.raises(Conflict, match="would go back from 3 to 2 now, and not to 1: nothing was changed"):
        apply("rollback", version="1")
    apply("rollback", version="2")
    assert "is unchanged" in apply("rollback", version="2"), "two persons saw the same page"
    with pytest.raises(Conflict, match="from 2 to 1 now, and not to 3"):
        apply("rollback", version="3")
    assert (serving(store).active, store.aliases(NAME)) == ("2", {"production": "2"})


def test_what_was_rolled_back_is_not_rolled_back_to(apply: Any, store: ModelStore) -> None:
    apply("promote", version="2")
    apply("rollback")
    apply("promote", version="3")
    assert "blobs@1" in apply("rollback")
    apply("promote", version="2")
    apply("promote", version="1")
    assert "blobs@2" in apply("rollback"), "promoted again by hand, it counts again"
    assert serving(store).previous == ("1",)


def test_a_version_that_was_removed_is_skipped_on_the_way_back(apply: Any, store: ModelStore) -> None:
    apply("promote", version="2")
    apply("promote", version="3")
    store.folder.remove(f"{NAME}/2")
    assert "blobs@1" in apply("rollback")


@pytest.mark.parametrize("kind", ["promote", "canary"])
def test_a_version_that_is_removed_while_it_is_promoted_is_put_back(
    apply: Any, store: ModelStore, replicas: FakeReplicas, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    before, update = read_state(store, NAME).aliases, steps.update_state

    def removed_first(*arguments: Any) -> ModelState:
        store.folder.remove(f"{NAME}/2/READY")
        return update(*arguments)

    monkeypatch.setattr(steps, "update_state", removed_first)
    with pytest.raises(ModelNotFound, match="blobs@2 is not in"):
        apply(kind, version="2", percent=10)
    assert store.aliases(NAME) == {"production": "1"}
    assert read_state(store, NAME).aliases == before


def test_the_way_back_is_bounded(apply: Any, store: ModelStore) -> None:
    for step in range(MAX_PREVIOUS + 2):
        apply("promote", version=str(step % 2 + 1))
    assert len(serving(store).previous) == MAX_PREVIOUS


@pytest.mark.parametrize("alias", ["staging", "nightly"])
def test_a_canary_of_a_model_that_does_not_answer_leads_to_the_other_model(
    apply: Any, store: ModelStore, alias: str
) -> None:
    write_json(Path(store.url) / "deer" / "aliases.json", {"staging": "7"})
    (Path(store.url) / "bees").mkdir()
    (Path(store.url) / "bees" / "aliases.json").write_text("{")
    other = {"staging": "deer", "nightly": "NAME"}[alias]
    said = f"blobs:{alias} has no version, so blobs@2.*models add FILE --name {other}$"
    with pytest.raises(BadRequest, match=said):
        apply("canary", alias=alias, version="2", percent=5)


def test_a_canary_is_loaded_before_it_gets_requests_and_ends_with_zero(
    apply: Any, store: ModelStore, replicas: FakeReplicas
) -> None:
    always = "@2 is its canary for 10 % of the images; one image always gets the same version"
    assert always in apply("canary", version="2", percent=10)
    assert replicas.log[1].startswith("ensure 2")
    state = serving(store)
    assert (state.active, state.canary and state.canary.version) == ("1", "2")
    assert store.aliases(NAME) == {"production": "1"}
    with pytest.raises(BadRequest, match="canary still answers 10 %; end it: resight models canary blobs@2 0$"):
        apply("rollback")
    assert "no longer has a canary" in apply("canary", version="2", percent=0)
    assert serving(store).canary is None
    assert replicas.required == ["2", None], "one that no longer loads can be ended"


def test_a_shadow_and_a_canary_live_beside_each_other_until_a_promotion(apply: Any, store: ModelStore) -> None:
    apply("canary", version="2", percent=5)
    apply("shadow", version="3", percent=50)
    assert serving(store).versions() == {"1", "2", "3"}
    ended = "blobs:production is now blobs@2; its canary blobs@2 ended; its shadow blobs@3 ended"
    assert apply("promote", version="2") == ended
    assert serving(store).versions() == {"2"}
    apply("canary", version="3", percent=5)
    assert apply("rollback") == "blobs:production is now blobs@1; its canary blobs@3 ended"


def test_what_is_pinned_does_not_move(apply: Any, store: ModelStore) -> None:
    assert "(pinned)" in apply("pin")
    for kind in ("promote", "follow", "canary", "shadow"):
        with pytest.raises(Conflict, match="is pinned to 1; unpin it first"):
            apply(kind, version="2", percent=10)
    apply("unpin")
    apply("promote", version="2")
    apply("pin")
    with pytest.raises(Conflict, match="pinned to 2"):
        apply("rollback")


@pytest.mark.parametrize(
    ("kind", "fields", "error"),
    [
        ("promote", {"version": "9"}, ModelNotFound),
        ("canary", {"version": "9", "percent": 1}, ModelNotFound),
        ("canary", {"version": "1", "percent": 1}, Conflict),
        ("canary", {"alias": "other", "version": "2", "percent": 1}, BadRequest),
        ("rollback", {"alias": "other"}, BadRequest),
        ("pin", {"alias": "other"}, BadRequest),
        ("promote", {"version": "../x"}, BadRequest),
    ],
)
def test_what_cannot_be_is_refused(
    apply: Any, store: ModelStore, kind: str, fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        apply(kind, **fields)
    assert store.aliases(NAME) == {"production": "1"}


def test_a_classifier_is_promoted_and_has_canaries_but_no_shadow(tmp_path: Path) -> None:
    """Shadows are compared by boxes."""
    store = colour_store(tmp_path / "colours", "1", "2")
    replicas = FakeReplicas(store, {"1", "2"})
    rollout = Rollout(store, replicas, lambda version: Proof(SIZE, 0.1))

    def run(kind: str, **fields: Any) -> str:
        operation = Operation.model_validate({"kind": kind, "name": "colours", **fields})
        return rollout.apply(rollout.prepare(operation))

    run("promote", version="1")
    run("canary", version="2", percent=10)
    with pytest.raises(BadRequest, match="colours@2 is a classifier, and shadows"):
        run("shadow", version="2", percent=10)
    run("promote", version="2")
    run("rollback")
    assert read_state(store, "colours").aliases["production"].active == "1"


def test_a_first_promotion_writes_what_serves_already(apply: Any, store: ModelStore, replicas: FakeReplicas) -> None:
    assert serving(store).since is None
    apply("follow", version="1")
    assert serving(store).since is not None
    assert replicas.log == ["activate production=1 | wanted 1"]
