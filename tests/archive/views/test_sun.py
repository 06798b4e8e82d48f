"""The sun against published values and another library, the light at the poles, and the light of images."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import astral
import astral.sun
import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.catalogue.deployments import Location
from archive.delta.tables import Tables
from archive.views.query import RELATIONS, query
from tests.pages.routes.test_cameras import deployed, put, put_images

MINUTE = timedelta(minutes=1)
SQL = duckdb.connect()
RELATIONS.create(SQL, "light_at", "zone_offset_s")
HOUR = "solar_hour($lon, $utc)"
ALTITUDE = f"sun_altitude($lat, $utc, {HOUR})"


def sun(expression: str, utc: datetime, latitude: float = 0.0, longitude: float = 0.0) -> Any:
    values = {"utc": utc.replace(tzinfo=None), "lat": latitude, "lon": longitude}
    given_names = {name: value for name, value in values.items() if f"${name}" in expression}
    return SQL.execute(f"select {expression.replace('$utc', '$utc::timestamp')}", given_names).fetchall()[0][0]


def light(utc: datetime, latitude: float, longitude: float) -> str:
    return str(sun(f"light_by_sun({ALTITUDE}, {HOUR})", utc, latitude, longitude))


def test_published_values() -> None:
    """I. Reda and A. Andreas, Solar Position Algorithm, NREL/TP-560-34302 (2008), table A5.1: Golden, Colorado."""
    golden, utc = (39.742476, -105.1786), datetime(2003, 10, 17, 19, 30, 30)
    assert sun(ALTITUDE, utc, *golden) == pytest.approx(39.872046, abs=0.01)
    rise = datetime(2003, 10, 17, 13, 12, 43)
    assert [light(rise + n * MINUTE, *golden) for n in (-1, 1)] == ["dawn", "day"]
    # J. Meeus, Astronomical Algorithms (1998), example 28.b: the equation of time is 13.709 minutes
    assert sun(HOUR, datetime(1992, 10, 13)) * 60 == pytest.approx(13.709, abs=0.05)


MOMENTS = st.datetimes(datetime(1950, 1, 1), datetime(2050, 1, 1))


@given(MOMENTS, st.floats(-90, 90), st.floats(-180, 180))
def test_the_altitude_is_that_of_another_library(utc: datetime, latitude: float, longitude: float) -> None:
    """astral has the formulas of NOAA, after Meeus. It does not go nearer to a pole than 89.8 degrees."""
    latitude = max(-89.8, min(89.8, latitude))
    observer = astral.Observer(latitude, longitude)
    expected = astral.sun.elevation(observer, utc.replace(tzinfo=UTC), with_refraction=False)
    assert sun(ALTITUDE, utc, latitude, longitude) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("place", [(52.5, 13.4), (-33.9, 18.4), (1.3, 103.8), (55.7, 12.6)])
@pytest.mark.parametrize("month", [3, 6, 12])
def test_dawn_and_dusk_are_those_of_another_library(place: tuple[float, float], month: int) -> None:
    """Sunrise and sunset there are at -0.833 degrees too, and dawn and dusk at -6."""
    times = astral.sun.sun(astral.Observer(*place), datetime(2026, month, 21).date())
    pairs = {
        "dawn": ("night", "dawn"),
        "sunrise": ("dawn", "day"),
        "sunset": ("day", "dusk"),
        "dusk": ("dusk", "night"),
    }
    for name, change in pairs.items():
        assert tuple(light(times[name] + n * MINUTE, *place) for n in (-1, 1)) == change, name


def test_the_poles_have_the_light_of_the_moment() -> None:
    def hours(day: datetime, latitude: float) -> list[str]:
        lights = [light(day + timedelta(hours=n), latitude, 0.0) for n in range(24)]
        return [one for i, one in enumerate(lights) if not i or one != lights[i - 1]]

    assert hours(datetime(2026, 6, 21), 70.0) == ["day"], "the sun does not set"
    assert hours(datetime(2026, 12, 21), 80.0) == ["night"], "nor does it rise"
    assert hours(datetime(2026, 12, 21), 70.0) == ["night", "dawn", "dusk", "night"], "twilight at noon"
    assert hours(datetime(2026, 3, 25), 90.0) == ["day"]


def test_unknown_values_have_no_light_by_the_sun() -> None:
    nowhere = ALTITUDE.replace("$lat", "null::double")
    assert sun(f"light_by_sun({nowhere}, {HOUR})", datetime(2026, 5, 1)) is None
    rows = "select light_at(null::double, null::double, null::timestamp, ($hour || ':59')::timestamp)"
    found = [SQL.execute(rows, {"hour": f"2026-05-01 {h:02}"}).fetchall()[0][0] for h in (5, 6, 17, 18)]
    assert found == ["night", "day", "day", "night"]
    assert SQL.sql("select light_at(1.0, 2.0, null::timestamp, null::timestamp)").fetchall() == [(None,)]


@pytest.mark.parametrize(("zone", "hours"), [("+02:00", 2), ("-05:30", -5.5), ("Europe/Berlin", 1), ("Nowhere", None)])
def test_a_clock_keeps_the_offset_of_its_start(zone: str, hours: float | None) -> None:
    found = SQL.execute("select zone_offset_s($zone, timestamp '2026-03-01')", {"zone": zone}).fetchall()[0][0]
    assert found == (None if hours is None else hours * 3600)


def test_images_have_their_light_and_its_source(tables: Tables) -> None:
    """At the oak, at 20:30 in summer and at 17:00 in winter, the hours are wrong, and the sun is right."""
    times = ("2026-06-21T20:30:00", "2026-12-21T17:00:00", None)
    put_images(tables, *[(camera, taken) for camera in ("oak", "hill", "nowhere") for taken in times])
    put_images(tables, ("mill", times[0]), captured_at_utc=datetime(2026, 6, 21, 0, 30, tzinfo=UTC))
    put(tables, Location(location="Oak", latitude=52.5, longitude=13.4))
    where = {"from_local": "2026-05-01", "until_local": None}
    put(
        tables,
        deployed("oak", location="Oak", time_zone="Europe/Berlin", **where),
        deployed("mill", location="Oak", time_zone="Europe/Berlin", **where),
        deployed("hill", location="Oak", **where),
    )
    columns = "light, light_by, round(solar_hour)"
    statement = f"select camera_id, {columns} from image_deployments d join images using (media_sha256)"
    rows = query(tables, f"{statement} order by camera_id, images.captured_at_local").to_pylist()
    found = [tuple(row.values()) for row in rows]
    hours = [("night", "hours", None), ("day", "hours", None), (None, None, None)]
    assert found == [
        *(("hill", *row) for row in hours),
        ("mill", "night", "sun", 1.0),
        *(("nowhere", *row) for row in hours),
        *(("oak", "day", "sun", 19.0), ("oak", "dusk", "sun", 16.0), ("oak", None, None, None)),
    ]
