"""Starting and ending a peer: one of the standard library, in place of a framework."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.peers.commands import PeerFailed
from benchmarks.peers.peer import read_peer
from benchmarks.peers.processes import Running, started

APP = """
import http.server, json, os, subprocess, sys

print("begins", flush=True)
if os.environ.get("ENDS"):
    sys.exit("no such thing as " + os.environ["ENDS"])
elsewhere = subprocess.Popen(["sleep", "600"], start_new_session=True)  # as daemons do
busy = int(os.environ.get("BUSY", "0"))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        global busy
        body = self.rfile.read(int(self.headers["content-length"]))
        busy -= 1
        self.send_response(503 if busy >= 0 else 200)
        self.end_headers()
        found = {
            "path": self.path, "type": self.headers["content-type"], "body": body.decode(),
            "cwd": os.getcwd(), "here": os.listdir(), "pids": [os.getpid(), elsewhere.pid],
            "environment": dict(os.environ), "words": sys.argv[1:],
        }
        self.wfile.write(json.dumps({"detections": [found]}).encode())


http.server.HTTPServer(("127.0.0.1", int(os.environ["PEER_PORT"])), Handler).serve_forever()
"""
TOML = """
name = "fake"
version = "1"
documentation = "https://example.org/"
path = "/detect"
command = ["python", "app.py", "$PEER_PORT", "$TWICE"]

[[configs]]
name = "plain"
env = {{ TWICE = "$PEER_CORES$PEER_CORES", {more} }}

[[configs]]
name = "another path"
path = "/raw"
env = {{ TWICE = "" }}
"""


def folder_of(place: Path, more: str = 'BUSY = "0"') -> Path:
    folder = place / "fake"
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    (folder / "peer.toml").write_text(TOML.format(more=more))
    return folder


@contextlib.contextmanager
def running(folder: Path, which: int = 0, timeout_s: float = 60.0) -> Iterator[Running]:
    config = read_peer(folder).configs[which]
    with started(
        folder,
        config,
        model=Path("/models/x/1"),
        cores=3,
        jpeg=b"a picture",
        timeout_s=timeout_s,
        python=Path(sys.executable),
    ) as peer:
        yield peer


def said(peer: Running) -> dict[str, Any]:
    status, answer = peer.ask(b"a picture")
    assert status == 200
    (found,) = peer.detections(answer)
    return found


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_it_gets_what_a_peer_is_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:1")
    folder = folder_of(tmp_path)
    with running(folder) as peer:
        found = said(peer)
        assert found["path"] == "/detect"
        assert found["type"] == "image/jpeg"
        assert found["body"] == "a picture"
        assert found["words"] == [peer.url.rpartition(":")[2], "33"]
        own = found["environment"]
        assert own["PEER_MODEL"] == "/models/x/1"
        assert own["PEER_CORES"] == "3"
        assert (Path(own["PYTHONPATH"]) / "detector.py").exists()
        assert "RAY_ADDRESS" not in own
        assert Path(found["cwd"]) != folder
        assert sorted(found["here"]) == ["app.py", "peer.toml"]
        assert found["pids"][0] == peer.pid
        assert peer.first_answer_s > 0
    assert not Path(found["cwd"]).exists()


def test_it_is_ready_only_when_it_says_200(tmp_path: Path):
    with running(folder_of(tmp_path, 'BUSY = "3"')) as peer:
        assert peer.ask(b"a picture")[0] == 200


def test_all_that_it_started_is_ended(tmp_path: Path):
    with running(folder_of(tmp_path)) as peer:
        pids = said(peer)["pids"]
        assert all(alive(pid) for pid in pids)
    assert not any(alive(pid) for pid in pids)


def test_one_that_ends_is_reported_with_its_log(tmp_path: Path):
    folder = folder_of(tmp_path, 'ENDS = "a model"')
    with pytest.raises(PeerFailed, match=r"(?s)ended with 1 .*begins.*no such thing as a model"), running(folder):
        pass
