"""Times by the cameras' own clocks, as people and programs write them: without a time zone."""

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
            f"invalid time '{value}': it is by the camera's own clock, leave out the time zone"
        )
    return moment


LocalTime = Annotated[
    datetime,
    BeforeValidator(parse_local_time),
    WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?)?$"}),
]
"""Without an offset, which `date-time` of JSON Schema asks for."""
