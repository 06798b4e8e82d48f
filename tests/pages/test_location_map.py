"""The plane of locations: inside its box, true to scale, across the date line."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pages.location_map import FOOT, HEIGHT, WIDTH, scatter


def place(latitude: float | None, longitude: float | None, images: int = 0, n: int = 1) -> dict[str, Any]:
    return {"latitude": latitude, "longitude": longitude, "images": images, "n": n}


places = st.builds(place, st.floats(-90, 90), st.floats(-180, 180), st.integers(0, 10**9))


@given(st.lists(places, min_size=1, max_size=20))
def test_every_circle_is_inside_and_the_bar_is_short(rows: list[dict[str, Any]]) -> None:
    plane = scatter(rows)
    assert plane is not None
    assert sum(len(circle.rows) for circle in plane.circles) == len(rows)
    for circle in plane.circles:
        assert circle.radius <= circle.x <= WIDTH - circle.radius
        assert circle.radius <= circle.y <= HEIGHT - FOOT - circle.radius
    assert 0 < plane.bar <= WIDTH / 4 + 0.1


def test_the_bar_is_as_long_as_the_distance_that_it_names() -> None:
    plane = scatter([place(0, 0), place(0, 1)])
    assert plane is not None
    left, right = sorted(circle.x for circle in plane.circles)
    assert (right - left) / 111.32 == pytest.approx(plane.bar / plane.bar_km, rel=0.01)


def test_north_is_up_east_is_right_and_areas_grow_with_images() -> None:
    plane = scatter([place(10, 0, 100), place(20, 0, 25), place(10, 10, 0), place(None, None)])
    assert plane is not None
    south, north, east = plane.circles
    assert north.y < south.y
    assert east.x > south.x
    assert [round(c.radius) for c in (south, north, east)] == [26, 16, 6]


def test_places_without_room_for_their_numbers_are_one_circle() -> None:
    at = {1: 0, 2: 0, 3: 0, 4: 5, 8: 5, 5: 9, 6: 9, 7: 9, 9: 9}
    plane = scatter([place(0, degrees + 0.01 * n, 10, n) for n, degrees in at.items()])
    assert plane is not None
    circles = sorted((circle.numbers, circle.radius) for circle in plane.circles)
    assert circles == [("1\u20133", 23.3), ("4, 8", 20.1), ("5, 6, 7 …", 26.0)]


def test_a_map_may_cross_the_date_line() -> None:
    plane = scatter([place(0, 179.5), place(0, -179.5)])
    assert plane is not None
    west, east = (next(c for c in plane.circles if math.copysign(1, c.rows[0]["longitude"]) == s) for s in (1, -1))
    assert west.x < east.x
    assert plane.bar_km <= 50
