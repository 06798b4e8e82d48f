"""Models of another pool, over the HTTP of this one: two engines over one store, without Ray."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi import FastAPI
from ray.exceptions import ActorDiedError

from archive.views.search import ImageSearch, SearchPage
from model_store.errors import ModelNotReady
from serve.api.app import build_http_api
from serve.auth.guard import Access
from serve.auth.scopes import Identity, TokenScope
from serve.cluster import handles as handle
from serve.cluster.handles import RayPools
from serve.inference.engine import Engine
from serve.models import pools as placement
from serve.models.pool_proxy import ForwardedAnswer, ForwardedRequest
from serve.models.pools import Serving
from serve.models.resolver import loads_if
from serve.settings import DetectArgs, Limits, Pool
from serve.uploads.uploads import Upload, Uploads
from tests.fixtures_local import encoded, motion_store, photo
from tests.serve.api.v2.test_inference import of_images

CAT = photo("cat")
DETECT = "/v1/detect?model=blobs"
SECRET = {"authorization": "Bearer a-token", "origin": "https://elsewhere"}


class OtherPool:
    """`Pools` over another engine of this process; remembers what was passed on."""

    def __init__(self, engine: Engine, uploads: Uploads) -> None:
        self.engine, self.passed = engine, list[ForwardedRequest]()
        self._app = build_http_api(engine, uploads=uploads)

    async def answer(self, pool: str, request: ForwardedRequest) -> ForwardedAnswer:
        assert pool == "gpu"
        self.passed.append(request)
        return await request.send_to(self._app)

    async def serving(self) -> Serving:
        return self.engine.serving()


class Two:
    """The pool that listens and the pool `gpu`, where `blobs` lives."""

    def __init__(self, place: Path, pool: str = "gpu", **limits: Any) -> None:
        self.place = place
        motion_store(place, "1", "2")
        self.move(pool)
        given = Limits.model_validate({"online_queue": 4, "body_mib": 1, **limits})
        args = DetectArgs(models=str(place), workers=1, limits=given, pools={"gpu": Pool()})
        self.here, self.there = Engine(args), Engine(args.of_pool("gpu"))
        self.look()
        self.recorded: list[Upload] = []
        self.uploads = place.with_name(f"{place.name}-uploads")
        self.pool = OtherPool(self.there, self._uploads(self.there))
        access, here = Access(secret="a-token"), self._uploads(self.here)
        self.api = build_http_api(self.here, access, pools=self.pool, uploads=here)

    def _uploads(self, engine: Engine) -> Uploads:
        return Uploads(str(self.uploads), self, engine.metrics.uploaded)

    async def record(self, upload: Upload) -> None:
        self.recorded.append(upload)

    async def find(self, wanted: ImageSearch) -> SearchPage:
        return SearchPage(view=None, images=[], next="")

    def move(self, pool: str) -> None:
        (self.place / "blobs" / "deployment.json").write_text(json.dumps({"*": {"pool": pool}}))

    def look(self) -> None:
        for engine in (self.here, self.there):
            asyncio.run(engine.aliases.refresh())

    def send_to(self, method: str, path: str, app: FastAPI | None = None, **more: Any) -> httpx2.Response:
        async def asked() -> httpx2.Response:
            transport = httpx2.ASGITransport(app or self.api)
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
                headers = SECRET | more.pop("headers", {})
                return await client.request(method, path, headers=headers, **more)

        return asyncio.run(asked())

    def stop(self) -> None:
        self.here.stop()
        self.there.stop()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    two = Two(tmp_path)
    yield two
    two.stop()


def detections(answer: httpx2.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["detections"], answer.json()["model"]


def test_an_image_is_answered_where_its_model_lives(two: Two) -> None:
    there = build_http_api(two.there)
    directly = two.send_to("POST", DETECT, there, content=CAT, headers={"origin": "http://localhost"})
    assert detections(two.send_to("POST", DETECT, content=CAT)) == detections(directly)
    for ref in ("blobs:production", "blobs@2"):
        answer = two.send_to("POST", f"/v1/detect?model={ref}", content=CAT)
        assert answer.status_code == 200, answer.text


def test_so_are_forms_tensors_and_what_v2_says_of_the_model(two: Two) -> None:
    form = two.send_to("POST", DETECT, files=[("image", ("a.jpg", CAT)), ("image", ("b.jpg", b"x"))])
    assert [one["status"] for one in form.json()["results"]] == [200, 415]
    content, headers = of_images(CAT)
    for path in ("/v2/models/blobs/infer", "/v2/models/blobs/versions/1/infer"):
        assert two.send_to("POST", path, content=content, headers=headers).status_code == 200
    for path in ("/v2/models/blobs", "/v2/models/blobs/config", "/v2/models/blobs/ready"):
        assert two.send_to("GET", path).status_code == 200
    assert two.send_to("POST", "/v2/repository/models/blobs/load").status_code == 200


def test_a_picture_is_kept_by_the_pool_that_has_seen_it(two: Two) -> None:
    """By one of them; what is there is asked of any."""
    answer = two.send_to("POST", "/v1/images?model=blobs&camera=north&wait_s=20", content=CAT)
    assert answer.status_code == 201, answer.text
    assert answer.json()["recorded"] is True
    assert [request.path for request in two.pool.passed] == ["/v1/images"]
    assert [file.read_bytes() for file in two.uploads.rglob("*.jpg")] == [CAT]
    (upload,) = two.recorded
    assert upload.result["model_name"][0].as_py() == "blobs"
    assert two.send_to("GET", "/v1/images?camera=north").json()["images"] == []
    assert len(two.pool.passed) == 1


def test_who_waits_for_rows_holds_up_no_detection(tmp_path: Path) -> None:
    two, written = Two(tmp_path, online_queue=1), asyncio.Event()

    async def waits(upload: Upload) -> None:
        two.recorded.append(upload)
        await written.wait()

    async def both() -> tuple[httpx2.Response, httpx2.Response]:
        transport = httpx2.ASGITransport(two.api)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            path = "/v1/images?model=blobs&wait_s=20"
            kept = asyncio.create_task(client.post(path, content=CAT, headers=SECRET))
            waiting = two.there.admission.uploads  # after the rows are on their way, the place of its image is freed
            async with asyncio.timeout(60):
                while waiting.taken == 0:
                    await asyncio.sleep(0.01)
            seen = await client.post(DETECT, content=CAT, headers=SECRET)
            assert not kept.done()
            written.set()
            return await kept, seen

    two.record = waits  # type: ignore[method-assign]
    try:
        kept, seen = asyncio.run(both())
        assert (kept.status_code, seen.status_code) == (201, 200)
    finally:
        two.stop()


def test_the_quota_of_a_sender_holds_in_another_pool(two: Two) -> None:
    sent = Identity("station", frozenset(TokenScope), daily_mib=1)
    body = encoded(np.zeros((256, 256, 3), np.uint8), "bmp")
    for number, status in ((0, 201), (0, 200), *((n, 201) for n in range(1, 5)), (5, 429)):
        request = ForwardedRequest("POST", "/v1/images", b"model=blobs", [], body[:-1] + bytes([number]), True, sent)
        assert asyncio.run(two.pool.answer("gpu", request)).status == status
    assert two.send_to("POST", "/v1/images?model=blobs", content=CAT).status_code == 201
    (*_, passed) = two.pool.passed
    assert (passed.sender and passed.sender.name) == "operator"


def test_neither_tokens_nor_origins_travel_and_the_id_does(two: Two) -> None:
    answer = two.send_to("POST", DETECT, content=CAT, headers={"x-request-id": "seven"})
    assert answer.headers["x-request-id"] == "seven"
    sent = {name for name, _ in two.pool.passed[0].headers}
    assert not sent & {b"authorization", b"origin", b"cookie"}


def test_who_may_not_ask_is_not_passed_on(two: Two) -> None:
    wrong = {"authorization": "Bearer another"}
    assert two.send_to("POST", DETECT, content=CAT, headers=wrong).status_code == 401
    assert two.pool.passed == []


def test_lists_and_readiness_are_of_all_pools(two: Two) -> None:
    assert two.send_to("GET", "/readyz").json()["loaded"] == ["blobs@1"]
    assert two.send_to("GET", "/v2/health/ready").status_code == 200
    (model,) = two.send_to("GET", "/v1/models").json()["models"]
    assert [v["version"] for v in model["versions"] if v["resident"]] == ["1"]
    about = two.send_to("GET", "/v1/models/blobs").json()
    assert [v["version"] for v in about["versions"] if v["resident"]] == ["1"]
    index = two.send_to("POST", "/v2/repository/index").json()
    assert [one["state"] for one in index] == ["READY", "UNAVAILABLE"]


def test_bodies_and_places_are_bounded_here(two: Two) -> None:
    assert two.send_to("POST", DETECT, content=bytes((1 << 20) + 1)).status_code == 413
    form = {"content-type": "multipart/form-data; boundary=b", "content-length": str(5 << 20)}
    refused = two.send_to("POST", DETECT, content=b"", headers=form)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert two.pool.passed == []


def test_a_pool_that_is_full_holds_up_nobody_else(two: Two) -> None:
    with contextlib.ExitStack() as places:
        for _ in range(4):
            places.enter_context(two.there.admission.images.place())
        assert two.send_to("POST", DETECT, content=CAT).status_code == 429
        assert two.here.admission.images.taken == 0


def test_what_is_left_of_a_deadline_goes_along(two: Two) -> None:
    two.send_to("POST", DETECT, content=CAT, headers={"x-request-timeout-ms": "5000"})
    (left,) = [v for k, v in two.pool.passed[0].headers if k == b"x-request-timeout-ms"]
    assert 0 < int(left) <= 5000


def test_a_model_moves_and_is_answered_all_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = Two(tmp_path, pool="default")
    try:
        before = detections(two.send_to("POST", DETECT, content=CAT))
        two.move("gpu")
        asyncio.run(two.here.aliases.refresh())  # it knows first, the other pool has not looked yet
        assert detections(two.send_to("POST", DETECT, content=CAT)) == before
        assert len(two.pool.passed) == 1
        assert [str(version) for version in two.there.models.names] == ["blobs@1"]
        assert two.here.aliases.table.aliases_of(two.here.models.names[0]) == ["production"]
        monkeypatch.setattr(placement, "KEEP_S", 0.0)
        two.look()
        assert two.here.aliases.table.aliases_of(two.here.models.names[0]) == []
        assert detections(two.send_to("POST", DETECT, content=CAT)) == before
    finally:
        two.stop()


def test_a_pool_that_there_is_not_is_named(tmp_path: Path) -> None:
    two = Two(tmp_path, pool="tpu")
    try:
        answer = two.send_to("POST", DETECT, content=CAT)
        assert answer.status_code == 503
        assert "requires the pool 'tpu'" in answer.json()["detail"]
        assert "requires the pool 'tpu'" in two.send_to("GET", "/readyz").json()["detail"]
        two.move("gpu")
        two.look()
        assert two.here.aliases.errors == {}
    finally:
        two.stop()


def test_a_damaged_deployment_file_moves_nothing(two: Two) -> None:
    (two.place / "blobs" / "deployment.json").write_text("{")
    two.look()
    assert [engine.placement.pool_of("blobs") for engine in (two.here, two.there)] == ["gpu", "gpu"]


class Alive:
    async def remote(self) -> Serving:
        return Serving()


class Gone:
    """A handle of a deployment without replicas: calls wait for ever."""

    def __init__(self) -> None:
        self.serving = self

    async def remote(self) -> Serving:
        await asyncio.Event().wait()
        raise AssertionError


class Dying:
    """A handle whose replica dies under the first so many calls."""

    def __init__(self, deaths: int) -> None:
        self.deaths, self.calls = deaths, 0
        self.answer = self
        self.serving = Alive()

    async def remote(self, request: ForwardedRequest) -> ForwardedAnswer:
        self.calls += 1
        if self.calls <= self.deaths:
            raise ActorDiedError
        return ForwardedAnswer(200, [], b"")


def test_a_request_that_may_not_load_here_may_not_load_there(two: Two) -> None:
    exact = "/v1/detect?model=blobs@2"
    with loads_if(allowed=False):
        assert two.send_to("POST", exact, content=CAT).status_code == 403
    assert [str(version) for version in two.there.models.names] == ["blobs@1"]
    assert two.send_to("POST", exact, content=CAT).status_code == 200


REQUEST = ForwardedRequest("POST", DETECT, b"", [], CAT)


def test_a_replica_that_dies_costs_a_second_try_and_no_more() -> None:
    once, always = Dying(1), Dying(9)
    assert asyncio.run(RayPools({"gpu": once}).answer("gpu", REQUEST)).status == 200
    with pytest.raises(ModelNotReady, match="the pool 'gpu' cannot answer") as raised:
        asyncio.run(RayPools({"gpu": always}).answer("gpu", REQUEST))
    assert raised.value.retry_after_s == 1
    assert (once.calls, always.calls) == (2, 2)


def test_a_pool_without_replicas_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handle, "LOOK_TIMEOUT_S", 0.05)
    pools = RayPools({"gpu": Gone()})
    with pytest.raises(ModelNotReady, match="no replica of the pool 'gpu' answers") as raised:
        asyncio.run(pools.answer("gpu", REQUEST))
    assert raised.value.retry_after_s == 1, "it may be starting"
    assert asyncio.run(pools.serving()).failures == {"pool gpu": "the pool does not answer: TimeoutError"}


def test_a_pool_that_does_not_answer_is_not_ready_whatever_else_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handle, "LOOK_TIMEOUT_S", 0.05)
    here = Serving(loaded=("blobs@1",))
    with pytest.raises(ModelNotReady, match="pool gpu: the pool does not answer"):
        here.plus(asyncio.run(RayPools({"gpu": Gone()}).serving())).require_ready("models")
