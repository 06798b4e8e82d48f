"""deployment.json and nothing else: other entries stay, the key stays, and there is a way back."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import boto3
import pytest

from model_store.add import add_version
from model_store.config import Batch
from model_store.deployment import read_deployment
from model_store.errors import BadRequest, Conflict, ModelRefused, ObjectiveMissed
from model_store.names import version_id
from model_store.store import ModelStore
from serve.tune.apply import apply_best, undo
from serve.tune.facts import Tuned
from tests.fixtures_local import MOTION, motion_store
from tests.serve.tune.performance import NOW, at, measured, tuned

OTHERS = {"*": {"pool": "default", "batch": {"max": 3}}, "2": {"batch": {"max": 16, "wait_ms": 7}}}
ONE = version_id("blobs", "1")


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a store that is empty."""
    if request.param == "local":
        return str(tmp_path / "models")
    endpoint = request.getfixturevalue("s3_endpoint")
    bucket = f"tune-{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=bucket)
    return f"s3://{bucket}/models"


def store_of(url: str) -> ModelStore:
    if "://" not in url:
        return motion_store(Path(url), "1", "2")
    store = ModelStore(url)
    for version in ("1", "2"):
        add_version(store, version_id("blobs", version), None, MOTION, {})
    return store


def found(store: ModelStore, **fields: object) -> Tuned:
    """A sweep of blobs@1 in which batches of four pay, with a wait of 2 ms."""
    points = [measured(NOW, 50, 40), measured(at(batch=4, wait_ms=2.0), 70, 80)]
    key = store.describe(ONE).info.inference_key
    return tuned(points, model="blobs@1", inference_key=key, **fields)


def entries(store: ModelStore) -> Any:
    return json.loads(store.folder.read("blobs/deployment.json"))


def everything_else(store: ModelStore) -> dict[str, bytes]:
    """Every file of the store but deployment.json."""
    paths = [str(path) for path in store.folder.fs.find(store.folder.root)]
    names = [path.removeprefix(f"{store.folder.root}/") for path in paths]
    return {n: store.folder.read(n) for n in names if not n.endswith("deployment.json")}


def test_only_this_version_s_entry_changes_and_back(place: str, tmp_path: Path) -> None:
    store, out = store_of(place), str(tmp_path / "report")
    store.folder.write("blobs/deployment.json", json.dumps(OTHERS).encode())
    before, key = everything_else(store), store.describe(ONE).info.inference_key
    applied = apply_best(store, found(store), out)
    assert applied is not None
    assert (applied.before, applied.after) == (None, {"batch": {"max": 4, "wait_ms": 2.0}})
    assert entries(store) == OTHERS | {"1": {"batch": {"max": 4, "wait_ms": 2.0}}}
    assert read_deployment(store, ONE).batch == Batch(max=4, wait_ms=2.0)
    assert store.describe(ONE).info.inference_key == key, "rows of before are not due again"
    assert everything_else(store) == before, "config.json, weights, READY, aliases"
    undo(store, "blobs@1", out)
    assert entries(store) == OTHERS
    assert everything_else(store) == before


def test_what_was_no_file_is_none_again(tmp_path: Path) -> None:
    store, out = motion_store(tmp_path / "m", "1"), str(tmp_path / "report")
    apply_best(store, found(store), out)
    assert entries(store) == {"1": {"batch": {"max": 4, "wait_ms": 2.0}}}
    undo(store, "blobs@1", out)
    assert not store.folder.exists("blobs/deployment.json")


def test_the_entry_that_was_there_comes_back(tmp_path: Path) -> None:
    store, out = motion_store(tmp_path / "m", "1"), str(tmp_path / "report")
    mine = {"1": {"batch": {"max": 2}}}
    store.folder.write("blobs/deployment.json", json.dumps(mine).encode())
    apply_best(store, found(store), out)
    assert entries(store)["1"]["batch"]["max"] == 4
    undo(store, "blobs@1", out)
    assert entries(store) == mine


def test_the_same_report_is_applied_once_and_again_after_it_was_undone(tmp_path: Path) -> None:
    store, out = motion_store(tmp_path / "m", "1"), str(tmp_path / "report")
    apply_best(store, found(store), out)
    with pytest.raises(Conflict, match="undo it first"):
        apply_best(store, found(store), out)
    undo(store, "blobs@1", out)
    with pytest.raises(BadRequest, match="nothing to undo"):
        undo(store, "blobs@1", out)
    assert apply_best(store, found(store), out) is not None


def test_settings_that_somebody_has_changed_since_are_not_undone(tmp_path: Path) -> None:
    store, out = motion_store(tmp_path / "m", "1"), str(tmp_path / "report")
    apply_best(store, found(store), out)
    theirs = {"1": {"batch": {"max": 9}}}
    store.folder.write("blobs/deployment.json", json.dumps(theirs).encode())
    with pytest.raises(Conflict, match="by hand"):
        undo(store, "blobs@1", out)
    assert entries(store) == theirs


def test_a_crash_between_record_and_entry_can_be_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, out = motion_store(tmp_path / "m", "1"), str(tmp_path / "report")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("serve.tune.apply.write_entry", crash)
        with pytest.raises(KeyboardInterrupt):
            apply_best(store, found(store), out)
    undo(store, "blobs@1", out)
    assert not store.folder.exists("blobs/deployment.json")


def test_nothing_is_written_where_the_current_settings_are_best(tmp_path: Path) -> None:
    store, out = motion_store(tmp_path / "m", "1"), tmp_path / "report"
    assert apply_best(store, found(store, applies=NOW, best=NOW), str(out)) is None
    assert not store.folder.exists("blobs/deployment.json")
    assert not out.exists()


@pytest.mark.parametrize("best", [None, at(threads=2)])
def test_nothing_is_written_where_no_batch_meets_the_objective(
    tmp_path: Path, best: object
) -> None:
    store, out = motion_store(tmp_path / "m", "1"), tmp_path / "report"
    with pytest.raises(ObjectiveMissed, match="meets p99 100 ms"):
        apply_best(store, found(store, applies=None, best=best), str(out))
    assert not store.folder.exists("blobs/deployment.json")


def test_what_an_unsteady_machine_chose_is_not_written(tmp_path: Path) -> None:
    store, out = motion_store(tmp_path / "m", "1"), tmp_path / "report"
    with pytest.raises(Conflict, match="quiet machine"):
        apply_best(store, found(store, unsteady=0.31), str(out))
    assert not store.folder.exists("blobs/deployment.json")
    assert apply_best(store, found(store, unsteady=0.29), str(out)) is not None


def test_another_model_of_the_same_name_is_refused(tmp_path: Path) -> None:
    store = motion_store(tmp_path / "m", "1")
    with pytest.raises(BadRequest, match="not the one that was measured"):
        apply_best(store, found(store).model_copy(update={"inference_key": "1" * 64}), "unused")
    apply_best(store, found(store), str(tmp_path / "report"))
    with pytest.raises(BadRequest, match="is of blobs@1"):
        undo(store, "blobs@2", str(tmp_path / "report"))


def test_a_damaged_file_is_left_as_it_is(tmp_path: Path) -> None:
    store, out = motion_store(tmp_path / "m", "1"), tmp_path / "report"
    store.folder.write("blobs/deployment.json", b"{")
    with pytest.raises(ModelRefused, match="is not JSON"):
        apply_best(store, found(store), str(out))
    assert store.folder.read("blobs/deployment.json") == b"{"
    assert not out.exists()
