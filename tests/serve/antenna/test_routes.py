"""Antenna's processing-service API over a detector and a classifier."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

import model_store.crop_model
import serve.antenna.pipelines as pipelines_module
from model_store.classifier import Classifier
from model_store.errors import ModelNotFound, ModelNotReady, ResightError, StorageUnreachable, TooSlow
from model_store.images.decode import decode
from model_store.names import VersionId
from model_store.store import CONFIG, ModelStore
from serve.antenna import routes
from serve.antenna.pipelines import Pipelines
from serve.api.app import build_http_api
from serve.auth.guard import scope_of
from serve.auth.scopes import TokenScope
from serve.inference.engine import Engine
from serve.models.pool_proxy import ForwardedAnswer, ForwardedRequest
from serve.models.pools import Serving
from serve.settings import DetectArgs, Limits
from tests.batch.schedule.test_config_impact import IMPORTED
from tests.fixtures_local import encoded, motion_store
from tests.model_store.classifiers import LABELS
from tests.serve.antenna.stations import Station, antenna_client, both_models, file_of
from tests.serve.http_client import problem_of
from tests.serve.models.shelf import state, write_state


def red_square() -> bytes:
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[20:30, 30:40] = (255, 150, 150)
    return encoded(pixels, "PNG")


SQUARE, BLACK = red_square(), encoded(np.zeros((60, 80, 3), np.uint8), "PNG")
FILES = {
    "/square.png": file_of(SQUARE),
    "/other.png": file_of(SQUARE),
    "/black.png": file_of(BLACK),
    "/text.txt": file_of(b"no image"),
    "/empty.jpg": file_of(b""),
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    place: Path = both_models(tmp_path_factory.mktemp("models"))
    ModelStore(str(place)).publish(VersionId("imported", "1"), {CONFIG: json.dumps(IMPORTED).encode()})
    engine = Engine(DetectArgs(models=str(place), workers=1, limits=Limits(online_queue=2)))
    asyncio.run(engine.aliases.refresh())
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def wide(engine: Engine) -> Iterator[Engine]:
    """An engine with places for two images of four boxes each."""
    limits = Limits(online_queue=16)
    wide = Engine(DetectArgs(models=engine.args.models, workers=4, limits=limits))
    asyncio.run(wide.aliases.refresh())
    yield wide
    wide.stop()


def ask(engine: Engine, method: str, path: str, token: str = "", **request: Any) -> httpx2.Response:
    async def send() -> httpx2.Response:
        station = Station({})
        async with antenna_client(engine, station, token) as client:
            return await client.request(method, path, **request)

    return asyncio.run(send())


def sent(engine: Engine, *names: str, which: int = 0, **more: Any) -> httpx2.Response:
    """Return the answer for some files, with the slug of the pipeline at `which`."""

    async def send() -> httpx2.Response:
        async with Station(FILES).running() as station, antenna_client(engine, station) as client:
            slug = (await client.get("/antenna/info")).json()["pipelines"][which]["slug"]
            images = [{"id": name, "url": station.url(f"/{name}")} for name in names]
            body = {"pipeline": slug, "source_images": images, **more}
            return await client.post("/antenna/process", json=body)

    return asyncio.run(send())


def process(engine: Engine, *names: str, which: int = 0, **more: Any) -> dict[str, Any]:
    """Return the results of `sent`."""
    answer = sent(engine, *names, which=which, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_pipelines_are_those_that_serve_while_the_version_of_an_alias_file_is_refused(tmp_path: Path) -> None:
    store = motion_store(tmp_path, "1", "2")
    write_state(store, "blobs", state(1, "1"))
    store.set_alias("blobs", "production", "2")
    (served,) = pipelines_module.served_pipelines(store, lambda name: "default")
    assert served.detector.id == VersionId("blobs", "1")


def test_the_store_gives_a_detector_alone_and_with_the_classifier(engine: Engine) -> None:
    info = ask(engine, "GET", "/antenna/info").json()
    alone, both = info["pipelines"]
    assert [len(alone["algorithms"]), len(both["algorithms"])] == [1, 2]
    detector, classifier = both["algorithms"]
    assert [detector["task_type"], classifier["task_type"]] == ["detection", "classification"]
    assert classifier["category_map"]["labels"] == list(LABELS)
    assert [entry["index"] for entry in classifier["category_map"]["data"]] == [0, 1, 2, 3]
    assert both["slug"] == f"{detector['key']}--{classifier['key']}"
    assert detector["key"].startswith("blobs-1-")
    assert {a["key"] for a in info["algorithms"]} == {detector["key"], classifier["key"]}


def test_health_is_as_antenna_reads_it(engine: Engine) -> None:
    assert ask(engine, "GET", "/antenna/livez").json() == {"status": True}
    slugs = [p["slug"] for p in ask(engine, "GET", "/antenna/info").json()["pipelines"]]
    assert ask(engine, "GET", "/antenna/readyz").json() == {"status": slugs}


def test_a_detector_alone_gives_its_label_and_score(engine: Engine) -> None:
    results = process(engine, "square.png")
    (found,) = results["detections"]
    assert found["source_image_id"] == "square.png"
    assert list(found["bbox"].values()) == pytest.approx([30, 20, 40, 30], abs=7)
    (label,) = found["classifications"]
    assert label["terminal"] is True
    assert max(label["scores"]) > 0
    assert results["errors"] is None


def test_a_classifier_classifies_each_box(engine: Engine) -> None:
    (found,) = process(engine, "square.png", which=1)["detections"]
    label, species = found["classifications"]
    assert [label["terminal"], species["terminal"]] == [False, True]
    assert species["classification"] == LABELS[0]
    assert len(species["scores"]) == len(species["logits"]) == len(LABELS)
    assert species["scores"].index(max(species["scores"])) == 0


def test_boxes_that_antenna_knows_are_classified_in_place_of_the_detector(engine: Engine) -> None:
    of = {"name": "theirs", "key": "theirs"}
    box = {"x1": 0, "y1": 0, "x2": 20, "y2": 20}
    known = [{"source_image": {"id": "square.png", "url": "x"}, "bbox": b, "algorithm": of} for b in (box, None)]
    (found,) = process(engine, "square.png", which=1, detections=known)["detections"]
    assert found["bbox"] == box
    assert found["algorithm"] == of
    assert len(found["classifications"]) == 1


def test_the_boxes_of_an_image_decode_it_once_and_score_as_v1_classify(
    wide: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, steps, classify = list[int](), list[str](), wide.infer_crop

    async def followed(*args: Any) -> Any:
        steps.append("start")
        answer = await classify(*args)
        steps.append("end")
        return answer

    def counted(data: bytes, *args: Any, **more: Any) -> Any:
        decoded.append(len(data))
        return decode(data, *args, **more)

    monkeypatch.setattr(model_store.crop_model, "decode", counted)
    monkeypatch.setattr(wide, "infer_crop", followed)
    of = {"name": "theirs", "key": "theirs"}
    boxes = [{"x1": x, "y1": 5.5, "x2": x + 20, "y2": 30} for x in range(0, 55, 5)]
    known = [{"source_image": {"id": "square.png", "url": "x"}, "bbox": box, "algorithm": of} for box in boxes]
    results = process(wide, "square.png", which=1, detections=known)
    assert results["errors"] is None
    found = results["detections"]
    assert decoded == [len(SQUARE)]
    assert steps[:6] == ["start", "end"] + ["start"] * 4  # no other thread waits for the decoded image
    assert [one["bbox"] for one in found] == boxes
    for one in found:
        (species,) = one["classifications"]
        box = tuple(one["bbox"].values())
        alone = asyncio.run(classify(Classifier, SQUARE, "colours", box))
        assert species["logits"] == alone.values.tolist()


def test_an_image_that_fails_is_an_error_and_not_an_empty_image(engine: Engine) -> None:
    """Antenna records each of `source_images` without a detection as empty."""
    results = process(engine, "black.png", "text.txt", "empty.jpg", "square.png")
    assert [image["id"] for image in results["source_images"]] == ["black.png", "square.png"]
    errors = {entry["image_id"]: entry["error"] for entry in results["errors"]}
    assert set(errors) == {"text.txt", "empty.jpg"}
    assert "0 bytes" in errors["empty.jpg"]


@pytest.mark.parametrize(
    "error", [ModelNotReady("it is being loaded", 2.0), StorageUnreachable("no answer"), TooSlow("slow")]
)
def test_an_error_that_ends_by_itself_is_not_a_result_of_the_image(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: ResightError
) -> None:
    async def failing(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(engine, "detect", failing)
    answer = sent(engine, "square.png", "text.txt")
    assert str(error) in problem_of(answer, 503)
    assert answer.headers["retry-after"] == ("2" if error.retry_after_s == 2 else "1")
    assert answer.json()["type"].startswith("urn:resight:")
    assert engine.admission.images.taken == 0


def test_a_camera_is_answered_while_slow_images_of_antenna_are_fetched(engine: Engine) -> None:
    async def send() -> tuple[httpx2.Response, int]:
        fetching = asyncio.Event()

        async def slow(writer: asyncio.StreamWriter) -> None:
            fetching.set()
            await writer.wait_closed()

        station = Station({"/slow.png": slow})
        async with station.running(), antenna_client(engine, station) as client:
            slug = (await client.get("/antenna/info")).json()["pipelines"][0]["slug"]
            images = [{"id": str(i), "url": station.url("/slow.png")} for i in range(64)]
            body = {"pipeline": slug, "source_images": images}
            pending = asyncio.create_task(client.post("/antenna/process", json=body))
            await fetching.wait()
            answer = await client.post("/v1/detect?model=blobs", content=SQUARE)
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
            return answer, len(station.asked)

    answer, asked = asyncio.run(send())
    assert answer.status_code == 200
    assert asked == 1  # a share of two places
    assert engine.admission.images.taken == 0


def test_an_answer_with_too_many_values_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = len(engine.store.describe(VersionId("blobs", "1")).info.labels)
    monkeypatch.setattr(routes, "MAX_VALUES", labels)
    assert process(engine, "square.png")["errors"] is None
    answer = sent(engine, "square.png", "other.png")
    assert f"more than {labels} scores and logits" in problem_of(answer, 400)


def test_a_box_outside_the_image_is_kept_without_a_class(engine: Engine) -> None:
    of = {"name": "theirs", "key": "theirs"}
    boxes = [
        {"x1": 80, "y1": 0, "x2": 80, "y2": 20},
        {"x1": 0, "y1": 0, "x2": 20, "y2": 20},
        {"x1": 90, "y1": 0, "x2": 95, "y2": 20},
    ]
    known = [{"source_image": {"id": "square.png", "url": "x"}, "bbox": b, "algorithm": of} for b in boxes]
    results = process(engine, "square.png", which=1, detections=known)
    assert results["errors"] is None
    assert [found["bbox"] for found in results["detections"]] == boxes
    assert [len(found["classifications"]) for found in results["detections"]] == [0, 1, 0]


def test_concurrent_health_checks_read_the_store_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    served = pipelines_module.served_pipelines

    def counted(*args: Any) -> Any:
        reads.append(1)
        return served(*args)

    monkeypatch.setattr(pipelines_module, "served_pipelines", counted)

    async def send() -> None:
        async with antenna_client(engine, Station({})) as client:
            answers = await asyncio.gather(*(client.get("/antenna/readyz") for _ in range(20)))
            assert {answer.status_code for answer in answers} == {200}

    asyncio.run(send())
    assert reads == [1]


def test_a_text_that_is_no_slug_is_unknown_without_reading_the_store(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: Any) -> Any:
        raise AssertionError("read")

    monkeypatch.setattr(pipelines_module, "find_pipeline", read)
    for slug in ("none", "a--b--c", "../x-00000000", "a-0000000", "A-00000000", "-" * 400):
        with pytest.raises(ModelNotFound):
            asyncio.run(Pipelines(engine).find(slug))


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"pipeline": "none", "source_images": []}, 404, "unknown pipeline 'none'"),
        ({"pipeline": "a-00000000--b-00000000", "source_images": []}, 404, "unknown pipeline"),
        ({"pipeline": "x", "source_images": [{"id": "1", "url": "u"}] * 65}, 400, "64"),
        ([], 400, "valid dictionary"),
    ],
)
def test_an_invalid_request_is_a_problem(engine: Engine, body: Any, status: int, words: str) -> None:
    assert words in problem_of(ask(engine, "POST", "/antenna/process", json=body), status)


def test_one_id_with_two_urls_is_refused(engine: Engine) -> None:
    slug = ask(engine, "GET", "/antenna/info").json()["pipelines"][0]["slug"]
    images = [{"id": "1", "url": "http://a.test/"}, {"id": "1", "url": "http://b.test/"}]
    body = {"pipeline": slug, "source_images": images}
    assert "listed twice" in problem_of(ask(engine, "POST", "/antenna/process", json=body), 400)


def test_a_body_over_the_bound_is_refused(engine: Engine) -> None:
    body = json.dumps({"pipeline": "x", "source_images": [], "more": "x" * (4 * 2**20)})
    assert "4096 KiB" in problem_of(ask(engine, "POST", "/antenna/process", content=body), 413)


def test_a_pipeline_of_another_pool_is_passed_on(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[tuple[str, ForwardedRequest]] = []

    class Others:
        async def serving(self) -> Serving:
            return Serving()

        async def answer(self, pool: str, request: ForwardedRequest) -> ForwardedAnswer:
            passed.append((pool, request))
            return ForwardedAnswer(503, [(b"retry-after", b"7")], b'{"pipeline": "there"}')

    slug = ask(engine, "GET", "/antenna/info").json()["pipelines"][0]["slug"]
    monkeypatch.setattr(engine.placement, "pools", frozenset({"default", "gpu"}))
    monkeypatch.setattr(engine.placement, "pool_of", lambda name: "gpu")
    body = {"pipeline": slug, "source_images": [{"id": "1", "url": "u"}]}

    async def send() -> httpx2.Response:
        api = build_http_api(engine, pools=Others())
        transport = httpx2.ASGITransport(api)
        async with httpx2.AsyncClient(transport=transport, base_url="http://resight") as client:
            return await client.post("/process", json=body, headers={"authorization": "secret"})

    answer = asyncio.run(send())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert answer.json() == {"pipeline": "there"}
    ((pool, request),) = passed
    assert (pool, request.path, json.loads(request.body)) == ("gpu", "/process", body)
    assert "authorization" not in {name.decode() for name, _ in request.headers}


def test_scopes_and_the_password_of_the_endpoint_url(engine: Engine) -> None:
    assert scope_of("POST", "/antenna/process") is TokenScope.detect
    assert scope_of("POST", "/process") is TokenScope.detect
    assert scope_of("POST", "/antenna/other") is TokenScope.admin
    for path in ("/antenna/livez", "/antenna/readyz"):
        assert ask(engine, "GET", path, token="secret").status_code == 200
    basic = base64.b64encode(b"antenna:secret").decode()
    statuses = {
        value: ask(engine, "GET", "/antenna/info", "secret", headers={"authorization": value})
        for value in ("Bearer secret", f"Basic {basic}", "Basic c2VjcmV0", "Basic ?", "")
    }
    assert [answer.status_code for answer in statuses.values()] == [200, 200, 401, 401, 401]
    latin = "Basic " + base64.b64encode("antenna:gehöht ÿ".encode("latin-1")).decode()
    emoji = "Basic " + base64.b64encode("antenna:pass→wort".encode()).decode()
    for value in (latin, emoji):
        answer = ask(engine, "GET", "/antenna/info", "secret", headers={"authorization": value})
        assert answer.status_code == 401
    right = ask(engine, "GET", "/antenna/info", "pass→wort", headers={"authorization": emoji})
    assert right.status_code == 200
    elsewhere = ask(engine, "GET", "/v1/models", "secret", headers={"authorization": f"Basic {basic}"})
    assert elsewhere.status_code == 401


def test_unknown_fields_and_repeated_images_are_tolerated(engine: Engine) -> None:
    results = process(engine, "black.png", "black.png", config={"request_x": 1}, future=[1])
    assert len(results["source_images"]) == 1
