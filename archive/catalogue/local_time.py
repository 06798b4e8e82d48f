"""Parse local camera times, which have no time zone."""

from __future__ import annotations

from datetime import datetime
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


LocalTime = Annotated[
    datetime,
    BeforeValidator(parse_local_time),
    WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?)?$"}),
]
"""Type of a local time. Its JSON schema is a pattern, because `date-time` requires an offset."""
