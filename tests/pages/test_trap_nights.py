"""The calendar of a camera: each day once, ends exclusive, open ones with the newest picture, no day after today."""

from __future__ import annotations

from datetime import date
from typing import Any

from pages.trap_nights import MAX_MONTHS, calendar

TODAY = date(2026, 6, 3)


YEAR_S = 365 * 86_400


def deployed(first: str, last: str | None, offset_s: int | None = None) -> dict[str, Any]:
    return {"from_local": first, "until_local": last, "clock_offset_s": offset_s}


def test_the_end_is_exclusive_and_a_part_of_a_day_is_a_day() -> None:
    rows = [
        deployed("2026-05-01T18:00:00", "2026-05-03T00:00:00"),
        deployed("2026-05-03T00:00:00", "2026-05-03T01:00:00"),
    ]
    found = calendar({date(2026, 5, 2): 12}, rows, TODAY)
    assert (found.nights, found.nights_without) == (3, 2)
    ((name, days),) = found.months
    assert name == "2026-05"
    assert [(day.images, day.deployed, day.level) for day in days[:4] if day] == [
        (0, True, 0),
        (12, True, 2),
        (0, True, 0),
        (0, False, 0),
    ]


def test_a_deployment_without_an_end_ends_at_the_newest_picture_and_none_after_today() -> None:
    newest = {date(2026, 5, 1): 1, date(2026, 6, 1): 1}
    for end in (None, "2027-01-01T00:00:00"):
        rows = [deployed("2026-05-30T00:00:00", end)]
        found = calendar(newest, rows, TODAY)
        assert (found.nights, calendar({}, rows, TODAY).nights) == (3, 1)
        assert [name for name, _ in found.months] == ["2026-06", "2026-05"]
        assert calendar({date(2026, 5, 1): 1}, rows, TODAY).nights == 0, "it has no picture yet"
        assert calendar({}, [deployed("2026-07-01T00:00:00", end)], TODAY).nights == 0


def test_days_of_a_deployment_are_by_the_corrected_clock_as_those_of_pictures() -> None:
    pictures = {date(2026, 5, 1): 1, date(2026, 5, 2): 1}
    for until in ("2025-05-03T00:00:00", None):
        found = calendar(pictures, [deployed("2025-05-01T00:00:00", until, YEAR_S)], TODAY)
        assert (found.nights, found.nights_without, len(found.months)) == (2, 0, 1), until
    early = [deployed("0001-01-01T00:00:00", "0001-01-02T00:00:00", -YEAR_S)]
    late = [deployed("9999-12-30T00:00:00", "9999-12-31T00:00:00", YEAR_S)]
    assert [calendar({}, rows, TODAY).nights for rows in (early, late)] == [1, 0]


def test_months_end_with_their_last_day() -> None:
    ((_, days),) = calendar({date(2026, 2, 28): 1}, [], TODAY).months
    assert [day and day.day.day for day in days[26:]] == [27, 28, None, None, None]


def test_the_newest_months_are_shown() -> None:
    found = calendar({TODAY: 1}, [deployed("2000-01-01T00:00:00", None)], TODAY)
    assert len(found.months) == MAX_MONTHS
    assert (found.months[0][0], found.left_out) == ("2026-06", 26 * 12 + 6 - MAX_MONTHS)
