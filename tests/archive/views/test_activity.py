"""Activity by hour: the density against straight Python and a known distribution, records and their light."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archive.catalogue.deployments import Deployment, record
from archive.views.activity import activity, bandwidth, density
from tests.batch.filters.scene import box, publish, put, sha, tables_at

GRID = (np.arange(720) + 0.5) / 30
HOURS = st.lists(st.floats(0, 24, exclude_max=True), min_size=1, max_size=40)


@settings(deadline=None, max_examples=30)
@given(HOURS)
def test_a_density_is_not_negative_and_integrates_to_one(hours: list[float]) -> None:
    curve = density(np.array(hours), GRID)
    assert curve.min() >= 0
    assert curve.mean() * 24 == pytest.approx(1, abs=1e-3)


def test_it_is_the_mean_of_von_mises_kernels() -> None:
    lot = random.Random(1)
    hours = [lot.gauss(5, 1) % 24 for _ in range(60)] + [lot.gauss(23.5, 1) % 24 for _ in range(40)]
    nu = bandwidth(np.array(hours))

    def bessel_i0(x: float) -> float:
        return math.fsum(((x / 2) ** k / math.factorial(k)) ** 2 for k in range(120))

    for at in (0.0, 5.5, 12.0, 23.9):
        kernels = [math.exp(nu * math.cos((at - h) * math.pi / 12)) for h in hours]
        expected = math.fsum(kernels) / len(hours) / (24 * bessel_i0(nu))
        assert density(np.array(hours), [at])[0] == pytest.approx(expected, rel=0.01, abs=1e-4)


def test_the_bandwidth_is_that_of_the_rule_for_a_known_concentration() -> None:
    """Of 20,000 draws with k = 4: I2(8) and I0(4) are 327.59583 and 11.30192 in tables of Bessel functions."""
    drawn = np.random.default_rng(7).vonmises(1.0, 4.0, 20_000) * 12 / np.pi % 24
    expected = (3 * 20_000 * 16 * 327.59583 / (4 * math.sqrt(math.pi) * 11.30192**2)) ** 0.4
    assert bandwidth(drawn) == pytest.approx(expected, rel=0.1)


def test_two_peaks_a_day_stay_two() -> None:
    lot = random.Random(2)
    hours = np.array([lot.gauss(lot.choice([6, 18]), 1) % 24 for _ in range(200)])
    curve = density(hours, [0.0, 6.0, 12.0, 18.0])
    assert min(curve[1], curve[3]) > 5 * max(curve[0], curve[2])


def test_records_are_by_label_and_hour_with_their_light(tmp_path: Path) -> None:
    """Two boxes of a label in an image are a record; images at noon, two hours later, and without a time."""
    tables = tables_at(tmp_path)
    two = [box(0, 1.0, 1.0, 50.0), box(1, 9.0, 9.0, 50.0)]
    put(tables, {1: ("north", 0.0, two), 2: ("north", 7200.0, two[:1]), 3: ("south", None, two)})
    publish(tables)
    place = {"location": "Oak", "latitude": 52.5, "longitude": 13.4, "time_zone": "+02:00"}
    assert [row["by_sun"] for row in activity(tables)] == [0] * 24
    fact = Deployment.model_validate({"camera_id": "north", "from_local": "2026-05-01"} | place)
    record(tables, {"": fact}, "ana")
    (label,) = {row["label"] for row in activity(tables)}
    rows = activity(tables, label)
    assert {row["hour"]: (row["records"], row["day"], row["by_sun"]) for row in rows if row["records"]} == {
        12: (1, 1, 1),
        14: (1, 1, 1),
    }
    assert all(row["density"] == round(row["density"], 4) for row in rows)
    assert Counter(row["records"] for row in activity(tables, solar=True)) == {0: 22, 1: 2}
    assert activity(tables, solar=True)[10]["records"] == 1, "the sun is 1:06 behind summer time"
    assert activity(tables, "lynx") == []
    records = {n: activity(tables, images=pa.table({"media_sha256": [sha(n)]})) for n in (1, 3)}
    assert ([row["hour"] for row in records[1] if row["records"]], records[3]) == ([12], [])
