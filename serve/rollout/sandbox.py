"""Prove a version before any replica loads it: verify, load, probe and warm it up in a throw-away process.

A model that crashes, hangs or exhausts memory harms nothing else.

Sandbox.prove(url, version) --a socket--> `fork_server.py` --fork--> prove -> Proof, or a ResightError
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from model_store import errors
from model_store.errors import SOON_S, ModelNotReady, ModelRefused, ResightError
from model_store.load import load_model, warm_up
from model_store.names import VersionId
from model_store.store import ModelStore

ROOT = Path(__file__).resolve().parents[2]
MAX_RUNNING = 3
"""Maximum concurrent proofs: a version that hangs does not delay the others."""
END_S = 5.0
"""Time that the fork server has to end by itself; then its process group is killed."""
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Environment that keeps libraries from starting threads before the fork."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Memory and time that a version took to load, and the digest of its files (`ModelVersion.digest`)."""

    rss_bytes: int
    seconds: float
    digest: str = ""


def prove(url: str, version: VersionId, threads: int, digest: str = "") -> Proof:
    """Load and warm up a version, from files of this digest if one is given. Raises ModelError, and any other error."""
    started = time.perf_counter()
    process = psutil.Process()
    before = process.memory_info().rss
    model = load_model(ModelStore(url), version, threads, digest)
    warm_up(model)
    after = process.memory_info().rss
    return Proof(max(0, after - before), time.perf_counter() - started, digest)


class Sandbox:
    """Proofs in children of one fork server, which is started for the first one, and again if it has ended."""

    command = (sys.executable, "-m", "serve.rollout.fork_server")

    def __init__(self) -> None:
        self._running = threading.BoundedSemaphore(MAX_RUNNING)
        self._lock, self._stopped = threading.Lock(), False  # of all that follows
        self._fork_server: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self._open: set[socket.socket] = set()

    def prove(self, url: str, version: VersionId, threads: int, limit_s: float, digest: str = "") -> Proof:
        """Prove a version; `limit_s` counts from the start of the proof.

        Raises the ResightError of `prove`; ModelRefused if the process ended or raised any other error; ModelNotReady
        after `limit_s`, and after `stop`.
        """
        request = {"url": url, "version": str(version), "threads": threads, "digest": digest}
        try:
            with self._running:
                answer = self._ask(json.dumps(request).encode() + b"\n", limit_s)
        except TimeoutError:
            raise ModelNotReady(f"{version} did not load and probe within {limit_s:g} s") from None
        if "proof" in answer:
            return Proof(**answer["proof"])
        if self._stopped:
            raise ModelNotReady(f"{version} was not proved: the server ends", SOON_S)
        if "ended" in answer:
            raise ModelRefused(f"{version} ended the process that loaded it: {answer['ended']}")
        name, message = answer["error"], answer["message"]
        kind: Any = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, ResightError):
            raise kind(message, answer.get("retry_after_s"))
        raise ModelRefused(f"{version} cannot be loaded: {name}: {message}"[:1000])

    def stop(self) -> None:
        """End the fork server and the proofs that run; later ones fail at once."""
        with self._lock:
            self._stopped = True
            for ours in self._open:
                with contextlib.suppress(OSError):  # its proof has just ended
                    ours.shutdown(socket.SHUT_RDWR)
            if self._requests is not None:
                self._requests.close()
        if (fork_server := self._fork_server) is not None:
            try:
                fork_server.wait(END_S)
            except subprocess.TimeoutExpired:  # it is stopped, or waits for a disk that does not answer
                os.killpg(fork_server.pid, signal.SIGKILL)
                fork_server.wait()

    def _ask(self, request: bytes, limit_s: float) -> dict[str, Any]:
        """Return the answer to a request. The process ends if the socket is closed before. Raises TimeoutError."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._hand_over(ours, theirs)
            try:
                ours.settimeout(limit_s)
                with ours.makefile("rwb") as stream:
                    with contextlib.suppress(OSError):  # it was not taken: its end is read below
                        stream.write(request)
                        stream.flush()
                    return dict(json.loads(stream.read() or b'{"ended": "the process that forks it has ended"}'))
            except ConnectionError:
                return {"ended": "its socket was closed"}
            finally:
                with self._lock:
                    self._open.discard(ours)

    def _hand_over(self, ours: socket.socket, theirs: socket.socket) -> None:
        """Send the fork server one end of a proof's socket. Does nothing after `stop`."""
        with self._lock:
            if self._stopped:
                return
            if self._fork_server is None or self._fork_server.poll() is not None:
                if self._requests is not None:
                    self._requests.close()
                self._requests, requests = socket.socketpair()
                with requests:
                    self._fork_server = subprocess.Popen(
                        self.command,
                        stdin=requests.fileno(),
                        stdout=sys.__stderr__.fileno() if sys.__stderr__ else subprocess.DEVNULL,
                        cwd=ROOT,
                        env=os.environ | ONE_THREAD,
                        process_group=0,  # Ctrl-C is for its parent; the session, and so the CPU share, stays the same
                    )
            assert self._requests is not None
            with contextlib.suppress(OSError):  # it has just ended, so `theirs` is closed without an answer
                socket.send_fds(self._requests, [b"."], [theirs.fileno()])
            self._open.add(ours)
