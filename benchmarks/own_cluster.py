"""Start a cluster, or a server without one, for one benchmark: temporary home, free ports, a copy of examples/models.

with cluster() as c: c.url, c.resight("models", "list"), c.control("promote", version="2"), c.replicas()
with server() as c: the same of `resight serve`, without Ray

It uses RESIGHT_APP, is always stopped, also at SIGTERM, and all files that it wrote are removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
from harness import MODEL, PHOTO, ROOT

from benchmarks.subject import SHIPPED, Subject
from serve.cluster.head import read_state
from serve.cluster.ports import preferred_or_free
from serve.settings import Settings

START_S = 60.0


@dataclass(frozen=True)
class Cluster:
    """A running cluster; `home` is removed with it."""

    home: Path
    url: str
    head_pid: int
    environment: dict[str, str]

    @property
    def models(self) -> Path:
        return self.home / "models"

    def resight(self, *words: str, **environment: str) -> str:
        """Run a command and return its standard output. Raises CalledProcessError."""
        return resight(self.environment | environment, *words)

    def started(self, *words: str) -> subprocess.Popen[str]:
        """Start a command with a pipe for its standard output."""
        return started(self.environment, *words)

    def replicas(self) -> list[psutil.Process]:
        below = psutil.Process(self.head_pid).children(recursive=True)
        return [p for p in below if any("ServeReplica" in word for word in p.cmdline())]

    def rss_mib(self) -> float:
        """Return the resident memory of all replicas in MiB."""
        return round(sum(process.memory_info().rss for process in self.replicas()) / 2**20, 2)

    def holds(self, version: str, name: str = MODEL) -> bool:
        """Return whether the replica that answers has loaded the version."""
        models = httpx2.get(f"{self.url}/v1/models", timeout=60).json()["models"]
        versions = next(model["versions"] for model in models if model["name"] == name)
        return any(one["resident"] for one in versions if one["version"] == version)

    def control(self, kind: str, name: str = MODEL, **fields: object) -> dict[str, Any]:
        """POST /v1/models/NAME/KIND and wait until it has ended. Raises RuntimeError if it was refused."""
        with httpx2.Client(base_url=self.url, timeout=120) as http:
            answer = http.post(f"/v1/models/{name}/{kind}", json=fields)
            while answer.status_code == 202 or (answer.is_success and answer.json()["state"] in ("waiting", "running")):
                time.sleep(0.05)
                answer = http.get(f"/v1/operations/{answer.json()['id']}")
        if not answer.is_success or answer.json()["state"] != "done":
            raise RuntimeError(f"{kind} {name} {fields}: {answer.status_code} {answer.text[:500]}")
        return answer.json()


@contextlib.contextmanager
def cluster(subject: Subject | None = None, here: bool = False) -> Iterator[Cluster]:
    """Run a cluster during the block, with the measured model if it is not a shipped one.

    With `here`, only its home exists: runs use processes of this machine, and there is no HTTP API.
    """
    with _home(subject) as (home, environment):
        if here:
            yield Cluster(home, "", os.getpid(), environment)
            return
        try:
            resight(environment, "up", "--port", str(preferred_or_free(0)))
            state = read_state(Settings(home=str(home)))
            assert state is not None
            yield Cluster(home, state.reachable_url, state.pid, environment)
        finally:
            resight(environment, "down")


def model_of(up: Cluster, subject: Subject, factor: int) -> str:
    """Return the name of the model; with a factor over 1, add a version with this `jpeg_shrink` and return it."""
    if factor == 1:
        return subject.name
    config = subject.config
    config["preprocess"]["jpeg_shrink"] = factor
    file = up.home / "config.json"
    file.write_text(json.dumps(config))
    version = f"shrink{factor}"
    words = (str(subject.weights), "--name", subject.name, "--version", version)
    up.resight("models", "add", *words, "--config", str(file), "--probe", str(PHOTO))
    return f"{subject.name}@{version}"


@contextlib.contextmanager
def server() -> Iterator[Cluster]:
    """Run `resight serve` during the block, once it answers."""
    with _home() as (home, environment):
        port = preferred_or_free(0)
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "resight", "serve", "--port", str(port)]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        try:
            until_s = time.monotonic() + START_S
            while not _is_ready(url):
                if process.poll() is not None or time.monotonic() > until_s:
                    raise RuntimeError(f"resight serve did not start: exit code {process.poll()}")
                time.sleep(0.02)
            yield Cluster(home, url, process.pid, environment)
        finally:
            process.terminate()
            process.wait()


def _is_ready(url: str) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(f"{url}/readyz", timeout=5).status_code == 200
    return False


@contextlib.contextmanager
def _home(subject: Subject | None = None) -> Iterator[tuple[Path, dict[str, str]]]:
    """Make a home with models for the block; yield it and the environment of commands that use it."""
    ended_by = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    strange = [key for key in os.environ if key.startswith("RESIGHT_") and key != "RESIGHT_APP"]
    kept = {key: value for key, value in os.environ.items() if key not in strange}
    try:
        with tempfile.TemporaryDirectory(prefix="rsb-", ignore_cleanup_errors=True) as folder:
            home = Path(folder)
            shutil.copytree(SHIPPED, home / "models")
            if subject is not None and subject.store != SHIPPED:
                shutil.copytree(subject.store / subject.name, home / "models" / subject.name, dirs_exist_ok=True)
            yield home, kept | {"RESIGHT_HOME": str(home), "RESIGHT_MODELS": str(home / "models")}
    finally:
        signal.signal(signal.SIGTERM, ended_by)


def resight(environment: dict[str, str], *words: str) -> str:
    with started(environment, *words) as process:
        out, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return out


def started(environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "resight", *words]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
