"""Fixtures of all tests: the session's S3 server, the shipped photographs, and logs and garbage collection."""

from __future__ import annotations

import functools
import gc
import os
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpcore2
import hypothesis
import pytest
import structlog
from s3fs import S3FileSystem

from tests.support.s3_server import CREDENTIALS, s3_server

hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine must fail no test
hypothesis.settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = ROOT / "examples" / "photos"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exempt modules and tests from garbage collection: each model that a replica releases runs a full one."""
    gc.disable()
    collected = yield
    gc.collect()
    gc.freeze()
    gc.enable()
    return collected


def pytest_itemcollected(item: Any) -> None:
    """Add the operation to the id of a test by schemathesis, which has it in its name only."""
    operation = getattr(item, "operation_label", None)
    if operation and item.id.params is None:
        item._id = item.id.with_params(operation)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Require different ids: of tests with one id, xdist runs one and drops the others."""
    ids = Counter(item.nodeid for item in items)
    twice = [name for name, count in ids.items() if count > 1]
    if twice:
        raise pytest.UsageError(f"several tests have the id {twice[0]}")


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


@pytest.fixture(scope="session", autouse=True)
def certificates() -> Iterator[None]:
    """Read the certificates of authorities once: each `httpx2.get` reads them, in 20 ms, also without TLS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore2, "default_ssl_context", functools.cache(httpcore2.default_ssl_context))
        yield


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
