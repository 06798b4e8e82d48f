"""The session's Ray cluster and S3 server: one of each, on their own ports, with their own folders.

A cluster of a user on the same machine (a demo, say) is neither used nor disturbed.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import hypothesis
import psutil
import pytest
import structlog
from s3fs import S3FileSystem

from archive.delta.tables import Tables
from serve.cluster.deploy import deploy
from serve.cluster.head import ClusterState, join, start, stop
from serve.cluster.ports import Ports, preferred_or_free
from serve.settings import Settings
from tests.support.processes import command, forget_environment
from tests.support.s3_server import CREDENTIALS, s3_server

hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine must fail no test
hypothesis.settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = ROOT / "examples" / "photos"


@dataclass(frozen=True)
class Cluster:
    """A running cluster and how to use it as a user would."""

    settings: Settings
    state: ClusterState

    @property
    def url(self) -> str:
        return self.state.endpoint

    @property
    def tables(self) -> Tables:
        return Tables(self.settings.tables_url)

    def resight(
        self, *arguments: str, tables: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `resight …` in its own process, from the repository root."""
        places = environment | ({"RESIGHT_TABLES": tables} if tables else {})
        return command(*arguments, environment=places)

    def reprocess(self, *arguments: str, tables: str | None = None) -> dict[str, Any]:
        """A run that must succeed; its JSON report."""
        done = self.resight("reprocess", "--format", "json", *arguments, tables=tables)
        assert done.returncode == 0, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def detect(self, body: bytes, model: str = "ssdlite-coco", **query: Any) -> httpx2.Response:
        parameters = {"model": model, **query}
        return httpx2.post(f"{self.url}/v1/detect", content=body, params=parameters, timeout=60)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exempt modules and tests from garbage collection: each model that a replica releases runs a full one."""
    gc.disable()
    collected = yield
    gc.collect()
    gc.freeze()
    gc.enable()
    return collected


def pytest_unconfigure() -> None:
    gc.unfreeze()  # libraries report what is left at the end as leaks


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3-compatible server in its own process (in ours, delta-rs would wait for itself); or an empty one that
    TEST_S3_ENDPOINT names, with the usual AWS_* variables.
    """
    if real := os.environ.get("TEST_S3_ENDPOINT"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", real)
            yield real
        return
    with s3_server() as endpoint, pytest.MonkeyPatch.context() as patch:
        for name, value in {"AWS_ENDPOINT_URL": endpoint, **CREDENTIALS}.items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()  # one that was made before has no credentials
        yield endpoint


@pytest.fixture(scope="session")
def cluster(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Ray, the detect application and a copy of the shipped models; AWS_* reach its workers."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(ROOT / "examples" / "models", home / "models")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("RESIGHT_", "RAY_"))]:
            patch.delenv(name)
        patch.setenv("RESIGHT_HOME", str(home))
        settings = Settings()
        state = start(
            settings, Ports(http=preferred_or_free(0), ray=0, dashboard=0), "127.0.0.1", 512
        )
        try:
            join(settings)
            forget_environment()
            deploy(settings, state)
            yield Cluster(settings, state)
        finally:
            stop(settings)
            left = [
                process
                for process in psutil.process_iter(["cmdline"])
                if state.temp_dir in str(process.info["cmdline"])
            ]
            _, alive = psutil.wait_procs(left, timeout=10)  # one may be about to end
            assert not alive, f"still running after stop: {alive}"
            shutil.rmtree(state.temp_dir, ignore_errors=True)


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Put the configuration of logs back: code under test may send them to the output captured for one test."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture
def photo() -> Any:
    """photo("cat") -> bytes of the shipped photograph."""
    return lambda name: (PHOTOS / f"{name}.jpg").read_bytes()
