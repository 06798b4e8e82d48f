"""Clients of the rollout: operations without a host, and an operator that does not answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store.errors import DigestMismatch, ModelNotReady, StorageUnreachable
from model_store.names import VersionId
from model_store.storage import Folder
from model_store.store import ModelStore
from serve.rollout.client import RolloutClient, apply_offline
from serve.rollout.operations import Operation, events
from serve.rollout.state import read_state
from tests.fixtures_local import motion_store

PROMOTE = Operation(kind="promote", name="blobs", version="2")


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return motion_store(tmp_path, "1", "2")


def test_without_a_cluster_a_version_is_proved_here_and_recorded(store: ModelStore) -> None:
    done = apply_offline(store, PROMOTE)
    assert (done.state, store.aliases("blobs")) == ("done", {"production": "2"})
    assert read_state(store, "blobs").aliases["production"].previous == ("1",)
    (event,) = events(store, "blobs")
    assert (event.outcome.detail, event.before and event.before.active) == (done.detail, "1")
    assert event.after is not None
    assert event.after.active == "2"


def test_a_refusal_is_recorded_too(store: ModelStore) -> None:
    store.folder.write("blobs/2/config.json", b"{}")
    with pytest.raises(DigestMismatch, match="sha256"):
        apply_offline(store, PROMOTE)
    (event,) = events(store, "blobs")
    assert (event.outcome.state, event.outcome.error) == ("refused", "DigestMismatch")
    assert store.aliases("blobs") == {"production": "1"}


def test_the_reason_of_a_refusal_survives_a_log_that_cannot_be_written(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise StorageUnreachable("permission denied")

    store.folder.write("blobs/2/config.json", b"{}")
    monkeypatch.setattr(Folder, "write", denied)
    with pytest.raises(DigestMismatch, match="sha256"):
        apply_offline(store, PROMOTE)


async def test_a_version_may_be_proved_soon_if_the_operator_does_not_answer() -> None:
    async def dead(*_: object) -> None:
        raise RuntimeError("the actor died")

    with pytest.raises(ModelNotReady, match="cannot be proved now: the actor died") as raised:
        await RolloutClient(dead).prove(VersionId("blobs", "1"))
    assert raised.value.retry_after_s == 1
