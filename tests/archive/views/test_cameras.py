"""Summaries of cameras: doubtful clocks count in no day, and changes of tables are seen."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta

import pytest

from archive.catalogue.deployments import Deployment, record
from archive.delta.tables import Tables
from archive.views import cameras
from archive.views.cameras import CameraViews
from archive.views.query import query
from tests.pages.routes.test_cameras import deployed, put, put_images


def test_without_images_there_is_nothing(tables: Tables) -> None:
    assert CameraViews(tables).cameras() == []
    assert CameraViews(tables).deployments() == {}
    assert CameraViews(tables).activity() == []
    assert CameraViews(tables).days("north") == {}


def test_doubtful_times_are_in_no_day(tables: Tables) -> None:
    put_images(tables, ("north", "2000-01-01T00:00:00"), timestamp_flags=["reset_default"])
    put_images(tables, ("north", "2026-05-01T23:59:59"), ("north", "2026-05-02T00:00:00"), first=5)
    (row,) = CameraViews(tables).cameras()
    assert (row["first_at"], row["days"]) == (datetime(2026, 5, 1, 23, 59, 59), 2)
    assert CameraViews(tables).days("north") == {date(2026, 5, 1): 1, date(2026, 5, 2): 1}


def test_a_broken_clock_counts_apart_unless_its_deployment_corrects_it(tables: Tables) -> None:
    broken = [("north", f"2000-01-01T00:00:0{n}") for n in range(2)]
    put_images(tables, *broken, timestamp_flags=["reset_default"])
    put_images(tables, ("north", "2026-05-01T10:00:00"), first=5)
    names = put(tables, deployed(from_local="1999-01-01", until_local="2000-06-01"), deployed(from_local="2026-05-01"))
    first, second = (CameraViews(tables).deployments()[name] for name in names)
    assert (first["images"], first["doubtful"], second["images"]) == (0, 2, 1)
    assert first["last_at"] == datetime(2000, 1, 1, 0, 0, 1), "an example for its correction"
    (row,) = CameraViews(tables).activity()
    assert (row["images"], row["doubtful"], row["days"]) == (3, 2, 1)
    assert row["last_at"] == datetime(2026, 5, 1, 10)
    put(tables, deployed(from_local="1999-01-01", until_local="2000-06-01", clock_offset_s=60))
    first = CameraViews(tables).deployments()[names[0]]
    assert (first["images"], first["doubtful"]) == (2, 0)
    assert first["last_at"] == datetime(2000, 1, 1, 0, 0, 1), "as the camera took it"
    (row,) = CameraViews(tables).activity()
    assert (row["images"], row["doubtful"], row["days"]) == (3, 0, 2)


def test_cameras_and_days_are_at_corrected_times(tables: Tables) -> None:
    put_images(tables, ("north", "2025-05-01T23:30:00"), ("north", "2025-05-02T00:30:00"))
    put(tables, deployed(from_local="2025-01-01", clock_offset_s=365 * 86_400 + 3600))
    last = datetime(2026, 5, 2, 1, 30)
    views = CameraViews(tables)
    (row,) = views.activity()
    assert (row["last_at"], row["days"], views.days("north")) == (last, 1, {last.date(): 2})
    (row,) = views.cameras()
    assert (row["first_at"], row["last_at"], row["days"]) == (last - timedelta(hours=1), last, 1)


def test_deployments_agree_with_the_relation_of_each_image(tables: Tables) -> None:
    lot = random.Random(3)
    start = datetime(2026, 5, 1)
    times = [start + timedelta(seconds=lot.randrange(10 * 86_400)) for _ in range(300)]
    put_images(tables, *[(lot.choice(["a", "b"]), time.isoformat()) for time in times])
    ends = ["2026-05-02T12:00:00", "2026-05-02T18:30:00", "2026-05-05", "2026-05-07T00:00:01"]
    pairs = [(ends[0], ends[1]), (ends[1], ends[2]), (ends[3], None)]
    put(tables, *[deployed("a", from_local=begin, until_local=end) for begin, end in pairs])
    one_by_one = query(
        tables,
        "select deployment_id, count(*) as images, min(captured_at_local) as first_at, "
        "max(captured_at_local) as last_at from image_deployments join images using (media_sha256) "
        "where deployment_id is not null group by all",
    ).to_pylist()
    assert len(one_by_one) == 3
    found = CameraViews(tables).deployments()
    assert found == {row["deployment_id"]: row | {"doubtful": 0} for row in one_by_one}


def test_answers_are_kept_until_a_table_changes(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    queries: list[str] = []
    connect = cameras.connect
    monkeypatch.setattr(cameras, "connect", lambda *a, **k: queries.append("") or connect(*a, **k))
    put_images(tables, ("north", "2026-05-02T00:00:00"))
    views = CameraViews(tables)
    assert (views.deployments(), views.deployments(), len(queries)) == ({}, {}, 1)
    fact = Deployment.model_validate({"camera_id": "north", "location": "x", "from_local": "2026-05-01"})
    (name,), _ = record(tables, {"": fact}, "ana")
    assert (views.deployments()[name]["images"], len(queries)) == (1, 2)
    put_images(tables, ("north", "2026-05-03T00:00:00"), first=5)
    assert (views.deployments()[name]["images"], len(queries)) == (2, 3)
