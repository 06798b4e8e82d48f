"""Where models live, as one replica sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_store.errors import ModelNotReady
from model_store.store import ModelStore
from serve.models import pools as placement
from serve.models.pools import Placement


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(str(tmp_path))


def write(store: ModelStore, pool: str) -> None:
    entry = {"*": {"pool": pool}}
    store.folder.write("deer/deployment.json", json.dumps(entry).encode())


def test_a_model_lives_where_its_file_says(store: ModelStore) -> None:
    here, there = Placement(store, "default", ["gpu"]), Placement(store, "gpu", ["gpu"])
    assert here.serves("deer")
    assert not there.serves("deer")
    write(store, "gpu")
    for one in (here, there):
        one.read("deer")
    assert there.serves("deer")
    assert here.pool_of("deer") == "gpu"


def test_who_has_moved_away_is_answered_for_a_while(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Placement(store, "default", ["gpu"])
    here.read("deer")
    write(store, "gpu")
    here.read("deer")
    here.read("deer")
    assert here.serves("deer")
    monkeypatch.setattr(placement, "KEEP_S", 0.0)
    assert not here.serves("deer")


def test_a_damaged_file_moves_nothing(store: ModelStore) -> None:
    here = Placement(store, "default", ["gpu"])
    write(store, "gpu")
    here.read("deer")
    store.folder.write("deer/deployment.json", b"{")
    here.read("deer")
    assert here.pool_of("deer") == "gpu"


def test_a_pool_that_there_is_not_is_said_once_by_the_pool_that_listens(store: ModelStore) -> None:
    write(store, "tpu")
    here, there = Placement(store, "default", ["gpu"]), Placement(store, "gpu", ["gpu"])
    for one in (here, there):
        one.read("deer")
    with pytest.raises(ModelNotReady, match=r"requires the pool 'tpu'.* default, gpu"):
        here.serves("deer")
    assert not there.serves("deer")
