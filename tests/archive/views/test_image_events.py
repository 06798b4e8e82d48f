"""Events of an index equal the relation `events`; disagreements equal a comparison of label sets in Python."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.annotations.layers import Layer, keep_layer
from archive.catalogue.row_updates import add_files
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.schemas import MEDIA
from archive.views.image_events import disagreeing, events
from archive.views.image_filter import ImageFilter
from archive.views.image_index import ImageIndex
from archive.views.query import query
from archive.views.views import View, Views
from model_store.errors import BadRequest
from tests.fixtures_local import put_results, put_rows, result_rows

LAYER, NOON = "e" * 64, datetime(2026, 5, 14, 12)
VIEW = View(inference_key="k", model_name="m", model_version="1", weights_sha256="w", layers=(LAYER,), threshold=0.5)
SECOND = VIEW.model_copy(update={"inference_key": "l", "layers": (), "threshold": 0.0})
SHOWN = (["fox"], ["fox", "fox", "deer"], [], ["deer"], ["deer"], [], None)
"""Labels of each image in the first version; None: without a result."""
OF_SECOND = (["fox"], ["fox"], ["owl"], ["owl", "hare"], None, [], ["fox"])


def sha(number: int) -> str:
    return f"{number:064x}"


def boxes(labels: list[str]) -> list[dict[str, Any]]:
    corners = {"x1_px": 1.0, "y1_px": 1.0, "x2_px": 9.0, "y2_px": 9.0}
    sure = [{"label": label, "score": 0.9} for label in labels]
    return [
        {"rank": rank, "class_id": 0, **corners, **box}
        for rank, box in enumerate([*sure, {"label": "vole", "score": 0.1}])
    ]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Return seven images: events of three, two and one, and an image without an event."""
    tables = Tables(str(tmp_path_factory.mktemp("events") / "tables"))
    keep_layer(tables, Layer(LAYER, "events", 1, {}, (), "event"), "0")
    media = [
        {
            "media_sha256": sha(n),
            "source_root": "/x",
            "path": f"{n}.jpg",
            "camera_id": "north" if n < 3 else "south",
            "captured_at_local": None if n == 5 else f"2026-05-14T12:00:{n:02}",
            "width_px": 20,
            "height_px": 20,
        }
        for n in range(7)
    ]
    add_files(Writer(tables, "media", "/x"), pa.Table.from_pylist(media, schema=MEDIA))
    for key, of_images in (("k", SHOWN), ("l", OF_SECOND)):
        for n, labels in enumerate(of_images):
            if labels is not None:
                found = boxes(labels)
                put_results(tables, result_rows([sha(n)], key, detections=found, width_px=20, height_px=20))
    rows = [
        {"layer_id": LAYER, "method": "machine", "action": "group", "inference_key": "k"}
        | {"assertion_id": str(n), "media_sha256": sha(n), "group_id": event, "asserted_at": NOON}
        for n, event in enumerate(("a", "a", "a", "b", "b", "c"))
    ]
    put_rows(tables, "assertions", *rows)
    Views(tables.url).publish(VIEW, after=0)
    return tables


@pytest.fixture(scope="module")
def index(tables: Tables) -> ImageIndex:
    return ImageIndex(tables, Path(tables.url).parent / "index")


def ids(index: ImageIndex, limit: int = 10, after: str = "", **wanted: Any) -> list[str]:
    found = events(index, ImageFilter(**wanted), limit, after).events
    return [event.event_id for event in found]


def test_events_equal_the_relation(index: ImageIndex, tables: Tables) -> None:
    found = [event.model_dump() for event in events(index, ImageFilter(), 10).events]
    assert [event.pop("reviewed") for event in found] == [0, 0, 0]
    wanted = query(
        tables,
        "select event_id, camera_id, start_local, end_local, n_images as images, max_n "
        "from events order by end_local desc nulls last",
    )
    rows = wanted.to_pylist(maps_as_pydicts="strict")
    assert found == [row | {"max_n": row["max_n"] or {}} for row in rows]
    assert found[1]["max_n"] == {"deer": 1, "fox": 2}


def test_pages_have_every_event_once(index: ImageIndex) -> None:
    found, after = list[str](), ""
    for _ in range(3):
        page = events(index, ImageFilter(), 1, after)
        found += [event.event_id for event in page.events]
        after = page.next
    assert (found, after) == (["b", "a", "c"], "")
    with pytest.raises(BadRequest, match="invalid cursor"):
        events(index, ImageFilter(), 1, "x")


def test_an_event_matches_by_one_of_its_images_and_is_shown_whole(index: ImageIndex) -> None:
    assert ids(index, label="fox") == ["a"]
    assert events(index, ImageFilter(label="fox"), 10).events[0].images == 3
    assert ids(index, camera="south") == ["b", "c"]
    assert ids(index, event_id="c") == ["c"]
    assert ids(index, event_id="'; drop table cells; --") == []


def test_disagreements_come_first(index: ImageIndex, tables: Tables) -> None:
    def differing(number: int) -> int:
        one, other = SHOWN[number], OF_SECOND[number]
        return 0 if one is None or other is None else len(set(one) ^ set(other))

    ranked = disagreeing(index, tables, ImageFilter(), SECOND, 10)
    numbers = [int(digest, 16) for digest in ranked]
    assert numbers[:3] == [3, 2, 1], "three labels, then one each, the newest first"
    assert [differing(n) for n in numbers] == [3, 1, 1, 0, 0, 0, 0]
    assert disagreeing(index, tables, ImageFilter(camera="north"), SECOND, 2) == [sha(2), sha(1)]
