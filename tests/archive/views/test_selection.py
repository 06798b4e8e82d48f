"""What a person should look at next: the order of a small archive, without reviewed images and repeats of events."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.annotations.layers import Layer, keep_layer
from archive.catalogue.row_updates import add_files
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.schemas import MEDIA
from archive.views.selection import Selection, select
from archive.views.views import View, Views
from model_store.errors import BadRequest
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


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    tables = Tables(str(tmp_path_factory.mktemp("select") / "tables"))
    keep_layer(tables, Layer(LAYER, "events", 1, {}, (), "event"), "0")
    media = [
        {"media_sha256": sha(n), "source_root": "/x", "path": f"{n}.jpg", "size_bytes": 1, "camera_id": camera}
        | {"ingested_at": NOON}
        for n, camera in enumerate(CAMERAS)
    ]
    add_files(Writer(tables, "media", "/x"), pa.Table.from_pylist(media, schema=MEDIA))
    for n, (label, score) in enumerate(zip(LABELS, SCORES, strict=True)):
        box = {"rank": 0, "label": label, "class_id": 0, "score": score}
        box |= {"x1_px": 1.0, "y1_px": 1.0, "x2_px": 5.0, "y2_px": 5.0}
        put_results(tables, result_rows([sha(n)], "k", detections=[box], width_px=10, height_px=10))
    person: dict[str, Any] = {"assertion_id": "s", "method": "human", "action": "suppress", "actor": "kim"}
    put_rows(tables, "assertions", person | {"media_sha256": sha(REVIEWED), "asserted_at": NOON})
    event = {"layer_id": LAYER, "method": "machine", "action": "group", "inference_key": "k", "group_id": "e"}
    for n in (4, 5):
        put_rows(tables, "assertions", event | {"assertion_id": str(n), "media_sha256": sha(n), "asserted_at": NOON})
    Views(tables.url).publish(VIEW, after=0)
    return tables


def chosen(tables: Tables, **wanted: Any) -> list[tuple[int, str]]:
    rows = select(tables, Selection(**wanted)).to_pylist()
    return [(int(row["media_sha256"], 16), row["reason"]) for row in rows]


def test_cameras_take_turns_and_the_least_certain_comes_first(tables: Tables) -> None:
    """Image 1 is reviewed, 5 is of the event of 4, and 7 is below the threshold."""
    found = [n for n, _ in chosen(tables, by=("uncertain",))]
    assert found == [4, 2, 6, 3, 0]


def test_reasons_take_turns(tables: Tables) -> None:
    found = chosen(tables, by=("uncertain", "rare"))
    assert found[:2] == [(4, "uncertain"), (3, "rare")]
    assert len({n for n, _ in found}) == len(found) == 5
    assert chosen(tables, by=("uncertain", "rare"), count=2) == found[:2]


def test_random_includes_empty_images_and_repeats_with_its_seed(tables: Tables) -> None:
    found = [n for n, _ in chosen(tables, by=("random",), seed=1)]
    assert found == [n for n, _ in chosen(tables, by=("random",), seed=1)]
    assert set(found) - {4, 5} == {0, 2, 3, 6, 7}
    assert len(set(found) & {4, 5}) == 1


def test_nothing_published_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="nothing is published"):
        select(Tables(str(tmp_path)), Selection())
