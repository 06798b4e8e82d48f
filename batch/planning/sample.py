"""Draw a sample of a scope with the same chance for every image, in proportion by camera and by light.

`wanted` (id) --choose_sample--> as a sample; a share in the sample is an estimate of the share in the scope.
Within a stratum the images with the lowest digests are taken: the same ones each time, and independent of the content
of the images.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from archive.catalogue.images import images_of
from archive.delta.tables import Tables
from archive.views.clocks import with_deployments

_STRATA = """
    create table strata as
    with timed as (
        select * replace (captured_at_corrected::timestamp as captured_at_corrected),
            utc_of(captured_at_utc, captured_at_local::timestamp, captured_at_corrected::timestamp, utc_offset_s) as utc
        from {images})
    select md5_number(media_sha256) as id, camera_id,
        coalesce(light_at(latitude, longitude, utc, captured_at_corrected), 'undated') as light
    from timed where id in (select id from wanted)
"""
"""Day, night, dawn and dusk as in archive/views/sun.sql; images without a time are a separate stratum."""
_SIZES = """
    from (select camera_id, light, count(*) as n, min(id) as first_id from strata group by all)
    order by light, md5(camera_id), camera_id
"""
"""The lights are separate, and cameras are in random order, so that the list has no period to match the sample's."""
_CUT = """
    delete from wanted where id not in (
        select id from strata join quotas
            on strata.camera_id is not distinct from quotas.camera_id and strata.light = quotas.light
        qualify row_number() over (partition by strata.camera_id, strata.light order by id) <= quota)
"""


def choose_sample(sql: duckdb.DuckDBPyConnection, tables: Tables, images: int) -> None:
    """Keep `images` rows in `wanted` (id), by strata of the images in `media`; all of them if there are fewer."""
    rows = with_deployments(sql, tables, images_of("media"))
    sql.execute(_STRATA.format(images=rows))
    strata = sql.execute(_SIZES).fetchall()
    rng = random.Random(min((first for *_, first in strata), default=0))
    quotas = allocate([n for _, _, n, _ in strata], images, rng.random())
    cameras, lights = ([row[i] for row in strata] for i in (0, 1))
    chosen = {
        "camera_id": pa.array(cameras, pa.string()),
        "light": pa.array(lights, pa.string()),
        "quota": pa.array(quotas, pa.int64()),
    }
    sql.register("quotas", pa.table(chosen))
    sql.execute(_CUT)


def allocate(sizes: Sequence[int], images: int, start: float) -> npt.NDArray[np.int64]:
    """Return how many images of each stratum to take: its exact share, rounded down or up, `images` in all.

    This is systematic sampling over the strata in a row: every (N / images)th of N images, from a place that
    `start`, uniform in [0, 1), selects. Every image has the same chance images / N, however small its stratum, so the
    share in the sample is an unbiased estimate without weights (W. G. Cochran, Sampling Techniques, 3rd ed. 1977,
    chapter 8; for lists in random order H. O. Hartley and J. N. K. Rao, Ann. Math. Statist. 33, 1962, p. 350).

    >>> allocate([90, 9, 1], 10, 0.5).tolist()
    [9, 1, 0]
    >>> allocate([90, 9, 1], 10, 0.0).tolist()
    [9, 0, 1]
    """
    ends = np.cumsum(np.asarray(sizes, np.int64))
    population = int(ends[-1]) if len(ends) else 0
    upto = (ends * min(images, population) + int(start * population)) // max(1, population)
    return np.diff(upto, prepend=0)
