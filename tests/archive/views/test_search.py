"""Image search: pages, cursors and limits; `test_image_index.py` compares its images with those of an index."""

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
from archive.catalogue.deployments import Deployment, record
from archive.catalogue.row_updates import add_files
from archive.delta.tables import Tables
from archive.delta.writer import Writer, add_results
from archive.schemas import MEDIA
from archive.views.search import MOST_MARK, ImageSearch, SearchPage, cursor_of, find, place_in, place_of
from archive.views.views import View, Views
from model_store.errors import BadRequest, DeadlinePassed, StorageUnreachable
from tests.fixtures_local import put_rows, result_rows

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


@pytest.fixture(scope="module")
def images() -> list[dict[str, Any]]:
    return world()


@pytest.fixture(scope="module")
def tables(images: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Tables:
    tables = Tables(str(tmp_path_factory.mktemp("find")))
    put(tables, images)
    Views(tables.url).publish(VIEW, after=0)
    return tables


def paths(found: SearchPage) -> list[str]:
    return [image["path"] for image in found.images]


def test_each_image_says_what_is_shown_of_it(tables: Tables, images: list[dict[str, Any]]) -> None:
    by_path = {image["path"]: image for image in images}
    for found in find(tables, ImageSearch(limit=1000), 60).images:
        image = by_path[found["path"]]
        labels = [label for label, _ in shown(image)]
        assert found["labels"] == {label: labels.count(label) for label in set(labels)}
        assert found["status"] == status(image)
        assert found["captured_at_local"] == image["captured_at_local"]
        assert (found["camera_id"], found["source_root"]) == (image["camera_id"], "/archive")


def test_pages_are_the_whole_cut_up(tables: Tables, images: list[dict[str, Any]]) -> None:
    """Some pages break between images of the same time, and one before undated images."""
    wanted: dict[str, Any] = {"camera": "north"}
    limit = 3
    there: list[str] = []
    after = ""
    while True:
        page = find(tables, ImageSearch(limit=limit, after=after, **wanted), 60)
        there += paths(page)
        assert len(page.images) == limit or not page.next
        after = page.next
        if not after:
            break
    assert there == paths(find(tables, ImageSearch(limit=1000, **wanted), 60))
    moments = {image["path"]: image["captured_at_local"] for image in images}
    breaks = [(moments[there[i - 1]], moments[there[i]]) for i in range(limit, len(there), limit)]
    assert any(last and last == first for last, first in breaks)
    assert any(last and not first for last, first in breaks)


def test_without_a_view_nothing_is_seen_and_every_image_is_there(images: list[dict[str, Any]], tmp_path: Path) -> None:
    tables = Tables(str(tmp_path))
    put(tables, images)
    found = find(tables, ImageSearch(limit=1000), 60)
    assert found.view is None
    assert len(found.images) == len({image["media_sha256"] for image in images if not image["gone"]})
    assert {image["status"] for image in found.images} == {"missing"}


def test_names_that_the_archive_lacks_are_refused_and_those_of_deployments_are_known(
    images: list[dict[str, Any]], tmp_path: Path
) -> None:
    tables = Tables(str(tmp_path))
    put(tables, images)
    with pytest.raises(BadRequest, match="unknown deployment 'd1'; available: none"):
        find(tables, ImageSearch(deployment="d1"), 60)
    fact = {"deployment_id": "d1", "camera_id": "west", "location": "mill", "from_local": "2026-05-01T00:00:00"}
    record(tables, {"row 1": Deployment.model_validate(fact)}, "kim")
    for known in ({"camera": "west"}, {"deployment": "d1"}, {"location": "mill"}, {"camera": "north", "label": "yeti"}):
        assert find(tables, ImageSearch.model_validate(known), 60).images == []
    for name, words in (("camera", "'wset'; did you mean 'west'"), ("location", "'mil'; did you mean 'mill'")):
        with pytest.raises(BadRequest, match=f"unknown {name} {words}"):
            find(tables, ImageSearch.model_validate({name: words.split("'")[1]}), 60)


def test_a_camera_with_copies_only_is_known_and_has_no_images(images: list[dict[str, Any]], tmp_path: Path) -> None:
    tables = Tables(str(tmp_path))
    put(tables, images)
    copied = images[0] | {"path": "copies/IMG_0001.JPG", "camera_id": "copies"}
    add = {name: copied[name] for name in ("media_sha256", "path", "camera_id")}
    put_rows(tables, "media", add | {"source_root": "/archive", "size_bytes": 1, "ingested_at": datetime.now(UTC)})
    assert find(tables, ImageSearch(camera="copies"), 60).images == []


def test_another_view_is_asked_by_its_name(tables: Tables) -> None:
    Views(tables.url).publish(VIEW.model_copy(update={"name": "all", "threshold": 0.0}), after=0)
    shown, found = (find(tables, ImageSearch(limit=1000, label="fox", view=view), 60) for view in ("production", "all"))
    assert set(paths(shown)) < set(paths(found))
    assert (shown.view and shown.view.serial, shown.next) == (1, "")
    with pytest.raises(BadRequest, match="nothing is published as 'other'"):
        find(tables, ImageSearch(view="other"), 60)


def mark_of(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "mark",
    [
        "é",
        mark_of("[1]"),
        mark_of('["2026", "/a", "b"]'),
        mark_of('[0, "/a", "b"]'),
        mark_of("[" * 20_000),
        mark_of('[null, "\\ud800", "x"]'),
        mark_of("[null, " + "9" * 5000 + ', "x"]'),
        mark_of('["2026-05-01T00:00:00+02:00", "/a", "b"]'),
        mark_of('[null, "/a", "b"]') + "\n",
    ],
)
def test_a_mark_of_another_hand_is_refused(tables: Tables, mark: str) -> None:
    with pytest.raises(BadRequest, match="after"):
        find(tables, ImageSearch(after=mark), 60)


@pytest.mark.parametrize(
    ("moment", "path"),
    [
        ("null", "\\u0000"),
        ('"0001-01-01T00:00:00"', "'; drop table media; --"),
        ('"9999-12-31T23:59:59.999999"', "é" * 2000),
    ],
)
def test_a_mark_of_the_right_form_is_answered(tables: Tables, moment: str, path: str) -> None:
    find(tables, ImageSearch(after=mark_of(f'[{moment}, "/a", "{path}"]')), 60)


ANY_JSON = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.floats()
    | strategies.integers()
    | strategies.text()
    | strategies.datetimes().map(datetime.isoformat),
    lambda inner: strategies.lists(inner, max_size=4) | strategies.dictionaries(strategies.text(), inner, max_size=3),
)


@settings(max_examples=40, deadline=None)
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


def test_a_mark_of_the_longest_paths_is_within_its_bound() -> None:
    image = {"captured_at_corrected": datetime.max, "source_root": '"' * 4096, "path": '"' * 4096}
    assert len(cursor_of(*place_in(image))) <= MOST_MARK


def test_what_takes_too_long_is_ended(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    forever = "select count(*) from range(1_000_000_000_000) a, range(1_000_000_000_000) b where $max_rows > 0"
    monkeypatch.setattr(archive.views.search, "_PAGE", forever)
    with pytest.raises(DeadlinePassed, match="more than 0.3 s"):
        find(tables, ImageSearch(), 0.3)


def test_where_there_are_no_tables_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageUnreachable, match="no table"):
        find(Tables(str(tmp_path / "nothing")), ImageSearch(), 60)


def test_what_takes_too_much_memory_is_ended(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive.views.search, "MEMORY_MIB", 1)
    with pytest.raises(BadRequest, match=r"the search needs more memory, .*: narrow it, or use resight sql"):
        find(tables, ImageSearch(min_score=0.1), 60)
