"""The recorder: rows that were handed over are in the tables once, whatever comes between."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import serve.uploads.recorder
from archive.catalogue.row_updates import add_files
from archive.catalogue.uploads import keep
from archive.delta.tables import Tables
from archive.delta.writer import Writer, add_results
from archive.retention import other_stores
from model_store.errors import Overloaded, StorageUnreachable
from model_store.storage import Folder
from serve.inference.engine import Engine
from serve.uploads.recorder import OwnTables, Recorder
from serve.uploads.uploads import Upload
from tests.fixtures_local import jpeg, photo, result_rows, rows_of
from tests.serve.http_client import MakeEngine

SOON_S = 0.05


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path / "tables"))


@pytest.fixture
async def uploads(blobs: MakeEngine, tmp_path: Path) -> list[Upload]:
    engine, root = await blobs(), Folder(str(tmp_path / "uploads"))
    return [await upload(engine, root, jpeg(shade=40 * i)) for i in range(4)]


async def upload(engine: Engine, root: Folder, body: bytes) -> Upload:
    with engine.admission.images.place():
        answer = await engine.detect(body, "blobs")
    return Upload.of(keep(root, "north", body).row, answer)


def images(tables: Tables, name: str) -> Counter[str]:
    return Counter(row["media_sha256"] for row in rows_of(tables, name))


def digests(uploads: list[Upload]) -> Counter[str]:
    return Counter(str(one.media["media_sha256"][0]) for one in uploads)


async def test_what_comes_together_is_committed_together(tables: Tables, uploads: list[Upload]) -> None:
    recorder = Recorder(tables, SOON_S)
    await asyncio.gather(*map(recorder.record, uploads))
    assert images(tables, "media") == images(tables, "results") == digests(uploads)
    assert tables.snapshot("results").version() == tables.snapshot("media").version() == 1


async def test_a_picture_that_is_sent_often_has_one_row(tables: Tables, uploads: list[Upload]) -> None:
    recorder = Recorder(tables, SOON_S)
    await asyncio.gather(*map(recorder.record, 2 * uploads))
    await recorder.record(uploads[0])
    assert images(tables, "media") == images(tables, "results") == digests(uploads)


async def test_a_row_of_a_run_stays(tables: Tables, uploads: list[Upload]) -> None:
    result = uploads[0].result
    key, digest = str(result["inference_key"][0]), str(result["media_sha256"][0])
    add_results(tables, key, result_rows([digest], key=key, run_id="a-run"))
    await asyncio.gather(*map(Recorder(tables, SOON_S).record, uploads))
    assert images(tables, "results") == digests(uploads)
    by_image = {row["media_sha256"]: row["run_id"] for row in rows_of(tables, "results")}
    assert by_image.pop(digest) == "a-run"
    assert set(by_image.values()) == {"upload"}


@pytest.mark.parametrize("error", [StorageUnreachable("away"), OSError(28, "full")])
async def test_while_nothing_can_be_written_rows_wait(
    tables: Tables, uploads: list[Upload], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tries: list[int] = []
    commit = serve.uploads.recorder.commit

    def fails_twice(tables: Tables, waiting: list[Upload]) -> None:
        tries.append(len(waiting))
        if len(tries) < 3:
            raise error
        commit(tables, waiting)

    monkeypatch.setattr(serve.uploads.recorder, "commit", fails_twice)
    recorder = Recorder(tables, SOON_S)
    first = [asyncio.create_task(recorder.record(one)) for one in uploads[:2]]
    while len(tries) < 1:
        await asyncio.sleep(0.01)
    late = asyncio.create_task(recorder.record(uploads[2]))
    await asyncio.wait_for(asyncio.gather(*first, late), 20)
    assert tries == [2, 3, 3]
    assert images(tables, "media") == images(tables, "results") == digests(uploads[:3])


async def test_who_goes_away_does_not_take_the_row_along(tables: Tables, uploads: list[Upload]) -> None:
    recorder = Recorder(tables, SOON_S)
    gone = asyncio.create_task(recorder.record(uploads[0]))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait_for(recorder.record(uploads[1]), 10)
    assert images(tables, "results") == digests(uploads[:2])


async def test_there_is_a_bound(tables: Tables, uploads: list[Upload], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve.uploads.recorder, "MAX_WAITING", 2)
    recorder = Recorder(tables, SOON_S)
    two = [asyncio.create_task(recorder.record(one)) for one in uploads[:2]]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 rows of uploads wait"):
        await recorder.record(uploads[2])
    await asyncio.gather(*two)
    await recorder.record(uploads[2])
    assert images(tables, "results") == digests(uploads[:3])


class Panic(BaseException):
    """As delta-rs raises it: no Exception."""


async def test_what_cannot_be_written_fails_alone(
    tables: Tables, uploads: list[Upload], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, real = uploads[1], add_files

    def panics(writer: Writer, rows: pa.Table) -> Any:
        if bad.media["path"][0].as_py() in rows["path"].to_pylist():
            raise Panic("index out of bounds")
        return real(writer, rows)

    monkeypatch.setattr(serve.uploads.recorder, "add_files", panics)
    recorder = Recorder(tables, SOON_S)
    ends = await asyncio.gather(*map(recorder.record, uploads), return_exceptions=True)
    assert [end is None for end in ends] == [True, False, True, True]
    assert "index out of bounds" in str(ends[1])
    assert images(tables, "results") == digests([one for one in uploads if one is not bad])
    monkeypatch.setattr(serve.uploads.recorder, "add_files", real)
    await asyncio.wait_for(recorder.record(bad), 10)
    assert images(tables, "results") == digests(uploads)


async def test_replicas_of_two_versions_may_know_different_columns(tables: Tables, uploads: list[Upload]) -> None:
    older = Upload(uploads[0].media.drop_columns(["quick_digest"]), uploads[0].result)
    await asyncio.gather(*map(Recorder(tables, SOON_S).record, [older, *uploads[1:]]))
    assert images(tables, "media") == digests(uploads)
    assert sum(row["quick_digest"] is None for row in rows_of(tables, "media")) == 1


async def test_many_small_files_are_put_together(
    tables: Tables, uploads: list[Upload], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve.uploads.recorder, "COMPACT_EVERY", 3)
    recorder = Recorder(tables, SOON_S)
    for one in uploads[:3]:
        await recorder.record(one)
    async with asyncio.timeout(20):
        while any(len(tables.snapshot(name).file_uris()) > 1 for name in ("media", "results")):
            await asyncio.sleep(0.05)
    await recorder.record(uploads[3])
    assert images(tables, "media") == images(tables, "results") == digests(uploads)


async def test_all_that_was_seen_is_recorded(engine: Engine, tmp_path: Path) -> None:
    """Every box from the floor up, in the model's order, of the very answer."""
    body = photo("cat")
    with engine.admission.images.place():
        answer = await engine.detect(body, "ssdlite-coco")
    (row,) = Upload.of(keep(Folder(str(tmp_path)), "", body).row, answer).result.to_pylist()
    found = answer.detections
    assert row["n_detections"] == len(found) > 1
    assert row["max_score"] == found.scores[0]
    assert row["detections"][1] == {
        "rank": 1,
        "label": answer.model.labels[found.class_ids[1]],
        "class_id": found.class_ids[1],
        "score": found.scores[1],
        "x1_px": found.boxes_xyxy[1][0],
        "y1_px": found.boxes_xyxy[1][1],
        "x2_px": found.boxes_xyxy[1][2],
        "y2_px": found.boxes_xyxy[1][3],
        "mask_rle": None,
        "mask_area_px": None,
    }
    assert (row["status"], row["run_id"]) == ("ok", "upload")
    assert (row["model_name"], row["model_version"]) == ("ssdlite-coco", "1")
    assert (row["width_px"], row["height_px"]) == (answer.image.width_px, answer.image.height_px)
    assert row["inference_key"] == answer.model.inference_key


