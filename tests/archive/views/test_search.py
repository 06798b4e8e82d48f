"""Image search by results of a view, compared with a loop over the same rows in Python."""

from __future__ import annotations

import base64
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies

import archive.views.search
from archive.catalogue.row_updates import add_files
from archive.delta.append import add_results
from archive.delta.tables import Tables
from archive.delta.writer import Writer
from archive.schemas import MEDIA
from archive.views.search import MOST_MARK, Found, Wanted, cursor_of, find, place_in, place_of
from archive.views.views import View, Views
from model_store.errors import BadRequest, DeadlinePassed, StorageUnreachable
from tests.fixtures_local import result_rows

CAMERAS = ("north", "south", None)
START = datetime(2026, 5, 1, 12)
THRESHOLD, DEER = 0.5, 0.25
VIEW = View(
    inference_key="k",
    model_name="m",
    model_version="1",
    weights_sha256="w",
    threshold=THRESHOLD,
    label_thresholds={"deer": DEER},
)


def world(seed: int = 0, images: int = 120) -> list[dict[str, Any]]:
    """Draw images with their rows. Times repeat or are missing; some files are gone, or are copies."""
    lot = random.Random(seed)
    made: list[dict[str, Any]] = []
    for number in range(images):
        copied = lot.choice(made)["media_sha256"] if made and lot.random() < 0.1 else None
        moment = START + timedelta(minutes=lot.randrange(40)) if lot.random() < 0.8 else None
        made.append(
            {
                "media_sha256": copied or f"{number:064x}",
                "path": f"{lot.randrange(10**6):06}-{number}.jpg",
                "camera_id": lot.choice(CAMERAS),
                "captured_at_local": moment,
                "gone": lot.random() < 0.1,
                "status": lot.choice(["ok", "ok", "bare", "failed", "missing"]),
                "boxes": [
                    (lot.choice(["deer", "fox"]), lot.randrange(0, 101) / 100) for _ in range(lot.randrange(1, 4))
                ],
            }
        )
    first = {image["media_sha256"]: image for image in reversed(made)}
    for image in made:
        image |= {name: first[image["media_sha256"]][name] for name in ("status", "boxes")}
        if image["status"] != "ok":
            image["boxes"] = []
        if image["status"] == "bare":
            image["status"] = "ok"
    return made


def put(tables: Tables, images: list[dict[str, Any]]) -> None:
    media = [
        {
            "media_sha256": image["media_sha256"],
            "source_root": "/archive",
            "path": image["path"],
            "size_bytes": 1,
            "camera_id": image["camera_id"],
            "captured_at_local": image["captured_at_local"] and image["captured_at_local"].isoformat(),
            "ingested_at": datetime.now(UTC),
            "missing_since": datetime.now(UTC) if image["gone"] else None,
        }
        for image in images
    ]
    add_files(Writer(tables, "media", "/archive"), pa.Table.from_pylist(media, schema=MEDIA))
    rows: list[pa.Table] = []
    for image in {one["media_sha256"]: one for one in images}.values():
        if image["status"] == "missing":
            continue
        boxes = [
            {"rank": rank, "label": label, "class_id": 0, "score": score}
            | {"x1_px": 1.0, "y1_px": 1.0, "x2_px": 5.0, "y2_px": 5.0}
            for rank, (label, score) in enumerate(image["boxes"])
        ]
        more: dict[str, Any] = {"width_px": 10, "height_px": 10, "detections": boxes}
        rows.append(result_rows([image["media_sha256"]], status=image["status"], **more))
    add_results(tables, "k", pa.concat_tables(rows))


def shown(image: dict[str, Any]) -> list[tuple[str, float]]:
    return [(label, score) for label, score in image["boxes"] if score >= (DEER if label == "deer" else THRESHOLD)]


def status(image: dict[str, Any]) -> str:
    """Status from the shown detections: `empty` is neither failed nor missing."""
    return "empty" if image["status"] == "ok" and not shown(image) else image["status"]


