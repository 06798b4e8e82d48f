"""An alias moves only when every replica has the version; otherwise all is as it was."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from model_store.errors import ModelNotFound, ModelNotReady, ProbeFailed
from model_store.names import VersionId
from model_store.store import ModelStore
from serve.promotion import promote
from tests.fixtures_local import MODELS

NEW = VersionId("motion", "2")


class FakeReplicas:
    """Two replicas that do as they are told, in a log of what happened when."""

    def __init__(self, store: ModelStore, refuses: str = "", stays_old: bool = False) -> None:
        self.store, self.refuses, self.stays_old = store, refuses, stays_old
        self.log: list[tuple[str, dict[str, str]]] = []

    def ensure(self, model: str) -> None:
        self.log.append((f"ensure {model}", self.store.aliases("motion")))
        if self.refuses:
            raise ProbeFailed(self.refuses)

    def reload(self) -> list[dict[str, Any]]:
        aliases = self.store.aliases("motion")
        self.log.append(("reload", aliases))
        loaded: dict[str, list[str]] = {}
        for alias, version in aliases.items():
            loaded.setdefault(f"motion@{version}", []).append(alias)
        second = {"motion@1": ["production"]} if self.stays_old else loaded
        why = {"motion:production": "out of memory"} if self.stays_old else {}
        return [{"loaded": loaded, "failures": {}}, {"loaded": second, "failures": why}]


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """motion@1 is production; motion@2 is there too."""
    shutil.copytree(MODELS / "motion" / "1", tmp_path / "motion" / "1")
    shutil.copytree(MODELS / "motion" / "1", tmp_path / "motion" / "2")
    store = ModelStore(str(tmp_path))
    store.set_alias("motion", "production", "1")
    return store


def test_every_replica_loads_before_the_alias_moves_and_follows_after(store: ModelStore) -> None:
    replicas = FakeReplicas(store)
    promote(store, NEW, "production", replicas)
    assert replicas.log == [
        ("ensure motion@2", {"production": "1"}),
        ("reload", {"production": "2"}),
    ]


def test_without_a_cluster_the_alias_moves_once_the_version_is_sound(store: ModelStore) -> None:
    promote(store, NEW, "canary", None)
    assert store.aliases("motion") == {"production": "1", "canary": "2"}


def test_a_version_that_is_not_there_or_damaged_changes_nothing(
    store: ModelStore, tmp_path: Path
) -> None:
    replicas = FakeReplicas(store)
    with pytest.raises(ModelNotFound):
        promote(store, VersionId("motion", "3"), "production", replicas)
    (probe,) = (tmp_path / "motion" / "2" / "probe").glob("*.json")
    probe.write_text(probe.read_text() + " ")
    with pytest.raises(Exception, match=r"the file was changed or cut"):
        promote(store, NEW, "production", replicas)
    assert replicas.log == []
    assert store.aliases("motion") == {"production": "1"}


def test_a_replica_that_cannot_load_it_leaves_the_alias_where_it_was(store: ModelStore) -> None:
    replicas = FakeReplicas(store, refuses="boxes differ by 3 px")
    with pytest.raises(ProbeFailed, match="boxes differ"):
        promote(store, NEW, "production", replicas)
    assert [what for what, _ in replicas.log] == ["ensure motion@2"]
    assert store.aliases("motion") == {"production": "1"}


@pytest.mark.parametrize(
    ("alias", "after"), [("production", {"production": "1"}), ("canary", {"production": "1"})]
)
def test_a_replica_that_does_not_switch_has_the_alias_put_back(
    store: ModelStore, alias: str, after: dict[str, str]
) -> None:
    replicas = FakeReplicas(store, stays_old=True)
    with pytest.raises(ModelNotReady, match="put back"):
        promote(store, NEW, alias, replicas)
    assert store.aliases("motion") == after
    assert replicas.log[-1] == ("reload", after)
