"""A process of `resight serve`, started as a user would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx2

from serve.cluster.ports import preferred_or_free

ROOT = Path(__file__).resolve().parent.parent.parent
START_S = 300


class OwnServer:
    """A context manager. The server answers from its beginning, and again after each `start`.

    `log` gets the output; `environment` has variables in addition to those of the tests.
    """

    def __init__(self, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.port = preferred_or_free(0)
        self.url = f"http://127.0.0.1:{self.port}"
        self._log, self._environment = log, environment or {}

    def __enter__(self) -> OwnServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)

    def start(self) -> None:
        words = [sys.executable, "-m", "resight", "serve", "--port", str(self.port)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                words, cwd=ROOT, env={**os.environ, **self._environment}, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.1)

    def end(self, with_: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(with_)
        return self.process.wait(60)

    def _answers(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx2.HTTPError:
            return False
