"""Arrange the days of a camera by month: pictures, none while it was deployed, or not deployed.

calendar(images by day, deployments, today) -> months with 31 cells, and the number of deployed days with and without
pictures. Days are by the corrected clock, also those of deployments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

MAX_MONTHS = 60
LEVELS = (1, 10, 50, 200)
"""Minimum numbers of pictures of the four shades."""


@dataclass(frozen=True, slots=True)
class Day:
    """One day: `level` 0 to 4 by its pictures."""

    day: date
    images: int
    deployed: bool

    @property
    def level(self) -> int:
        return sum(self.images >= least for least in LEVELS)


@dataclass(frozen=True, slots=True)
class Calendar:
    """Newest month first, by its name such as "2026-05"; a cell is None outside the month."""

    months: tuple[tuple[str, tuple[Day | None, ...]], ...]
    nights: int
    nights_without: int
    left_out: int


def corrected(taken: datetime, offset_s: int | None) -> datetime:
    """Return a camera's time with the offset that people stated, as the macro `corrected` of views.sql."""
    try:
        return taken + timedelta(seconds=offset_s or 0)
    except OverflowError:
        return datetime.max if offset_s and offset_s > 0 else datetime.min


def deployed_days(deployments: Sequence[Mapping[str, Any]], newest: date | None, today: date) -> set[date]:
    """Return the days of the deployments of one camera, of which none is after today and its `newest` picture.

    A deployment without an end, or with one after today, ends with that picture, as in `resight report occupancy`.
    """
    days: set[date] = set()
    for row in deployments:
        until, offset_s = row["until_local"], row["clock_offset_s"]
        first = corrected(datetime.fromisoformat(row["from_local"]), offset_s).date()
        last = until and corrected(datetime.fromisoformat(until) - timedelta.resolution, offset_s).date()
        if not last or last > today:
            last = newest or first
        number = (min(last, max(today, newest or today)) - first).days + 1
        days |= {first + timedelta(days=n) for n in range(number)}
    return days


def calendar(images: Mapping[date, int], deployments: Sequence[Mapping[str, Any]], today: date) -> Calendar:
    """Return the newest MAX_MONTHS months."""
    deployed = deployed_days(deployments, max(images, default=None), today)
    days = {d.replace(day=1) for d in deployed | set(images)}
    names = sorted(days, reverse=True)
    months = [(f"{first:%Y-%m}", tuple(_cells(first, images, deployed))) for first in names[:MAX_MONTHS]]
    without = sum(images.get(day, 0) == 0 for day in deployed)
    return Calendar(tuple(months), len(deployed), without, max(0, len(names) - MAX_MONTHS))


def _cells(first: date, images: Mapping[date, int], deployed: set[date]) -> list[Day | None]:
    days = [first + timedelta(days=n) for n in range(31)]
    return [Day(day, images.get(day, 0), day in deployed) if day.month == first.month else None for day in days]
