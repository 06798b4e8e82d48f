"""Facts about cameras: one valid row for each fact, no overlaps, nothing lost, and each image in one deployment."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from archive.catalogue import deployments
from archive.catalogue.deployments import (
    Camera,
    Deployment,
    Location,
    all_rows,
    changes,
    current,
    record,
    remove,
    revert,
    valid,
)
from archive.delta.tables import Tables
from archive.schemas import DEPLOYMENTS
from archive.views.query import RELATIONS, query
from model_store.errors import Conflict, ModelNotFound
from tests.fixtures_local import put_rows, rows_of

HOSTILE = ("<script>alert(1)</script>", """it's "quoted" '; drop table media; --""", "{{ 7 * 7 }} %s $1 \\n", "ü" * 300)
START = datetime(2026, 5, 1)


def deployed(
    camera: str = "north", since: str = "2026-05-01", until: str | None = "2026-06-01", **more: Any
) -> Deployment:
    values = {"camera_id": camera, "location": "Oak hill", "from_local": since, "until_local": until}
    return Deployment.model_validate(values | more)


def put(tables: Tables, *facts: Any, by: str = "ana") -> list[str]:
    return record(tables, {f"row {n}": fact for n, fact in enumerate(facts, 1)}, by)[0]


def put_images(tables: Tables, *images: tuple[str, str | None]) -> None:
    rows = [
        {
            "media_sha256": f"{n}",
            "source_root": "/a",
            "path": f"{n}.jpg",
            "camera_id": camera,
            "captured_at_local": taken,
        }
        for n, (camera, taken) in enumerate(images)
    ]
    put_rows(tables, "media", *rows)


def test_a_change_is_a_row_and_the_newest_is_valid(tables: Tables) -> None:
    (name,) = put(tables, deployed(notes="one"))
    assert put(tables, deployed(notes="two"), by="ben") == [name]
    (row,) = current(tables).values()
    assert (row["notes"], row["actor"], row["change"]) == ("two", "ben", 2)
    assert [row["notes"] for row in all_rows(tables.existing("deployments"))] == ["one", "two"]
    assert record(tables, {"": deployed(notes="two")}, "cleo") == ([name], 0)
    assert len(rows_of(tables, "deployments")) == 2


def test_what_is_deleted_stays_and_can_be_restored(tables: Tables) -> None:
    (name,) = put(tables, deployed(clock_offset_s=3600))
    assert remove(tables, "deployment", [name], "ben") == 1
    assert current(tables) == {}
    assert [row["deleted"] for row in all_rows(tables.existing("deployments"))] == [False, True]
    with pytest.raises(ModelNotFound, match="deleted"):
        remove(tables, "deployment", [name], "ben")
    assert revert(tables, 1, "cleo") == name
    (row,) = current(tables).values()
    assert (row["fact_id"], row["clock_offset_s"], row["actor"]) == (name, 3600, "cleo")
    with pytest.raises(ModelNotFound, match="unknown change 9"):
        revert(tables, 9, "cleo")


def test_the_person_who_stated_the_offset_stays_when_notes_change(tables: Tables) -> None:
    put(tables, deployed(clock_offset_s=-60), by="ana")
    put(tables, deployed(clock_offset_s=-60, notes="dry"), by="ben")
    (row,) = current(tables).values()
    assert (row["clock_stated_by"], row["actor"]) == ("ana", "ben")
    put(tables, deployed(clock_offset_s=0), by="ben")
    assert [row["clock_stated_by"] for row in current(tables).values()] == ["ben"]
    put(tables, deployed(), by="ana")
    assert [row["clock_stated_by"] for row in current(tables).values()] == [None]


@pytest.mark.parametrize(
    ("since", "until", "overlaps"),
    [
        ("2026-04-01", "2026-05-01", False),
        ("2026-06-01", None, False),
        ("2026-04-01", "2026-05-01T00:00:01", True),
        ("2026-05-10", "2026-05-11", True),
        ("2026-04-01", None, True),
    ],
)
def test_deployments_of_a_camera_do_not_overlap(tables: Tables, since: str, until: str | None, overlaps: bool) -> None:
    (name,) = put(tables, deployed())
    put(tables, deployed(camera="south", since=since, until=until))
    if overlaps:
        with pytest.raises(Conflict, match=f"^row 1: camera 'north' from .* overlaps deployment {name}"):
            put(tables, deployed(since=since, until=until))
        assert len(current(tables)) == 2
    else:
        put(tables, deployed(since=since, until=until))


def test_all_facts_are_recorded_or_none(tables: Tables) -> None:
    facts = deployed(camera="a"), deployed(), deployed(since="2026-05-30", until=None)
    with pytest.raises(Conflict, match="^row 3: camera 'north' .* overlaps row 2, from"):
        put(tables, *facts)
    with pytest.raises(Conflict, match="row 2: row 1 is about the same deployment"):
        put(tables, deployed(), deployed(notes="other"))
    assert current(tables) == {}


def test_deployments_may_change_places_in_one_commit(tables: Tables) -> None:
    first, second = put(tables, deployed(), deployed(since="2026-06-01", until="2026-07-01"))
    put(tables, deployed(deployment_id=second), deployed(deployment_id=first, since="2026-06-01", until="2026-07-01"))
    assert current(tables)["deployment", first]["from_local"] == "2026-06-01T00:00:00"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"until": "2026-05-01"}, "2026-05-01T00:00:00 is not after from_local"),
        ({"since": "2026-05-01T00:00Z"}, "leave out the time zone"),
        ({"since": "14.05.2026"}, "use 2026-05-01"),
        ({"latitude": 91.0, "longitude": 0.0}, "less than or equal to 90"),
        ({"latitude": 52.5}, "must be given together"),
        ({"latitude": "nan", "longitude": 0}, "finite"),
        ({"time_zone": "Berlin"}, "unknown time zone 'Berlin'"),
        ({"time_zone": "+15:00"}, "unknown time zone"),
        ({"time_zone": "localtime"}, "unknown time zone"),
        ({"clock_offset_s": 10**12}, "less than or equal"),
        ({"camera": "ü" * 301}, "at most 300 characters"),
        ({"camera": " north"}, "without spaces around it"),
        ({"location": "a\nb"}, "printable"),
        ({"location": "\ud800"}, "unicode"),
        ({"colour": "red"}, "not permitted"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        deployed(**values)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_kept_as_they_are(tables: Tables, name: str) -> None:
    put(tables, deployed(camera=name, location=name, notes=name), Camera(camera_id=name), Location(location=name))
    put_images(tables, (name, "2026-05-14T09:30:00"))
    found = query(tables, "from image_deployments join deployments using (deployment_id)").to_pylist()
    assert [(row["camera_id"], row["location"], row["notes"]) for row in found] == [(name, name, name)]
    with pytest.raises(Conflict, match="1 deployments and 1 images"):
        remove(tables, "camera", [name], "ana")


def test_what_others_refer_to_is_not_deleted(tables: Tables) -> None:
    put_images(tables, ("north", None), ("north", None), ("south", None))
    put(tables, Camera(camera_id="north"), Camera(camera_id="new"), Location(location="Oak hill"))
    (name,) = put(tables, deployed())
    with pytest.raises(Conflict, match="camera 'north' cannot be deleted: 1 deployments and 2 images"):
        remove(tables, "camera", ["new", "north"], "ana")
    with pytest.raises(Conflict, match="location 'Oak hill' cannot be deleted: 1 deployments refer"):
        remove(tables, "location", ["Oak hill"], "ana")
    remove(tables, "deployment", [name], "ana")
    assert remove(tables, "location", ["Oak hill"], "ana") == 1
    assert remove(tables, "camera", ["new"], "ana") == 1
    with pytest.raises(Conflict, match="2 images"):
        remove(tables, "camera", ["north"], "ana")
    with pytest.raises(ModelNotFound, match="unknown camera 'west'"):
        remove(tables, "camera", ["west"], "ana")


def test_relations_have_the_place_and_the_corrected_time(tables: Tables) -> None:
    put(tables, Location(location="Oak hill", latitude=52.5, longitude=13.4))
    put(tables, deployed(clock_offset_s=-5400, time_zone="+02:00"))
    put(tables, deployed(since="2026-06-01", until=None, latitude=1.0, longitude=2.0))
    taken = ("2026-05-01T00:00:00", "2026-05-31T23:59:59", "2026-06-01T00:00:00", "2026-04-30", None)
    put_images(tables, *(("north", time) for time in taken), ("south", taken[0]), ("south", None))
    found = query(tables, "from image_deployments order by media_sha256").to_pylist()
    assert [(row["location"], row["latitude"], row["time_zone"]) for row in found] == [
        ("Oak hill", 52.5, "+02:00"),
        ("Oak hill", 52.5, "+02:00"),
        ("Oak hill", 1.0, None),
        *[(None, None, None)] * 4,
    ]
    corrected = [row["captured_at_corrected"] for row in found]
    assert corrected == [
        datetime(2026, 4, 30, 22, 30),
        datetime(2026, 5, 31, 22, 29, 59),
        datetime(2026, 6, 1),
        datetime(2026, 4, 30),
        None,
        datetime(2026, 5, 1),
        None,
    ]


def test_tables_without_deployments_stay_as_they_are(tables: Tables) -> None:
    put_images(tables, ("north", "2026-05-14T09:30:00"))
    (row,) = query(tables, "from image_deployments join images using (media_sha256)").to_pylist()
    assert (row["deployment_id"], row["captured_at_corrected"]) == (None, datetime(2026, 5, 14, 9, 30))
    assert query(tables, "from deployments").num_rows == 0
    assert current(tables) == {}
    with pytest.raises(Conflict, match="1 images"):
        remove(tables, "camera", ["north"], "ana")
    assert tables.existing("deployments") is None or rows_of(tables, "deployments") == []


def race(monkeypatch: pytest.MonkeyPatch, between: Callable[[], object]) -> None:
    """Run `between` once, after the first time that a writer has read the rows."""
    read, runs = deployments.all_rows, [between]

    def all_rows(table: Any) -> list[dict[str, Any]]:
        rows = read(table)
        if runs:
            runs.pop()()
        return rows

    monkeypatch.setattr(deployments, "all_rows", all_rows)


def test_of_two_writers_that_overlap_one_is_refused(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    tables.snapshot("deployments")
    race(monkeypatch, lambda: put(Tables(tables.url), deployed(until=None), by="ben"))
    with pytest.raises(Conflict, match="overlaps"):
        put(tables, deployed(since="2026-05-20", until=None))
    assert [row["actor"] for row in rows_of(tables, "deployments")] == ["ben"]


def test_a_location_that_is_used_while_it_is_deleted_stays(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tables, Location(location="Oak hill"))
    race(monkeypatch, lambda: put(Tables(tables.url), deployed(), by="ben"))
    with pytest.raises(Conflict, match="1 deployments refer"):
        remove(tables, "location", ["Oak hill"], "ana")


days = st.integers(0, 30)
periods = st.tuples(st.sampled_from("ab"), days, st.none() | days, st.integers(-90_000, 90_000))


def accepted(wanted: Sequence[tuple[str, int, int | None, int]]) -> list[dict[str, Any]]:
    """Return the rows after each of these deployments was recorded or refused."""
    rows: list[dict[str, Any]] = []
    for camera, first, last, offset_s in wanted:
        until = None if last is None else START + timedelta(days=last)
        try:
            one = deployed(camera, START + timedelta(days=first), until, clock_offset_s=offset_s)  # type: ignore[arg-type]
            new = changes(rows, {"": one}, "ana")[1]
        except (ValidationError, Conflict):
            continue
        rows += [{"deleted": False, **row, "change": len(rows) + n} for n, row in enumerate(new, 1)]
    return rows


@functools.cache
def with_relations() -> duckdb.DuckDBPyConnection:
    """Return a database with the relations of deployments over tables that a test registers."""
    sql = duckdb.connect()
    sql.register("deployments_table", DEPLOYMENTS.empty_table())
    types = {"media_sha256": pa.string(), "camera_id": pa.string()}
    images = pa.schema(types | dict.fromkeys(("captured_at_local", "captured_at_utc"), pa.timestamp("us")))
    sql.register("images", images.empty_table())
    for name in RELATIONS.needed_by("image_deployments"):
        if name in RELATIONS.statements and name not in ("media", "images"):
            sql.execute(RELATIONS.statements[name])
    return sql


@settings(max_examples=60, deadline=None)
@given(wanted=st.lists(periods, max_size=8), taken=st.lists(st.integers(0, 31 * 24), min_size=1, max_size=20))
def test_an_image_is_in_one_deployment_at_most_and_sql_finds_it(
    wanted: list[tuple[str, int, int | None, int]], taken: list[int]
) -> None:
    rows = accepted(wanted)
    times = [START + timedelta(hours=hour) for hour in taken]
    expected = []
    for n, time in enumerate(times):
        holding = [
            row
            for row in valid(rows).values()
            if row["camera_id"] == "a"
            and row["from_local"] <= time.isoformat()
            and (row["until_local"] is None or time.isoformat() < row["until_local"])
        ]
        assert len(holding) <= 1
        row = holding[0] if holding else None
        offset = timedelta(seconds=row["clock_offset_s"] if row else 0)
        expected.append((str(n), row and row["fact_id"], time + offset))
    images = {"media_sha256": [str(n) for n in range(len(times))], "camera_id": ["a"] * len(times)}
    sql = with_relations()
    sql.register("deployments_table", pa.Table.from_pylist(rows, schema=DEPLOYMENTS))
    taken_at = {"captured_at_local": pa.array(times, pa.timestamp("us"))}
    taken_at["captured_at_utc"] = pa.nulls(len(times), pa.timestamp("us"))
    sql.register("images", pa.table(images | taken_at))
    columns = "media_sha256, deployment_id, captured_at_corrected"
    found = sql.sql(f"select {columns} from image_deployments").fetchall()
    assert sorted(found) == sorted(expected)
