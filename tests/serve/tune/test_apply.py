"""Applying changes one entry of deployment.json, keeps the inference key, and can be undone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_store.config import Batch
from model_store.deployment import own_entry, read_deployment, write_entry
from model_store.errors import BadRequest, Conflict, ModelRefused, ObjectiveMissed, StorageUnreachable
from model_store.names import version_id
from model_store.store import ModelStore
from serve.settings import DetectArgs
from serve.tune.report import apply_best, undo
from serve.tune.results import TuningResult
from tests.fixtures_local import motion_store
from tests.serve.tune.performance import NOW, at, measured, result

OTHERS = {"*": {"pool": "default", "batch": {"max": 3}}, "2": {"batch": {"max": 16, "wait_ms": 7}}}
ONE = version_id("blobs", "1")
POOL = DetectArgs(threads=1, workers=2)


def tuned(store: ModelStore, **fields: object) -> TuningResult:
    """Return a sweep of blobs@1 with batches of 4 and a wait of 2 ms as the best."""
    points = [measured(NOW, 50, 40), measured(at(batch=4, wait_ms=2.0), 70, 80)]
    points += [measured(at(threads=2), 60, 90)]
    facts = {
        "model": "blobs@1",
        "inference_key": store.describe(ONE).info.inference_key,
        "entry": own_entry(store, ONE),
    }
    return result(points, **(facts | fields))  # type: ignore[arg-type]


def entries(store: ModelStore) -> Any:
    return json.loads(store.folder.read("blobs/deployment.json"))


def everything_else(store: ModelStore) -> dict[str, bytes]:
    """Return every file of the store except deployment.json."""
    paths = [str(path) for path in store.folder.fs.find(store.folder.root)]
    names = [path.removeprefix(f"{store.folder.root}/") for path in paths]
    return {n: store.folder.read(n) for n in names if not n.endswith("deployment.json")}


def test_only_the_version_s_entry_changes_and_is_restored(tmp_path: Path) -> None:
    store = motion_store(tmp_path / "m", "1", "2")
    store.folder.write("blobs/deployment.json", json.dumps(OTHERS).encode())
    before, key = everything_else(store), store.describe(ONE).info.inference_key
    facts = tuned(store)
    applied = apply_best(store, facts, POOL)
    assert applied == {"batch": {"max": 4, "wait_ms": 2.0}}
    assert entries(store) == OTHERS | {"1": {"batch": {"max": 4, "wait_ms": 2.0}}}
    assert read_deployment(store, ONE).batch == Batch(max=4, wait_ms=2.0)
    assert store.describe(ONE).info.inference_key == key, "rows of before are not due again"
    assert everything_else(store) == before, "config.json, weights, READY, aliases"
    undo(store, facts)
    assert entries(store) == OTHERS
    assert everything_else(store) == before


def test_a_report_is_applied_once_and_again_after_undo(tmp_path: Path) -> None:
    store = motion_store(tmp_path / "m", "1")
    facts = tuned(store)
    apply_best(store, facts, POOL)
    with pytest.raises(Conflict, match="undo them first"):
        apply_best(store, facts, POOL)
    undo(store, facts)
    with pytest.raises(BadRequest, match="nothing to undo"):
        undo(store, facts)
    assert apply_best(store, facts, POOL) is not None


def test_later_changes_are_not_undone(tmp_path: Path) -> None:
    store = motion_store(tmp_path / "m", "1")
    facts = tuned(store)
    apply_best(store, facts, POOL)
    theirs = {"1": {"batch": {"max": 9}}}
    store.folder.write("blobs/deployment.json", json.dumps(theirs).encode())
    with pytest.raises(Conflict, match="by hand"):
        undo(store, facts)
    assert entries(store) == theirs


def test_nothing_is_written_if_no_batch_meets_the_objective(tmp_path: Path) -> None:
    store = motion_store(tmp_path / "m", "1")
    with pytest.raises(ObjectiveMissed, match="no batch is fast enough"):
        apply_best(store, tuned(store, applies=None, best=at(threads=2)), POOL)
    assert not store.folder.exists("blobs/deployment.json")


def test_the_choice_of_an_unsteady_machine_is_not_written(tmp_path: Path) -> None:
    store = motion_store(tmp_path / "m", "1")
    with pytest.raises(Conflict, match="quiet machine"):
        apply_best(store, tuned(store, unsteady=0.31), POOL)
    assert not store.folder.exists("blobs/deployment.json")
    assert apply_best(store, tuned(store, unsteady=0.29), POOL) is not None


def test_an_invalid_deployment_json_is_not_changed(tmp_path: Path) -> None:
    store = motion_store(tmp_path / "m", "1")
    before = tuned(store)
    store.folder.write("blobs/deployment.json", b"{")
    with pytest.raises(ModelRefused, match="is not JSON"):
        apply_best(store, before, POOL)
    assert store.folder.read("blobs/deployment.json") == b"{"


def test_a_report_of_another_pool_or_version_is_not_applied(tmp_path: Path) -> None:
    store = motion_store(tmp_path / "m", "1")
    with pytest.raises(BadRequest, match="not the measured version"):
        apply_best(store, tuned(store).model_copy(update={"inference_key": "1" * 64}), POOL)
    with pytest.raises(Conflict, match="threads was 1, now 2; replicas was 1, now 3"):
        apply_best(store, tuned(store), POOL.model_copy(update={"threads": 2, "replicas": 3}))
    with pytest.raises(Conflict, match="pool was small, now default"):
        apply_best(store, tuned(store, pool="small"), POOL)
    assert not store.folder.exists("blobs/deployment.json")


def test_a_report_of_former_settings_is_not_applied(tmp_path: Path) -> None:
    """Even if the best settings were the current ones, which are not written."""
    store = motion_store(tmp_path / "m", "1")
    stale, theirs = tuned(store, applies=NOW, best=NOW), {"1": {"batch": {"max": 9}}}
    assert apply_best(store, stale, POOL) is None
    assert not store.folder.exists("blobs/deployment.json")
    store.folder.write("blobs/deployment.json", json.dumps(theirs).encode())
    with pytest.raises(Conflict, match="own entry was None, now .*9"):
        apply_best(store, stale, POOL)
    assert entries(store) == theirs


def changed(store: ModelStore, batch: dict[str, float]) -> Any:
    """Return a writer that another one overtakes between its read and its write."""

    def run(*given: Any, **known: Any) -> None:
        other = {"1": {"batch": batch}}
        store.folder.write("blobs/deployment.json", json.dumps(other).encode())
        write_entry(*given, **known)

    return run


def test_a_concurrent_change_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = motion_store(tmp_path / "m", "1")
    facts = tuned(store)
    with monkeypatch.context() as patch:
        patch.setattr("serve.tune.report.write_entry", changed(store, {"max": 9}))
        with pytest.raises(Conflict, match="have changed"):
            apply_best(store, facts, POOL)
    assert entries(store) == {"1": {"batch": {"max": 9}}}
    with pytest.raises(Conflict, match="by hand"):
        undo(store, facts)


def test_after_a_failed_write_undo_restores_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry may have been written if the acknowledgement was lost."""
    store = motion_store(tmp_path / "m", "1")
    facts = tuned(store)

    def fails(*given: Any, **known: Any) -> None:
        write_entry(*given, **known)
        raise StorageUnreachable("timed out")

    with monkeypatch.context() as patch:
        patch.setattr("serve.tune.report.write_entry", fails)
        with pytest.raises(StorageUnreachable, match="timed out"):
            apply_best(store, facts, POOL)
    undo(store, facts)
    assert not store.folder.exists("blobs/deployment.json")
