"""Test a repeat-detections layer, its review, and the accepted slots: hidden, then shown again."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from archive.annotations.layers import Layer, read_layers
from archive.catalogue.deployments import Deployment, record
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS, MEDIA
from archive.views.query import query
from batch.filters.layers import switch
from batch.filters.prepare import prepare
from batch.filters.review import Candidate, ReviewedSlot, accepted_in, candidates, write_review
from batch.filters.run import execute, here
from model_store.errors import BadRequest
from tests.batch.filters.scene import KEY, box, publish, shown, tables_at
from tests.fixtures_local import encoded, put_results, result_rows, rows_of, write_files

FEW = {"min_images": 3, "min_span_days": 2.0, "min_days": 3}
START = datetime(2026, 5, 14, 6, 30)
BRANCH = box(0, 100.0, 100.0, 60.0)
WIDTH_PX, HEIGHT_PX = 600, 400
OTHER = "o" * 64


def deer(n: int) -> dict[str, Any]:
    """Return a box that is at a different place each time."""
    return box(1, 200.0 + 40 * n, 20.0 + 60 * n, 90.0)


def picture(n: int) -> bytes:
    return encoded(np.full((HEIGHT_PX, WIDTH_PX, 3), 60 + n, np.uint8), "PNG")


def sha(n: int) -> str:
    return hashlib.sha256(picture(n)).hexdigest()


SEEN: dict[int, tuple[str, datetime | None, list[dict[str, Any]]]] = {
    0: ("north", START, [BRANCH, deer(0)]),
    1: ("north", START + timedelta(hours=1), [BRANCH | {"x1_px": 101.0, "x2_px": 161.0}]),
    2: ("north", START + timedelta(days=1), [BRANCH | {"score": 0.6}, deer(2)]),
    3: ("north", START + timedelta(days=3), [BRANCH]),
    4: ("north", None, [BRANCH]),
    5: ("north", START + timedelta(days=3, hours=1), [deer(4)]),
    6: ("south", START, [BRANCH]),
    7: ("south", START + timedelta(days=2), [BRANCH]),
}
"""Camera `north` has a branch in five images of three days, one undated; `south` in too few."""


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Image 0 has two paths, the first of which is missing; another model labels the branch ape."""
    root = tmp_path / "archive"
    write_files(root, {f"{seen[0]}/{n}.png": picture(n) for n, seen in SEEN.items()})
    tables = tables_at(tmp_path)
    media, results = [], []
    for n, (camera, taken, found) in SEEN.items():
        size = {"width_px": WIDTH_PX, "height_px": HEIGHT_PX}
        row = {"media_sha256": sha(n), "source_root": str(root), "camera_id": camera, **size}
        row |= {"captured_at_local": taken.isoformat() if taken else None, "timestamp_flags": []}
        media.append(row | {"path": f"{camera}/{n}.png"})
        if n == 0:
            media.append(row | {"path": "a/0.png", "missing_since": datetime.now(UTC)})
        results.append(result_rows([sha(n)], KEY, detections=found, n_detections=len(found), **size))
    rows = pa.Table.from_pylist(media, schema=MEDIA)
    tables.append("media", rows, "test", lambda _, wanted: wanted)
    other = [BRANCH | {"label": "ape", "score": 0.2}]
    results.append(result_rows([sha(0), sha(1)], OTHER, detections=other))
    put_results(tables, pa.concat_tables(results))
    publish(tables)
    return tables


def ran(tables: Tables, **fields: Any) -> Layer:
    spec = prepare(tables, "repeat-detections", FEW | fields)
    layer_id = execute(spec, tables, here).layer_id
    return read_layers(tables)[layer_id]


def branches(tables: Tables) -> list[str]:
    """Return the images of `north` with the branch."""
    rows = query(tables, "from detections where rank = 0 and camera_id = 'north'").to_pylist()
    return sorted({row["media_sha256"] for row in rows if row["x1_px"] < 150})


def test_a_candidate_describes_a_slot(tables: Tables, tmp_path: Path) -> None:
    layer = ran(tables)
    (slot,) = {row["group_id"] for row in rows_of(tables, "assertions")}
    (found,) = candidates(tables, layer, KEY)
    assert found.slot == ReviewedSlot(id=slot, camera="north", label="deer", images=5, days=3, accepted=False)
    assert (found.first_local, found.last_local) == (START, START + timedelta(days=3))
    sample = found.sample
    assert (sample.media_sha256, sample.places) == (sha(0), ((str(tmp_path / "archive"), "north/0.png"),))
    (box,) = sample.old
    assert (box.label, box.box_px, box.score) == ("deer", (100.0, 100.0, 160.0, 160.0), pytest.approx(0.9))
    assert candidates(tables, layer, OTHER) == [], "of another model's results"


