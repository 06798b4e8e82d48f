"""deployment.json: settings of versions are read each time, and never part of their identity."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_store.config import Batch
from model_store.deployment import ModelDeployment, own_entry, read_deployment, read_pool, write_entry
from model_store.errors import Conflict, ModelRefused
from model_store.names import VersionId
from model_store.storage import Folder
from model_store.store import ModelStore

ONE, TWO = VersionId("deer", "1"), VersionId("deer", "2")


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(str(tmp_path))


def write(store: ModelStore, value: object) -> None:
    store.folder.write("deer/deployment.json", json.dumps(value).encode())


def test_a_version_s_own_entry_wins(store: ModelStore) -> None:
    assert read_deployment(store, ONE) == ModelDeployment(batch=None)
    write(store, {"*": {"batch": {"max": 4}}, "2": {"batch": {"max": 16, "wait_ms": 3}}})
    assert read_deployment(store, ONE).batch == Batch(max=4)
    assert read_deployment(store, TWO).batch == Batch(max=16, wait_ms=3)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "must map"),
        ({"1": {"pool": "gpu"}}, "all versions share a pool"),
        ({"*": {"pool": "../x"}}, "deployment.json: pool: "),
        ({"*": {"batch": {"max": 0}}}, "deployment.json: batch.max: "),
        ({"*": {"threads": 4}}, "deployment.json: threads: "),
    ],
)
def test_what_is_wrong_is_named(store: ModelStore, value: object, said: str) -> None:
    write(store, value)
    with pytest.raises(ModelRefused, match=said):
        read_deployment(store, ONE)


@pytest.mark.parametrize("data", [b"{", b"[" * 100_000], ids=["truncated", "nested"])
def test_a_file_that_is_not_json_is_refused(store: ModelStore, data: bytes) -> None:
    store.folder.write("deer/deployment.json", data)
    with pytest.raises(ModelRefused, match=r"deployment\.json is not JSON"):
        read_pool(store, "deer")


def test_all_versions_of_a_model_live_in_one_pool(store: ModelStore) -> None:
    assert read_pool(store, "deer") == "default"
    write(store, {"*": {"pool": "gpu"}, "2": {"batch": {"max": 16}}})
    assert read_pool(store, "deer") == "gpu"
    assert read_deployment(store, TWO).batch == Batch(max=16)


def test_an_entry_is_written_and_all_others_stay_as_they_are(store: ModelStore) -> None:
    others = {"*": {"pool": "gpu"}, "2": {"batch": {"max": 16}}, "9": {"unknown": [1]}}
    write(store, others)
    write_entry(store, ONE, {"batch": {"max": 4}}, expected=None)
    assert json.loads(store.folder.read("deer/deployment.json")) == others | {"1": {"batch": {"max": 4}}}
    assert own_entry(store, ONE) == {"batch": {"max": 4}}
    assert read_pool(store, "deer") == "gpu"
    write_entry(store, ONE, None, expected={"batch": {"max": 4}})
    assert json.loads(store.folder.read("deer/deployment.json")) == others


@pytest.mark.parametrize("entry", [{"batch": {"max": 0}}, {"threads": 2}, {"pool": "gpu"}])
def test_what_would_not_be_read_is_not_written(store: ModelStore, entry: dict[str, object]) -> None:
    write(store, {"1": {"batch": {"max": 2}}})
    with pytest.raises(ModelRefused, match="deployment.json"):
        write_entry(store, ONE, entry, expected={"batch": {"max": 2}})
    assert own_entry(store, ONE) == {"batch": {"max": 2}}


@pytest.mark.parametrize("expected", [None, {}, {"batch": {"max": 3}}])
def test_an_entry_that_somebody_has_changed_meanwhile_stays(
    store: ModelStore, expected: dict[str, object] | None
) -> None:
    write(store, {"1": {"batch": {"max": 2}}})
    with pytest.raises(Conflict, match="the settings of deer@1 have changed"):
        write_entry(store, ONE, {"batch": {"max": 4}}, expected=expected)
    assert own_entry(store, ONE) == {"batch": {"max": 2}}
    assert store.folder.names("deer") == ["deployment.json"]


def test_a_lost_acknowledgement_is_no_conflict(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange: Callable[..., bool] = Folder._exchange
    lost = [True]

    def unheard(*args: Any) -> bool:
        return exchange(*args) and not lost.pop()

    monkeypatch.setattr(Folder, "_exchange", unheard)
    write_entry(store, ONE, {"batch": {"max": 4}}, expected=None)
    assert lost == []
    assert own_entry(store, ONE) == {"batch": {"max": 4}}
