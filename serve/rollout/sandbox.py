"""Prove versions in throw-away processes, so that a model that crashes, hangs or exhausts memory harms nothing else.

Sandbox.prove(url, version) --a line--> `fork_server.py` --fork--> prove -> Proof, or a ResightError
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from model_store import errors
from model_store.errors import SOON_S, ModelNotReady, ModelRefused, ResightError
from model_store.names import VersionId
from serve.rollout.proof import Proof

ROOT = Path(__file__).resolve().parents[2]
LANES, OVERTAKE_S = 3, 2.0
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Environment that keeps libraries from starting threads before the fork."""


class Sandbox:
    """Runs one proof at a time; the fork server is started for the first one, and again if it has ended."""

    command = (sys.executable, "-m", "serve.rollout.fork_server")

    def __init__(self) -> None:
        self._fork_server: subprocess.Popen[bytes] | None = None
        self._starting, self._stopped = threading.Lock(), False
        self.turn = threading.RLock()

    def prove(self, url: str, version: VersionId, threads: int, limit_s: float, digest: str = "") -> Proof:
        """Prove a version.

        Raises the ResightError of `prove`; ModelRefused if the process ended or raised any other error; ModelNotReady
        after `limit_s`, and after `stop`.
        """
        request = {"url": url, "version": str(version), "threads": threads, "digest": digest}
        with self.turn:
            try:
                answer = self._send(json.dumps(request).encode() + b"\n", limit_s)
            except TimeoutError:
                self._close()
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
            raise kind(message)
        raise ModelRefused(f"{version} cannot be loaded: {name}: {message}"[:1000])

    def stop(self) -> None:
        """End the process, also during a proof; later proofs fail at once."""
        with self._starting:
            self._stopped = True
            self._kill()
        with self.turn:  # free as soon as the proof has noticed
            self._close()

    def _send(self, line: bytes, limit_s: float) -> dict[str, Any]:
        """Send a request to the fork server; return its answer. Raises TimeoutError."""
        server = self._running()
        if server is None:
            return {"ended": "the server ends"}
        assert server.stdin is not None
        assert server.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and so has its output
            server.stdin.write(line)
            server.stdin.flush()
        deadline, answer = time.monotonic() + limit_s, b""
        while not answer.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([server.stdout], [], [], left_s)[0]:
                raise TimeoutError
            part = os.read(server.stdout.fileno(), 65536)
            if not part:
                self._close()
                return {"ended": "the fork server has ended"}
            answer += part
        return dict(json.loads(answer))

    def _running(self) -> subprocess.Popen[bytes] | None:
        """Return the fork server, started unless it runs; None after `stop`."""
        with self._starting:
            if self._stopped:
                return None
            if self._fork_server is None or self._fork_server.poll() is not None:
                self._fork_server = subprocess.Popen(
                    self.command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    cwd=ROOT,
                    env=os.environ | ONE_THREAD,
                    process_group=0,  # ends with its children; the session, and so the CPU share, stays the same
                )
            return self._fork_server

    def _kill(self) -> None:
        if server := self._fork_server:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)

    def _close(self) -> None:
        """End the fork server and wait for it; needs `turn`."""
        self._kill()
        server, self._fork_server = self._fork_server, None
        if server is not None:
            with contextlib.suppress(BrokenPipeError), server:
                pass  # closes the pipes and waits


class SandboxPool:
    """LANES proving grounds; a proof that waits longer than OVERTAKE_S for one tries the next."""

    def __init__(self) -> None:
        self._sandboxes = [Sandbox() for _ in range(LANES)]

    def prove(self, url: str, version: VersionId, threads: int, limit_s: float, digest: str = "") -> Proof:
        """Prove as `Sandbox.prove` does; `limit_s` counts from the start of the proof."""
        for sandbox in itertools.cycle(self._sandboxes):
            if sandbox.turn.acquire(timeout=OVERTAKE_S):
                try:
                    return sandbox.prove(url, version, threads, limit_s, digest)
                finally:
                    sandbox.turn.release()
        raise AssertionError("unreachable")

    def stop(self) -> None:
        for sandbox in self._sandboxes:
            sandbox.stop()