def test_days_of_a_doubtful_clock_count_once_it_is_corrected(tables: Tables) -> None:
    tables.snapshot("media").update(updates={"timestamp_flags": "make_array('before_2001')"})
    assert candidates(tables, ran(tables), KEY) == []
    record(tables, {"d": Deployment(camera_id="north", location="hill", from_local=START, clock_offset_s=60)}, "ana")
    (found,) = candidates(tables, ran(tables), KEY)
    assert (found.slot.images, found.slot.days) == (5, 3)


def test_accepted_slots_are_hidden_and_can_be_shown_again(tables: Tables, tmp_path: Path) -> None:
    before = shown(tables)
    layer = ran(tables)
    switch(tables, on=[layer.layer_id])
    assert shown(tables) == before, "nothing is hidden before a person has accepted it"
    out = tmp_path / "review"
    write_review(layer.layer_id, candidates(tables, layer, KEY), str(out))
    assert [file.name for file in (out / "samples").iterdir()] == ["00001.jpg"]
    assert "the image cannot be shown" not in (out / "index.html").read_text()
    assert accepted_in("review.json", (out / "review.json").read_text()) == ()

    review = json.loads((out / "review.json").read_text())
    review["slots"][0]["accepted"] = True
    (out / "review.json").write_text(json.dumps(review))
    accepted = ran(tables, accepted=accepted_in("review.json", (out / "review.json").read_text()))
    assert accepted.layer_id != layer.layer_id
    assert shown(tables) == before, "it is another layer, which no view shows yet"
    view = switch(tables, on=[accepted.layer_id])
    assert view.layers == (accepted.layer_id,), "in the place of the one without"
    assert branches(tables) == []
    kept = [row for row in before if row[1] == 1 or row[0] in (sha(5), sha(6), sha(7))]
    assert shown(tables) == kept, "deer, and the branch that was not reviewed"
    hidden = query(tables, "select distinct media_sha256, slot_id from hidden").to_pylist()
    assert sorted(row["media_sha256"] for row in hidden) == sorted(sha(n) for n in range(5))
    assert {row["slot_id"] for row in hidden} == {review["slots"][0]["id"]}

    again = write_review(accepted.layer_id, candidates(tables, accepted, KEY), str(tmp_path / "again"))
    assert [slot.accepted for slot in again.slots] == [True], "accepted ones can be looked at again"

    switch(tables, off=["repeat-detections"])
    assert shown(tables) == before


def test_a_withdrawn_slot_is_not_a_candidate(tables: Tables) -> None:
    """Withdrawn boxes do not count; the earliest remaining one is shown."""
    layer = ran(tables)

    def take_back(*shas: str) -> list[Candidate]:
        later = datetime.now(UTC) + timedelta(hours=1)
        rows = [
            row | {"assertion_id": f"w{n}", "action": "withdraw", "asserted_at": later}
            for n, row in enumerate(rows_of(tables, "assertions"))
            if row["media_sha256"] in shas and row["action"] != "withdraw"
        ]
        table = pa.Table.from_pylist(rows, schema=ASSERTIONS)
        tables.append("assertions", table, "test", lambda _, wanted: wanted)
        return candidates(tables, layer, KEY)

    (left,) = take_back(sha(0))
    assert (left.slot.images, left.slot.days, left.sample.media_sha256) == (4, 3, sha(1))
    assert left.sample.old[0].box_px == (101.0, 100.0, 161.0, 160.0)
    assert left.first_local == START + timedelta(hours=1)
    (undated,) = take_back(sha(1), sha(2), sha(3))
    assert (undated.slot.images, undated.slot.days, undated.first_local) == (1, 0, None)
    assert take_back(sha(4)) == []


def test_only_repeat_detections_are_reviewed(tables: Tables) -> None:
    spec = prepare(tables, "fixed-slots", {})
    execute(spec, tables, here)
    (other,) = read_layers(tables).values()
    with pytest.raises(BadRequest, match="is fixed-slots; only repeat-detections"):
        candidates(tables, other, KEY)
