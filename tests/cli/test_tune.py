"""resight tune: errors before anything is measured, and one real sweep of the shipped model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from model_store.names import version_id
from model_store.storage import Folder
from model_store.store import ModelStore
from serve.tune.report import write_report
from serve.tune.results import TuningResult
from tests.cli.conftest import Resight
from tests.fixtures_local import PHOTOS, jpeg, motion_store
from tests.model_store.classifiers import colour_store
from tests.serve.tune.performance import NOW, at, measured, result

FEW = ("--batch", "1,2", "--wait", "0", "--threads", "1", "--workers", "1", "--replicas", "1")


OTHER = at(threads=2, workers=1)


@pytest.fixture
def models(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the model store of an application that has the hardware of NOW on any machine."""
    motion_store(home / "models", "1", "2")
    colour_store(home / "models")
    pool(tmp_path, monkeypatch, workers=NOW.workers)
    return home / "models"


def pool(folder: Path, monkeypatch: pytest.MonkeyPatch, **args: int) -> None:
    applications = [{"name": "detect", "args": args}]
    app = folder / "app.yaml"
    app.write_text(yaml.safe_dump({"http_options": {}, "applications": applications}))
    monkeypatch.setenv("RESIGHT_APP", str(app))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("deer", "--objective-p99", 50), 6, "unknown model 'deer'"),
        (("colours@1", "--objective-p99", 50), 2, "is a classifier"),
        (("blobs",), 2, "no objective"),
        (("blobs", "--objective-p99", 50, "--batch", "1,x"), 2, "--batch 1,x"),
        (("blobs", "--objective-p99", 50, "--batch", "4,1025"), 2, "--batch 4,1025"),
        (("blobs", "--objective-p99", 50, "--wait", "1000.5"), 2, "--wait 1000.5"),
        (("blobs", "--objective-p99", 50, "--wait", "nan"), 2, "--wait nan"),
        (("blobs", "--objective-p99", 50, "--photos", "nowhere"), 2, "nowhere is not a folder"),
        (("blobs", "--objective-p99", 50, "--out", "."), 2, "not empty"),
        (("blobs", "--undo"), 2, "--undo goes with --from"),
        (("blobs", "--from", "nowhere"), 2, "has no tune.json"),
        (("blobs", "--from", "nowhere", "--seconds", 6, "--batch", "1"), 2, "--seconds, --batch cannot"),
        (("blobs", "--from", "nowhere", "--undo", "--out", "x"), 2, "--out cannot"),
    ],
)
def test_invalid_requests_are_rejected_before_the_sweep(
    resight: Resight, models: Path, words: tuple[object, ...], code: int, message: str
) -> None:
    assert message in resight("tune", *words).refused(code)
    assert not (models.parent / "tune").exists()


def report(models: Path, folder: Path, **fields: object) -> str:
    """Write a report of a sweep of blobs@1 that was never measured."""
    version = ModelStore(str(models)).describe(version_id("blobs", "1"))
    points = [measured(NOW, 50, 40), measured(at(batch=4), 70, 80), measured(OTHER, 90, 90)]
    facts = result(
        [*points, measured(at(jpeg_shrink=2), 80, 30)],
        **{"model": "blobs@1", "inference_key": version.info.inference_key, **fields},  # type: ignore[arg-type]
    )
    write_report(facts, version, [], Folder(str(folder)))
    return str(folder)


def test_an_earlier_report_is_printed_applied_and_undone(resight: Resight, models: Path, tmp_path: Path) -> None:
    folder = report(models, tmp_path / "a report")
    file = models / "blobs" / "deployment.json"
    printed = resight("tune", "blobs@1", "--from", folder)
    assert f"resight tune blobs@1 --from '{folder}' --apply" in printed.err
    assert not file.exists(), "written without --apply"
    applied = resight("tune", "blobs", "--from", folder, "--apply")
    assert f"resight tune blobs@1 --from '{folder}' --undo" in applied.err
    applied.ok()
    assert "in serve/app.yaml, under args: threads: 2, workers: 1" in applied.err
    assert "config-jpeg_shrink-2.json" in applied.err
    assert "--apply" not in applied.err, "it is applied already"
    assert json.loads(file.read_text()) == {"1": {"batch": {"max": 4, "wait_ms": 0.0}}}
    resight("tune", "blobs@1", "--from", folder, "--undo").ok()
    assert not file.exists()


