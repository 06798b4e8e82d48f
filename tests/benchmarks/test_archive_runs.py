"""archive_runs: a peer of a few lines in a temporary folder, run by this python, measured from outside."""

import sys
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

from benchmarks.peers.archive_runs import read_archive_peer, run_peer
from benchmarks.peers.commands import PeerFailed
from benchmarks.peers.peer import Config
from tests.lock import locked

PEERS = Path(__file__).resolve().parents[2] / "benchmarks" / "peers" / "archive"
TOML = """
name = "fake"
version = "1"
documentation = "https://example.org"
command = ["python", "run.py"]
[[configs]]
name = "one"
env = { COPIES = "1", WORKERS = "$PEER_CORES" }
"""
RUN = """
import os, sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
assert (os.environ["PEER_MODEL"], os.environ["WORKERS"]) == ("a model", "3"), dict(os.environ)
assert os.getsid(0) == os.getpid()
assert Path("run.py").exists() and os.environ["PYTHONPATH"].endswith("peers")
paths = Path(sys.argv[1]).read_text().splitlines()
for i, path in enumerate(paths * int(os.environ["COPIES"])):
    error = "not there" if path.endswith("bad.jpg") else None
    rows = pa.table({"path": [path], "error": pa.array([error], pa.string())})
    pq.write_table(rows, Path(sys.argv[2]) / f"{i}.parquet")
"""
FILES = [Path("/a/one.jpg"), Path("/a/bad.jpg"), Path("/a/two words.jpg")]
MODEL = Path("a model")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    peer = tmp_path / "fake"
    peer.mkdir()
    (peer / "peer.toml").write_text(TOML)
    (peer / "run.py").write_text(RUN)
    return peer


def run(folder: Path, config: Config | None = None, **more):
    python = Path(sys.executable)
    return run_peer(folder, config, FILES, model=MODEL, cores=3, python=python, **more)


def test_a_run_is_measured_and_its_rows_are_kept(folder: Path, tmp_path: Path):
    found = run(folder, out=tmp_path / "rows")
    assert (found.peer, found.config, found.images, found.rows, found.errors) == (*("fake", "one"), *(3, 3, 1))
    assert 0 < found.first_row_s <= found.seconds
    assert found.images_per_s == pytest.approx(3 / found.seconds)
    assert found.steady_images_per_s is None
    assert found.cpu_s_per_1000 > 0
    assert found.peak_pss_mib > 0
    paths = [str(one) for one in pq.read_table(tmp_path / "rows")["path"].to_pylist()]
    assert sorted(paths) == sorted(map(str, FILES))


def test_rows_that_are_not_one_a_file_fail_the_run(folder: Path):
    twice = Config(name="two", env={"COPIES": "2", "WORKERS": "3"})
    with pytest.raises(PeerFailed, match=r"fake \(two\) ended with 0 .* 6 rows of 3 files"):
        run(folder, twice)


def test_a_failure_says_what_the_peer_said_last(folder: Path):
    (folder / "run.py").write_text("import sys; print('no such model'); sys.exit(3)")
    with pytest.raises(PeerFailed, match=r"(?s)ended with 3 .*no such model"):
        run(folder)


def test_a_peer_that_takes_too_long_ends_with_all_it_started(folder: Path, tmp_path: Path):
    note = tmp_path / "pid"
    code = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open({str(note)!r}, "w").write(str(child.pid))
time.sleep(600)
"""
    (folder / "run.py").write_text(code)
    with pytest.raises(PeerFailed, match="was stopped"):
        run(folder, longest_s=1.5)
    child = int(note.read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("folder", sorted(PEERS.glob("*/peer.toml")), ids=lambda f: f.parent.name)
def test_the_shipped_peers_say_all_that_is_needed(folder: Path):
    peer = read_archive_peer(folder.parent)
    pins = (folder.parent / "requirements.txt").read_text().splitlines()
    assert all(pin.count("==") == 1 for pin in pins), "exact pins only"
    assert (folder.parent / peer.command[-1]).exists()
    assert len({config.name for config in peer.configs}) == len(peer.configs)
    code = (folder.parent / "run.py").read_text()
    read = [name for config in peer.configs for name in config.env if not name.startswith("TF_")]
    assert all(f'"{name}"' in code for name in read), "a setting that run.py does not read"
    assert any(pin.endswith(f"=={peer.version}") for pin in pins) or peer.folder.name in ("control", "multiprocessing")


def test_pins_are_those_of_the_project_where_it_has_them():
    ours = locked()
    differ = {
        (file.parent.name, name): pin
        for file in PEERS.glob("*/requirements.txt")
        for name, pin in (line.split("==") for line in file.read_text().split())
        if (versions := ours.get(canonicalize_name(name.split("[")[0]))) and Version(pin) not in versions
    }
    assert differ == {}
