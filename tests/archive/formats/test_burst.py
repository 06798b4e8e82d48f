"""A real burst through the archive and out again, compared with the tables that its publisher made."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.catalogue.deployments import Deployment, record
from archive.catalogue.ingest import ingest
from archive.delta.tables import Tables
from archive.formats.export_file import export_file
from archive.formats.file_formats import FORMATS
from archive.schemas import RESULTS
from archive.views.query import query
from archive.views.views import View, Views
from tests.archive.formats.table_schema import errors, rows_of
from tests.archive.formats.test_camtrap_dp import STATED
from tests.fixtures_local import put_results, write_json
from tests.shared_data import shared

FRACTIONS = ("bboxX", "bboxY", "bboxWidth", "bboxHeight")
TWINS = ("test_each_box_is_an_observation_with_its_corners_score_and_author",)
NAMES = {"inference_key": "k" * 64, "model_name": "m", "model_version": "1", "weights_sha256": "w"}


def put_detections(tables: Tables, published: dict[str, dict[str, str]]) -> None:
    """Add the published boxes as results of a model, by file name, and publish them."""
    rows: list[dict[str, Any]] = []
    for row in query(tables, "select media_sha256, path, width_px, height_px from media").to_pylist():
        observed = published[Path(row.pop("path")).name]
        x, y, width, height = (float(observed[name]) for name in FRACTIONS)
        size = (row["width_px"], row["height_px"]) * 2
        box = [v * of for v, of in zip((x, y, x + width, y + height), size, strict=True)]
        corners = dict(zip(("x1_px", "y1_px", "x2_px", "y2_px"), box, strict=True))
        found = {"rank": 0, "class_id": 0, "label": observed["scientificName"], **corners}
        found["score"] = float(observed["classificationProbability"])
        rows.append(row | NAMES | {"run_id": "r", "status": "ok", "detections": [found]})
    put_results(tables, pa.Table.from_pylist(rows, schema=RESULTS))
    Views(tables.url).publish(View.model_validate({**NAMES, "run_id": "r"}), after=0)


def test_the_export_equals_the_tables_of_the_publisher(tmp_path: Path) -> None:
    burst = shared("burst", *TWINS)
    tables = Tables(str(tmp_path / "tables"))
    (tmp_path / "archive").mkdir()
    shutil.copytree(burst, tmp_path / "archive" / "HS", ignore=shutil.ignore_patterns("*.csv"))
    ingest(tables, str(tmp_path / "archive"))
    media = {r["fileName"]: r for r in rows_of(burst / "media.csv") if "://" not in r["filePath"]}
    seen = {r["mediaID"]: r for r in rows_of(burst / "observations.csv") if r["bboxX"]}
    theirs = {name: seen[row["mediaID"]] for name, row in media.items()}
    put_detections(tables, theirs)
    (of,) = {row["deploymentID"] for row in media.values()}
    (place,) = [r for r in rows_of(burst / "deployments.csv") if r["deploymentID"] == of]
    start, end, zone = place["deploymentStart"], place["deploymentEnd"], "+01:00"
    fact = {
        "camera_id": "HS",
        "location": place["locationName"],
        "time_zone": zone,
        **{name: float(place[name]) for name in ("latitude", "longitude")},
        "from_local": start.removesuffix(zone),
        "until_local": end.removesuffix(zone),
    }
    record(tables, {"row 1": Deployment.model_validate(fact)}, "kim")

    taxa = [{"scientificName": name} for name in {row["scientificName"] for row in theirs.values()}]
    stated = write_json(tmp_path / "stated.json", STATED | {"taxonomic": taxa})
    out = tmp_path / "out"
    assert export_file(tables, FORMATS["camtrap-dp"], out, options={"package": str(stated)}) == {"images": 10}

    assert errors(out) == []
    (row,) = rows_of(out / "deployments.csv")
    same = ("latitude", "longitude", "deploymentStart", "deploymentEnd", "locationName")
    assert [row[name] for name in same] == [place[name] for name in same]
    ours = {row["fileName"]: row for row in rows_of(out / "media.csv")}
    assert {n: r["timestamp"] for n, r in ours.items()} == {n: r["timestamp"] for n, r in media.items()}
    observed = {row["mediaID"]: row for row in rows_of(out / "observations.csv")}
    for name, row in ours.items():
        mine, other = observed[row["mediaID"]], theirs[name]
        for column in ("observationType", "scientificName", "count", "classificationMethod"):
            assert mine[column] == other[column]
        for column in (*FRACTIONS, "classificationProbability"):
            assert float(mine[column]) == pytest.approx(float(other[column]), abs=1e-6)
