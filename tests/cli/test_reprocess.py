"""`resight reprocess` where no cluster runs: refusals and the dry run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Resight
from tests.fixtures_local import MODELS, PHOTOS, jpeg, write_files


def test_a_run_that_cannot_start_says_why(resight: Resight, home: Path) -> None:
    shutil.copytree(MODELS, home / "models")
    for words, code, message in (
        (["--model", "motion"], 2, "run 'resight ingest URL' first"),
        (["--model", "motion", "--publish"], 2, "--publish needs --if-needed"),
        (["--if-needed", "--dry-run"], 2, "--if-needed excludes --dry-run; use: resight plan"),
        (["--if-needed", "--sample", "3"], 2, "leave out --sample 3"),
        (["--if-needed", "--publish", "--no-follow"], 2, "leave out --no-follow"),
        (["--model", "motion", "--since", "noon"], 2, "--since: invalid time 'noon': use 2026-"),
        (["--model", "deer", "--dry-run"], 6, "available: motion, ssdlite-coco"),
    ):
        assert message in resight("reprocess", *words).refused(code)


def test_the_cluster_of_an_address_must_answer(resight: Resight, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run does not use this machine in its place."""
    shutil.copytree(MODELS, home / "models")
    resight("ingest", str(PHOTOS)).ok()
    monkeypatch.setenv("RESIGHT_ADDRESS", "http://127.0.0.1:9")
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RESIGHT_MODELS", "RESIGHT_TABLES"):
        monkeypatch.setenv(name, "")  # restored after the test, since `join` sets them
        monkeypatch.delenv(name)
    refused = resight("reprocess", "--model", "motion").refused(8)
    assert "http://127.0.0.1:9 does not answer: [Errno 111] Connection refused" in refused
    assert "token" not in refused


def test_a_dry_run_needs_no_cluster_and_writes_nothing(resight: Resight, home: Path, tmp_path: Path) -> None:
    shutil.copytree(MODELS, home / "models")
    archive = write_files(tmp_path / "a", {f"n/{i}.jpg": jpeg(shade=40 * i) for i in range(3)})
    resight("ingest", archive).ok()
    words = ("reprocess", "--model", "motion", "--camera", "n", "--dry-run")
    report = json.loads(resight(*words, "--format", "json").ok())
    assert (report["model"], report["to_infer"], report["reused"]) == ("motion@1", 3, 0)
    assert not (home / "tables" / "results").exists()
    assert not (home / "tables" / "runs").exists()
    assert "to_infer" in resight(*words).ok()
