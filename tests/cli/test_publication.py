"""resight runs publish, rollback and prune; no cluster is needed."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import archive.retention
from archive.delta.tables import Tables
from archive.retention import remember_store
from archive.schemas import ASSERTIONS
from archive.views.views import Views
from model_store.store import ModelStore
from serve.rollout.state import AliasState, Share, update_state
from serve.settings import Settings
from tests.cli.conftest import Resight
from tests.cli.ran import key, rows, scores
from tests.fixtures_local import put_results, put_rows, result_rows, rows_of


def test_where_no_model_is_nothing_is_pruned(resight: Resight, two: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its aliases keep results: a store that is not mounted would set them free."""
    monkeypatch.setattr(archive.retention, "WRITTEN", timedelta(seconds=-1))
    monkeypatch.setenv("RESIGHT_MODELS", str(Path(two.url).parent / "away"))
    for words in ((), ("--yes",)):
        said = resight("runs", "prune", *words).refused(7)
        assert "no model in " in said
        assert "is it mounted?" in said
    assert len(rows_of(two, "results")) == 4


def test_publish_and_rollback_move_the_view(resight: Resight, two: Tables, store: ModelStore) -> None:
    done = resight("runs", "publish", "old", "--reason", "try", "--format", "json")
    facts = json.loads(done.ok())
    other = "production of blobs is blobs@2: scheduled runs would publish that version"
    assert f"{other}; to keep blobs@1: resight models promote blobs@1" in done.err
    want = {"view": "production", "number": 1, "run_id": "old", "threshold": 0.5, "reason": "try"}
    assert {name: facts[name] for name in want} == want
    done = resight("runs", "publish", "blobs@2")
    assert done.err == "published\n", "production is this version"
    assert scores(resight) == [0.7, 0.7, 0.8, 0.8]
    assert other in resight("runs", "diff", "published", "old").err
    store.set_alias("blobs", "production", None)
    again = resight("runs", "publish", "new")
    assert "already published\nblobs has no alias production, so scheduled runs end" in again.err
    assert "number            2" in again.ok()
    done = resight("runs", "rollback", "--format", "json")
    back = json.loads(done.ok())
    assert "undone: number 2 (blobs@2 in place of blobs@1)\nnothing is left to undo" in done.err
    assert (back["number"], back["run_id"], back["rolled_back_to"]) == (3, "old", 1)
    assert scores(resight) == [0.9, 0.9]
    assert "nothing was published as production before" in resight("runs", "rollback").refused(2)


def test_a_closed_gate_of_the_policy_ends_with_5_unless_it_is_overridden(
    resight: Resight, two: Tables, store: ModelStore, home: Path
) -> None:
    (home / "policy.toml").write_text("[gates]\nmax_failed_frac = 0.0\n")
    resight("runs", "publish", "old").ok()
    put_results(two, result_rows(["c"], key(store, "2"), status="failed", run_id="new"))
    said = resight("runs", "publish", "new").refused(5)
    assert "max_failed_frac" in said
    assert '--override "why"' in said
    resight("runs", "publish", "new", "--override", "a bad card").ok()
    current = Views(two.url).current()
    assert current
    assert current.run_id == "new"
    assert current.reason.startswith("gates overridden: a bad card (1 of 3")
    assert "Run it on the other images: resight reprocess --model blobs@1. See" in resight(
        "runs", "publish", "old"
    ).refused(5)


