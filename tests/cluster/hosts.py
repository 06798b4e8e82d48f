"""The two hosts of Resight, run and used as a user would: a cluster, and one process of `resight serve`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from archive.delta.tables import Tables
from serve.cluster.head import ClusterState, client_environment
from serve.settings import Settings
from tests.fixtures_local import ROOT, rows_of
from tests.support.own_server import OwnServer
from tests.support.processes import command

WAIT_S = 300
"""Limit of every wait, also on a machine that has much else to do."""
OF_THE_RUN = {"run_id", "finished_at", *(f"{n}_ms" for n in ("read", "decode", "queue"))} | {
    "inference_ms",
    "postprocess_ms",
}
"""Columns of `results` in which two runs of the same images differ."""
WHY = ("--override", "a tenth of the sample cannot be read, on purpose")


ON_CLUSTER = pytest.mark.parametrize("host", ["cluster"], indirect=True)
"""Mark of a test of what only a cluster has, in a module whose fixtures need a host."""


@dataclass(frozen=True)
class Finished:
    """A run of `ssdlite-coco` over an archive, published; `tables` are a copy from then: to read, or to copy."""

    report: dict[str, Any]
    tables: str


class Host(ABC):
    """One of them. Its home is temporary, with a copy of the shipped models."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.settings, self.url = settings, url
        self._finished: Finished | None = None

    @property
    def tables(self) -> Tables:
        return Tables(self.settings.tables_url)

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables by which a command finds this host."""
        return places_of(self.settings)

    def resight(
        self, *arguments: str, tables: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `resight …` in its own process, from the repository root."""
        places = environment | ({"RESIGHT_TABLES": tables} if tables else {})
        return command(*arguments, environment=self.environment | places)

    def done(self, *arguments: str, tables: str | None = None, **environment: str) -> str:
        """Run a command that must succeed; return its output."""
        done = self.resight(*arguments, tables=tables, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def reprocess(self, *arguments: str, tables: str | None = None) -> dict[str, Any]:
        """Carry out a run that must succeed; return its JSON report."""
        return dict(json.loads(self.done("reprocess", "--format", "json", *arguments, tables=tables)))

    def detect(self, body: bytes, model: str = "ssdlite-coco", **query: Any) -> httpx2.Response:
        parameters = {"model": model, **query}
        return httpx2.post(f"{self.url}/v1/detect", content=body, params=parameters, timeout=60)

    def finished(self, cameras: Path) -> Finished:
        """Return the run over the archive, which is carried out once."""
        if self._finished is None:
            self.done("ingest", str(cameras))
            report = self.run_as_documented("--model", "ssdlite-coco", "--chunk", "8")
            self.done("runs", "publish", "ssdlite-coco@1", *WHY)
            copy = self.settings.home_path / "finished"
            shutil.copytree(self.settings.tables_url, copy)
            self._finished = Finished(report, str(copy))
        return self._finished

    def run_as_documented(self, *arguments: str) -> dict[str, Any]:
        """Return the report of a detection run."""
        return self.reprocess(*arguments)

    def processes(self, words: str) -> list[psutil.Process]:
        """Return the processes of this host, and of no other, with these words in their command line."""
        found: list[psutil.Process] = []
        for process in self._family():
            try:
                found += [process] if words in " ".join(process.cmdline()) else []
            except psutil.NoSuchProcess:
                continue
        return found

    @abstractmethod
    def kill_replica(self) -> None:
        """Kill the process that answers requests."""

    def await_replica(self, body: bytes) -> None:
        """Wait for its successor; if a person would have to start one, start it."""
        wait_for(lambda: self.detect(body).status_code == 200)

    @abstractmethod
    def _family(self) -> list[psutil.Process]:
        """Return the processes of this host."""


class Cluster(Host):
    def __init__(self, settings: Settings, state: ClusterState) -> None:
        super().__init__(settings, state.endpoint)
        self.state = state

    def run_as_documented(self, *arguments: str) -> dict[str, Any]:
        """Use `ray job submit --working-dir . -- python -m batch.reprocess …`."""
        ray = Path(sys.executable).with_name("ray")
        words = ["job", "submit", "--working-dir", ".", "--", "python", "-m", "batch.reprocess"]
        done = subprocess.run(
            [str(ray), *words, *arguments],
            cwd=ROOT,
            env=os.environ | client_environment(self.settings),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return report_of(done.stdout)

    def from_home(self, home: Path) -> dict[str, str]:
        """Return the variables of a command of another home, which finds this cluster by its address."""
        address = {"RESIGHT_ADDRESS": self.state.dashboard_url}
        return places_of(self.settings) | address | {"RESIGHT_HOME": str(home)}

    def kill_replica(self) -> None:
        kill(self.processes("ray::ServeReplica:detect:Detector"))

    def _family(self) -> list[psutil.Process]:
        return psutil.Process(self.state.pid).children(recursive=True)


class OneProcess(Host):
    """`resight serve`; its runs are processes of this machine."""

    def __init__(self, settings: Settings, server: OwnServer) -> None:
        super().__init__(settings, server.url)
        self._server = server

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"RESIGHT_ENDPOINT": self.url}

    def kill_replica(self) -> None:
        self._server.end(signal.SIGKILL)

    def await_replica(self, body: bytes) -> None:
        self._server.start()
        super().await_replica(body)

    def _family(self) -> list[psutil.Process]:
        server = psutil.Process(self._server.process.pid)
        return [server, *server.children(recursive=True)]


def places_of(settings: Settings) -> dict[str, str]:
    """Return the variables of a home, which replace those of another."""
    return {
        "RESIGHT_HOME": str(settings.home_path),
        "RESIGHT_MODELS": settings.models_url,
        "RESIGHT_TABLES": settings.tables_url,
    }


def report_of(output: str) -> dict[str, Any]:
    """Return the report in the JSON lines of a job."""
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    (report,) = [event for event in events if event["event"] == "report"]
    return dict(report)


def results_of(tables: str) -> list[dict[str, Any]]:
    """Return all rows by image, without the columns that differ between runs."""
    rows = [
        {name: value for name, value in row.items() if name not in OF_THE_RUN}
        for row in rows_of(Tables(tables), "results")
    ]
    assert len(rows) == len({row["media_sha256"] for row in rows})
    return sorted(rows, key=lambda row: row["media_sha256"])


def kill(processes: list[psutil.Process]) -> None:
    """Send SIGKILL and wait for the end. At least one process is needed."""
    assert processes
    for process in processes:
        process.kill()
    assert not psutil.wait_procs(processes, WAIT_S)[1]


def wait_for(true: Callable[[], bool], seconds: float = WAIT_S, words: Callable[[], str] = lambda: "") -> None:
    """Check every 0.1 s, or 1 s if a check takes long: some read tables on S3, or list processes."""
    deadline_s = time.monotonic() + seconds
    while True:
        began_s = time.monotonic()
        if true():
            return
        now_s = time.monotonic()
        assert now_s < deadline_s, f"it did not come true {words()}"
        time.sleep(min(1.0, max(0.1, 4 * (now_s - began_s))))
