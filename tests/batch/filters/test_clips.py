"""A clip through events, tracks and its determination, to MegaDetector's file and the pictures of the page."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from archive.annotations.assertions import append
from archive.catalogue.clips import Sampling
from archive.catalogue.ingest import ingest
from archive.delta.tables import Tables
from archive.formats.export_file import export_file
from archive.formats.file_formats import FORMATS
from archive.schemas import ASSERTIONS
from archive.views.query import query
from archive.views.views import Views
from batch.filters.layers import switch
from batch.filters.prepare import prepare
from batch.filters.run import execute, here
from batch.runs.scope import FilterScope
from model_store.images.thumbnails import thumbnail
from pages.pictures import made_of, picture_rows
from tests.archive.resolve_worlds import person
from tests.batch.filters.scene import KEY, box, publish
from tests.fixtures_local import put_results, result_rows, rows_of
from tests.support.clips import clip, noise, sequential

DEER, FOX, DOUBT = (box(0, 100, 100, 200), box(1, 600, 500, 100, "fox", 0.5), box(0, 110, 100, 200, "fox", 0.6))
CLIPS = "select path, status, label, n_frames, n_failed, n_detections, n_tracks, max_n from clips order by path"


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Four clips. In `a`, a deer in frames 0 to 2, a fox in frame 1, and a doubtful fox in frame 3; `b` is empty."""
    root = tmp_path / "archive"
    clip(root / "n" / "a.mp4", noise(40))
    clip(root / "n" / "b.mkv", noise(11, seed=1), created=None)
    clip(root / "n" / "c.mkv", noise(11, seed=2), created=None)
    (root / "n" / "d.mp4").write_bytes(b"")
    tables = Tables(str(tmp_path / "tables"))
    ingest(tables, str(root), sampling=Sampling(1.0))
    found = {0: [DEER], 1000: [DEER, FOX], 2000: [DEER], 3000: [DOUBT]}
    for row in rows_of(tables, "media"):
        if row["clip_sha256"] and "c.mkv" not in row["path"]:
            boxes = found[row["at_ms"]] if "a.mp4" in row["path"] else []
            size = {"width_px": 1000, "height_px": 800, "n_detections": len(boxes), "detections": boxes}
            is_bad = row["path"] == "n/b.mkv#00001000"
            failed = {"status": "failed", "error_code": "decode"} if is_bad else {}
            put_results(tables, result_rows([row["media_sha256"]], KEY, **size, **failed))
    publish(tables)
    return tables


def run(tables: Tables, kind: str) -> None:
    report = execute(prepare(tables, kind, {}, FilterScope()), tables, here)
    switch(tables, on=[report.layer_id])


def clips(tables: Tables) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in query(tables, CLIPS).to_pylist()]


def test_a_clip_has_one_determination(tables: Tables) -> None:
    assert clips(tables) == [
        ("n/a.mp4", "ok", "deer", 4, 0, 5, 0, [("deer", 1), ("fox", 1)]),
        ("n/b.mkv", "empty", None, 2, 1, 0, 0, None),
        ("n/c.mkv", "missing", None, 2, 0, 0, 0, None),
        ("n/d.mp4", "failed", None, 0, 0, 0, 0, None),
    ]
    run(tables, "events")
    events = query(tables, "select n_images from events order by n_images desc").to_pylist()
    assert [event["n_images"] for event in events] == [4, 1], "of the frames with a result"
    run(tables, "tracking")
    assert clips(tables)[0] == ("n/a.mp4", "ok", "deer", 4, 0, 5, 3, [("deer", 1), ("fox", 1)])
    tracks = query(tables, "select label, n_detections from occurrences order by n_detections desc").to_pylist()
    assert tuple(tracks[0].values()) == ("deer", 3)


def test_a_person_decides_the_clip(tables: Tables) -> None:
    row = next(row for row in rows_of(tables, "media") if row["path"] == "n/a.mp4#00003000")
    corners = tuple(DOUBT[name] for name in ("x1_px", "y1_px", "x2_px", "y2_px"))
    said = person("relabel", row["media_sha256"], corners, label="hare")
    append(tables, pa.Table.from_pylist([said], schema=ASSERTIONS))
    assert clips(tables)[0][1:3] == ("ok", "hare")


def test_the_file_of_megadetector_has_one_entry_per_clip(tables: Tables, tmp_path: Path) -> None:
    view = Views(tables.url).current()
    export_file(tables, FORMATS["megadetector"], tmp_path / "md.json", view)
    found = json.loads((tmp_path / "md.json").read_text())
    a, b = found["images"]
    assert (a["file"], a["frame_rate"], a["frames_processed"]) == ("n/a.mp4", 10.0, [0, 10, 20, 30])
    names = found["detection_categories"]
    boxes = [(d["frame_number"], names[d["category"]], d["conf"], d["bbox"]) for d in a["detections"]]
    assert boxes == [
        (0, "deer", 0.9, [0.1, 0.125, 0.2, 0.25]),
        (10, "deer", 0.9, [0.1, 0.125, 0.2, 0.25]),
        (10, "fox", 0.5, [0.6, 0.625, 0.1, 0.125]),
        (20, "deer", 0.9, [0.1, 0.125, 0.2, 0.25]),
        (30, "fox", 0.6, [0.11, 0.125, 0.2, 0.25]),
    ]
    assert (b["file"], b["frames_processed"], b["detections"]) == ("n/b.mkv", [0], [])


def test_a_data_set_for_yolo_has_the_pixels_of_frames(tables: Tables, tmp_path: Path) -> None:
    export_file(tables, FORMATS["yolo"], tmp_path / "yolo", Views(tables.url).current())
    row = next(row for row in rows_of(tables, "media") if row["path"] == "n/a.mp4#00001000")
    (file,) = (tmp_path / "yolo" / "images").rglob(f"{row['media_sha256']}.bmp")
    expected = sequential((tmp_path / "archive" / "n" / "a.mp4").read_bytes())[10]
    assert np.array_equal(np.asarray(Image.open(file)), expected)


def test_the_page_has_pictures_of_frames(tables: Tables, tmp_path: Path) -> None:
    row = next(row for row in rows_of(tables, "media") if row["path"] == "n/a.mp4#00002000")
    (files,) = picture_rows(tables, [row["media_sha256"]]).values()
    picture = np.asarray(Image.open(io.BytesIO(made_of(files, lambda data: thumbnail(data, 64)))), float)
    expected = sequential((tmp_path / "archive" / "n" / "a.mp4").read_bytes())
    differences = [np.abs(picture - frame).mean() for frame in expected]
    assert int(np.argmin(differences)) == 20
