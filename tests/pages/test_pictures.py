"""Files of images are found and read; look-ups at the same time share queries."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import batch.pipeline.read_image
from archive.catalogue.quick_digest import quick_digest
from archive.delta.tables import Tables
from archive.schemas import MEDIA
from model_store.errors import Conflict, ImageUnreadable, ModelNotFound, StorageUnreachable
from pages.pictures import Lookup, made_of, picture_bytes, picture_rows

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def media_row(root: Path | str, path: str, data: bytes, **more: Any) -> dict[str, Any]:
    row = {"media_sha256": hashlib.sha256(data).hexdigest(), "source_root": str(root), "path": path}
    row |= {"quick_digest": quick_digest(data), "catalogued_at": NOW, "ingested_at": NOW}
    return row | more


def put(tables: Tables, *rows: dict[str, Any]) -> None:
    made = pa.Table.from_pylist(list(rows), schema=MEDIA)
    tables.append("media", made, "test", lambda _, wanted: wanted)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "a.jpg").write_bytes(b"picture")
    return tmp_path / "archive"


def row_of(tables: Tables, data: bytes = b"picture") -> Mapping[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    return picture_rows(tables, [digest])[digest]


def test_the_first_present_file_is_read_before_copies(tables: Tables, root: Path) -> None:
    later = {"catalogued_at": NOW + timedelta(days=1)}
    put(
        tables,
        media_row(root, "gone.jpg", b"picture", missing_since=NOW),
        media_row(root, "copy.jpg", b"picture", **later),
        media_row(root, "a.jpg", b"picture"),
        media_row(root, "other.jpg", b"other"),
    )
    row = row_of(tables)
    assert row["path"] == "a.jpg"
    assert [file["path"] for file in row["elsewhere"]] == ["copy.jpg", "gone.jpg"]
    assert picture_bytes(row) == b"picture"
    (root / "a.jpg").rename(root / "gone.jpg")
    assert picture_bytes(row) == b"picture"
    assert "0" * 64 not in picture_rows(tables, ["0" * 64])


def test_bytes_that_changed_are_never_returned(tables: Tables, root: Path) -> None:
    put(tables, media_row(root, "a.jpg", b"picture"))
    (root / "a.jpg").write_bytes(b"another")
    with pytest.raises(Conflict, match=r"a\.jpg cannot be shown: the file has changed"):
        picture_bytes(row_of(tables))


def test_old_catalogues_are_checked_by_the_whole_digest(tables: Tables, root: Path) -> None:
    put(tables, media_row(root, "a.jpg", b"picture", quick_digest=None))
    assert picture_bytes(row_of(tables)) == b"picture"
    (root / "a.jpg").write_bytes(b"another")
    with pytest.raises(Conflict):
        picture_bytes(row_of(tables))


def test_a_missing_file_is_not_an_unmounted_disk(tables: Tables, root: Path) -> None:
    put(tables, media_row(root, "b/gone.jpg", b"picture"))
    with pytest.raises(ModelNotFound, match=r"b/gone\.jpg cannot be shown: .*No such file") as error:
        picture_bytes(row_of(tables))
    assert str(root) not in str(error.value)
    (root / "a.jpg").unlink()
    with pytest.raises(StorageUnreachable, match="is it mounted"):
        picture_bytes(row_of(tables))


def test_files_in_a_bucket_are_read(tables: Tables, s3_endpoint: str) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket="pictures-of-the-page")
    client.put_object(Bucket="pictures-of-the-page", Key="north/a.jpg", Body=b"picture")
    put(tables, media_row("s3://pictures-of-the-page", "north/a.jpg", b"picture"))
    assert picture_bytes(row_of(tables)) == b"picture"
    client.put_object(Bucket="pictures-of-the-page", Key="north/a.jpg", Body=b"another")
    with pytest.raises(Conflict):
        picture_bytes(row_of(tables))


def test_a_damaged_image_names_its_file(tables: Tables, root: Path) -> None:
    def fail(_: bytes) -> bytes:
        raise ImageUnreadable("damaged image/jpeg")

    put(tables, media_row(root, "a.jpg", b"picture"))
    with pytest.raises(Conflict, match=r"a\.jpg cannot be shown: damaged image/jpeg"):
        made_of(row_of(tables), fail)
    assert made_of(row_of(tables), len) == 7


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch.pipeline.read_image._read.retry, "sleep", lambda _: None)


# look-ups


class Query:
    """Record the digests of each query; the first one waits for `go`."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.go = threading.Event()
        self.error: Exception | None = None

    def __call__(self, digests: Sequence[str]) -> dict[str, str]:
        self.asked.append(sorted(digests))
        assert self.go.wait(30)
        if self.error:
            raise self.error
        return {digest: digest.upper() for digest in digests if digest != "unknown"}


async def test_look_ups_gather_while_a_query_runs() -> None:
    query = Query()
    lookup = Lookup(query)
    first = asyncio.create_task(lookup.get("a"))
    while not query.asked:
        await asyncio.sleep(0)
    more = [asyncio.create_task(lookup.get(name)) for name in ("b", "c", "b", "unknown", "a")]
    await asyncio.sleep(0)
    more[0].cancel()  # its client is gone; the other one of b still waits
    query.go.set()
    assert await first == "A"
    assert await asyncio.gather(*more[1:]) == ["C", "B", None, "A"]
    assert query.asked == [["a"], ["a", "b", "c", "unknown"]]
    assert await lookup.get("d") == "D"


async def test_an_error_reaches_all_that_wait_and_the_next_query_works() -> None:
    query = Query()
    query.go.set()
    query.error = StorageUnreachable("no disk")
    lookup = Lookup(query)
    got = await asyncio.gather(lookup.get("a"), lookup.get("b"), return_exceptions=True)
    assert [type(error) for error in got] == [StorageUnreachable] * 2
    query.error = None
    assert await lookup.get("a") == "A"
