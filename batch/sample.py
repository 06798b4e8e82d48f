"""A sample of a scope that looks like it: by camera and by day and night, in proportion.

Of each stratum the images with the lowest digests: the same ones each time, and as good as drawn by lot,
because a digest knows nothing of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

DAY_STARTS_H, NIGHT_STARTS_H = 6, 18
"""By the camera's clock; where it has none the image is in a stratum of its own."""
_STRATA = """
    create table strata as
    select id, min(camera_id) as camera_id, min(case
        when captured_at_local is null then 'undated'
        when substr(captured_at_local, 12, 2)::integer >= {day}
            and substr(captured_at_local, 12, 2)::integer < {night} then 'day'
        else 'night' end) as light
    from (select md5_number(media_sha256) as id, camera_id, captured_at_local from scoped)
        semi join wanted using (id)
    group by id
"""
_CUT = """
    delete from wanted where id not in (
        select id from strata join quotas
            on strata.camera_id is not distinct from quotas.camera_id and strata.light = quotas.light
        qualify row_number() over (partition by strata.camera_id, strata.light order by id) <= quota)
"""


def choose_sample(sql: duckdb.DuckDBPyConnection, images: int) -> None:
    """Leave so many rows in `wanted` (id), strata by `scoped`; all of them where there are fewer."""
    sql.execute(_STRATA.format(day=DAY_STARTS_H, night=NIGHT_STARTS_H))
    strata = sql.sql(
        "select camera_id, light, count(*) as n from strata group by all order by n desc, 1, 2"
    ).fetchall()
    quotas = shares([n for _, _, n in strata], images)
    cameras, lights = ([row[i] for row in strata] for i in (0, 1))
    chosen = {
        "camera_id": pa.array(cameras, pa.string()),
        "light": pa.array(lights, pa.string()),
        "quota": pa.array(quotas, pa.int64()),
    }
    sql.register("quotas", pa.table(chosen))
    sql.execute(_CUT)


def shares(sizes: Sequence[int], images: int) -> list[int]:
    """How many of each stratum, largest first: one of each while that goes, the rest in proportion to what is left
    of them, by largest remainders. They add up to `images`, or to all there are.

    >>> shares([90, 9, 1], 10)
    [7, 2, 1]
    """
    images = min(images, sum(sizes))
    if images <= len(sizes):
        return [1] * images + [0] * (len(sizes) - images)
    left, rest = images - len(sizes), sum(sizes) - len(sizes)
    exact = [left * (size - 1) / rest for size in sizes]
    quotas = [int(share) for share in exact]
    short = left - sum(quotas)
    for i in sorted(range(len(sizes)), key=lambda i: quotas[i] - exact[i])[:short]:
        quotas[i] += 1
    return [1 + quota for quota in quotas]
