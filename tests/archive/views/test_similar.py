"""Test the search for similar detections against a product of matrices in numpy, and what it cannot answer."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import archive.views.similar
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.schemas import EMBEDDINGS, MEDIA
from archive.views.query import connect
from archive.views.similar import SimilarSearch, find_similar
from archive.views.views import View, Views
from model_store.errors import BadRequest, DeadlinePassed
from tests.fixtures_local import put_results, result_rows

KEY, SIZE, IMAGES, BOXES = "k" * 64, 6, 40, 3
BOX = {"class_id": 0, "x1_px": 1.0, "y1_px": 2.0, "x2_px": 11.0, "y2_px": 22.0}


def sha(image: int) -> str:
    return f"{image:064x}"


def vectors(seed: int = 0) -> np.ndarray:
    """Return (images, boxes, size): vectors of length 1, as stored."""
    drawn = np.random.default_rng(seed).standard_normal((IMAGES, BOXES, SIZE))
    return (drawn / np.linalg.norm(drawn, axis=2, keepdims=True)).astype(np.float16).astype(np.float32)


def score(image: int, rank: int) -> float:
    """Return the score of a box: every fifth one lies below the threshold."""
    return 0.3 if (image * BOXES + rank) % 5 == 0 else 0.9


def embed(tables: Tables, found: np.ndarray, embedder: str = "e" * 64, first: int = 0, **more: Any) -> None:
    same = {"inference_key": KEY, "embedder_key": embedder, "margin_frac": 0.0, "status": "ok"}
    same |= {"model_name": "looks", "model_version": "1", "finished_at": datetime.now(UTC), "norm": 1.0} | more
    rows = [
        {"media_sha256": sha(image), "rank": rank, "detection_id": f"{sha(image)}-{rank}", "vector": vector} | same
        for image, boxes in enumerate(found.tolist(), first)
        for rank, vector in enumerate(boxes)
    ]
    Writer(tables, "embeddings", "test").append(pa.Table.from_pylist(rows, EMBEDDINGS), lambda _, wanted: wanted)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Images with three embedded boxes each, of which the view shows four of five; the last box of all failed."""
    tables = Tables(str(tmp_path_factory.mktemp("similar")))
    media = [
        {"media_sha256": sha(i), "source_root": "/a", "path": f"{i}.jpg", "camera_id": "north", "size_bytes": 1}
        | {"ingested_at": datetime.now(UTC)}
        for i in range(IMAGES)
    ]
    Writer(tables, "media", "test").append(pa.Table.from_pylist(media, MEDIA), lambda _, wanted: wanted)
    for i in range(IMAGES):
        found = [BOX | {"rank": rank, "label": "deer", "score": score(i, rank)} for rank in range(BOXES)]
        put_results(tables, result_rows([sha(i)], KEY, width_px=60, height_px=40, detections=found))
    embed(tables, vectors())
    view = View(inference_key=KEY, model_name="m", model_version="1", weights_sha256="w", threshold=0.5)
    Views(tables.url).publish(view, after=0)
    return tables


def similar(tables: Tables, detection: str, **more: Any) -> list[dict[str, Any]]:
    return find_similar(tables, SimilarSearch(detection=detection, **more), 60.0).detections


@pytest.mark.parametrize("limit", [1, 7, 200])
def test_the_nearest_shown_vectors_are_found_in_order(tables: Tables, limit: int) -> None:
    cosines = vectors() @ vectors()[4, 1]
    others = [(i, r) for i in range(IMAGES) for r in range(BOXES) if score(i, r) > 0.5 and (i, r) != (4, 1)]
    expected = sorted(others, key=lambda which: -cosines[which])[:limit]
    found = similar(tables, f"{sha(4)}-1", limit=limit)
    assert [row["detection_id"] for row in found] == [f"{sha(i)}-{r}" for i, r in expected]
    assert [row["cosine"] for row in found] == pytest.approx([cosines[which] for which in expected], abs=1e-6)
    assert {row["label"] for row in found} == {"deer"}
    assert found[0]["path"] == f"{expected[0][0]}.jpg"


def test_hidden_neighbours_are_passed_by(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only few vectors are read at first, so that hidden ones are met."""
    whole = similar(tables, f"{sha(4)}-1", limit=10)
    monkeypatch.setattr(archive.views.similar, "AHEAD", 1)
    monkeypatch.setattr(archive.views.similar, "FURTHER", 2)
    assert similar(tables, f"{sha(4)}-1", limit=10) == whole


def test_the_answer_names_view_and_embedder(tables: Tables) -> None:
    found = find_similar(tables, SimilarSearch(detection=f"{sha(4)}-1", embedder="looks@1"), 60.0)
    assert (found.view.inference_key, found.embedder_key, found.model) == (KEY, "e" * 64, "looks@1")


@pytest.mark.parametrize(
    ("detection", "fields", "words"),
    [
        ("abc-1", {}, "invalid detection 'abc-1': use <media_sha256>-<rank>"),
        (f"{sha(4)}-77", {}, "no vector of .* by looks@1: the view's inference key has no such row"),
        (f"{sha(4)}-1", {"view": "trial"}, "nothing is published as 'trial'"),
        (f"{sha(4)}-1", {"embedder": "f"}, "unknown embedder 'f' of these detections, name one: eeeeeeeeeeee is looks"),
    ],
)
def test_what_cannot_be_compared_is_refused(tables: Tables, detection: str, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        similar(tables, detection, **fields)


def test_one_of_several_embedders_must_be_named(tables: Tables, tmp_path: Path) -> None:
    """Two versions that share a key are one embedder, by either name."""
    embed(tables, vectors(1)[:9], "f" * 64, model_name="others")
    embed(tables, vectors(1)[9:], "f" * 64, 9, model_name="others", model_version="2")
    embed(tables, np.zeros((1, 1, SIZE)), "a" * 64, model_name="bad", status="failed", vector=None)
    with pytest.raises(BadRequest, match="several embedders of these.*, name one: .*others@1, others@2 with margin 0"):
        similar(tables, f"{sha(4)}-1")
    found = [similar(tables, f"{sha(4)}-1", embedder=name) for name in ("ff", "others@1", "others@2")]
    assert found[0] == found[1] == found[2]
    with pytest.raises(BadRequest, match="by bad@1: its crop failed"):
        similar(tables, f"{sha(0)}-0", embedder="bad@1")


def test_without_embeddings_the_command_to_make_them_is_named(tables: Tables) -> None:
    view = View(inference_key="j" * 64, model_name="m", model_version="2", weights_sha256="w", name="trial")
    Views(tables.url).publish(view, after=0)
    with pytest.raises(BadRequest, match="run resight embed --model NAME first"):
        similar(tables, f"{sha(4)}-1", view="trial")


def test_it_ends_at_its_limit_of_time(tables: Tables) -> None:
    with pytest.raises(DeadlinePassed, match="the search took more than 0 s"):
        find_similar(tables, SimilarSearch(detection=f"{sha(4)}-1"), 0.0)


def test_its_last_step_has_the_same_limit(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, late = time.monotonic, list[float]()

    def slow(*given: Any, **more: Any) -> Any:
        late.append(0.0 if len(given) == 2 else 90.0)  # with images
        return connect(*given, **more)

    monkeypatch.setattr(archive.views.similar, "connect", slow)
    monkeypatch.setattr(time, "monotonic", lambda: clock() + sum(late))
    with pytest.raises(DeadlinePassed, match="the search took more than 60 s"):
        similar(tables, f"{sha(4)}-1", embedder="looks@1")
