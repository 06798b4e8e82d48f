"""Local camera times: valid values, and errors for invalid ones."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from archive.catalogue.local_time import end_in_words, parse_local_end, parse_local_time

NOON = datetime(2026, 5, 1, 12)


@pytest.mark.parametrize("value", ["2026-05-01T12:00", "2026-05-01 12:00:00", "20260501T12", NOON])
def test_a_time_is_read(value: object) -> None:
    assert parse_local_time(value) == NOON


@pytest.mark.parametrize(
    ("value", "end", "words"),
    [
        ("2026-05-31", datetime(2026, 6, 1), "2026-05-31"),
        ("2026-06-01T00:00:00", datetime(2026, 6, 1), "2026-05-31"),
        ("2026-05-31T12:00", datetime(2026, 5, 31, 12), "2026-05-31T12:00:00"),
        (NOON, NOON, "2026-05-01T12:00:00"),
        ("9999-12-31", datetime.max, "9999-12-31T23:59:59.999999"),
        ("0001-01-01T00:00", datetime.min, "0001-01-01T00:00:00"),
    ],
)
def test_an_end_includes_its_day(value: object, end: datetime, words: str) -> None:
    assert parse_local_end(value) == end
    assert end_in_words(end) == words
    assert parse_local_end(words) == end


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("noon", "invalid time 'noon': use 2026-05-01 or 2026-05-01T12:00"),
        ("", "invalid time '': use"),
        ("2026-02-30", "invalid time '2026-02-30': use"),
        (20260501, "invalid time '20260501': use"),
        (None, "invalid time 'None': use"),
        ("2026-05-01T12:00Z", "'2026-05-01T12:00Z': leave out the time zone"),
        (NOON.replace(tzinfo=UTC), "leave out the time zone"),
    ],
)
def test_what_is_no_local_time_is_refused(value: object, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_local_time(value)