def test_prune_says_what_it_would_do_and_does_it_with_yes(
    resight: Resight, two: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive.retention, "WRITTEN", timedelta(seconds=-1))
    put_results(two, result_rows(["a", "b"], key="k" * 64))
    put_rows(two, "snips", {"inference_key": "k" * 64, "media_sha256": "a", "names": ["x.jpg"]})
    resight("runs", "publish", "old").ok()
    store.set_alias("blobs", "staging", "2")
    done = resight("runs", "prune", "--format", "json")
    uses = {row["inference_key"]: row for row in rows(done.ok())}
    assert uses[key(store, "1")]["kept"] == ["view production shows it"]
    both = [f"alias blobs:{alias} has version 2" for alias in ("production", "staging")]
    assert sorted(uses[key(store, "2")]["kept"]) == both
    assert (uses["k" * 64]["kept"], uses["k" * 64]["rows"]) == ([], 2)
    assert "1 of 3 inference keys" in done.err
    assert "add --yes" in done.err
    assert len(rows_of(two, "results")) == 6
    text = resight("runs", "prune").ok()
    assert "k" * 12 in text
    assert "k" * 13 not in text
    assert resight("runs", "prune", "--keep-days", 10**6).code == 2, "no date is as early"
    gone = resight("runs", "prune", "--yes", "--keep-days", 0, "--format", "json")
    assert [row["inference_key"] for row in rows(gone.ok())] == ["k" * 64]
    assert "removed 1 inference keys" in gone.err
    assert f"remove {Settings().snips_url}/*/{'k' * 16}\n" in gone.err
    assert len(rows_of(two, "results")) == 4
    assert [row["run_id"] for row in rows(resight("runs", "list", "--format", "json").ok())] == ["new", "old"]
    assert rows(resight("runs", "prune", "--yes", "--format", "json").ok()) == []


@pytest.fixture
def canary(two: Tables, tmp_path: Path, store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> str:
    """Another store with the same models, where version 1 is a canary; here it means nothing."""
    monkeypatch.setattr(archive.retention, "WRITTEN", timedelta(seconds=-1))
    other = tmp_path / "other models"
    shutil.copytree(store.url, other)
    state = AliasState(active="2", canary=Share(version="1", percent=5))
    update_state(ModelStore(str(other)), "blobs", lambda now: now.with_alias("production", state))
    return str(other)


def test_prune_keeps_what_only_the_canary_of_another_store_has(
    resight: Resight, two: Tables, store: ModelStore, canary: str
) -> None:
    remember_store(two.url, store.url)
    remember_store(two.url, canary)
    uses = rows(resight("runs", "prune", "--keep-days", 0, "--format", "json").ok())
    kept = {row["inference_key"]: row["kept"] for row in uses}
    assert kept[key(store, "1")] == [f"alias blobs:production of {canary} has version 1"]
    assert rows(resight("runs", "prune", "--yes", "--keep-days", 0, "--format", "json").ok()) == []
    shutil.rmtree(canary)
    assert "is it mounted?" in resight("runs", "prune", "--yes", "--keep-days", 0).refused(7)
    assert len(rows_of(two, "results")) == 4
    named = ("--store", store.url, "--keep-days", 0, "--format", "json")
    (gone,) = rows(resight("runs", "prune", "--yes", *named).ok())
    assert gone["inference_key"] == key(store, "1")


def test_prune_waits_to_be_told_of_a_store_on_another_machine(
    resight: Resight, two: Tables, store: ModelStore, canary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(archive.retention.socket, "gethostname", lambda: "field-station")
        remember_store(two.url, store.url)
    said = resight("runs", "prune", "--yes", "--keep-days", 0).refused(7)
    assert f"field-station:{store.url}" in said
    assert "--store" in said
    named = ("--store", canary, "--keep-days", 0, "--format", "json")
    assert rows(resight("runs", "prune", "--yes", *named).ok()) == []


def test_prune_keeps_what_people_have_spoken_of(
    resight: Resight, two: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive.retention, "WRITTEN", timedelta(seconds=-1))
    said = [{"method": "human", "inference_key": key(store, "1"), "media_sha256": "a"}]
    table = pa.Table.from_pylist(said, schema=ASSERTIONS)
    two.append("assertions", table, "w", lambda _, wanted: wanted)
    assert rows(resight("runs", "prune", "--yes", "--format", "json").ok()) == []
    store.set_alias("blobs", "production", None)
    (gone,) = rows(resight("runs", "prune", "--yes", "--format", "json").ok())
    assert gone["inference_key"] == key(store, "2")
