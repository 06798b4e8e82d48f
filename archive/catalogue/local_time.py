"""Parse local camera times, which have no time zone; the end of a time span includes the whole of a day."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema


def parse_local_time(value: object) -> datetime:
    """Return a time without a zone. Raises ValueError with an example."""
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"invalid time '{value}': use 2026-05-01 or 2026-05-01T12:00") from None
    if moment.tzinfo is not None:
        raise ValueError(
            f"invalid time '{value}': leave out the time zone, because times are by the camera's own clock"
        )
    return moment


def parse_local_end(value: object) -> datetime:
    """Return the end (exclusive) of a time span: of a day without a time, the next midnight. Raises ValueError."""
    moment = parse_local_time(value)
    try:
        date.fromisoformat(value)  # type: ignore[arg-type]
        return moment + timedelta(days=1)
    except (TypeError, ValueError):
        return moment
    except OverflowError:
        return datetime.max


def end_in_words(end: datetime) -> str:
    """Return the text of an end that `parse_local_end` reads as this end; that of a midnight is the day before it."""
    is_midnight = end.time() == datetime.min.time() and end.date() > date.min
    return str(end.date() - timedelta(days=1)) if is_midnight else end.isoformat()


_SCHEMA = WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?)?$"})
LocalTime = Annotated[datetime, BeforeValidator(parse_local_time), _SCHEMA]
"""Type of a local time. Its JSON schema is a pattern, because `date-time` requires an offset."""
LocalEnd = Annotated[datetime, BeforeValidator(parse_local_end), _SCHEMA]
"""Type of the end of a time span (exclusive), which includes a day that is given without a time."""
