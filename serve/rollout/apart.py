"""Proofs in throw-away processes: a model that crashes, hangs or eats its process hurts nobody.

ProvingGround.prove(url, version) --a line--> `zygote.py` --fork--> prove -> Proof, or the reason in one of our errors
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
from model_store.errors import ModelNotReady, ModelRefused, ResightError
from model_store.names import VersionId
from serve.rollout.prove import Proof

ROOT = Path(__file__).resolve().parents[2]
LANES, OVERTAKE_S = 3, 2.0
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Libraries start no threads before the fork."""


class ProvingGround:
    """One proof at a time; the zygote is started with the first, and again when it is gone."""

    def __init__(self) -> None:
        self._zygote: subprocess.Popen[bytes] | None = None
        self.turn = threading.RLock()

    def prove(
        self, url: str, version: VersionId, threads: int, limit_s: float, digest: str = ""
    ) -> Proof:
        """Raises what proving raised if it is one of ours; ModelRefused with how the process ended, or with
        whatever else went wrong in it; ModelNotReady after `limit_s`.
        """
        asked = {"url": url, "version": str(version), "threads": threads, "digest": digest}
        with self.turn:
            try:
                found = self._ask(json.dumps(asked).encode() + b"\n", limit_s)
            except TimeoutError:
                self._kill()
                raise ModelNotReady(
                    f"{version} did not load and probe within {limit_s:g} s"
                ) from None
        if "proof" in found:
            return Proof(**found["proof"])
        if "ended" in found:
            raise ModelRefused(f"{version} ended the process that loaded it: {found['ended']}")
        kind: Any = getattr(errors, found["error"], None)
        if isinstance(kind, type) and issubclass(kind, ResightError):
            raise kind(found["says"])
        raise ModelRefused(f"{version} cannot be loaded: {found['error']}: {found['says']}"[:1000])

    def stop(self) -> None:
        with self.turn:
            self._kill()

    def _ask(self, line: bytes, limit_s: float) -> dict[str, Any]:
        """Raises TimeoutError."""
        zygote = self._running()
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        zygote.stdin.write(line)
        zygote.stdin.flush()
        deadline, said = time.monotonic() + limit_s, b""
        while not said.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([zygote.stdout], [], [], left_s)[0]:
                raise TimeoutError
            part = os.read(zygote.stdout.fileno(), 65536)
            if not part:
                self._kill()
                return {"ended": "the process that starts it is gone"}
            said += part
        return dict(json.loads(said))

    def _running(self) -> subprocess.Popen[bytes]:
        if self._zygote is None or self._zygote.poll() is not None:
            self._zygote = subprocess.Popen(
                [sys.executable, "-m", "serve.rollout.zygote"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
                env=os.environ | ONE_THREAD,
                process_group=0,  # it ends with its children; its session, and so its share, stays ours
            )
        return self._zygote

    def _kill(self) -> None:
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(zygote.pid, signal.SIGKILL)
            zygote.wait()


class ProvingGrounds:
    """LANES proving grounds: a proof that waits longer than OVERTAKE_S for one tries the next."""

    def __init__(self) -> None:
        self._grounds = [ProvingGround() for _ in range(LANES)]

    def prove(
        self, url: str, version: VersionId, threads: int, limit_s: float, digest: str = ""
    ) -> Proof:
        """Prove as `ProvingGround.prove` does; `limit_s` counts from the start of the proof."""
        for ground in itertools.cycle(self._grounds):
            if ground.turn.acquire(timeout=OVERTAKE_S):
                try:
                    return ground.prove(url, version, threads, limit_s, digest)
                finally:
                    ground.turn.release()
        raise AssertionError("unreachable")

    def stop(self) -> None:
        for ground in self._grounds:
            ground.stop()
