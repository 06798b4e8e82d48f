"""Which cameras need attention: silent, doubtful clocks, failures; and the sum of trap nights."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pytest
from starlette.testclient import TestClient

from archive.delta.tables import Tables
from archive.views.views import View, Views
from pages.context import Context, IndexFollower
from pages.routes.overview import Attention, attention, by_date
from tests.batch.filters.scene import box
from tests.fixtures_local import put_results, result_rows
from tests.pages.routes.test_cameras import deployed, put, put_images

TODAY = date(2026, 6, 20)


def activity(**last: datetime | None) -> list[dict[str, Any]]:
    rows = {"images": 20, "doubtful": 0, "days": 1}
    return [rows | {"camera_id": camera, "last_at": at} for camera, at in last.items()]


def deployment(camera: str, begin: str, end: str | None = None, offset_s: int | None = None) -> dict[str, Any]:
    return {"camera_id": camera, "from_local": begin, "until_local": end, "clock_offset_s": offset_s}


def found(rows: list[dict[str, Any]], *deployments: dict[str, Any], **failed: float) -> Attention:
    return attention(rows, failed, deployments, TODAY)


def test_a_camera_is_silent_compared_with_the_newest_picture_of_all() -> None:
    rows = activity(a=datetime(2026, 6, 1), b=datetime(2026, 5, 25, 1), c=datetime(2026, 5, 24), d=None)
    assert found(rows).silent == (("c", "2026-05-24"),)
    taken_down = deployment("c", "2026-05-01T00:00:00", "2026-05-26T00:00:00")
    assert found(rows, taken_down).silent == ()
    moved = deployment("c", "2026-05-26T00:00:00")
    assert found(rows, taken_down, moved).silent == (), "it has stood there for less than a week"
    never = deployment("x", "2026-05-02T00:00:00")
    assert found(rows, never).silent == (("x", "2026-05-02"), ("c", "2026-05-24"))
    assert found([]).silent == ()
    wrong_year = deployment("c", "2027-05-01T00:00:00", offset_s=-365 * 86_400)
    assert found(rows, wrong_year).silent == (("c", "2026-05-24"),)
    taken_down = deployment("c", "2027-05-01T00:00:00", "2027-05-26T00:00:00", -365 * 86_400)
    assert found(rows, taken_down).silent == ()


def test_the_worst_cameras_come_first() -> None:
    rows = activity(a=None, b=None, c=None)
    rows[0]["doubtful"], rows[2]["doubtful"] = 1, 9
    result = found(rows, a=0.05, b=0.2, c=0.049)
    assert result.clocks == (("c", 9), ("a", 1))
    assert result.failing == (("b", 0.2), ("a", 0.05))


def test_trap_nights_are_days_of_cameras() -> None:
    rows = [
        deployment("a", "2026-06-01T12:00:00", "2026-06-03T12:00:00"),
        deployment("a", "2026-06-03T12:00:00", "2026-06-05T00:00:00"),
        deployment("b", "2026-06-19T00:00:00"),
    ]
    result = found(activity(b=datetime(2026, 6, 20, 12)), *rows)
    assert (result.nights, result.deployments) == (4 + 2, 3)


def test_bars_of_dates_have_an_axis_without_gaps() -> None:
    assert by_date([("", 9), ("2026-02-27", 2), ("2026-03-01", 1)]) == [
        ("2026-02-27", 2, "2026-02-27"),
        ("2026-02-28", 0, "2026-02-28"),
        ("2026-03-01", 1, "2026-03-01"),
    ]
    months = by_date([("2025-12-31", 1), ("2026-02-27", 2), ("2026-06-01", 1)])
    assert months[:3] == [("2025-12", 1, "2025-12-31"), ("2026-01", 0, "2026-01-31"), ("2026-02", 2, "2026-02-28")]
    assert [name for name, *_ in by_date([("2000-01-01", 1), ("2026-06-01", 1)])] == [f"{2000 + n}" for n in range(27)]
    assert by_date([("", 9)]) == by_date([]) == []
    seen = {"first_at": datetime(2026, 5, 1, 9), "last_at": datetime(2026, 5, 1, 9), "doubtful": 0}
    reset = {"first_at": None, "last_at": None, "doubtful": 4}
    days = [("2000-01-01", 4), ("2026-05-01", 1)]
    assert by_date(days, [seen, reset]) == [("2026-05-01", 1, "2026-05-01")]
    assert len(by_date(days, [seen])) == 27, "of images without a camera"


def test_the_overview_links_to_what_needs_attention(client: TestClient, tables: Tables) -> None:
    put_images(tables, ("a&b", "2000-01-01T00:00:00"), timestamp_flags=["reset_default"])
    put_images(tables, ("south", "2026-05-01T00:00:00"), ("new", "2026-05-20T00:00:00"), ("south", None), first=5)
    put_results(tables, result_rows(["south5"], status="failed"))
    put_results(tables, result_rows(["new6"], n_detections=1, detections=[box(0, 1, 1, 50.0)]))
    Views(tables.url).publish(View(inference_key="k", model_name="m", model_version="1", weights_sha256="w"), 0)
    put(tables, deployed("new", from_local="2026-05-01", until_local="2026-05-04"))
    text = client.get("/ui/").text
    assert text.count("<rect ") == 24 + 20 + 1 + 3, "hours, days, labels and cameras"
    assert "silent for a week before 2026-05-20" in text
    assert '<a href="/ui/cameras/south">south</a> since 2026-05-01' in text
    assert '<a href="/ui/cameras/a%26b">a&amp;b</a> images: 1' in text
    assert '<a href="/ui/images?status=failed&amp;camera=south">south</a> 100.0%' in text, "of the images with a result"
    assert '<td class="n bad">100.0%</td>' in client.get("/ui/cameras").text
    assert "trap nights; deployments: 1" in text


def test_numbers_that_lack_changes_say_so(
    client: TestClient, context: Context, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IndexFollower, "used", lambda *_: None)
    put_images(tables, ("north", "2026-05-01T00:00:00"))
    assert "s behind" not in client.get("/ui/").text
    put_images(tables, ("south", "2026-05-02T00:00:00"))
    assert "These numbers are" in client.get("/ui/").text
    context.index.refresh()
    assert "s behind" not in client.get("/ui/").text
