"""A module of somebody else that has the name of one of our packages."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import resight
from batch.jobs.cluster_jobs import ClusterJobs
from batch.jobs.own_jobs import OwnJobs
from batch.pipeline import stage_start
from model_store.errors import StorageUnreachable
from serve.settings import Settings

ROOT = Path(resight.__file__).parent


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("module", ["batch.reprocess", "batch.classify", "batch.filters", "resight"])
def test_a_module_in_the_current_folder_is_named(tmp_path: Path, module: str) -> None:
    (tmp_path / "serve.py").write_text("raise SystemExit('this is not Resight')\n")
    done = run(tmp_path, "-m", module, "--help")
    assert done.returncode == 1
    assert f"the package 'serve' of Resight is hidden by {tmp_path}/serve.py" in done.stderr


def test_a_package_without_init_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "serve").mkdir()
    assert run(tmp_path, "-m", "resight", "--help").returncode == 0


def test_without_the_current_folder_on_the_path_it_starts(tmp_path: Path) -> None:
    (tmp_path / "serve.py").write_text("raise SystemExit('this is not Resight')\n")
    done = run(tmp_path, "-P", "-m", "batch.reprocess", "--help")
    assert done.returncode == 0, done.stderr


def test_no_process_of_a_run_has_the_current_folder_on_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def fail(words: list[str], **_: object) -> None:
        commands.append(words)
        raise OSError("started by no test")

    def submit_job(entrypoint: str, **_: object) -> str:
        commands.append(shlex.split(entrypoint))
        return "job"

    client = SimpleNamespace(list_jobs=list, submit_job=submit_job)
    monkeypatch.setattr("batch.jobs.cluster_jobs._client", lambda: client)
    settings = Settings(home=str(tmp_path), models="s3://b/models", tables="s3://b/tables")
    words = ("batch.reprocess", "r", ["--run-id", "r"], False)
    ClusterJobs(settings).submit(*words)
    monkeypatch.setattr(subprocess, "Popen", fail)
    with pytest.raises(StorageUnreachable):
        OwnJobs(settings, "here").submit(*words)
    with pytest.raises(OSError, match="by no test"):
        stage_start._started()
    assert [command[1:3] for command in commands] == [["-P", "-m"]] * 3


def test_our_own_packages_pass() -> None:
    resight.require_own_packages()
