"""Corrected clocks: relations, lists, searches, scopes and filters use them, and the camera's word stays."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from archive.catalogue.deployments import Deployment, correct_clock, record, remove, revert
from archive.catalogue.images import images_of
from archive.delta.snapshot import scan
from archive.delta.tables import Tables
from archive.schemas import MEDIA
from archive.views.clocks import with_deployments
from archive.views.image_detail import image_details
from archive.views.image_filter import ImageFilter, statement
from archive.views.image_index import ImageIndex
from archive.views.query import query
from archive.views.search import ImageSearch, find
from archive.views.views import Views
from batch.filters.load import load
from batch.filters.spec import FilterSpec
from batch.planning.plan import scope_images
from batch.runs.scope import FilterScope, MediaScope
from model_store.errors import BadRequest
from tests.batch.filters.scene import NOON, box, publish, put, sha, tables_at

HOUR = 3600.0
ORDER = [1, 3, 2, 4]
"""The images, newest first by the corrected clocks: that of camera south is two hours slow."""
CORRECTED = {1: NOON + timedelta(hours=3), 2: NOON, 3: NOON + timedelta(hours=2), 4: None}


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    tables = tables_at(tmp_path)
    found = [box(0, 1.0, 1.0, 50.0)]
    images = {1: ("north", 3 * HOUR, found), 2: ("north", 0.0, found), 3: ("south", 0.0, found)}
    put(tables, {**images, 4: ("south", None, found)})
    publish(tables)
    return tables


def deploy(tables: Tables, offset_s: int | None = 7200) -> list[str]:
    places = {"north": ("Oak hill", None), "south": ("Mill", offset_s)}
    facts = {
        camera: Deployment.model_validate(
            {"camera_id": camera, "location": location, "from_local": "2026-05-01", "clock_offset_s": offset}
        )
        for camera, (location, offset) in places.items()
    }
    return record(tables, facts, "ana")[0]


def numbers(rows: Any) -> list[int]:
    return [int(one, 16) for one in rows]


def test_relations_have_both_times(tables: Tables) -> None:
    deploy(tables)
    rows = query(tables, "from images order by media_sha256").to_pylist()
    assert [row["captured_at_local"] for row in rows] == [CORRECTED[1], NOON, NOON, None]
    assert [row["captured_at_corrected"] for row in rows] == list(CORRECTED.values())
    for relation in ("detections", "all_detections", "image_deployments"):
        rows = query(tables, f"from {relation} order by media_sha256").to_pylist()
        assert [row["captured_at_corrected"] for row in rows] == list(CORRECTED.values()), relation


@pytest.mark.parametrize("year", [1, 9999])
def test_a_damaged_time_stays_within_the_years_of_a_date(tables: Tables, year: int) -> None:
    deploy(tables)
    taken = f"timestamp '{year:04}-12-31 00:00:00'"
    offset = -(10**9) if year == 1 else 10**9
    statement = f"select corrected({taken}, {offset}) as t from image_deployments limit 1"
    (row,) = query(tables, statement).to_pylist()
    assert row["t"].year == year


def test_a_search_is_in_order_of_the_corrected_time(tables: Tables) -> None:
    deploy(tables)

    def found(**wanted: Any) -> list[int]:
        images = find(tables, ImageSearch(**wanted), within_s=60).images
        return numbers(image["media_sha256"] for image in images)

    assert found() == ORDER
    page = find(tables, ImageSearch(limit=2), within_s=60)
    assert found(after=page.next) == ORDER[2:]
    assert found(since=NOON + timedelta(hours=1)) == [1, 3]
    assert found(location="Mill") == [3, 4][:1], "an image without a time is in no deployment"
    assert found(location="Oak hill", until=NOON + timedelta(hours=1)) == [2]
    with pytest.raises(BadRequest, match=r"unknown deployment '\?'; available"):
        found(deployment="?")


def test_the_index_follows_a_correction_and_its_undo(tables: Tables, tmp_path: Path) -> None:
    index = ImageIndex(tables, tmp_path / "index")

    def found(**wanted: Any) -> list[int]:
        return numbers(index.page(ImageFilter(**wanted)).columns["media_sha256"])

    assert found() == [1, 2, 3, 4]
    south = deploy(tables, None)[1]
    assert index.refresh()
    assert (found(), found(location="Mill"), found(deployment=south)) == ([1, 2, 3, 4], [3], [3])
    assert correct_clock(tables, south, 7200, "summer time", "ben")
    assert index.state().behind_s > 0
    assert index.refresh()
    assert found() == ORDER
    assert found(since=NOON + timedelta(hours=1), label="deer") == [1, 3]
    rows = index.page(ImageFilter(location="Mill")).rows
    times = [(row["captured_at_local"], row["captured_at_corrected"]) for row in rows]
    assert times == [(NOON, CORRECTED[3])]
    sql = statement("results", ImageFilter(since=NOON + timedelta(hours=1), location="Mill"))
    assert numbers(query(tables, sql)["media_sha256"].to_pylist()) == [3]
    revert(tables, 2, "ana")
    assert index.refresh()
    assert found() == [1, 2, 3, 4]
    remove(tables, "deployment", [south], "ana")
    assert index.refresh()
    assert found(location="Mill") == []


def test_details_name_the_place_and_both_times(tables: Tables) -> None:
    deploy(tables)
    detail = image_details(tables, [sha(3)], Views(tables.url).current())[sha(3)]
    assert (detail.captured_at_local, detail.captured_at_corrected) == ("2026-05-14 12:00:00", "2026-05-14 14:00:00")
    assert detail.facts["location"] == "Mill"


def scoped(tables: Tables, **scope: Any) -> list[int]:
    with duckdb.connect() as sql:
        sql.execute("create macro md5_number(t) as t")
        scope_images(sql, tables, tables.existing("media"), MediaScope(**scope))
        rows = sql.sql("select distinct media_sha256 from scoped order by 1").fetchall()
    return numbers(row[0] for row in rows)


def test_scopes_know_places_and_corrected_times(tables: Tables) -> None:
    with pytest.raises(BadRequest, match="unknown location 'Mill'; available: none"):
        scoped(tables, location=("Mill",))
    north, south = deploy(tables)
    since = NOON + timedelta(hours=1)
    assert scoped(tables, since=since) == [1, 3]
    assert scoped(tables, until=since) == [2]
    assert scoped(tables, location=("Mill",)) == [3]
    assert scoped(tables, location=("Mill", "Oak hill")) == [1, 2, 3]
    assert scoped(tables, deployment=(south,), since=since) == [3]
    assert MediaScope(location=("Mill",)).words() == "location Mill"
    with pytest.raises(BadRequest, match="unknown location 'Mil'; did you mean 'Mill'"):
        scoped(tables, location=("Mil",))
    with pytest.raises(BadRequest, match=f"unknown deployment '?'; available: .*{north}"[:20]):
        scoped(tables, deployment=("?",))
    with pytest.raises(BadRequest, match="images were taken from 2026-05-14 12:00:00 to .* 15:00"):
        scoped(tables, since=datetime(2027, 1, 1))


def test_a_filter_sees_corrected_times(tables: Tables) -> None:
    deploy(tables)
    view = Views(tables.url).current()
    assert view
    with duckdb.connect() as sql:
        sql.execute("set timezone = 'UTC'; create macro md5_number(t) as t")
        spec = FilterSpec(run_id="r", kind="events", config={}, scope=FilterScope(), view=view)
        loaded = load(sql, tables, spec, {})
        (part,) = loaded.parts()
    taken = dict(zip(numbers(part["media_sha256"].to_pylist()), part["taken_local"].to_pylist(), strict=True))
    assert taken == CORRECTED


def test_rows_of_stored_files_have_their_deployment(tables: Tables) -> None:
    deploy(tables)
    with duckdb.connect() as sql:
        scan(sql, "media", tables.existing("media"), MEDIA)
        rows = with_deployments(sql, tables, images_of("media"))
        found = sql.sql(f"select location from {rows} order by media_sha256").fetchall()
    assert [location for (location,) in found] == ["Oak hill", "Oak hill", "Mill", None]
