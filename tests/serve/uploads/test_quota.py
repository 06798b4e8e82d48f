"""Quotas of tokens: what counts, in which day, by several replicas, on a disk and on S3."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import numpy as np
import pytest

from archive.catalogue.uploads import keep, path_of
from model_store.errors import ImageTooLarge, QuotaSpent, StorageFull, StorageUnreachable
from model_store.storage import Folder, is_local
from serve.auth.scopes import Identity, TokenScope
from serve.uploads import quota
from serve.uploads.quota import MIB, Quotas, Used
from tests.fixtures_local import encoded

STATION = Identity("station", frozenset({TokenScope.upload}), daily_mib=1)
EVENING = datetime(2026, 5, 1, 23, 30, tzinfo=UTC)


def image(number: int) -> bytes:
    """A BMP of 196,662 bytes: five of them fit into a MiB."""
    return encoded(np.full((256, 256, 3), number, np.uint8), "bmp")


SIZE = len(image(0))


def used(root: Folder) -> Used:
    return Used.model_validate_json(root.read(".quota/station.json"))


@pytest.fixture
def root(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "uploads"))


@pytest.fixture
def s3(s3_endpoint: str) -> Folder:
    bucket = f"quota-{uuid4().hex}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=bucket)
    return Folder(f"s3://{bucket}/uploads")


@pytest.fixture(params=["root", "s3"])
def place(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_the_day_ends_at_midnight_utc(root: Folder) -> None:
    now = [EVENING]
    quotas = Quotas(root, lambda: now[0])
    for number in range(5):
        assert quotas.keep(STATION, "north", image(number)).is_new
    with pytest.raises(QuotaSpent, match=r"station has stored 0.9 of 1 MiB .* again at 2026-05-02 00:00 UTC") as spent:
        quotas.keep(STATION, "north", image(5))
    assert spent.value.retry_after_s == 1800
    assert not root.exists(path_of("north", image(5)))
    restarted = Quotas(root, lambda: EVENING + timedelta(minutes=30))
    assert restarted.keep(STATION, "north", image(5)).is_new
    assert used(root) == Used(day=datetime(2026, 5, 2).date(), nbytes=SIZE)
    late = Quotas(root, lambda: now[0])  # the clock of another replica is behind
    for number in range(6, 10):
        late.keep(STATION, "", image(number))
    with pytest.raises(QuotaSpent, match="2026-05-03"):
        late.keep(STATION, "", image(10))


def test_a_clock_that_was_far_ahead_locks_nobody_out(root: Folder) -> None:
    root.write(".quota/station.json", Used(day=datetime(2027, 5, 1).date(), nbytes=MIB).model_dump_json().encode())
    assert Quotas(root, lambda: EVENING).keep(STATION, "", image(0)).is_new
    assert used(root) == Used(day=EVENING.date(), nbytes=SIZE)


def test_a_duplicate_costs_nothing_and_is_accepted_beyond_the_quota(root: Folder) -> None:
    quotas = Quotas(root, lambda: EVENING)
    for number in (0, 0, 1, 2, 3, 4, 0):
        quotas.keep(STATION, "", image(number))
    assert used(root).nbytes == 5 * SIZE
    assert not quotas.keep(STATION, "", image(4)).is_new


def test_without_a_quota_nothing_is_counted(root: Folder) -> None:
    quotas = Quotas(root)
    for sender in (None, Identity("operator", frozenset(TokenScope))):
        quotas.keep(sender, "", image(0))
    assert root.names() == [path_of("", image(0))]


def test_what_fails_or_was_stored_by_another_meanwhile_is_not_counted(
    root: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    quotas = Quotas(root, lambda: EVENING)

    def full(*_: object) -> None:
        raise StorageFull("full")

    count = quotas._count

    def while_another_stores(*about: Any) -> Any:
        keep(root, "", image(0))
        return count(*about)

    with monkeypatch.context() as patched:
        patched.setattr(quota, "keep", full)
        with pytest.raises(StorageFull):
            quotas.keep(STATION, "", image(0))
    assert used(root).nbytes == 0
    monkeypatch.setattr(quotas, "_count", while_another_stores)
    assert not quotas.keep(STATION, "", image(0)).is_new
    assert used(root).nbytes == 0


def test_an_image_counts_though_the_acknowledgement_of_its_file_was_lost_which_no_disk_does(
    place: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*about: Any) -> object:
        keep(*about)  # or another request at once
        return keep(*about)

    monkeypatch.setattr(quota, "keep", lost)
    assert not Quotas(place, lambda: EVENING).keep(STATION, "", image(0)).is_new
    assert used(place).nbytes == (0 if is_local(place.url) else SIZE)


def test_an_image_over_the_whole_quota_is_refused_for_good(root: Folder) -> None:
    large = encoded(np.zeros((640, 640, 3), np.uint8), "bmp")
    with pytest.raises(ImageTooLarge, match="1.2 MiB, more than the 1 MiB that the token station"):
        Quotas(root).keep(STATION, "", large)
    assert not root.exists()


@pytest.mark.parametrize("content", [b"", b"{", b'{"day": "2026-05-02", "nbytes": -900000000}'])
def test_a_damaged_count_is_named(root: Folder, content: bytes) -> None:
    root.write(".quota/station.json", content)
    with pytest.raises(StorageUnreachable, match=r"\.quota/station\.json is damaged: remove it"):
        Quotas(root).keep(STATION, "", image(0))


def test_a_count_that_is_removed_while_an_image_fails_is_not_negative(
    root: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        root.remove(".quota/station.json")
        raise StorageFull("full")

    monkeypatch.setattr(quota, "keep", full)
    with pytest.raises(StorageFull):
        Quotas(root, lambda: EVENING).keep(STATION, "", image(0))
    assert used(root).nbytes == 0


def test_replicas_lose_no_bytes_and_exceed_nothing(place: Folder) -> None:
    replicas = [Quotas(place, lambda: EVENING) for _ in range(3)]

    def accepted(keep: Callable[[], object]) -> bool:
        try:
            keep()
        except QuotaSpent:
            return False
        return True

    calls = [lambda q=q, n=3 * n + i: q.keep(STATION, "", image(n)) for n in range(4) for i, q in enumerate(replicas)]
    with ThreadPoolExecutor(len(calls)) as pool:
        assert sum(pool.map(accepted, calls)) == 5
    assert len([name for name in place.names() if name.endswith(".bmp")]) == 5
    assert used(place).nbytes == 5 * SIZE <= MIB