def test_a_report_has_one_version_and_objective(resight: Resight, models: Path, tmp_path: Path) -> None:
    folder = report(models, tmp_path / "report")
    assert "is a report of blobs@1" in resight("tune", "blobs@2", "--from", folder).refused(2)
    again = resight("tune", "blobs@1", "--from", folder, "--objective-p99", 30)
    assert "tune again for 30" in again.refused(2)


def test_a_report_of_another_pool_or_entry_is_not_applied(
    resight: Resight, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = report(models, tmp_path / "report", entry={"batch": {"max": 2}})
    apply = ("tune", "blobs@1", "--from", folder, "--apply")
    done = resight(*apply)
    assert (done.code, "own entry was {'batch': {'max': 2}}, now None" in done.err) == (2, True)
    pool(tmp_path, monkeypatch, workers=3)
    done = resight(*apply)
    assert (done.code, "workers was 2, now 3" in done.err) == (2, True)
    assert "in serve/app.yaml" in done.err, "the advice is printed anyway"
    assert not (models / "blobs" / "deployment.json").exists()


def test_an_unwritable_report_is_rejected_before_the_sweep(
    resight: Resight, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it was measured")

    monkeypatch.setattr("cli.tune._measured", never)
    monkeypatch.setattr("serve.tune.plan.LOOK_S", 0.01)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(jpeg())
    words = ("--objective-p99", 50, "--photos", tmp_path / "photos")
    out = tmp_path / "app.yaml" / "out"
    assert "cannot write" in resight("tune", "blobs@1", *words, "--out", out).refused(7)
    monkeypatch.setenv("RESIGHT_HOME", str(tmp_path / "app.yaml"))
    monkeypatch.setenv("RESIGHT_MODELS", str(models))
    assert "cannot use" in resight("tune", "blobs@1", *words).refused(7)


def test_a_missed_objective_has_a_code_and_the_nearest_point(resight: Resight, models: Path, tmp_path: Path) -> None:
    folder = report(models, tmp_path / "report", best=None, applies=None, objective_p99_ms=5.0)
    done = resight("tune", "blobs@1", "--from", folder, "--apply", "--format", "csv")
    assert done.code == 5
    assert "nearest is batch 1" in done.err
    assert "config-jpeg_shrink-2.json" in done.err, "what may help"
    assert done.out.startswith("batch,wait_ms,threads")
    assert not (models / "blobs" / "deployment.json").exists()


def test_a_real_sweep(resight: Resight, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts one kind of processes; tests/serve/tune/test_bench.py starts several."""
    pool(tmp_path, monkeypatch, threads=1, workers=1)
    version = motion_store(home / "models", "1").describe(version_id("blobs", "1"))
    config = home / "models" / "blobs" / "1" / "config.json"
    before = config.read_bytes()
    words = ("--objective-p99", 60_000, "--seconds", 0.5, "--photos", PHOTOS, *FEW, "--format", "json")
    done = resight("tune", "blobs@1", *words, "--out", tmp_path / "out")
    found = json.loads(done.out)
    assert done.code == (0 if found["best"] else 5)
    assert "about" in done.err
    assert (found["model"], found["inference_key"]) == ("blobs@1", version.info.inference_key)
    assert set(found) == {*TuningResult.model_fields, "verdict"}
    assert {(row["batch"], row["workers"]) for row in found["points"]} >= {(1, 1), (2, 1)}
    plain = [row for row in found["points"] if not row["what"].startswith("failed")]
    answered = [row for row in plain if row["p99_ms"] is not None]  # on a busy machine, others may lack answers
    assert all(row["images_per_s"] > 0 for row in plain)
    assert all(row["p99_ms"] >= row["p50_ms"] > 0 for row in answered)
    assert [row["meets"] for row in plain] == [row in answered for row in plain]
    assert any(row["jpeg_shrink"] > 1 for row in found["points"]), "measured, never applied"
    assert "<svg" in (tmp_path / "out" / "index.html").read_text()
    assert config.read_bytes() == before
    assert not (home / "models" / "blobs" / "deployment.json").exists()
