"""The stream of images, compared with the rows of the relations."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest

import archive.formats.records
from archive.catalogue.deployments import Deployment, record
from archive.delta.tables import Tables
from archive.formats.records import USED, BoxRecord, ImageRecord, image_records
from archive.views.query import connect
from tests.archive.formats.small_archive import (
    FAINT,
    FOX,
    NOW,
    ROOT,
    Box,
    corners,
    media_row,
    publish,
    put_boxes,
    put_media,
    small_archive,
    state,
)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return small_archive(str(tmp_path_factory.mktemp("home") / "tables"))


def records(tables: Tables, files: pa.Table | None = None, floor: float = 0) -> list[ImageRecord]:
    with connect(tables, statement=USED) as sql:
        return list(image_records(sql, files, floor))


def test_each_present_file_has_its_boxes_after_people(tables: Tables) -> None:
    found = {image.path: image for image in records(tables)}
    assert list(found) == sorted(
        ["north/a.jpg", "north/b.jpg", "south/c.jpg", "south/copy.jpg", "south/d.jpg", "z.jpg"]
    )
    fox = BoxRecord(
        *("fox", pytest.approx(0.9), *FOX[2:], 0),  # type: ignore[arg-type]
        is_human=True,
        said_by="human",
        model_label="animal",
    )
    assert found["north/a.jpg"].detections == found["south/copy.jpg"].detections == (fox,)
    added = BoxRecord("person", None, 1, 2, 3, 4, is_human=True, said_by="human")
    assert found["z.jpg"].detections == (added,)
    states = {path: image.status for path, image in found.items()}
    assert (states["north/b.jpg"], states["south/d.jpg"]) == ("empty", "missing")
    failed = found["south/c.jpg"]
    assert (failed.status, failed.error_code) == ("failed", "decode")
    assert (failed.width_px, found["south/d.jpg"].width_px) == (None, 1000)
    reviewed = {path: image.reviewed_at for path, image in found.items() if image.reviewed_at}
    assert reviewed == dict.fromkeys(("north/a.jpg", "south/copy.jpg", "z.jpg"), NOW)


def test_windows_and_a_floor_lose_no_other_box(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = records(tables)
    monkeypatch.setattr(archive.formats.records, "WINDOW", 2)
    assert records(tables) == whole
    boxes = [box.is_human for image in records(tables, floor=0.95) for box in image.detections]
    assert boxes == [True] * 3  # a person's statement has no floor


def test_chosen_files_alone_are_read(tables: Tables) -> None:
    chosen = pa.table({"source_root": [ROOT, "/other"], "path": ["south/copy.jpg", "z.jpg"]})
    assert [image.path for image in records(tables, chosen)] == ["south/copy.jpg"]


def test_paths_are_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    tables = Tables(str(tmp_path / "tables"))
    paths = ["b.jpg", "a/1.jpg", "a b/1.jpg", "Ä.jpg", "B.jpg"]
    put_media(tables, *(media_row(str(n), path) for n, path in enumerate(paths)))
    assert [image.path for image in records(tables)] == sorted(paths)


def test_an_image_is_blank_only_if_someone_found_nothing_in_it(tmp_path: Path) -> None:
    tables = Tables(str(tmp_path / "tables"))
    names = ("nothing", "faint", "hidden", "hidden-faint", "said", "said-failed", "said-new", "failed")
    put_media(tables, *(media_row(name, name) for name in (*names, "new", "fox")))
    boxes: dict[str, list[Box] | None] = {"nothing": [], "faint": [FAINT], "hidden": [FOX]}
    boxes |= {"hidden-faint": [FOX, FAINT], "said": [FOX, FAINT], "said-failed": None}
    put_boxes(tables, boxes | {"failed": None, "fox": [FOX]})
    for name in ("hidden", "hidden-faint"):
        state(tables, name, "suppress", **corners(FOX))
    for name in ("said", "said-failed", "said-new"):
        state(tables, name, "suppress")
    publish(tables)
    by = {image.path: image.blank_by for image in records(tables)}
    people = dict.fromkeys(("hidden", "said", "said-failed", "said-new"), "human")
    assert by == dict.fromkeys(by) | people | {"nothing": "machine"}
    floored = {image.path: image.blank_by for image in records(tables, floor=0.95)}
    assert floored == by  # a box below the floor is not nothing


def test_an_image_outside_the_deployments_of_its_camera_is_marked(tmp_path: Path) -> None:
    tables = Tables(str(tmp_path / "tables"))
    put_media(tables, *(media_row(name, f"{name}/1.jpg") for name in ("north", "south")))
    june = Deployment(camera_id="north", location="hill", from_local=datetime(2026, 6, 1))
    record(tables, {"row 1": june}, "Ana")
    publish(tables)
    assert [image.is_outside_deployments for image in records(tables)] == [True, False]


def test_a_corrected_clock_is_not_in_doubt(tmp_path: Path) -> None:
    tables = Tables(str(tmp_path / "tables"))
    put_media(
        tables, *(media_row(name, f"{name}/1.jpg", timestamp_flags=["reset_default"]) for name in ("north", "south"))
    )
    corrected = Deployment(camera_id="north", location="hill", from_local=datetime(2026, 1, 1), clock_offset_s=60)
    record(tables, {"row 1": corrected}, "Ana")
    publish(tables)
    assert [list(image.timestamp_flags) for image in records(tables)] == [[], ["reset_default"]]
