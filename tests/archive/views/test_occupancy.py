"""Detection histories against a loop over days: effort by deployments and pictures, occasions, and no effort."""

from __future__ import annotations

import random
from datetime import date, timedelta
from pathlib import Path

import pytest

from archive.catalogue.deployments import Deployment, record
from archive.delta.tables import Tables
from archive.views.occupancy import histories
from archive.views.query import query
from model_store.errors import BadRequest
from tests.batch.filters.scene import NOON, box, publish, put, sha, tables_at
from tests.fixtures_local import put_rows

DAY = 86_400.0
FIRST = NOON.date()


def deploy(tables: Tables, camera: str, start: int, end: int | None, location: str = "Oak") -> None:
    until = None if end is None else (FIRST + timedelta(days=end)).isoformat()
    values = {"camera_id": camera, "location": location, "from_local": (FIRST + timedelta(days=start)).isoformat()}
    record(tables, {"": Deployment.model_validate(values | {"until_local": until})}, "ana")


def slow(days: int, pictures: dict[int, bool], periods: list[tuple[int, int]], last: int) -> list[int | None]:
    cells: list[int | None] = []
    for start in range(0, last + 1, days):
        occasion = range(start, start + days)
        worked = [n for n in occasion if n in pictures or any(a <= n < b for a, b in periods)]
        hit = any(pictures.get(n, False) for n in occasion)
        cells.append(int(hit) if worked else None)
    return cells


@pytest.mark.parametrize("days", [1, 3, 7])
def test_histories_are_those_of_a_loop(tmp_path: Path, days: int) -> None:
    lot = random.Random(days)
    tables = tables_at(tmp_path)
    label = str(box(0, 1.0, 1.0, 50.0)["label"])
    pictures = {camera: {n: lot.random() < 0.4 for n in lot.sample(range(40), 9)} for camera in ("a", "b")}
    pictures["a"][0] = False  # the first day of all
    put(
        tables,
        {
            number: (camera, n * DAY, [box(0, 1.0, 1.0, 50.0)] if hit else [])
            for number, (camera, n, hit) in enumerate(
                ((camera, n, hit) for camera, of in pictures.items() for n, hit in of.items()), 1
            )
        },
    )
    publish(tables)
    periods = {"a": [(0, 5), (20, 26)], "b": [(11, 13)]}
    for camera, of in periods.items():
        for start, end in of:
            deploy(tables, camera, start, end)
    last = max(max(pictures["a"]), max(pictures["b"]), 25)
    found = {row.pop("camera_id"): list(row.values()) for row in histories(tables, label, days)}
    assert found == {camera: slow(days, pictures[camera], periods[camera], last) for camera in ("a", "b")}
    assert any(cell is None for cells in found.values() for cell in cells) or days == 7


def test_effort_without_deployments_and_of_open_ones_is_up_to_the_last_picture(tmp_path: Path) -> None:
    tables = tables_at(tmp_path)
    hit = [box(0, 1.0, 1.0, 50.0)]
    label = str(hit[0]["label"])
    put(tables, {1: ("a", 0.0, []), 2: ("a", 9 * DAY, hit), 3: ("b", 2 * DAY, hit), 4: ("c", None, hit)})
    put(tables, {5: ("e", 2 * DAY, hit)})
    publish(tables)
    deploy(tables, "b", 1, None)
    deploy(tables, "d", 12, 14)
    deploy(tables, "e", 1, 300_000)  # it and the next one end and begin in the future
    deploy(tables, "f", 200_000, None)
    rows = {row.pop("camera_id"): list(row.values()) for row in histories(tables, label, 5)}
    assert rows == {
        "a": [0, 1, None],
        "b": [1, None, None],
        "d": [None, None, 0],
        "e": [1, None, None],
        "f": [None] * 3,
    }
    rows = {row.pop("camera_id"): list(row.values()) for row in histories(tables, label, 5, effort=True)}
    assert rows == {"a": [5, 5, 0], "b": [2, 0, 0], "d": [0, 0, 2], "e": [2, 0, 0], "f": [0, 0, 0]}
    (first, last) = (FIRST + timedelta(days=2), FIRST + timedelta(days=8))
    (row, *_) = histories(tables, label, 5, first, last)
    assert list(row) == ["camera_id", first.isoformat(), (first + timedelta(days=5)).isoformat()]
    rows = {row.pop("camera_id"): list(row.values()) for row in histories(tables, label, 5, first, last)}
    assert rows == {"a": [0, 0], "b": [1, None], "d": [None, None], "e": [1, None], "f": [None, None]}
    assert histories(tables, label, 5, since=date(2030, 1, 1)) == []
    with pytest.raises(BadRequest, match="use 1 or more"):
        histories(tables, label, 0)


def test_a_day_whose_pictures_nobody_has_judged_is_unknown(tmp_path: Path) -> None:
    """Otherwise a run over half of an archive would report absences in the other half."""
    tables = tables_at(tmp_path)
    hit = [box(0, 1.0, 1.0, 50.0)]
    put(tables, {1: ("a", 0.0, []), 2: ("a", DAY, hit), 4: ("a", 4 * DAY, [])})
    put(tables, {3: ("a", 2 * DAY, []), 5: ("b", 0.0, []), 6: ("a", 3 * DAY, [])}, key="j" * 64)  # of another model
    empty = {"assertion_id": "1", "method": "human", "action": "suppress", "asserted_at": NOON, "media_sha256": sha(6)}
    put_rows(tables, "assertions", empty)
    publish(tables)
    deploy(tables, "b", 0, 2)
    rows = {row.pop("camera_id"): list(row.values()) for row in histories(tables, str(hit[0]["label"]), 1)}
    assert rows == {"a": [0, 1, None, 0, 0], "b": [None, 0, None, None, None]}


def test_a_scope_narrows_the_pictures_and_the_deployments(tmp_path: Path) -> None:
    tables = tables_at(tmp_path)
    hit = [box(0, 1.0, 1.0, 50.0)]
    put(tables, {1: ("a", 0.0, hit), 2: ("a", 3 * DAY, []), 3: ("a", 5 * DAY, hit), 4: ("b", 5 * DAY, hit)})
    publish(tables)
    deploy(tables, "a", 0, 3)
    deploy(tables, "a", 3, None, "Elm")
    deploy(tables, "c", 4, 6, "Elm")  # without a picture

    def rows(**only: list[str]) -> dict[str, list[int | None]]:
        found = histories(tables, str(hit[0]["label"]), 1, FIRST, only=only)
        return {row.pop("camera_id"): list(row.values()) for row in found}

    everything = rows()
    assert everything == {"a": [1, 0, 0, 0, 0, 1], "b": [*[None] * 5, 1], "c": [*[None] * 4, 0, 0]}
    assert rows(camera_id=["b", "c"]) == {camera: everything[camera] for camera in "bc"}
    assert rows(location=["Oak"]) == {"a": [1, 0, 0]}
    assert rows(location=["Elm"]) == {"a": [None, None, None, 0, 0, 1], "c": everything["c"]}
    assert rows(location=["Elm"], camera_id=["c"]) == {"c": everything["c"]}
    (first,) = query(tables, "select deployment_id from deployments where location = 'Oak'")["deployment_id"]
    assert rows(deployment_id=[first.as_py()]) == {"a": [1, 0, 0]}
    for column, words in (("camera_id", "unknown camera 'x'"), ("location", "unknown location 'x'; available: Elm, O")):
        with pytest.raises(BadRequest, match=words):
            rows(**{column: ["x"]})
