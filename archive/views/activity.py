"""Report when animals are active: records and light by hour of the day, with a circular kernel density.

activity(tables, label) -> 24 rows for each label
density(hours, at) -> share of the records per hour at these hours, by a von Mises kernel
A record is an event with that label, at its first detection; without a layer of events, an image.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from archive.delta.tables import Tables
from archive.views.query import connect
from archive.views.views import View

LIGHTS = ("dawn", "day", "dusk", "night")
COLUMNS = ("label", "hour", "records", "density", *LIGHTS, "by_sun")
MOMENTS = 3
MAX_KAPPA = 500.0
_NO_IMAGES = pa.table({"media_sha256": pa.array([], pa.string())})
_RECORDS = """
    with records as (
        select d.label, min(taken_at) as taken_at, arg_min(p.light, taken_at) as light,
            arg_min(p.light_by, taken_at) as light_by, arg_min(p.solar_hour, taken_at) as solar_hour
        from detections d join dated using (media_sha256) join image_deployments p using (media_sha256)
        where taken_at is not null and ($label is null or d.label = $label)
            and ($every or d.media_sha256 in (select media_sha256 from chosen))
        group by d.label, coalesce(d.event_id, d.media_sha256))
    select label, light, light_by, if($solar, solar_hour, epoch(taken_at) % 86400 / 3600) as hour
    from records where hour is not null order by label
"""


def activity(
    tables: Tables,
    label: str | None = None,
    solar: bool = False,
    view: View | None = None,
    images: pa.Table | None = None,
) -> list[dict[str, Any]]:
    """Return the rows of COLUMNS of one label, or all; `density` is in 1/h, at the middle of the hour.

    `images` (media_sha256): only records of these; default: all.
    `solar`: hours are those of the sun, and records without coordinates or UTC are left out. `by_sun` counts the
    records with light by the sun; the light of the others is by fixed hours. Raises StorageUnreachable.
    """
    values = {"label": label, "solar": solar, "every": images is None}
    with connect(tables, view, statement=_RECORDS) as sql:
        sql.register("chosen", _NO_IMAGES if images is None else images)
        records = sql.execute(_RECORDS, values).fetchall()
    rows: list[dict[str, Any]] = []
    for name, group in groupby(records, key=lambda record: record[0]):
        of_label = list(group)
        hours = np.array([hour for *_, hour in of_label])
        curve = density(hours, np.arange(24) + 0.5)
        for hour in range(24):
            here = [record for record in of_label if int(record[3]) == hour]
            lights = {light: sum(record[1] == light for record in here) for light in LIGHTS}
            by_sun = sum(record[2] == "sun" for record in here)
            row = {"label": name, "hour": hour, "records": len(here), "density": round(float(curve[hour]), 4)}
            rows.append(row | lights | {"by_sun": by_sun})
    return rows


def density(hours: NDArray[np.float64], at: ArrayLike) -> NDArray[np.float64]:
    """Return the density, in 1/h, of times of day (n,) at other times of day; both are in hours, 0 to 24.

    The integral over the day is 1. Times are rounded down to a minute. The kernel is von Mises, with `bandwidth`.
    """
    minutes = np.bincount((hours * 60).astype(np.intp) % 1440, minlength=1440) / len(hours)
    nu = bandwidth(hours)
    angles = (np.asarray(at, np.float64)[:, np.newaxis] - (np.arange(1440) + 0.5) / 60) * np.pi / 12
    kernel: NDArray[np.float64] = np.exp(nu * (np.cos(angles) - 1)) / (24 * _bessel(0, nu))
    return kernel @ minutes


def bandwidth(hours: NDArray[np.float64]) -> float:
    """Return the concentration of the kernel by the rule of thumb of C. C. Taylor (2008).

    Computational Statistics & Data Analysis 52(7), 3493-3500: nu = (3 n k^2 I2(2k) / (4 sqrt(pi) I0(k)^2))^(2/5). For k
    the largest of three estimates is used, as in M. S. Ridout and M. Linkie (2009), JABES 14, 322-337: those of the
    first three trigonometric moments, so that two peaks at dawn and dusk are not smoothed away.
    """
    angles = hours * np.pi / 12
    kappa = max(_kappa(k, abs(np.exp(1j * k * angles).mean())) for k in range(1, MOMENTS + 1))
    power = 3 * len(hours) * kappa**2 * _bessel(2, 2 * kappa) / (4 * np.sqrt(np.pi) * _bessel(0, kappa) ** 2)
    return float(power**0.4)


def _kappa(moment: int, length: float) -> float:
    """Return the concentration, up to MAX_KAPPA, of the von Mises density with this length of a moment."""
    low, high = 0.0, MAX_KAPPA
    for _ in range(50):
        middle = (low + high) / 2
        below = _bessel(moment, middle) / _bessel(0, middle) < length
        low, high = (middle, high) if below else (low, middle)
    return low


def _bessel(order: int, x: float) -> float:
    """Return exp(-x) times the modified Bessel function of the first kind: its integral, which a sum gives exactly
    if its step is less than half of the peak's width, 1 / sqrt(x).
    """
    grid = np.linspace(0, 2 * np.pi, 64 + int(16 * x**0.5), endpoint=False)
    return float(np.mean(np.exp(x * (np.cos(grid) - 1)) * np.cos(order * grid)))
