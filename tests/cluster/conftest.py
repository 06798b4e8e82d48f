"""The session's hosts: a Ray cluster and a process of `resight serve`, each with its own ports and folders.

A test of what both have is run on both by the parameter `host`. A cluster of a user on the same machine (a demo, say)
is neither used nor disturbed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from archive.catalogue.ingest import ingest
from archive.delta.tables import Tables
from examples.sample_archive import Summary, build
from serve.cluster.deploy import deploy
from serve.cluster.head import join, start, stop
from serve.cluster.ports import Ports, preferred_or_free
from serve.settings import Settings
from tests.cluster.hosts import Cluster, Finished, Host, OneProcess, places_of
from tests.fixtures_local import copy_of_models
from tests.support.own_server import OwnServer
from tests.support.processes import clear_variables, forget_environment

IMAGES = 60


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests last that leave the cluster with another application (`pooled`), or closed without a token."""

    def changed(item: pytest.Item) -> int:
        names = getattr(item, "fixturenames", ())
        return 2 if "closing" in names else int("pooled" in names)

    items.sort(key=changed)


@pytest.fixture(scope="session")
def cluster(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Ray, the applications and a copy of the shipped models; AWS_* reach its workers."""
    home = tmp_path_factory.mktemp("home")
    copy_of_models(home)
    with pytest.MonkeyPatch.context() as patch:
        clear_variables(patch)
        patch.setenv("RESIGHT_HOME", str(home))
        settings = Settings()
        state = start(settings, Ports(http=preferred_or_free(0), ray=0, dashboard=0), "127.0.0.1", 512)
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


@pytest.fixture(scope="session")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneProcess]:
    """`resight serve` and a copy of the shipped models."""
    home = tmp_path_factory.mktemp("one")
    copy_of_models(home)
    settings = Settings(home=str(home), models=str(home / "models"), tables=str(home / "tables"))
    with OwnServer(home / "serve.log", places_of(settings)) as server:
        yield OneProcess(settings, server)


@pytest.fixture(scope="module", params=["one_process", "cluster"])
def host(request: pytest.FixtureRequest) -> Host:
    """Each of the two, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """A sample archive with all kinds of files; to read only."""
    root = tmp_path_factory.mktemp("archive") / "cameras"
    return root, build(root, IMAGES)


@pytest.fixture(scope="session")
def media(archive: tuple[Path, Summary], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables with the catalogue of that archive and nothing else; only to copy."""
    tables = tmp_path_factory.mktemp("media") / "tables"
    ingest(Tables(str(tables)), str(archive[0]))
    return tables


@pytest.fixture
def catalogued(media: Path, tmp_path: Path) -> str:
    """A copy of these tables, which the test may change."""
    return str(shutil.copytree(media, tmp_path / "tables"))


@pytest.fixture(scope="session")
def undisturbed(one_process: OneProcess, archive: tuple[Path, Summary]) -> Finished:
    """The run over that archive by one process; rows of a cluster are the same (test_archive_run)."""
    return one_process.finished(archive[0])


@pytest.fixture
def seen(undisturbed: Finished, tmp_path: Path) -> str:
    """A copy of the tables with that run, published, which the test may change."""
    return str(shutil.copytree(undisturbed.tables, tmp_path / "seen"))
