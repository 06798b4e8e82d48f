"""No other user can put a module, a socket or a setting where the processes of a cluster look for them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.cluster.hosts import Cluster

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parent.parent.parent
NOBODY = 65534
LOOK = """
import json, sys, time
import ray, ray.util
from ray.job_submission import JobSubmissionClient

PATHS = "import json, os, sys; print('PATHS', json.dumps([os.getcwd(), *sys.path]))"
ray.init(log_to_driver=False)
found = {}
for one in ray.util.list_named_actors(all_namespaces=True):
    actor = ray.get_actor(one["name"], namespace=one["namespace"])
    found[one["name"]] = ray.get(
        actor.__ray_call__.remote(
            lambda self: [__import__("os").getcwd(), *__import__("sys").path]
        )
    )
jobs = JobSubmissionClient()
job = jobs.submit_job(entrypoint=f'python -c "{PATHS}"', runtime_env={"working_dir": sys.argv[1]})
while not jobs.get_job_status(job).is_terminal():
    time.sleep(0.1)
(line,) = [one for one in jobs.get_job_logs(job).splitlines() if one.startswith("PATHS")]
found["job"] = json.loads(line.partition(" ")[2])
print(json.dumps(found))
"""


def test_no_module_path_of_a_process_is_open_to_another_user(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "working_dir").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(tmp_path / "working_dir")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for kind in ("SERVE_CONTROLLER", "SERVE_REPLICA", "SERVE_PROXY", "rollout", "job"):
        assert any(kind in name for name in found), kind
    opened = {(n, path) for n, paths in found.items() for path in paths if is_open(Path(path))}
    assert not opened


def test_no_process_starts_in_a_folder_that_is_open_to_another_user(cluster: Cluster) -> None:
    places: set[str] = set()
    for process in psutil.Process(cluster.state.pid).children(recursive=True):
        try:
            places.add(process.cwd())
            places.update(process.environ().get("PYTHONPATH", "").split(os.pathsep))
        except psutil.NoSuchProcess:
            continue
    assert len(places) > 1
    assert [place for place in places if place and is_open(Path(place))] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user")
def test_another_user_reaches_neither_the_start_folder_nor_a_socket(cluster: Cluster) -> None:
    folder = Path(cluster.state.temp_dir)
    sockets = [path for path in folder.rglob("*") if path.is_socket()]
    assert any(path.name == "a.sock" for path in sockets)
    assert any(path.name == "raylet" for path in sockets)
    for command, path in [('touch "$0/duckdb.py"', folder / "cwd")] + [('ls "$0"', path) for path in sockets]:
        done = subprocess.run(
            ["/bin/sh", "-c", command, str(path)],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Permission denied" in done.stderr, path


def is_open(path: Path) -> bool:
    """Return whether another user could write to it or to a folder above it, or could create it."""
    mode = 0
    for place in (*reversed(path.parents), path):
        if not place.exists():
            break
        mode = place.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return True
        if not mode & stat.S_IXOTH:
            return False  # nobody else gets further down
    return bool(mode & stat.S_IWOTH)
