"""Reason for probing stores: a store that ignores conditions loses rows without an error."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from archive.delta.tables import Tables
from archive.views.views import View, Views
from model_store.errors import StorageUnsafe
from model_store.storage import Folder
from tests.archive.racing_writer import absent
from tests.fixtures_local import result_rows, rows_of
from tests.s3_proxy import s3_proxy
from tests.support.s3_server import new_bucket

FIRST_COMMIT = "/results/_delta_log/00000000000000000001.json"


@pytest.fixture(params=["careful", "careless"])
def place(request: pytest.FixtureRequest, s3_endpoint: str) -> Iterator[tuple[str, bool]]:
    """Yield a bucket where two first commits always collide, and whether it has conditional writes."""
    careless = request.param == "careless"
    with s3_proxy(s3_endpoint, careless, meet=FIRST_COMMIT) as url:
        yield new_bucket(url, "tables"), not careless


@pytest.fixture
def careless(s3_endpoint: str) -> Iterator[str]:
    with s3_proxy(s3_endpoint, careless=True) as url:
        yield new_bucket(url, "tables")


def test_without_the_probe_one_of_two_commits_vanishes_and_both_were_acknowledged(
    place: tuple[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, conditional = place
    monkeypatch.setattr("archive.delta.tables.require_create", lambda _: None)
    tables = Tables(url)
    snapshots = [tables.snapshot("results") for _ in range(2)]

    def commit(name: str) -> None:
        tables.append("results", result_rows([name]), f"w-{name}", absent, base=snapshots.pop())

    with ThreadPoolExecutor(2) as writers:
        assert list(writers.map(commit, ("one", "two"))) == [None, None]
    assert len(rows_of(tables, "results")) == (2 if conditional else 1)


def test_nothing_is_written_to_it(careless: str) -> None:
    tables = Tables(careless)
    view = View(inference_key="k", model_name="m", model_version="1", weights_sha256="w")
    with pytest.raises(StorageUnsafe):
        tables.append("results", result_rows(["a"]), "w", absent)
    with pytest.raises(StorageUnsafe):
        tables.snapshot("media")
    with pytest.raises(StorageUnsafe):
        Views(careless).publish(view, after=0)
    assert Folder(careless).names() == []
