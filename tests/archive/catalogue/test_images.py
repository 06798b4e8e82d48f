"""One row per content and detection, also for renamed, copied, repeatedly ingested and gone files."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from archive.catalogue.ingest import ingest
from archive.delta.tables import Tables
from archive.schemas import MEDIA
from archive.views.health import health
from archive.views.query import connect, query
from archive.views.search import ImageSearch, find
from archive.views.views import View, Views
from tests.archive.media_rows import put_media
from tests.fixtures_local import ROOT, jpeg, put_results, result_rows, rows_of, write_files

VIEW = View(inference_key="k", model_name="m", model_version="1", weights_sha256="w")
BOX = {"rank": 0, "label": "deer", "class_id": 0, "score": 0.9}
CORNERS = {"x1_px": 1.0, "y1_px": 1.0, "x2_px": 5.0, "y2_px": 5.0}
(TAUGHT,) = re.findall(r'^resight sql "(.*)"$', (ROOT / "README.md").read_text(), re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = [f"north/{i}.jpg" for i in range(4)] + [f"south/{i}.jpg" for i in range(2)]
    return write_files(tmp_path / "deer", {name: jpeg(shade=10 * i) for i, name in enumerate(names)})


@pytest.fixture
def tables(tmp_path: Path, folder: Path) -> Tables:
    """Return six images with one detection each."""
    tables = Tables(str(tmp_path / "tables"))
    ingest(tables, str(folder))
    shas = [row["media_sha256"] for row in rows_of(tables, "media")]
    put_results(tables, result_rows(shas, width_px=48, height_px=32, detections=[BOX | CORNERS]))
    Views(tables.url).publish(VIEW, after=0)
    return tables


def by_camera(tables: Tables) -> dict[str, int]:
    """Return the count of the query in the README, after comparing every other count with it."""
    counts = {row["camera_id"]: row["n"] for row in query(tables, TAUGHT).to_pylist()}
    with connect(tables, statement="images all_detections") as sql:
        for relation in ("images", "all_detections"):
            assert dict(sql.sql(f"select camera_id, count(*) from {relation} group by all").fetchall()) == counts
    assert Counter(image["camera_id"] for image in find(tables, ImageSearch(label="deer"), 60).images) == counts
    assert health(tables, VIEW, datetime.now(UTC)).images == sum(counts.values())
    return counts


def test_a_renamed_folder_takes_its_detections_along(tables: Tables, folder: Path) -> None:
    assert by_camera(tables) == {"north": 4, "south": 2}
    (folder / "north").rename(folder / "west")
    ingest(tables, str(folder))
    assert by_camera(tables) == {"west": 4, "south": 2}


def test_a_copy_is_counted_where_it_was_catalogued_first_until_that_file_is_gone(tables: Tables, folder: Path) -> None:
    shutil.copytree(folder / "north", folder / "again")
    ingest(tables, str(folder))
    ingest(tables, str(folder), verify=True)
    assert by_camera(tables) == {"north": 4, "south": 2}
    (folder / "north" / "0.jpg").unlink()
    ingest(tables, str(folder))
    assert by_camera(tables) == {"again": 1, "north": 3, "south": 2}


def test_files_that_were_catalogued_at_once_are_chosen_by_their_places(tmp_path: Path) -> None:
    tables = Tables(str(tmp_path))
    places = [("/b", "a.jpg"), ("/a", "z.jpg"), ("/a", "y.jpg"), ("/a", "x.jpg")]
    rows = [
        {"media_sha256": "m", "source_root": root, "path": path, "ingested_at": datetime(2026, 5, 1)}
        for root, path in places
    ]
    rows[3] |= {"missing_since": datetime(2026, 5, 2)}
    put_media(tables, pa.Table.from_pylist(rows, schema=MEDIA))
    found = query(tables, "select source_root, path from images").to_pylist()
    assert found == [{"source_root": "/a", "path": "y.jpg"}]


def test_what_is_gone_is_in_the_results_alone(tables: Tables, folder: Path) -> None:
    shutil.rmtree(folder / "south")
    ingest(tables, str(folder))
    assert by_camera(tables) == {"north": 4}
    kept = "select count(*) as n from results join media using (media_sha256)"
    assert query(tables, kept).to_pylist() == [{"n": 6}]
