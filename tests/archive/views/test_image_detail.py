"""Details of one image: its files, the status of the view, boxes that are shown or not, and statements of people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from archive.annotations.assertions import append
from archive.catalogue.row_updates import add_files
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.schemas import ASSERTIONS, MEDIA
from archive.views.image_detail import ImageDetail, image_details
from archive.views.views import View
from tests.fixtures_local import put_results, result_rows

NOON = datetime(2026, 5, 14, 12, tzinfo=UTC)
VIEW = View(inference_key="k", model_name="m", model_version="1", weights_sha256="w", threshold=0.5)
IMAGE, OTHER = "a" * 64, "b" * 64


def file(media_sha256: str, path: str, gone: bool = False) -> dict[str, Any]:
    return {
        "media_sha256": media_sha256,
        "source_root": "/archive",
        "path": path,
        "camera_id": path.split("/")[0],
        "captured_at_local": "2026-05-14T09:30:00",
        "width_px": 100,
        "height_px": 80,
        "camera_make": "Reconyx",
        "ingested_at": NOON,
        "missing_since": NOON if gone else None,
    }


def box(rank: int, label: str, score: float, x1_px: float) -> dict[str, Any]:
    corners = {"x1_px": x1_px, "y1_px": 10.0, "x2_px": x1_px + 20, "y2_px": 30.0}
    return {"rank": rank, "label": label, "class_id": rank, "score": score, **corners}


def say(tables: Tables, action: str, minute: float = 0, **more: Any) -> None:
    row = {"layer_id": "human", "method": "human", "action": action, "media_sha256": IMAGE}
    row |= {"actor": "kim", "asserted_at": NOON + timedelta(minutes=minute), **more}
    append(tables, pa.Table.from_pylist([row], schema=ASSERTIONS))


@pytest.fixture
def two(tables: Tables) -> Tables:
    """Return tables with an image of three boxes that also lies elsewhere, and an image without result."""
    files = [file(IMAGE, "gone/1.jpg", gone=True), file(IMAGE, "north/1.jpg"), file(OTHER, "2.jpg")]
    add_files(Writer(tables, "media", "/archive"), pa.Table.from_pylist(files, schema=MEDIA))
    boxes = [box(0, "deer", 0.9, 0.0), box(1, "fox", 0.6, 40.0), box(2, "hare", 0.3, 70.0)]
    put_results(tables, result_rows([IMAGE], width_px=100, height_px=80, detections=boxes))
    return tables


def image_detail(tables: Tables, media_sha256: str, view: View | None) -> ImageDetail:
    return image_details(tables, [media_sha256], view)[media_sha256]


def shown(detail: ImageDetail) -> list[tuple[str | None, bool, bool]]:
    return [(box.label, box.is_shown, box.is_human) for box in detail.boxes]


def test_the_model_alone(two: Tables) -> None:
    detail = image_detail(two, IMAGE, VIEW)
    assert shown(detail) == [("deer", True, False), ("fox", True, False), ("hare", False, False)]
    assert detail.files == ("/archive/north/1.jpg", "/archive/gone/1.jpg"), "present ones first"
    assert (detail.camera_id, detail.captured_at_local) == ("north", "2026-05-14 09:30:00")
    assert (detail.status, detail.reviewed, detail.statements) == ("ok", False, ())
    assert detail.facts["camera_make"] == "Reconyx"
    assert detail.boxes[0].x2_px == 20.0


def test_what_people_said_is_shown_with_the_models_own_word(two: Tables) -> None:
    say(two, "relabel", inference_key="k", rank=1, label="wolf", **corners(40.0))
    say(two, "suppress", minute=1, inference_key="k", rank=0, **corners(0.0))
    say(two, "add", minute=2, label="owl", **corners(5.0, 50.0))
    say(two, "relabel", minute=3, inference_key="k", rank=1, label="dog", **corners(40.0))
    detail = image_detail(two, IMAGE, VIEW)
    assert shown(detail) == [("deer", False, True), ("dog", True, True), ("hare", False, False), ("owl", True, True)]
    assert detail.boxes[1].model_label == "fox"
    assert detail.boxes[3].rank is None
    assert detail.reviewed
    newest_first = [(said.label, said.stands) for said in detail.statements]
    assert newest_first == [("dog", True), ("owl", True), (None, True), ("wolf", False)]
    assert detail.boxes[1].assertion_id == detail.statements[0].assertion_id


def corners(x1_px: float, y1_px: float = 10.0) -> dict[str, float]:
    return {"x1_px": x1_px, "y1_px": y1_px, "x2_px": x1_px + 20, "y2_px": y1_px + 20}


def test_an_image_without_result_and_one_without_publication(two: Tables) -> None:
    assert image_detail(two, OTHER, VIEW).status == "missing"
    assert image_detail(two, IMAGE, None).boxes == ()


def test_an_unknown_image_is_left_out_and_a_missing_one_is_not(two: Tables) -> None:
    gone = "c" * 64
    missing = pa.Table.from_pylist([file(gone, "gone/2.jpg", gone=True)], schema=MEDIA)
    add_files(Writer(two, "media", "/archive"), missing)
    assert set(image_details(two, [gone, "d" * 64], VIEW)) == {gone}


def test_a_flag_asks_until_somebody_decides(two: Tables) -> None:
    say(two, "flag", reason="marten or stoat?")
    detail = image_detail(two, IMAGE, VIEW)
    assert (detail.flagged, detail.reviewed, detail.status) == (True, False, "ok")
    assert [(said.action, said.stands) for said in detail.statements] == [("flag", True)]
    assert shown(detail)[0] == ("deer", True, False), "it decides nothing"
    say(two, "keep", minute=1, inference_key="k", rank=0, label="deer", **corners(0.0))
    detail = image_detail(two, IMAGE, VIEW)
    assert (detail.flagged, detail.reviewed) == (False, True)
    assert [said.stands for said in detail.statements] == [True, False]
