"""Test that a run resumed by its id is the same run, or is rejected with what differs."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from archive.delta.tables import Tables
from batch.planning.plan import pinned
from batch.runs.accounting import Counts
from batch.runs.record import RunLog
from batch.runs.resume import require_same_run
from batch.runs.scope import Scope
from batch.runs.spec import RunSpec
from batch.schedule.policy import Stop
from model_store.errors import Conflict
from model_store.store import ModelStore, ModelVersion
from tests.fixtures_local import MODELS, motion_store, publish_blobs

SPEC = RunSpec(run_id="r", model="motion@1")
STORE = ModelStore(str(MODELS))


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path / "tables"))


def changed(spec: RunSpec = SPEC, **fields: Any) -> RunSpec:
    return RunSpec.model_validate({**spec.model_dump(), **fields})


def began(tables: Tables, spec: RunSpec, model: ModelVersion, state: Any = "running") -> None:
    RunLog(tables, spec, model.info).write(state, Counts())


def refused(tables: Tables, spec: RunSpec, model: ModelVersion, store: ModelStore = STORE) -> str:
    with pytest.raises(Conflict) as error:
        require_same_run(tables, spec, model, store)
    return str(error.value)


def test_another_id_is_another_run(tables: Tables, motion: ModelVersion) -> None:
    began(tables, SPEC, motion)
    require_same_run(tables, changed(run_id="s", scope=Scope(sample=3), megapixels=7), motion, STORE)


@pytest.mark.parametrize("state", ["running", "sealed"])
def test_the_same_run_goes_on_however_it_ended(tables: Tables, motion: ModelVersion, state: str) -> None:
    began(tables, SPEC, motion, state)
    require_same_run(tables, SPEC, motion, STORE)


@pytest.mark.parametrize(
    "pace", [{"chunk": 7}, {"stop": Stop(failed_frac=0.9)}, {"model": "motion"}], ids=lambda pace: next(iter(pace))
)
def test_its_pace_may_differ(tables: Tables, motion: ModelVersion, pace: dict[str, Any]) -> None:
    began(tables, SPEC, motion)
    require_same_run(tables, changed(**pace), motion, STORE)


SCOPES: list[tuple[Scope, Scope, str]] = [
    (Scope(), Scope(sample=9), "scope.sample was None, now 9"),
    (Scope(camera=("north",)), Scope(camera=("south",)), "scope.camera was ['north'], now ['south']"),
    (
        Scope(since=datetime(2026, 5, 1)),
        Scope(since=datetime(2026, 6, 1)),
        "scope.since was '2026-05-01T00:00:00', now '2026-06-01T00:00:00'",
    ),
]


@pytest.mark.parametrize(("was", "now", "said"), SCOPES, ids=[said for _, _, said in SCOPES])
def test_another_scope_is_refused_by_the_field_that_differs(
    tables: Tables, motion: ModelVersion, was: Scope, now: Scope, said: str
) -> None:
    began(tables, changed(scope=was), motion)
    require_same_run(tables, changed(scope=was), motion, STORE)
    words = refused(tables, changed(scope=now), motion)
    assert words.startswith(f"run r cannot be resumed as another run: {said}. Use the same options")
    assert "--run-id" in words


def test_every_field_that_differs_is_named(tables: Tables, motion: ModelVersion) -> None:
    began(tables, changed(scope=Scope(camera=("north",))), motion)
    other = changed(scope=Scope(path="*.jpg"), megapixels=7)
    words = refused(tables, other, motion)
    for said in (
        "scope.camera was ['north'], now None",
        "scope.path was None, now '*.jpg'",
        "megapixels was 100, now 7",
    ):
        assert said in words


def test_another_model_is_refused_and_both_are_named(tables: Tables, motion: ModelVersion) -> None:
    began(tables, SPEC, motion)
    other = pinned(ModelStore(str(MODELS)), "ssdlite-coco")
    was, now = motion.info.inference_key[:12], other.info.inference_key[:12]
    words = refused(tables, changed(model="ssdlite-coco"), other)
    assert f"model was motion@1 ({was}…), now ssdlite-coco@1 ({now}…)" in words


def test_what_is_otherwise_in_the_model_is_named_by_its_field(tables: Tables, tmp_path: Path) -> None:
    store = motion_store(tmp_path / "models", "1")
    publish_blobs(store, "2", preprocess={"resize": "stretch", "side_px": 32}, description="it changes no row")
    began(tables, changed(model="blobs@1"), pinned(store, "blobs@1"))
    two = pinned(store, "blobs@2")
    words = refused(tables, changed(model="blobs@2"), two, store)
    assert "side_px was 64, now 32" in words
    assert "description" not in words
    store.folder.remove("blobs/1")  # the version that it began with is gone: both are still named
    assert re.search(r"now blobs@2 \(\w+…\)\. Use the same", refused(tables, changed(model="blobs@2"), two, store))


def test_another_version_with_the_same_key_gives_the_same_rows(tables: Tables, tmp_path: Path) -> None:
    store = motion_store(tmp_path / "models", "1", "2")
    one, two = pinned(store, "blobs@1"), pinned(store, "blobs@2")
    assert one.info.inference_key == two.info.inference_key
    began(tables, changed(model="blobs@1"), one)
    require_same_run(tables, changed(model="blobs@2"), two, STORE)


def test_it_is_the_last_event_of_that_run_that_counts(tables: Tables, motion: ModelVersion) -> None:
    for sample in (1, 2):
        began(tables, changed(scope=Scope(sample=sample)), motion)
    began(tables, changed(run_id="another", scope=Scope(sample=3)), motion)
    require_same_run(tables, changed(scope=Scope(sample=2)), motion, STORE)
    assert "was 2, now 1" in refused(tables, changed(scope=Scope(sample=1)), motion)


def test_a_run_of_an_older_release_knows_fewer_fields(
    tables: Tables, motion: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fields of the scope that were added later are None unless they are given."""
    older = {"run_id": "r", "model": "motion@1", "scope": {}, "megapixels": 100}
    monkeypatch.setattr(RunSpec, "model_dump_json", lambda _: json.dumps(older))
    began(tables, SPEC, motion)
    monkeypatch.undo()
    require_same_run(tables, SPEC, motion, STORE)
    words = refused(tables, changed(scope=Scope(sample=4)), motion)
    assert "scope.sample was None, now 4" in words