def first_files(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the present image of each content that was put first."""
    chosen: dict[str, dict[str, Any]] = {}
    for image in images:
        if not image["gone"]:
            chosen.setdefault(image["media_sha256"], image)
    return list(chosen.values())


def expected(images: list[dict[str, Any]], **wanted: Any) -> list[str]:
    def fits(image: dict[str, Any]) -> bool:
        moment, label, least = (image["captured_at_local"], wanted.get("label"), wanted.get("min_score"))
        return (
            wanted.get("status") in (None, status(image))
            and wanted.get("camera") in (None, image["camera_id"])
            and ("since" not in wanted or (moment is not None and moment >= wanted["since"]))
            and ("until" not in wanted or (moment is not None and moment < wanted["until"]))
            and (
                (label is None and least is None)
                or any(label in (None, one) and score >= (least or 0) for one, score in shown(image))
            )
        )

    left = sorted(filter(fits, first_files(images)), key=lambda image: image["path"])
    dated = [image for image in left if image["captured_at_local"]]
    dated.sort(key=lambda image: image["captured_at_local"], reverse=True)
    return [image["path"] for image in dated + [i for i in left if not i["captured_at_local"]]]


@pytest.fixture(scope="module")
def images() -> list[dict[str, Any]]:
    return world()


@pytest.fixture(scope="module")
def tables(images: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Tables:
    tables = Tables(str(tmp_path_factory.mktemp("find")))
    put(tables, images)
    Views(tables.url).publish(VIEW, after=0)
    return tables


def paths(found: Found) -> list[str]:
    return [image["path"] for image in found.images]


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"status": "ok"},
        {"status": "empty"},
        {"status": "failed"},
        {"status": "missing"},
        {"camera": "north"},
        {"camera": "nobody"},
        {"label": "deer"},
        {"label": "fox", "min_score": 0.8},
        {"label": "deer", "min_score": 0.1},
        {"min_score": 0.9},
        {"since": START + timedelta(minutes=10)},
        {"until": START + timedelta(minutes=10)},
        {"camera": "south", "label": "deer", "since": START, "until": START + timedelta(minutes=20)},
    ],
    ids=str,
)
def test_all_conditions_hold_at_once(tables: Tables, images: list[dict[str, Any]], wanted: dict[str, Any]) -> None:
    found = find(tables, Wanted(limit=1000, **wanted), 60)
    assert paths(found) == expected(images, **wanted)
    assert found.next == ""
    assert found.view is not None
    assert found.view.serial == 1


def test_each_image_says_what_is_shown_of_it(tables: Tables, images: list[dict[str, Any]]) -> None:
    by_path = {image["path"]: image for image in images}
    for found in find(tables, Wanted(limit=1000), 60).images:
        image = by_path[found["path"]]
        labels = [label for label, _ in shown(image)]
        assert found["labels"] == {label: labels.count(label) for label in set(labels)}
        assert found["status"] == status(image)
        assert found["captured_at_local"] == image["captured_at_local"]
        assert (found["camera_id"], found["source_root"]) == (image["camera_id"], "/archive")


@pytest.mark.parametrize(("limit", "wanted"), [(3, {"camera": "north"}), (50, {})])
def test_pages_are_the_whole_cut_up(
    tables: Tables, images: list[dict[str, Any]], limit: int, wanted: dict[str, Any]
) -> None:
    """Small pages break between images of the same time, and before undated ones."""
    there: list[str] = []
    after = ""
    while True:
        page = find(tables, Wanted(limit=limit, after=after, **wanted), 60)
        there += paths(page)
        assert len(page.images) == limit or not page.next
        after = page.next
        if not after:
            break
    assert there == expected(images, **wanted)
    moments = {image["path"]: image["captured_at_local"] for image in images}
    breaks = [(moments[there[i - 1]], moments[there[i]]) for i in range(limit, len(there), limit)]
    assert any(last and last == first for last, first in breaks)
    assert limit > 3 or any(last and not first for last, first in breaks)


def test_without_a_view_nothing_is_seen_and_every_image_is_there(images: list[dict[str, Any]], tmp_path: Path) -> None:
    tables = Tables(str(tmp_path))
    put(tables, images)
    found = find(tables, Wanted(limit=1000), 60)
    assert found.view is None
    assert paths(found) == expected(images)
    assert {image["status"] for image in found.images} == {"missing"}


def test_another_view_is_asked_by_its_name(tables: Tables, images: list[dict[str, Any]]) -> None:
    Views(tables.url).publish(VIEW.model_copy(update={"name": "all", "threshold": 0.0}), after=0)
    found = find(tables, Wanted(limit=1000, label="fox", view="all"), 60)
    foxes = {i["path"] for i in first_files(images) if any(b[0] == "fox" for b in i["boxes"])}
    assert set(paths(found)) == foxes
    with pytest.raises(BadRequest, match="nothing is published as 'other'"):
        find(tables, Wanted(view="other"), 60)


def mark_of(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "mark",
    [
        "x",
        "eA==",
        "é",
        mark_of("[1]"),
        mark_of('["2026", "/a", "b"]'),
        mark_of('[0, "/a", "b"]'),
        mark_of("[" * 1100),
        mark_of("[" * 20_000),
        mark_of('[null, "\\ud800", "x"]'),
        mark_of("[null, " + "9" * 5000 + ', "x"]'),
        mark_of('[null, ["/a"], "b"]'),
        mark_of('[null, "/a", 7]'),
        mark_of('["2026-05-01T00:00:00+02:00", "/a", "b"]'),
        mark_of('["0000-05-01T00:00:00", "/a", "b"]'),
        mark_of('[null, "/a", "b", "c"]'),
        mark_of('[null, "/a", "b"]') + "\n",
    ],
)
def test_a_mark_of_another_hand_is_refused(tables: Tables, mark: str) -> None:
    with pytest.raises(BadRequest, match="after"):
        find(tables, Wanted(after=mark), 60)


@pytest.mark.parametrize("moment", ["null", '"0001-01-01T00:00:00"', '"9999-12-31T23:59:59.999999"'])
@pytest.mark.parametrize("path", ["", "\\u0000", "%", "'; drop table media; --", "é" * 2000])
def test_a_mark_of_the_right_form_is_answered(tables: Tables, moment: str, path: str) -> None:
    find(tables, Wanted(after=mark_of(f'[{moment}, "/a", "{path}"]')), 60)


ANY_JSON = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.floats()
    | strategies.integers()
    | strategies.text()
    | strategies.datetimes().map(datetime.isoformat),
    lambda inner: strategies.lists(inner, max_size=4) | strategies.dictionaries(strategies.text(), inner, max_size=3),
)


@settings(max_examples=150, deadline=None)
@given(
    strategies.text()
    | strategies.binary().map(lambda data: base64.urlsafe_b64encode(data).decode())
    | ANY_JSON.map(lambda value: mark_of(json.dumps(value)))
    | strategies.tuples(ANY_JSON, ANY_JSON, ANY_JSON).map(lambda value: mark_of(json.dumps(value)))
)
def test_any_mark_is_refused_or_three_flat_values(mark: str) -> None:
    try:
        moment, root, path = place_of(mark)
    except BadRequest:
        return
    assert moment is None or moment.tzinfo is None
    assert [type(root), type(path)] == [str, str]
    f"{root}{path}".encode()


@settings(deadline=None)
@given(strategies.none() | strategies.datetimes(), strategies.text(max_size=50), strategies.text(max_size=50))
def test_a_mark_says_what_it_was_made_of(moment: datetime | None, root: str, path: str) -> None:
    image = {"captured_at_corrected": moment, "source_root": root, "path": path}
    assert place_of(cursor_of(*place_in(image))) == (moment, root, path)


def test_a_mark_of_the_longest_paths_is_within_its_bound() -> None:
    image = {"captured_at_corrected": datetime.max, "source_root": '"' * 4096, "path": '"' * 4096}
    assert len(cursor_of(*place_in(image))) <= MOST_MARK


def test_what_takes_too_long_is_ended(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    forever = "select count(*) from range(1_000_000_000_000) a, range(1_000_000_000_000) b where $max_rows > 0"
    monkeypatch.setattr(archive.views.search, "_PAGE", forever)
    with pytest.raises(DeadlinePassed, match="more than 0.3 s"):
        find(tables, Wanted(), 0.3)


def test_where_there_are_no_tables_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageUnreachable, match="no table"):
        find(Tables(str(tmp_path / "nothing")), Wanted(), 60)


def test_what_takes_too_much_memory_is_ended(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive.views.search, "MEMORY_MIB", 1)
    with pytest.raises(BadRequest, match="the search needs more memory, or more room in TMPDIR: Out of Memory"):
        find(tables, Wanted(min_score=0.1), 60)


def test_a_clock_that_was_never_set_has_pages_too(tmp_path: Path) -> None:
    """Cameras write the year 1 after their battery was empty."""
    made = [
        image | {"captured_at_local": datetime(1, 1, 1, second=i), "gone": False}
        for i, image in enumerate(world(images=3))
    ]
    tables = Tables(str(tmp_path))
    put(tables, made)
    first = find(tables, Wanted(limit=1), 60)
    then = find(tables, Wanted(limit=2, after=first.next), 60)
    assert paths(first) + paths(then) == [image["path"] for image in reversed(made)]
