"""Place locations on a plane, for a map without tiles: north up, true to scale at the middle latitude.

scatter(locations with latitude, longitude and images) -> circles in a box of WIDTH x HEIGHT, and a scale bar
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT, MARGIN, FOOT = 720.0, 480.0, 32.0, 48.0
"""`FOOT` is the height of the strip with the scale bar, which has no circle."""
MIN_RADIUS, MAX_RADIUS = 6.0, 26.0
NUMBER = 28.0, 14.0
"""Width and height of the numbers of a circle; places that are nearer are one circle."""
KM_PER_DEGREE = 111.32
MIN_SPAN_KM = 1.0


@dataclass(frozen=True, slots=True)
class Circle:
    x: float
    y: float
    radius: float
    rows: tuple[Mapping[str, Any], ...]

    @property
    def numbers(self) -> str:
        """Return the numbers `n` of the places: "1–3", "2, 5" or "2, 5, 9 …"."""
        numbers = sorted(row["n"] for row in self.rows)
        if 1 < len(numbers) == numbers[-1] - numbers[0] + 1:
            return f"{numbers[0]}\u2013{numbers[-1]}"
        return ", ".join(map(str, numbers[:3])) + (" …" if len(numbers) > 3 else "")


@dataclass(frozen=True, slots=True)
class Scatter:
    """Circles, the largest first, and the bar: its length in kilometres and in units of the box."""

    circles: tuple[Circle, ...]
    bar_km: float
    bar: float


def scatter(rows: Sequence[Mapping[str, Any]]) -> Scatter | None:
    """Return the plane of all rows with coordinates, None without any. The area of a circle grows with its images.

    If the numbers of two places would overlap, both are in the circle of the one with more images.
    """
    placed = [row for row in rows if row["latitude"] is not None]
    if not placed:
        return None
    west = _west([row["longitude"] for row in placed])
    latitudes = [row["latitude"] for row in placed]
    squeeze = max(0.01, math.cos(math.radians((min(latitudes) + max(latitudes)) / 2)))
    xs = [((row["longitude"] - west) % 360) * squeeze * KM_PER_DEGREE for row in placed]
    ys = [-latitude * KM_PER_DEGREE for latitude in latitudes]
    spans = (max(xs) - min(xs) or MIN_SPAN_KM, max(ys) - min(ys) or MIN_SPAN_KM)
    per_km = min((WIDTH - 2 * MARGIN) / spans[0], (HEIGHT - FOOT - 2 * MARGIN) / spans[1])
    middle = ((max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2)
    groups: dict[tuple[float, float], list[Mapping[str, Any]]] = {}
    for x_km, y_km, row in sorted(zip(xs, ys, placed, strict=True), key=lambda place: -place[2]["images"]):
        x, y = WIDTH / 2 + (x_km - middle[0]) * per_km, (HEIGHT - FOOT) / 2 + (y_km - middle[1]) * per_km
        near = (at for at in groups if abs(at[0] - x) < NUMBER[0] and abs(at[1] - y) < NUMBER[1])
        groups.setdefault(next(near, (x, y)), []).append(row)
    images = {at: sum(row["images"] for row in rows) for at, rows in groups.items()}
    most = max(1, *images.values())
    circles = [
        Circle(
            round(at[0], 1),
            round(at[1], 1),
            round(MIN_RADIUS + (MAX_RADIUS - MIN_RADIUS) * math.sqrt(images[at] / most), 1),
            tuple(rows),
        )
        for at, rows in groups.items()
    ]
    bar_km = _round_length(WIDTH / 4 / per_km)
    circles.sort(key=lambda circle: -circle.radius)
    return Scatter(tuple(circles), bar_km, round(bar_km * per_km, 1))


def _west(longitudes: Sequence[float]) -> float:
    """Return the longitude at which the map begins: after the widest gap, so that it may cross 180 degrees."""
    ordered = sorted(set(longitudes))
    following = [*ordered[1:], ordered[0] + 360]
    return max(zip(ordered, following, strict=True), key=lambda pair: pair[1] - pair[0])[1] % 360


def _round_length(km: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is at most `km`."""
    power = 10.0 ** math.floor(math.log10(km))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= km)
