"""deployment.json: how versions are run, read anew, never part of their identity."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_store.config import Batch
from model_store.deployment import (
    Deployment,
    own_entry,
    read_deployment,
    read_pool,
    write_entry,
)
from model_store.errors import ModelRefused
from model_store.names import VersionId
from model_store.store import ModelStore

ONE, TWO = VersionId("deer", "1"), VersionId("deer", "2")


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(str(tmp_path))


def write(store: ModelStore, value: object) -> None:
    store.folder.write("deer/deployment.json", json.dumps(value).encode())


def test_nothing_written_changes_nothing(store: ModelStore) -> None:
    assert read_deployment(store, ONE) == Deployment(batch=None)


def test_a_version_s_own_entry_wins(store: ModelStore) -> None:
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
        ({"*": 7}, "deployment.json"),
    ],
)
def test_what_is_wrong_is_named(store: ModelStore, value: object, said: str) -> None:
    write(store, value)
    with pytest.raises(ModelRefused, match=said):
        read_deployment(store, ONE)


def test_what_is_no_json_is_named(store: ModelStore) -> None:
    store.folder.write("deer/deployment.json", b"{")
    with pytest.raises(ModelRefused, match="is not JSON"):
        read_deployment(store, ONE)


def test_all_versions_of_a_model_live_in_one_pool(store: ModelStore) -> None:
    assert read_pool(store, "deer") == "default"
    write(store, {"*": {"pool": "gpu"}, "2": {"batch": {"max": 16}}})
    assert read_pool(store, "deer") == "gpu"
    assert read_deployment(store, TWO).batch == Batch(max=16)


def test_what_is_wrong_with_a_version_does_not_move_the_model(store: ModelStore) -> None:
    write(store, {"*": {"pool": "gpu"}, "2": {"batch": {"max": 0}}})
    assert read_pool(store, "deer") == "gpu"


def test_an_entry_is_written_and_all_others_stay_as_they_are(store: ModelStore) -> None:
    others = {"*": {"pool": "gpu"}, "2": {"batch": {"max": 16}}, "9": {"unknown": [1]}}
    write(store, others)
    assert write_entry(store, ONE, {"batch": {"max": 4}}) is None
    assert json.loads(store.folder.read("deer/deployment.json")) == others | {
        "1": {"batch": {"max": 4}}
    }
    assert own_entry(store, ONE) == {"batch": {"max": 4}}
    assert read_pool(store, "deer") == "gpu"
    assert write_entry(store, ONE, None) == {"batch": {"max": 4}}
    assert json.loads(store.folder.read("deer/deployment.json")) == others


def test_the_last_entry_goes_with_its_file(store: ModelStore) -> None:
    assert own_entry(store, ONE) is None
    write_entry(store, ONE, {"batch": {"max": 4}})
    write_entry(store, ONE, None)
    assert not store.folder.exists("deer/deployment.json")
    assert write_entry(store, ONE, None) is None


@pytest.mark.parametrize("entry", [{"batch": {"max": 0}}, {"threads": 2}, {"pool": "gpu"}])
def test_what_would_not_be_read_is_not_written(store: ModelStore, entry: dict[str, object]) -> None:
    write(store, {"1": {"batch": {"max": 2}}})
    with pytest.raises(ModelRefused, match="deployment.json"):
        write_entry(store, ONE, entry)
    assert own_entry(store, ONE) == {"batch": {"max": 2}}
