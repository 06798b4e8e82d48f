"""S3 listings in ranges equal the flat listing, for any keys and splits."""

# the parameters are those of S3:
# ruff: noqa: N803

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import boto3
import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import archive.catalogue.listing
from archive.catalogue.listing import LISTERS, list_keys
from model_store.errors import StorageUnreachable

NAMES = st.sampled_from(["a", "b", "aa", "a.jpg", "a b", "ä", "é", "鹿", "😀", "%2F", "+", "-", "!", "~", "0", ""])
KEYS = st.lists(NAMES, min_size=1, max_size=5).map("/".join).filter(bool)
SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


class Server:
    """Fake of ListObjectsV2 over these keys, as documented by AWS, with small pages."""

    def __init__(self, keys: set[str], page: int) -> None:
        self.keys = sorted(keys, key=str.encode)
        self.page = page
        self.calls: list[str] = []
        self._lock = threading.Lock()

    def __call__(
        self, Prefix: str, Delimiter: str = "", StartAfter: str = "", ContinuationToken: str = ""
    ) -> dict[str, Any]:
        with self._lock:
            self.calls.append("folders" if Delimiter else "next" if ContinuationToken else "stretch")
        after = ContinuationToken or StartAfter
        seen: dict[str, bool] = {}
        for key in self.keys:
            if key.startswith(Prefix) and key > after:
                inside, slash, _ = key[len(Prefix) :].partition(Delimiter or "\0")
                name = Prefix + inside + slash
                if not (slash and ContinuationToken.startswith(name)):
                    seen.setdefault(name, bool(slash))
        names = list(seen)[: self.page]
        return {
            "Contents": [{"Key": n, "Size": len(n), "ETag": f'"{n}"'} for n in names if not seen[n]],
            "CommonPrefixes": [{"Prefix": n} for n in names if seen[n]],
            "IsTruncated": len(seen) > len(names),
            "NextContinuationToken": names[-1] if names else "",
        }


def keys_of(list_objects: Callable[..., dict[str, Any]], prefix: str = "") -> list[str]:
    return [entry["Key"] for entries in list_keys(list_objects, prefix) for entry in entries]


@given(keys=st.sets(KEYS, max_size=60), page=st.integers(1, 5), pages=st.integers(1, 4), cuts=st.integers(1, 6))
@settings(SETTINGS, max_examples=50)
def test_every_key_comes_once(keys: set[str], page: int, pages: int, cuts: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive.catalogue.listing, "PAGES", pages)
        patch.setattr(archive.catalogue.listing, "CUTS", cuts)
        for prefix in ("", "a/", "a", "a/b/", "nowhere/"):
            wanted = sorted(key for key in keys if key.startswith(prefix))
            assert sorted(keys_of(Server(keys, page), prefix)) == wanted


@pytest.fixture(scope="module")
def buckets(s3_endpoint: str) -> tuple[Any, Iterator[str]]:
    return boto3.client("s3", endpoint_url=s3_endpoint), (f"stretch-{i}" for i in count())


@given(keys=st.sets(KEYS, min_size=1, max_size=25), pages=st.integers(1, 3))
@settings(SETTINGS, max_examples=6)
def test_an_s3_server_gives_the_keys_of_its_own_flat_listing(
    buckets: tuple[Any, Iterator[str]], keys: set[str], pages: int
) -> None:
    client, names = buckets
    bucket = next(names)
    client.create_bucket(Bucket=bucket)
    for key in keys:
        client.put_object(Bucket=bucket, Key=key, Body=key.encode())
    call = partial(
        fsspec.filesystem("s3").call_s3,
        "list_objects_v2",
        Bucket=bucket,
        MaxKeys=2,  # type: ignore[attr-defined]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive.catalogue.listing, "PAGES", pages)
        for prefix in ("", "a/", "a"):
            flat = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            wanted = [
                (entry["Key"], entry["Size"], entry["ETag"]) for page in flat for entry in page.get("Contents", ())
            ]
            found = [(e["Key"], e["Size"], e["ETag"]) for es in list_keys(call, prefix) for e in es]
            assert sorted(found) == sorted(wanted)


def archive_of(cameras: int, images: int, template: str = "{camera:03d}/{image:05d}.jpg") -> set[str]:
    return {template.format(camera=camera, image=image) for camera in range(cameras) for image in range(images)}


@pytest.mark.parametrize(
    ("keys", "stretches", "calls_a_page"),
    [
        (archive_of(40, 60), LISTERS, 1.6),
        (archive_of(40, 60, "data/2025/{camera:03d}/{image:05d}.jpg"), LISTERS, 1.6),
        (archive_of(40, 10) | archive_of(1, 2000, "big/{image:05d}.jpg"), LISTERS // 2, 1.6),
        (archive_of(1, 2400, "camera/{image:04d}/1.jpg"), LISTERS, 2.3),
    ],
    ids=["cameras", "below-others", "one-larger", "one-camera"],
)
def test_folders_are_listed_beside_each_other_with_few_calls_more(
    keys: set[str], stretches: int, calls_a_page: float
) -> None:
    server = Server(keys, 20)
    assert Counter(keys_of(server)) == Counter(keys)
    assert server.calls.count("stretch") >= stretches
    assert len(server.calls) <= calls_a_page * len(keys) / 20


def test_what_is_held_is_bounded_by_the_stretches_at_work() -> None:
    server = Server(archive_of(30, 100), 20)
    assert max(map(len, list_keys(server, ""))) <= 20 * archive.catalogue.listing.PAGES


def test_keys_out_of_order_are_refused() -> None:
    server = Server({"a", "b", "c"}, 10)
    server.keys.reverse()
    with pytest.raises(StorageUnreachable, match="not in the order of S3"):
        keys_of(server)


def test_a_server_that_ignores_where_to_start_is_refused() -> None:
    server = Server({f"{i:04d}" for i in range(500)}, 10)

    def deaf(Prefix: str, ContinuationToken: str = "", **_: str) -> dict[str, Any]:
        return server(Prefix=Prefix, ContinuationToken=ContinuationToken)

    with pytest.raises(StorageUnreachable, match="not in the order of S3"):
        keys_of(deaf)
