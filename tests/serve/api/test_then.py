"""POST /v1/detect?then=CLASSIFIER: the classes of each detection, as a classify run stores them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from batch.classify.rows import classification_table, classify_target
from batch.crops.model_stage import crops_of
from model_store.names import VersionId
from serve.inference.batcher import Batcher, Lane
from serve.inference.chunks import Chunk
from serve.inference.engine import Engine
from serve.inference.workers import make_items
from serve.settings import DetectArgs, Limits
from tests.fixtures_local import PHOTOS, copy_of_models, encoded, photo
from tests.model_store.classifiers import LABELS, colour_store
from tests.model_store.embedders import look_store
from tests.serve.http_client import client, problem_of
from tests.serve.inference.test_engine import Gate

ONE = VersionId("colours", "1")
MOST = 6
"""Detections of the photo `person` from score 0.1, and the bound of the engine."""
BLANK = encoded(np.zeros((40, 40, 3), np.uint8), "PNG")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped detectors, `colours` and `looks`, all in production."""
    copy_of_models(home := tmp_path_factory.mktemp("then"))
    colour_store(home / "models").set_alias("colours", "production", "1")
    look_store(home / "models").set_alias("looks", "production", "1")
    return home / "models"


@contextlib.contextmanager
def engine_of(models: Path) -> Iterator[Engine]:
    engine = Engine(DetectArgs(models=str(models), workers=1, limits=Limits(online_queue=MOST)))
    asyncio.run(engine.aliases.refresh())
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def engine(models: Path) -> Iterator[Engine]:
    with engine_of(models) as engine:
        yield engine


@pytest.fixture
def fresh(models: Path) -> Iterator[Engine]:
    """An engine that has measured nothing, and that a test may change."""
    with engine_of(models) as engine:
        yield engine


def classified(engine: Engine) -> float:
    """Return the number of detections that were classified."""
    name = 'resight_requests_total{model="colours",outcome="ok",version="1"} '
    lines = engine.exposition().splitlines()
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


async def detect(engine: Engine, body: Any, then: str = "colours", **query: Any) -> httpx2.Response:
    async with client(engine) as api:
        return await api.post("/v1/detect", content=body, params={"model": "ssdlite-coco", "then": then, **query})


async def test_the_classes_are_those_of_a_run_bit_for_bit(engine: Engine) -> None:
    """A cluster test compares them with the rows of the command, of real weights."""
    answer = await detect(engine, photo("person"), min_score=0.1)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    found = body["detections"]
    assert len(found) == MOST

    boxes = [
        dict(zip(("x1_px", "y1_px", "x2_px", "y2_px"), one["box_xyxy_px"], strict=True))
        | {"rank": i, "replaces": False}
        for i, one in enumerate(found)
    ]
    image = {"source_root": str(PHOTOS), "path": "person.jpg", "boxes": boxes}
    image |= {"media_sha256": hashlib.sha256(photo("person")).hexdigest()}
    image |= {side: body["image"][side] for side in ("width_px", "height_px")}
    version = engine.store.describe(ONE)
    crops = crops_of(image, version.config.preprocess, 0.0, 10**8)
    chunk = Chunk.of_inputs("colours@1", np.stack([crop.input for crop in crops if crop.input is not None]))
    target = classify_target("k" * 64, version, 0.0)
    rows = classification_table("r", version.info, target, crops, await engine.crops_chunk(chunk)).to_pylist()
    for row, one in zip(rows, found, strict=True):
        best = one["classes"][0]
        assert (best["label"], best["score"]) == (row["label"], row["score"])
        logits = {each["class_id"]: float(np.float16(each["logit"])) for each in one["classes"]}
        assert logits == dict(enumerate(row["logits"]))


async def test_the_answer_names_both_models(engine: Engine) -> None:
    body = (await detect(engine, photo("cat"), "colours@1")).json()
    info = engine.store.describe(ONE).info
    assert body["model"]["name"] == "ssdlite-coco"
    assert body["then"]["model"] == {
        "name": "colours",
        "version": "1",
        "alias": None,
        "weights_sha256": info.weights_sha256,
        "inference_key": info.inference_key,
    }
    assert body["then"]["timings_ms"]["inference"] > 0
    (cat,) = body["detections"]
    assert {one["label"] for one in cat["classes"]} == set(LABELS)
    alone = (await detect(engine, photo("cat"))).json()["detections"][0]
    async with client(engine) as api:
        plain = (await api.post("/v1/detect?model=ssdlite-coco", content=photo("cat"))).json()
    assert plain["then"] is plain["detections"][0]["classes"] is None
    assert alone | {"classes": None} == plain["detections"][0]


