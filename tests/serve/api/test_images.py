"""POST /v1/images: what is answered is kept, and what is not is not."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pyarrow as pa
import pytest
from fastapi import FastAPI

import serve.uploads.uploads
from archive.delta.tables import Tables
from archive.schemas import EMBEDDINGS
from archive.views.search import P, Search
from archive.views.views import View, Views
from model_store.errors import Overloaded
from serve.api.app import build_http_api
from serve.inference.engine import Engine
from serve.settings import Limits
from serve.uploads.quota import Quotas
from serve.uploads.recorder import Recorder
from serve.uploads.uploads import Upload, Uploads
from tests.fixtures_local import jpeg, photo, rows_of
from tests.serve.http_client import MakeEngine, has_room, problem_of

CAT = photo("cat")
NAME = hashlib.sha256(CAT).hexdigest() + ".jpg"


class Desk:
    """An API over an engine, its uploads folder and its tables."""

    def __init__(self, engine: Engine, place: Path) -> None:
        self.engine, self.folder = engine, place / "uploads"
        self.tables = Tables(str(place / "tables"))
        self.records: Any = None
        self.free_mib = 0
        self._apis: dict[int, FastAPI] = {}

    async def record(self, upload: Upload) -> None:
        self.records = self.records or Recorder(self.tables, 0.05)
        await self.records.record(upload)

    async def find(self, wanted: Search[P]) -> P:
        return await asyncio.to_thread(wanted.answer, self.tables, 30)

    async def post(self, **request: Any) -> httpx2.Response:
        query = {"model": "blobs"} | request.pop("query", {})
        async with self._client() as client:
            return await client.post("/v1/images", params=query, **request)

    async def get(self, path: str = "/v1/images", **query: Any) -> httpx2.Response:
        async with self._client() as client:
            return await client.get(path, params=query)

    def _client(self) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(self._api())
        return httpx2.AsyncClient(transport=transport, base_url="http://resight")

    def _api(self) -> FastAPI:
        """Return the API; building one takes as long as twenty requests."""
        if self.free_mib not in self._apis:
            uploads = Uploads(str(self.folder), self, self.engine.metrics.uploaded, self.free_mib)
            self._apis[self.free_mib] = build_http_api(self.engine, uploads=uploads)
        return self._apis[self.free_mib]

    @property
    def files(self) -> list[str]:
        return sorted(str(f.relative_to(self.folder)) for f in self.folder.rglob("*") if f.is_file())

    def counted(self, outcome: str) -> bool:
        return f'resight_uploads_total{{outcome="{outcome}"}} 0.0' not in self.engine.exposition()


@pytest.fixture
async def desk(blobs: MakeEngine, tmp_path: Path) -> Desk:
    return Desk(await blobs(), tmp_path)


async def test_a_picture_is_answered_kept_and_recorded(desk: Desk) -> None:
    answer = await desk.post(content=CAT, query={"camera": "north", "wait_s": 20})
    assert answer.status_code == 201, answer.text
    told = answer.json()
    assert told["recorded"] is True
    assert told["media"] == {
        "media_sha256": hashlib.sha256(CAT).hexdigest(),
        "source_root": str(desk.folder),
        "path": f"north/{NAME}",
        "camera_id": "north",
        "captured_at_local": None,
        "is_new": True,
    }
    assert (desk.folder / "north" / NAME).read_bytes() == CAT
    (media,) = rows_of(desk.tables, "media")
    (result,) = rows_of(desk.tables, "results")
    assert media["path"] == told["media"]["path"]
    assert result["media_sha256"] == told["media"]["media_sha256"]
    assert result["inference_key"] == told["model"]["inference_key"]
    assert result["n_detections"] >= len(told["detections"])
    assert desk.counted("kept")
    assert desk.counted("recorded")


async def test_who_does_not_wait_is_answered_before_its_rows_are_there(desk: Desk) -> None:
    answer = await desk.post(content=CAT)
    assert answer.status_code == 201
    assert answer.json()["recorded"] is False
    assert desk.files == [NAME]
    async with asyncio.timeout(10):
        while not desk.counted("recorded"):
            await asyncio.sleep(0.02)
    assert [row["path"] for row in rows_of(desk.tables, "media")] == [NAME]


async def test_the_same_again_is_one_file_and_one_row(desk: Desk) -> None:
    first = await desk.post(content=CAT, query={"wait_s": 20})
    again = await desk.post(content=CAT, query={"wait_s": 20})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["media"]["is_new"] is False
    assert desk.files == [NAME]
    assert len(rows_of(desk.tables, "results")) == len(rows_of(desk.tables, "media")) == 1


async def test_each_file_of_a_form_is_kept_for_itself(desk: Desk) -> None:
    form = [("image", ("a.jpg", CAT)), ("image", ("b.txt", b"words")), ("image", ("c.jpg", jpeg()))]
    answer = await desk.post(files=form, query={"camera": "north", "wait_s": 20})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [one["status"] for one in results] == [200, 415, 200]
    assert [one["answer"] and one["answer"]["recorded"] for one in results] == [True, None, True]
    assert len(desk.files) == len(rows_of(desk.tables, "results")) == 2


@pytest.mark.parametrize(("body", "status"), [(b"%PDF-1.4", 415), (CAT[:300], 400)], ids=["no image", "only a header"])
async def test_what_cannot_be_answered_is_not_kept(desk: Desk, body: bytes, status: int) -> None:
    problem_of(await desk.post(content=body), status)
    assert desk.files == []
    assert not desk.counted("kept")


@pytest.mark.parametrize("camera", ["a/b", "..", "Gr\ufffdn"])
async def test_a_camera_that_is_no_folder_is_refused_before_the_body_is_read(desk: Desk, camera: str) -> None:
    async def never() -> Any:
        pytest.fail("the body was read")
        yield b""

    words = problem_of(await desk.post(content=never(), query={"camera": camera}), 400)
    assert "invalid camera" in words


@pytest.mark.parametrize("error", [Overloaded("full"), OSError("?")])
async def test_a_picture_whose_rows_are_lost_is_kept_and_says_so(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def refuses(_: Upload) -> None:
        raise error

    monkeypatch.setattr(desk, "record", refuses)
    answer = await desk.post(content=CAT, query={"wait_s": 20})
    assert answer.status_code == 201
    assert answer.json()["recorded"] is False
    assert desk.files == [NAME]
    assert desk.counted("unrecorded")
    assert not desk.counted("recorded")


@pytest.mark.parametrize("sent", [{"content": CAT}, {"files": [("image", ("a.jpg", CAT))]}], ids=list)
async def test_who_waits_for_rows_takes_no_place_meanwhile(
    blobs: MakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: dict[str, Any]
) -> None:
    desk, written = Desk(await blobs(limits=Limits(online_queue=1)), tmp_path), asyncio.Event()

    async def waits(_: Upload) -> None:
        await written.wait()

    monkeypatch.setattr(desk, "record", waits)
    request = asyncio.create_task(desk.post(query={"wait_s": 20}, **sent))
    async with asyncio.timeout(10):
        while not (desk.counted("kept") and has_room(desk.engine)):
            await asyncio.sleep(0.01)
    assert not request.done()
    written.set()
    told = (await request).json()
    assert (told["results"][0]["answer"] if "results" in told else told)["recorded"]


@pytest.mark.parametrize("sent", [{"content": CAT}, {"files": [("image", ("a.jpg", CAT))]}], ids=list)
async def test_a_disk_that_hangs_takes_no_place(
    blobs: MakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: dict[str, Any]
) -> None:
    desk, keep = Desk(await blobs(limits=Limits(online_queue=1)), tmp_path), Quotas.keep
    entered, returns = threading.Event(), threading.Event()

    def hangs(*arguments: Any) -> Any:
        entered.set()
        assert returns.wait(20)
        return keep(*arguments)

    monkeypatch.setattr(Quotas, "keep", hangs)
    request = asyncio.create_task(desk.post(**sent))
    await asyncio.to_thread(entered.wait, 20)
    assert has_room(desk.engine)
    returns.set()
    assert (await request).status_code in (200, 201)
    assert desk.files == [NAME]


@pytest.mark.parametrize(("name", "bound"), [("MAX_BYTES", len(CAT) - 1), ("MAX_KEEPING", 0)])
async def test_pictures_that_wait_to_be_written_have_a_bound(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, name: str, bound: int
) -> None:
    monkeypatch.setattr(serve.uploads.uploads, name, bound)
    problem_of(await desk.post(content=CAT), 429)
    assert desk.files == []
    monkeypatch.setattr(serve.uploads.uploads, "MAX_KEEPING", 1)
    assert (await desk.post(content=jpeg())).status_code == 201


async def test_a_picture_is_refused_while_the_disk_is_almost_full(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.free_mib = 2**40
    refused = problem_of(await desk.post(content=CAT), 507)
    assert "MiB" in refused
    (one,) = (await desk.post(files=[("image", ("a.jpg", CAT))])).json()["results"]
    assert one["status"] == one["problem"]["status"] == 507
    assert not desk.folder.exists()
    assert not desk.counted("kept")
    assert 'resight_requests_total{model="",outcome="StorageFull",version=""} 2.0' in desk.engine.exposition()
    desk.free_mib = 0
    assert (await desk.post(content=CAT)).status_code == 201


async def test_no_camera_can_stand_in_the_place_of_a_picture(desk: Desk) -> None:
    other = jpeg()
    for camera in (NAME, hashlib.sha256(other).hexdigest() + ".jpg", NAME.upper()):
        problem_of(await desk.post(content=CAT, query={"camera": camera}), 400)
    assert (await desk.post(content=CAT)).status_code == 201
    assert (await desk.post(content=other)).status_code == 201


async def test_a_folder_in_the_place_of_a_picture_is_not_taken_for_it(desk: Desk) -> None:
    """Also where it has the size of the picture, as a folder may."""
    (desk.folder / NAME).mkdir(parents=True)
    size = (desk.folder / NAME).stat().st_size
    padded = jpeg() + bytes(max(1, size - len(jpeg())))
    (desk.folder / (hashlib.sha256(padded).hexdigest() + ".jpg")).mkdir()
    for data in (CAT, padded):
        assert "not a file" in problem_of(await desk.post(content=data), 503)
    assert not desk.counted("kept")


async def test_a_picture_whose_sender_goes_away_is_recorded_all_the_same(desk: Desk) -> None:
    uploads = Uploads(str(desk.folder), desk, desk.engine.metrics.uploaded)
    with desk.engine.admission.images.place():
        answer = await desk.engine.detect(CAT, "blobs")
    sender = asyncio.create_task(uploads.keep(CAT, "north", answer))
    await asyncio.sleep(0)
    sender.cancel()
    async with asyncio.timeout(10):
        while not desk.counted("recorded"):
            await asyncio.sleep(0.02)
    assert desk.files == [row["path"] for row in rows_of(desk.tables, "media")]


async def test_what_was_kept_is_found(desk: Desk) -> None:
    sent = await desk.post(content=CAT, query={"camera": "north", "wait_s": 20})
    result = sent.json()["model"]
    view = {n: result[n] for n in ("inference_key", "weights_sha256")} | {"threshold": 0.0}
    Views(desk.tables.url).publish(View(model_name="blobs", model_version="1", **view), after=0)
    found = (await desk.get(camera="north")).json()
    (image,) = found["images"]
    assert image["path"] == f"north/{NAME}"
    assert image["status"] == "ok"
    (row,) = rows_of(desk.tables, "results")
    assert image["labels"] == {"blob": row["n_detections"]}
    assert found["view"]["inference_key"] == result["inference_key"]
    assert found["next"] == ""
    assert (await desk.get(camera="north", label="fox")).json()["images"] == []
    unknown = await desk.get(camera="nroth")
    assert (unknown.status_code, unknown.json()["detail"]) == (400, "unknown camera 'nroth'; did you mean 'north'?")


async def test_a_wrong_method_is_told_both_that_there_are(desk: Desk) -> None:
    async with desk._client() as client:
        answer = await client.put("/v1/images")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, POST"


async def test_under_another_camera_it_is_a_second_file_of_one_image(desk: Desk) -> None:
    for camera in ("north", "south"):
        await desk.post(content=CAT, query={"camera": camera, "wait_s": 20})
    assert desk.files == [f"north/{NAME}", f"south/{NAME}"]
    assert len(rows_of(desk.tables, "media")) == 2
    assert len(rows_of(desk.tables, "results")) == 1


async def test_where_nothing_can_be_kept_the_sender_is_told(desk: Desk) -> None:
    desk.folder.write_text("a file where the folder should be")
    problem_of(await desk.post(content=CAT), 503)
    assert not desk.counted("kept")


async def test_detections_like_one_are_listed_with_their_images(desk: Desk) -> None:
    sha = (await desk.post(content=photo("cat"), query={"wait_s": 20})).json()["media"]["media_sha256"]
    info = (await desk.engine.resolver.get("blobs")).model.info
    rows = [
        {"media_sha256": sha, "rank": rank, "detection_id": f"{sha}-{rank}", "vector": vector, "status": "ok"}
        | {"inference_key": info.inference_key, "embedder_key": "e" * 64, "margin_frac": 0.0}
        | {"model_name": "looks", "model_version": "1", "finished_at": datetime.now(UTC)}
        for rank, vector in enumerate([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    ]
    desk.tables.append("embeddings", pa.Table.from_pylist(rows, EMBEDDINGS), "test", lambda _, wanted: wanted)
    facts = {"model_name": "blobs", "model_version": "1", "weights_sha256": info.weights_sha256}
    Views(desk.tables.url).publish(View(inference_key=info.inference_key, **facts), after=0)
    (stored,) = rows_of(desk.tables, "results")
    boxes = {box["rank"]: box for box in stored["detections"]}
    body = (await desk.get(f"/v1/detections/{sha}-0/similar", limit=1)).json()
    (found,) = body["detections"]
    assert (body["embedder_key"], body["model"], body["view"]["model_name"]) == ("e" * 64, "looks@1", "blobs")
    assert (found["detection_id"], found["label"], found["media_sha256"]) == (f"{sha}-1", "blob", sha)
    assert found["cosine"] == pytest.approx(0.6)
    assert found["box_xyxy_px"] == [boxes[1][f"{side}_px"] for side in ("x1", "y1", "x2", "y2")]
    assert "unknown embedder" in problem_of(await desk.get(f"/v1/detections/{sha}-0/similar", embedder="x"), 400)
    assert "invalid detection" in problem_of(await desk.get("/v1/detections/x-0/similar"), 400)
    assert "limit" in problem_of(await desk.get(f"/v1/detections/{sha}-0/similar", limit=0), 400)
