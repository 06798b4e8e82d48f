"""Summaries of cameras: doubtful clocks count in no day, and changes of tables are seen."""

from __future__ import annotations

from datetime import date, datetime

import pytest

from archive.catalogue.deployments import Deployment, record
from archive.delta.tables import Tables
from archive.views import cameras
from archive.views.cameras import CameraViews
from tests.pages.routes.test_cameras import put_images


def test_without_images_there_is_nothing(tables: Tables) -> None:
    assert CameraViews(tables).cameras() == []
    assert CameraViews(tables).deployments() == {}
    assert CameraViews(tables).days("north") == {}


def test_doubtful_times_are_in_no_day(tables: Tables) -> None:
    put_images(tables, ("north", "2000-01-01T00:00:00"), timestamp_flags=["reset_default"])
    put_images(tables, ("north", "2026-05-01T23:59:59"), ("north", "2026-05-02T00:00:00"), first=5)
    (row,) = CameraViews(tables).cameras()
    assert (row["first_at"], row["days"]) == (datetime(2026, 5, 1, 23, 59, 59), 2)
    assert CameraViews(tables).days("north") == {date(2026, 5, 1): 1, date(2026, 5, 2): 1}


def test_answers_are_kept_until_a_table_changes(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries: list[str] = []
    connect = cameras.connect
    monkeypatch.setattr(cameras, "connect", lambda *a, **k: queries.append("") or connect(*a, **k))
    put_images(tables, ("north", "2026-05-02T00:00:00"))
    views = CameraViews(tables)
    assert (views.deployments(), views.deployments(), len(queries)) == ({}, {}, 1)
    fact = Deployment.model_validate(
        {"camera_id": "north", "location": "x", "from_local": "2026-05-01"}
    )
    (name,), _ = record(tables, {"": fact}, "ana")
    assert (views.deployments()[name]["images"], len(queries)) == (1, 2)
    put_images(tables, ("north", "2026-05-03T00:00:00"), first=5)
    assert (views.deployments()[name]["images"], len(queries)) == (2, 3)