async def test_rows_that_wait_at_the_end_are_committed_at_once(tables: Tables, uploads: list[Upload]) -> None:
    recorder = Recorder(tables, flush_s=60)
    waiting = [asyncio.create_task(recorder.record(one)) for one in uploads]
    await asyncio.sleep(SOON_S)
    await recorder.close()
    await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert images(tables, "media") == images(tables, "results") == digests(uploads)


async def test_an_end_during_a_commit_loses_and_doubles_nothing(
    tables: Tables, uploads: list[Upload], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, real = threading.Event(), serve.uploads.recorder.commit

    def slow(*given: Any) -> None:
        begun.set()
        time.sleep(0.3)
        real(*given)

    monkeypatch.setattr(serve.uploads.recorder, "commit", slow)
    recorder = Recorder(tables, SOON_S)
    waiting = [asyncio.create_task(recorder.record(one)) for one in uploads]
    await asyncio.to_thread(begun.wait, 10)
    await recorder.close()
    await asyncio.wait_for(asyncio.gather(*waiting), 10)
    await asyncio.sleep(0.5)  # the interrupted commit ends in its thread
    assert images(tables, "media") == images(tables, "results") == digests(uploads)


async def test_the_end_waits_for_no_tables_that_are_away(
    tables: Tables, uploads: list[Upload], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise StorageUnreachable("away")

    monkeypatch.setattr(serve.uploads.recorder, "commit", away)
    recorder = Recorder(tables, flush_s=60)
    waiting = asyncio.create_task(recorder.record(uploads[0]))
    await asyncio.sleep(SOON_S)
    await asyncio.wait_for(recorder.close(), 10)
    with pytest.raises(StorageUnreachable, match="not written"):
        await waiting


async def test_uploads_leave_the_address_of_their_model_store_in_the_tables(
    tmp_path: Path, uploads: list[Upload]
) -> None:
    place, store = str(tmp_path / "tables"), str(tmp_path / "models")
    own = OwnTables(place, store)
    waiting = asyncio.create_task(own.record(uploads[0]))
    while not other_stores(place, "s3://another/store"):
        await asyncio.sleep(SOON_S)
    await own.close()
    await waiting
    assert other_stores(place, "s3://another/store") == [store]


async def test_and_it_holds_for_bytes_too(
    tables: Tables, uploads: list[Upload], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve.uploads.recorder, "MAX_BYTES", uploads[0].nbytes + uploads[1].nbytes)
    recorder = Recorder(tables, SOON_S)
    two = [asyncio.create_task(recorder.record(one)) for one in uploads[:2]]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await recorder.record(uploads[2])
    await asyncio.gather(*two)
    await recorder.record(uploads[2])


async def test_a_compaction_that_panics_does_not_end_it(
    tables: Tables, uploads: list[Upload], monkeypatch: pytest.MonkeyPatch
) -> None:
    def panics(*_: Any) -> None:
        raise Panic("not now")

    monkeypatch.setattr(serve.uploads.recorder, "COMPACT_EVERY", 1)
    monkeypatch.setattr(serve.uploads.recorder, "compact", panics)
    recorder = Recorder(tables, SOON_S)
    for one in uploads:
        await asyncio.wait_for(recorder.record(one), 10)
    assert images(tables, "results") == digests(uploads)
