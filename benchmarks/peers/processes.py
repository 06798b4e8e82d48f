"""A peer as it is started for a measurement, and ended with all that it started.

with started(folder, config, model=…, cores=2, jpeg=…) as running: running.url, running.pid, running.first_answer_s

The command runs in a session of its own, in a copy of the peer's folder, with PEER_PORT, PEER_MODEL (folder of a
version), PEER_CORES, PYTHONPATH (so that `from detector import Detector` works) and the config's own variables;
`$PEER_CORES` and the like are filled in, in these and in the command. Its output goes to a log file. It is ready when
a real request is answered with 200; where it has several workers, others may still be loading then.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.commands import MARK, PeerFailed, complete, end, tail, variables
from benchmarks.peers.environments import environment
from benchmarks.peers.peer import Config, Peer, Request, read_peer


@dataclass(frozen=True)
class Running:
    """`first_answer_s`: from the start of the process to the end of the first answered request."""

    peer: Peer
    config: Config
    url: str
    pid: int
    first_answer_s: float
    log: Path

    def request(self, jpeg: bytes) -> Request:
        """Path, headers and body of a POST."""
        return self.peer.request(jpeg, self.config)

    def ask(self, jpeg: bytes, timeout_s: float = 60.0) -> tuple[int, bytes]:
        """Status and body of one request. Raises OSError."""
        return _ask(self.url, self.request(jpeg), timeout_s)

    def detections(self, answer: bytes) -> list[dict[str, Any]]:
        """Of the body of an answer."""
        return self.peer.detections(answer, self.config)


@contextlib.contextmanager
def started(
    folder: Path,
    config: Config | None = None,
    *,
    model: Path,
    cores: int,
    jpeg: bytes,
    timeout_s: float = 180.0,
    python: Path | None = None,
) -> Iterator[Running]:
    """`config` left out: the peer's first. `python` left out: of the peer's own environment, made if need be.

    Raises PeerFailed.
    """
    peer = read_peer(folder)
    config = config or peer.configs[0]
    python = python or environment(folder)
    port = _free_port()
    mark = uuid.uuid4().hex
    words = {"PEER_PORT": str(port), "PEER_MODEL": str(model), "PEER_CORES": str(cores), MARK: mark}
    with tempfile.TemporaryDirectory(prefix="rsp-", ignore_cleanup_errors=True) as scratch:
        log = Path(scratch) / "peer.log"
        work = Path(shutil.copytree(folder, Path(scratch) / "work"))
        env = variables(python, words | {"TMPDIR": scratch}, config.env)
        command = complete(peer.command, env)
        with log.open("wb") as output:
            began_s = time.perf_counter()
            process = subprocess.Popen(
                command,
                cwd=work,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            _until_answered(process, url, peer.request(jpeg, config), log, began_s + timeout_s)
            yield Running(peer, config, url, process.pid, time.perf_counter() - began_s, log)
        finally:
            end(process, mark)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _until_answered(process: subprocess.Popen[bytes], url: str, request: Request, log: Path, until_s: float) -> None:
    last = "nothing"
    while (left_s := until_s - time.perf_counter()) > 0:
        if (ended := process.poll()) is not None:
            raise PeerFailed(f"ended with {ended} before it answered:\n{tail(log)}")
        try:
            status, answer = _ask(url, request, left_s)
            if status == 200:
                return
            last = f"{status} {answer[:300]!r}"
        except (OSError, http.client.HTTPException) as error:
            last = repr(error)
        time.sleep(0.05)
    raise PeerFailed(f"did not answer with 200 in time, but {last}:\n{tail(log)}")


def _ask(url: str, request: Request, timeout_s: float) -> tuple[int, bytes]:
    path, headers, body = request
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=timeout_s)
    with contextlib.closing(connection):
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
