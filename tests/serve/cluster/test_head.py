"""Which processes are those of a cluster, with and without their parent."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from model_store.errors import StorageFull
from model_store.storage import Folder
from serve.cluster import head as cluster
from serve.rollout.proofs import ProofRecord
from serve.settings import Settings

SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RESIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cluster, "private_path", lambda: tmp_path)
    return Settings()


def test_only_rays_own_processes_are_taken_for_orphans_and_ended(settings: Settings, tmp_path: Path) -> None:
    temp_dir = str(cluster.folder_of(settings))
    program = tmp_path / "ray_haproxy.py"
    program.write_text(SLEEP)
    ours = subprocess.Popen([sys.executable, str(program), "-f", f"{temp_dir}/haproxy.cfg"])
    pager = subprocess.Popen([sys.executable, "-c", SLEEP, f"{temp_dir}/logs/raylet.out"])
    other = subprocess.Popen([sys.executable, str(program), "-f", "/elsewhere/haproxy.cfg"])
    try:
        found = cluster._orphans(settings)
        assert [process.pid for process in found] == [ours.pid]
        record = ProofRecord(version="deer@1", loading=("a replica of this cluster",))
        proofs = Folder(str(settings.home_path / "proofs"))
        proofs.write("deer.json", record.model_dump_json().encode())
        assert cluster.stop(settings)
        assert ProofRecord.model_validate_json(proofs.read("deer.json")).loading == ()
        assert not psutil.pid_exists(ours.pid)
        assert psutil.Process(pager.pid).is_running()
        assert psutil.Process(other.pid).is_running()
        assert not cluster.stop(settings)
    finally:
        for process in (ours, pager, other):
            process.kill()
            process.wait()


def test_a_cluster_is_known_by_its_command_whatever_the_clock_is_set_to(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of creation of a process moves with the system's clock."""
    created = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: created(self) + 3600)
    temp_dir = str(cluster.folder_of(settings))
    program = tmp_path / "ray_start.py"
    program.write_text(SLEEP)
    head, other = (
        subprocess.Popen([sys.executable, str(program), f"--temp-dir={folder}"])
        for folder in (f"{temp_dir}/ray", "/elsewhere/ray")
    )
    settings.home_path.mkdir()
    try:
        for process, known in ((head, True), (other, False)):
            state = cluster.ClusterState(process.pid, "127.0.0.1", 1, "g", "d", temp_dir)
            (settings.home_path / "cluster.json").write_text(json.dumps(asdict(state)))
            assert cluster.read_state(settings) == (state if known else None)
        head.kill()
        assert cluster.read_state(settings) is None
    finally:
        for process in (head, other):
            process.kill()
            process.wait()


def test_processes_that_start_at_once_share_one_token(settings: Settings) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: cluster.token_path(settings), range(8)))
    (path,) = paths
    assert path.stat().st_mode & 0o777 == 0o600
    token = path.read_text()
    assert len(token) == 64
    assert cluster.token_path(settings).read_text() == token


def test_a_token_that_was_never_written_is_written(settings: Settings) -> None:
    """A process was killed between the creation of the file and its token, or the disk was full."""
    settings.home_path.mkdir(parents=True)
    settings.ray_token_path.touch(mode=0o600)
    path = cluster.token_path(settings)
    assert len(path.read_text()) == 64
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_full_disk_leaves_no_token(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(StorageFull, match=r"ray_token: .*free some space"):
            cluster.token_path(settings)
    assert not settings.ray_token_path.exists()


def test_a_full_disk_of_logs_is_an_error_before_ray_starts(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: Full())
    with pytest.raises(StorageFull, match="No space left on device; free some space there"):
        cluster._make_home(settings)