async def test_an_image_without_detections_has_no_crops(fresh: Engine) -> None:
    body = (await detect(fresh, BLANK)).json()
    assert body["detections"] == []
    assert body["then"]["model"]["version"] == "1"
    assert 'resight_stage_seconds_count{model="colours"' not in fresh.exposition(), "nothing was measured"


@pytest.mark.parametrize(("taken", "sizes"), [(0, [4, 2]), (4, [2, 2, 2]), (MOST, [1] * MOST)])
async def test_crops_are_submitted_together_as_far_as_places_are_free(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, taken: int, sizes: list[int]
) -> None:
    submitted: list[tuple[str, int]] = []
    submit = Batcher.submit

    def counted(self: Any, key: Any, items: Any, *more: Any) -> Any:
        submitted.append((key.version.name, len(items)))
        return submit(self, key, items, *more)

    monkeypatch.setattr(Batcher, "submit", counted)
    before = classified(engine)
    with engine.admission.crops.place(taken):
        body = (await detect(engine, photo("person"), min_score=0.1)).json()
        assert engine.admission.crops.taken == taken
    assert submitted == [("ssdlite-coco", 1), *(("colours", size) for size in sizes)]
    assert classified(engine) - before == len(body["detections"])


@pytest.mark.parametrize(
    ("then", "status", "words"),
    [
        ("motion", 400, "motion@1 is a detector: use POST /v1/detect, or choose a classifier"),
        ("looks", 400, "looks@1 is an embedder: use POST /v1/embed, or choose a classifier"),
        ("colour", 404, "available: colours, looks, motion, ssdlite-coco"),
        ("../etc", 400, "is not a model"),
    ],
)
async def test_another_second_model_is_refused_before_anything_is_detected(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, then: str, status: int, words: str
) -> None:
    monkeypatch.setattr(engine, "detect", None)
    assert words in problem_of(await detect(engine, photo("cat"), then), status)


async def test_more_detections_than_places_are_refused(engine: Engine) -> None:
    words = problem_of(await detect(engine, photo("person"), min_score=0), 400)
    assert f"at most {MOST} are classified in a request (limits.online_queue): raise min_score" in words


async def test_a_classifier_of_another_pool_is_refused(fresh: Engine) -> None:
    fresh.placement.set("colours", "gpu")
    fresh.placement.pools = frozenset({"default", "gpu"})
    fresh.placement._left_s.clear()
    words = problem_of(await detect(fresh, photo("cat")), 400)
    assert words == "colours and ssdlite-coco are in different pools: place both in one (deployment.json)"


async def test_each_file_of_a_form_has_its_classes(engine: Engine) -> None:
    files = [("a", ("cat.jpg", photo("cat"))), ("b", ("bad.jpg", b"none"))]
    async with client(engine) as api:
        answer = await api.post("/v1/detect?model=ssdlite-coco&then=colours", files=files)
    first, second = answer.json()["results"]
    assert (first["status"], second["status"]) == (200, 415)
    assert first["answer"]["detections"][0]["classes"]


async def test_a_full_lane_sheds_the_request(fresh: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, detect_first = threading.Event(), fresh.detect

    async def then_busy(*args: Any) -> Any:
        answer = await detect_first(*args)
        for waiting in range(2 * MOST + 1):  # the first occupies the worker
            fresh.batcher.submit(*make_items(Gate(gate), [np.zeros(0, np.float32)]), Lane.ONLINE)  # type: ignore[arg-type]
            while fresh.batcher.depth(Lane.ONLINE) != waiting:
                await asyncio.sleep(0.01)
        return answer

    monkeypatch.setattr(fresh, "detect", then_busy)
    try:
        answer = await detect(fresh, photo("person"), min_score=0.1)
    finally:
        gate.set()
    assert "wait in the online lane" in problem_of(answer, 429)
    assert int(answer.headers["retry-after"]) >= 1
