"""`resight plan`: what differs, what it costs, what the policy says; no cluster, no Ray, nothing written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from archive.annotations.layers import Layer, keep_layer
from archive.delta.tables import Tables
from archive.views.views import View, Views
from model_store.store import ModelStore
from tests.batch.schedule.test_archive_state import publish, put_media
from tests.cli.conftest import Resight
from tests.fixtures_local import ROOT, motion_store, put_results, result_rows, rows_of


@pytest.fixture
def tables(home: Path) -> Tables:
    found = Tables(str(home / "tables"))
    put_media(found, *"abcdef")
    return found


@pytest.fixture
def store(home: Path) -> ModelStore:
    return motion_store(home / "models", "1")


def seen(tables: Tables, store: ModelStore, *shas: str, **more: Any) -> View:
    """Published with results of these images."""
    model = store.verify(store.versions("blobs")[0])
    put_results(tables, result_rows(list(shas), key=more.get("key") or model.info.inference_key))
    return publish(tables, model, **more)


def facts(resight: Resight, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(resight("plan", "--format", "json", *words).ok())
    return found


def test_what_is_published_and_complete_needs_nothing(resight: Resight, tables: Tables, store: ModelStore) -> None:
    view = seen(tables, store, *"abcdef")
    found = facts(resight)
    assert (found["model"], found["published"]) == ("blobs@1", "blobs@1")
    assert found["inference_key"] == found["published_key"] == view.inference_key
    assert (found["needs"], found["changes"]) == ("no-op", [])
    assert (found["requested"], found["reused"], found["to_infer"]) == (6, 6, 0)
    assert (found["decision"], found["compared"]) == ("nothing", "field by field")
    assert found["reasons"] == ["nothing is due: all 6 images have their result, and it is published"]


def test_a_layer_that_was_never_made_over_the_model_s_results_needs_post_processing(
    resight: Resight, tables: Tables, store: ModelStore
) -> None:
    layer = Layer("l" * 64, "small-size", 1, {"kind": "small-size"}, (), None)
    keep_layer(tables, layer, "0")
    seen(tables, store, *"abcdef", layers=(layer.layer_id,))
    found = facts(resight)
    assert (found["needs"], found["decision"]) == ("post-process only", "nothing")
    (change,) = found["changes"]
    assert (change["field"], change["old"], change["new"]) == ("layers.small-size", "made", "not made")
    assert "resight filters rerun" in change["why"]


def test_without_a_publication_the_only_model_is_planned(resight: Resight, tables: Tables, store: ModelStore) -> None:
    found = facts(resight)
    assert (found["published"], found["needs"]) == (None, "full inference")
    assert (found["to_infer"], found["decision"]) == (6, "full")


def test_a_threshold_needs_the_view_only(resight: Resight, tables: Tables, store: ModelStore) -> None:
    seen(tables, store, *"abcdef", threshold=0.5)
    found = facts(resight)
    assert (found["needs"], found["to_infer"], found["decision"]) == ("view only", 0, "view")
    (change,) = found["changes"]
    assert (change["field"], change["old"], change["new"]) == ("thresholds.default", 0.5, 0.25)
    text = resight("plan").ok()
    assert "  view  thresholds.default: 0.5 -> 0.25 (all scores down to" in text
    assert "policy decision: view\n" in text
    assert "moved by 0.25, more than due.threshold_delta = 0.05" in text


def test_a_published_version_that_is_gone_is_compared_by_its_key(
    resight: Resight, tables: Tables, store: ModelStore
) -> None:
    seen(tables, store, "a", key="0" * 64, threshold=0.5)
    found = facts(resight)
    assert found["compared"].startswith("by inference key and thresholds: ")
    assert "does not have blobs@1 as it was published" in found["compared"]
    fields = {change["field"]: change["needs"] for change in found["changes"]}
    assert fields == {"inference_key": "inference", "thresholds.default": "view"}


def test_the_counts_are_those_of_the_scope_and_the_decision_is_about_all(
    resight: Resight, tables: Tables, store: ModelStore
) -> None:
    seen(tables, store, *"abcd")
    found = facts(resight, "--path", "?-[ae]")
    assert found["scope"] == "path ?-[ae]"
    assert (found["requested"], found["reused"], found["to_infer"]) == (2, 1, 1)
    assert (found["decision"], found["reasons"][0][:11]) == ("incremental", "2 of 6 imag")
    assert "no image matches path x; paths are relative" in resight("plan", "--path", "x").refused(2)


def test_the_policy_decides(
    resight: Resight, tables: Tables, store: ModelStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(tables, store, *"abcd")
    (home / "policy.toml").write_text("[due]\nimport_over = 1\n")
    assert facts(resight)["decision"] == "full"
    (home / "policy.toml").write_text("[due]\nimport = 1\n")
    assert "policy.toml: due.import" in resight("plan").refused(2)
    monkeypatch.setenv("RESIGHT_POLICY", str(home / "other.toml"))
    assert "no policy file" in resight("plan").refused(2)


def test_what_waits_says_until_when(resight: Resight, tables: Tables, store: ModelStore, home: Path) -> None:
    seen(tables, store, *"abcd")
    day = "[due]\nincremental_under = 0\n[due.weekly]\nhours = 0.001\n"
    (home / "policy.toml").write_text(day)
    found = facts(resight)
    assert (found["decision"], found["until"][-8:]) == ("wait", "02:00:00")
    assert f"policy decision: wait, until {found['until'][:16]}" in resight("plan").ok()


def test_nothing_is_written_unless_the_decision_shall_be_kept(
    resight: Resight, tables: Tables, store: ModelStore, home: Path
) -> None:
    seen(tables, store, "a")
    before = {path for path in home.rglob("*") if path.is_file()}
    resight("plan").ok()
    assert {path for path in home.rglob("*") if path.is_file()} == before
    resight("plan", "--keep").ok()
    (row,) = rows_of(tables, "decisions")
    assert (row["action"], row["acted"], row["run_id"]) == ("incremental", False, None)
    assert Views(tables.url).current() is not None


def test_it_needs_neither_a_cluster_nor_ray(tables: Tables, store: ModelStore, home: Path) -> None:
    """Nor do the modules that plan a run: Ray reads the token of the cluster when it is imported, so after `join`."""
    seen(tables, store, "a")
    code = (
        "import sys\n"
        "sys.argv = ['resight', 'plan']\n"
        "from cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'ray', 'onnxruntime', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import batch.runs.run, batch.planning.dry_run, batch.runs.post_run, batch.schedule.report\n"
        "assert 'ray' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "policy decision: incremental" in done.stdout
