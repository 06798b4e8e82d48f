"""Correct times in a scratch database that has no relations of queries, such as that of a plan.

with_deployments(database, tables, "media") -> SQL of its rows with `captured_at_corrected`, deployment and location
with_times(database, tables, "media") -> SQL of its rows with `captured_at_corrected` alone
"""

from __future__ import annotations

import duckdb

from archive.catalogue.images import dated
from archive.delta.snapshot import dataset
from archive.delta.tables import Tables
from archive.schemas import DEPLOYMENTS
from archive.views.query import RELATIONS

_DEPLOYMENT = ", p.deployment_id, p.location, p.latitude, p.longitude, p.utc_offset_s"
_NO_DEPLOYMENT = (
    ", null::varchar as deployment_id, null::varchar as location"
    ", null::double as latitude, null::double as longitude, null::double as utc_offset_s"
)


def with_times(sql: duckdb.DuckDBPyConnection, tables: Tables, rows: str) -> str:
    """Return a query in brackets for `rows` with `captured_at_corrected`, as `with_deployments`."""
    table = tables.existing("deployments")
    if table is None:
        return dated(rows)
    sql.register("deployments_table", dataset(table, DEPLOYMENTS))
    RELATIONS.create(sql, "wrong_clocks", "corrected")
    return dated(rows, "wrong_clocks")


def with_deployments(sql: duckdb.DuckDBPyConnection, tables: Tables, rows: str) -> str:
    """Return a query in brackets for `rows`, files of `media` as it is stored, each with its deployment and its place.

    It has what `light_at` and `utc_of` (archive/views/sun.sql) need, and creates them.
    `captured_at_corrected` is text if the archive has no deployments, else a timestamp. Raises StorageUnreachable.
    """
    RELATIONS.create(sql, "light_at", "utc_of")
    table = tables.existing("deployments")
    if table is None:
        return dated(rows, more=_NO_DEPLOYMENT)
    sql.register("deployments_table", dataset(table, DEPLOYMENTS))
    RELATIONS.create(sql, "deployment_periods", "corrected")
    return dated(rows, "deployment_periods", _DEPLOYMENT)
