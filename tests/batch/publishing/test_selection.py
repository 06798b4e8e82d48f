"""Test the order of the selected images of a small archive, without reviewed images and repeats of events."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from archive.annotations.layers import Layer, keep_layer
from archive.catalogue.row_updates import add_files
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.schemas import MEDIA
from archive.views.views import View, Views
from batch.publishing.selection import Selection, farthest_first, reasons, select
from batch.runs.scope import MediaScope
from model_store.errors import BadRequest
from model_store.store import ModelStore
from tests.batch.publishing.impact.scene import NEW, OLD, World
from tests.batch.publishing.impact.scene import sha as named
from tests.fixtures_local import put_results, put_rows, result_rows

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SCORES = (0.9, 0.52, 0.55, 0.8, 0.51, 0.6, 0.7, 0.45)
LABELS = ("deer", "deer", "deer", "wolf", "deer", "deer", "deer", "deer")
CAMERAS = ("a", "a", "a", "a", "b", "b", "b", "b")
REVIEWED = 1
LAYER = "f" * 64
VIEW = View(inference_key="k", model_name="m", model_version="1", weights_sha256="w", layers=(LAYER,), threshold=0.5)


def sha(number: int) -> str:
    return f"{number:064x}"


def add_cameras(tables: Tables, cameras: tuple[str, ...]) -> None:
    media = [
        {"media_sha256": sha(n), "source_root": "/x", "path": f"{n}.jpg", "size_bytes": 1, "camera_id": camera}
        | {"ingested_at": NOON}
        for n, camera in enumerate(cameras)
    ]
    add_files(Writer(tables, "media", "/x"), pa.Table.from_pylist(media, schema=MEDIA))


def review(tables: Tables, *numbers: int) -> None:
    person: dict[str, Any] = {"method": "human", "action": "suppress", "actor": "kim", "asserted_at": NOON}
    put_rows(tables, "assertions", *({"assertion_id": f"s{n}", "media_sha256": sha(n)} | person for n in numbers))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    tables = Tables(str(tmp_path_factory.mktemp("select") / "tables"))
    keep_layer(tables, Layer(LAYER, "events", 1, {}, (), "event"), "0")
    add_cameras(tables, CAMERAS)
    for n, (label, score) in enumerate(zip(LABELS, SCORES, strict=True)):
        box = {"rank": 0, "label": label, "class_id": 0, "score": score}
        box |= {"x1_px": 1.0, "y1_px": 1.0, "x2_px": 5.0, "y2_px": 5.0}
        put_results(tables, result_rows([sha(n)], "k", detections=[box], width_px=10, height_px=10))
    review(tables, REVIEWED)
    event = {"layer_id": LAYER, "method": "machine", "action": "group", "inference_key": "k", "group_id": "e"}
    for n in (4, 5):
        put_rows(tables, "assertions", event | {"assertion_id": str(n), "media_sha256": sha(n), "asserted_at": NOON})
    Views(tables.url).publish(VIEW, after=0)
    return tables


def chosen(tables: Tables, scope: MediaScope | None = None, **wanted: Any) -> list[tuple[int, str]]:
    rows = select(tables, ModelStore("/none"), scope or MediaScope(), Selection(**wanted)).to_pylist()
    return [(int(row["media_sha256"], 16), row["reason"]) for row in rows]


def test_cameras_take_turns_and_the_least_certain_comes_first(tables: Tables) -> None:
    """Image 1 is reviewed, 5 is of the event of 4, and 7 is below the threshold."""
    found = [n for n, _ in chosen(tables, by=("uncertain",))]
    assert found == [4, 2, 6, 3, 0]


def test_a_scope_narrows_the_images(tables: Tables) -> None:
    assert chosen(tables, MediaScope(camera=("a",)), by=("uncertain",)) == [(n, "uncertain") for n in (2, 3, 0)]
    with pytest.raises(BadRequest, match="camera 'c'"):
        chosen(tables, MediaScope(camera=("c",)))


def test_reasons_take_turns(tables: Tables) -> None:
    found = chosen(tables, by=("uncertain", "rare"))
    assert found[:2] == [(4, "uncertain"), (3, "rare")]
    assert len({n for n, _ in found}) == len(found) == 5
    assert chosen(tables, by=("uncertain", "rare"), count=2) == found[:2]
    with pytest.raises(BadRequest, match="unknown reason 'odd'"):
        reasons("rare,odd")


@pytest.mark.parametrize("count", [1, 3, 8])
def test_random_is_the_start_of_a_permutation_of_the_scope(tables: Tables, count: int) -> None:
    """Events, cameras and what is reviewed have no influence; only the reviewed one needs no label."""
    order = sorted(range(8), key=lambda n: hashlib.md5(f"1{sha(n)}".encode()).hexdigest())
    found = [n for n, _ in chosen(tables, by=("random",), seed=1, count=count)]
    assert found == [n for n in order[:count] if n != REVIEWED]
    mixed = chosen(tables, by=("uncertain", "random"), seed=1, count=6)
    places = [order.index(n) for n, reason in mixed if reason == "random"]
    covered = {n for n, _ in mixed} | {REVIEWED}
    assert set(order[: max(places) + 1]) <= covered, "all images before the last random one are listed or reviewed"


def test_disagree_compares_with_the_matches_of_a_diff(tmp_path: Path) -> None:
    """An image with the same boxes is left out; overlaps below 0.5 are two differences, another label is one."""
    box, far = (0.0, 0.0, 40.0, 40.0), (25.0, 0.0, 65.0, 40.0)
    world = World().image("same", [("deer", 0.9, box)], [("deer", 0.6, box)])
    world.image("moved", [("deer", 0.9, box)], [("deer", 0.9, far)])
    world.image("renamed", [("deer", 0.9, box)], [("fox", 0.9, box)])
    tables = world.write(Tables(str(tmp_path)))
    for name, key, after in (("production", OLD, 0), ("other", NEW, 0)):
        view = View(name=name, inference_key=key, model_name=name, model_version="1", weights_sha256="w")
        Views(tables.url).publish(view, after=after)
    wanted = Selection(by=("disagree",), against="other")
    found = select(tables, ModelStore("/none"), MediaScope(), wanted).to_pylist()
    assert [(row["media_sha256"], row["value"]) for row in found] == [(named("moved"), 2), (named("renamed"), 1)]
    with pytest.raises(BadRequest, match="--against"):
        select(tables, ModelStore("/none"), MediaScope(), Selection(by=("disagree",)))


def test_disagreement_with_what_is_not_published_is_an_error(tmp_path: Path) -> None:
    tables = World().image("a", [("deer", 0.9, (0.0, 0.0, 40.0, 40.0))], []).write(Tables(str(tmp_path)))
    view = View(name="trial", inference_key=OLD, model_name="m", model_version="1", weights_sha256="w")
    Views(tables.url).publish(view, after=0)
    with pytest.raises(BadRequest, match="nothing is published: name a run, name@version or view with --against"):
        chosen(tables, view="trial", by=("disagree",), against="published")


def test_labels_that_one_model_lacks_are_no_disagreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = (0.0, 0.0, 40.0, 40.0)
    world = World().image("finer", [("animal", 0.9, box)], [("deer", 0.9, box)])
    world.image("person", [("person", 0.9, box)], []).image("only", [], [("deer", 0.9, box)])
    tables = world.write(Tables(str(tmp_path)))
    for name, key in (("production", OLD), ("other", NEW)):
        view = View(name=name, inference_key=key, model_name=name, model_version="1", weights_sha256="w")
        Views(tables.url).publish(view, after=0)
    labels = {"production": ("animal", "person"), "other": ("deer", "person")}
    monkeypatch.setattr("batch.publishing.selection.labels_of", lambda _, shown: labels[shown.model_name])
    wanted = Selection(by=("disagree",), against="other")
    found = select(tables, ModelStore("/none"), MediaScope(), wanted).to_pylist()
    assert [row["media_sha256"] for row in found] == [named("person")]
    labels["other"] = ("deer",)
    with pytest.raises(BadRequest, match="no label in common"):
        select(tables, ModelStore("/none"), MediaScope(), wanted)


def embed(tables: Tables, vectors: dict[int, list[float]]) -> None:
    same = {"inference_key": "k", "embedder_key": "e" * 64, "margin_frac": 0.0, "status": "ok", "rank": 0}
    same |= {"model_name": "looks", "model_version": "1", "finished_at": NOON}
    put_rows(tables, "embeddings", *({"media_sha256": sha(n), "vector": v} | same for n, v in vectors.items()))


def test_diverse_is_farthest_from_what_is_reviewed_and_chosen(tmp_path: Path) -> None:
    tables = Tables(str(tmp_path))
    add_cameras(tables, ("a",) * 6)
    box = {"rank": 0, "label": "deer", "class_id": 0, "score": 0.9}
    box |= {"x1_px": 1.0, "y1_px": 1.0, "x2_px": 5.0, "y2_px": 5.0}
    put_results(tables, result_rows([sha(n) for n in range(6)], "k", detections=[box], width_px=10, height_px=10))
    keep: dict[str, Any] = {"method": "human", "action": "keep", "actor": "kim", "asserted_at": NOON, "label": "deer"}
    keep |= {name: box[name] for name in ("x1_px", "y1_px", "x2_px", "y2_px")}
    put_rows(tables, "assertions", keep | {"assertion_id": "s0", "media_sha256": sha(0)})
    Views(tables.url).publish(VIEW.model_copy(update={"layers": ()}), after=0)
    with pytest.raises(BadRequest, match="resight embed --model NAME first"):
        chosen(tables, by=("diverse",))
    degrees = {0: 0, 1: 10, 2: 60, 3: 84, 4: 170, 5: 5}
    embed(tables, {n: [np.cos(np.radians(a)), np.sin(np.radians(a))] for n, a in degrees.items()})
    assert [n for n, _ in chosen(tables, by=("diverse",), count=3)] == [4, 3, 2]
    put_rows(tables, "assertions", *(keep | {"assertion_id": f"s{n}", "media_sha256": sha(n)} for n in range(1, 6)))
    assert chosen(tables, by=("diverse",)) == [], "all are reviewed"


def test_farthest_first_against_every_pair() -> None:
    """Each choice is the row with the largest distance to the nearest of those before it, by a loop over all pairs."""
    drawn = np.random.default_rng(3).standard_normal((60, 8)).astype(np.float32)
    vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    things, labelled = np.arange(60) // 2, vectors[:5] * -1
    places, cosines = farthest_first(vectors, things, labelled, 12)
    taken, free = list(labelled), list(range(60))
    for place, cosine in zip(places, cosines, strict=True):
        nearest = {n: max(float(v @ vectors[n]) for v in taken) for n in free}
        assert nearest[place] == pytest.approx(min(nearest.values()), abs=1e-6)
        assert cosine == pytest.approx(nearest[place], abs=1e-6)
        taken.append(vectors[place])
        free = [n for n in free if things[n] != things[place]]
    assert farthest_first(vectors, things, labelled[:0], 99)[1][0] == -np.inf
    assert len(farthest_first(vectors, things, labelled, 99)[0]) == 30


def test_nothing_published_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="nothing is published"):
        chosen(Tables(str(tmp_path)))
