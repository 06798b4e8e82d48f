"""Health of archive and cameras, compared with counts in Python, row by row."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.catalogue.deployments import Deployment, record
from archive.delta.tables import Tables
from archive.views.health import NO_CAMERA, OTHERS, CameraHealth, Health, Period, health
from archive.views.views import View
from model_store.errors import StorageUnreachable
from tests.fixtures_local import put_results, put_rows, result_rows

TOKYO = timezone(timedelta(hours=9))
NOW = datetime(2026, 5, 14, 12, tzinfo=TOKYO)
VIEW = View(inference_key="k", model_name="deer", model_version="1", weights_sha256="w", threshold=0.4)


def file(name: str, camera: str | None = "c", taken: datetime | None = None, **more: Any) -> dict[str, Any]:
    """Return a row of `media`; `taken` has an offset only with a time zone."""
    offset = taken.utcoffset() if taken else None
    row = {
        "media_sha256": name,
        "source_root": "/a",
        "path": f"{name}.jpg",
        "camera_id": camera,
        "captured_at_local": taken.replace(tzinfo=None).isoformat() if taken else None,
        "utc_offset_min": None if offset is None else int(offset.total_seconds() // 60),
        "captured_at_utc": taken if offset is not None else None,
        "timestamp_flags": [],
        "ingested_at": NOW - timedelta(hours=1),
        "missing_since": None,
    }
    return row | more


def put(tables: Tables, rows: Sequence[Mapping[str, Any]]) -> None:
    put_rows(tables, "media", *[dict(row) for row in rows])


def by_name(found: Health) -> dict[str, CameraHealth]:
    return {camera.name: camera for camera in found.cameras}


def found(score: float, label: str = "deer") -> dict[str, Any]:
    return {"max_score": score, "detections": [{"rank": 0, "label": label, "score": score}]}


def ago(**how_long: float) -> datetime:
    """Return the time on a clock without an offset, in the time zone of NOW."""
    return (NOW - timedelta(**how_long)).replace(tzinfo=None)


def test_tables_that_are_not_there_are_away_and_none_is_made(tables: Tables) -> None:
    with pytest.raises(StorageUnreachable, match="is it mounted"):
        health(tables, VIEW, NOW)
    assert not Path(tables.url).exists()


@pytest.mark.parametrize(("days", "recent", "before"), [(6.99, 1, 0), (7.01, 0, 1), (34.99, 0, 1), (35.01, 0, 0)])
def test_an_image_falls_into_one_period(tables: Tables, days: float, recent: int, before: int) -> None:
    put(tables, [file("a", taken=ago(days=days))])
    (camera,) = health(tables, None, NOW).cameras
    assert (camera.recent.images, camera.before.images) == (recent, before)


@pytest.mark.parametrize("zone", [None, TOKYO])
def test_a_clock_is_read_with_the_correction_of_its_deployment(tables: Tables, zone: timezone | None) -> None:
    year = timedelta(days=365)
    taken = (ago(days=1) - year).replace(tzinfo=zone)
    put(tables, [file("a", taken=taken, timestamp_flags=["reset_default"])])
    (camera,) = health(tables, None, NOW).cameras
    assert (camera.clock_fault_files, camera.recent.images) == (1, 0)
    stated = {"camera_id": "c", "location": "x", "from_local": "2020-01-01"}
    stated |= {"clock_offset_s": int(year.total_seconds())}
    record(tables, {"": Deployment.model_validate(stated)}, "ana")
    (camera,) = health(tables, None, NOW).cameras
    assert (camera.clock_fault_files, camera.recent.images) == (0, 1)
    assert camera.newest_taken_at == NOW - timedelta(days=1)


@pytest.mark.parametrize(
    ("labels", "row", "blank"),
    [
        ({}, {}, 1),
        ({}, found(0.4), 0),
        ({"deer": 0.7}, found(0.69), 1),
        ({"deer": 0.7}, found(0.7), 0),  # the float32 value in the column is less than 0.7
        ({"fox": 0.7}, found(0.5), 0),
    ],
)
def test_blank_is_without_a_detection_that_the_view_shows(
    tables: Tables, labels: dict[str, float], row: dict[str, Any], blank: int
) -> None:
    put(tables, [file("a", taken=ago(days=1))])
    put_results(tables, result_rows(["a"], **row))
    (camera,) = health(tables, VIEW.model_copy(update={"label_thresholds": labels}), NOW).cameras
    assert camera.recent == Period(images=1, seen=1, blank=blank)


def test_failed_images_and_those_of_other_models_are_not_seen(tables: Tables) -> None:
    put(tables, [file(name, taken=ago(days=10)) for name in "abcd"])
    put_results(tables, result_rows(["a"], status="failed"))
    put_results(tables, result_rows(["b", "c"], key="other"))
    put_results(tables, result_rows(["c"], **found(0.9)))
    answer = health(tables, VIEW, NOW)
    assert answer.cameras[0].before == Period(images=4, seen=1, blank=0)
    assert answer.results == {"failed": 1, "ok": 1, "none": 2}


def test_the_same_bytes_are_one_image_and_two_files(tables: Tables) -> None:
    copy = {"path": "copy.jpg"}
    put(tables, [file("a", taken=ago(days=1)), file("a", taken=ago(days=1), **copy)])
    put(tables, [file("a", "other", ago(days=1), source_root="/b")])
    answer = health(tables, None, NOW)
    assert (answer.files, answer.images) == (3, 1)
    cameras = by_name(answer)
    assert {name: camera.files for name, camera in cameras.items()} == {"c": 2, "other": 1}
    assert {name: camera.recent.images for name, camera in cameras.items()} == {"c": 1, "other": 0}


def test_cameras_over_the_bound_are_one_row_and_the_busy_ones_stay(tables: Tables) -> None:
    rows = [file(f"{i}-{j}", f"cam{i}", ago(days=1)) for i in range(5) for j in range(i + 1)]
    rows += [file("quiet", "quiet", ago(days=300)), file("named", OTHERS, ago(days=300))]
    put(tables, [*rows, file("nameless", None, ago(days=300))])
    whole = health(tables, None, NOW)
    assert (len(whole.cameras), whole.left_out) == (8, 0)
    assert NO_CAMERA in by_name(whole)
    bounded = health(tables, None, NOW, max_cameras=2)
    assert set(by_name(bounded)) == {"cam4", "cam3", OTHERS}
    assert bounded.left_out == 6
    assert by_name(bounded)[OTHERS].files == 1 + 2 + 3 + 3
    assert by_name(bounded)[OTHERS].recent.images == 1 + 2 + 3
    assert (bounded.files, bounded.images) == (whole.files, whole.images)


def test_names_of_any_length_are_cut_and_added_up(tables: Tables) -> None:
    put(tables, [file("a", "x" * 1000, ago(days=1)), file("b", "x" * 1001, ago(days=1))])
    (camera,) = health(tables, None, NOW).cameras
    assert (camera.name, camera.files) == ("x" * 200, 2)


def test_a_table_that_cannot_be_read_is_away(tables: Tables) -> None:
    put(tables, [file("a")])
    for part in Path(tables.url, "media").glob("*.parquet"):
        part.write_bytes(b"torn")
    with pytest.raises(StorageUnreachable, match="cannot read"):
        health(tables, VIEW, NOW)


@pytest.mark.parametrize("seed", range(2))
def test_any_archive_is_counted_as_by_hand(tables: Tables, seed: int) -> None:
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for i in range(300):
        taken = ago(days=rng.uniform(-0.5, 50)) if rng.random() < 0.9 else None
        if taken and rng.random() < 0.5:
            taken = taken.replace(tzinfo=timezone(timedelta(hours=rng.randint(-11, 14))))
        flags = ["reset_default"] if taken and rng.random() < 0.1 else []
        missing = NOW if rng.random() < 0.1 else None
        camera = rng.choice(["north", "south", None])
        rows.append(file(f"{i:03}", camera, taken, timestamp_flags=flags, missing_since=missing))
    put(tables, rows)
    scores = {row["media_sha256"]: rng.choice([None, None, 0.0, 0.3, 0.5]) for row in rows}
    seen = [
        result_rows([sha], **({} if score == 0 else found(score))) for sha, score in scores.items() if score is not None
    ]
    put_results(tables, pa.concat_tables(seen))
    wanted: dict[tuple[str, bool], list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in rows:
        if row["missing_since"] or row["timestamp_flags"] or not row["captured_at_local"]:
            continue
        taken = row["captured_at_utc"] or datetime.fromisoformat(row["captured_at_local"]).replace(tzinfo=TOKYO)
        if NOW - taken >= timedelta(days=35):
            continue
        sha = row["media_sha256"]
        counts = wanted[row["camera_id"] or NO_CAMERA, NOW - taken < timedelta(days=7)]
        counts[0] += 1
        if scores[sha] is not None:
            counts[1] += 1
            counts[2] += scores[sha] < 0.4
    for name, camera in by_name(health(tables, VIEW, NOW)).items():
        assert camera.recent == Period(*wanted[name, True])
        assert camera.before == Period(*wanted[name, False])
