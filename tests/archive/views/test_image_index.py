"""Pages, counts, histograms and neighbours of an index, compared with the relations of the view and with a search."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

import archive.views.image_index
from archive.delta.tables import Tables
from archive.views.image_detail import image_details
from archive.views.image_filter import FILTERED, ImageFilter, statement
from archive.views.image_index import ImageIndex
from archive.views.query import connect
from archive.views.search import ImageSearch, find
from archive.views.views import View, Views
from model_store.errors import BadRequest, DeadlinePassed, ModelNotFound
from tests.archive.resolve_oracle import World
from tests.archive.resolve_worlds import LABELS, SCORES, as_tables, view_of, worlds
from tests.archive.views.index_oracle import Image, bars, details, fits, of_relations
from tests.archive.views.test_search import START, VIEW, put, world

TIMES = st.none() | st.integers(0, 4).map(lambda hour: datetime(2026, 5, 14, hour))
FILTERS = st.builds(
    dict,
    camera=st.sampled_from((None, None, "north")),
    status=st.sampled_from((None, None, None, "ok", "empty", "failed", "missing")),
    label=st.none() | st.sampled_from(LABELS),
    min_score=st.none() | st.sampled_from(SCORES),
    since=TIMES,
    until=TIMES,
    reviewed=st.sampled_from((None, None, True, False)),
    path=st.sampled_from((None, None, "0/", "1/")),
)


def walked(index: ImageIndex, wanted: ImageFilter, limit: int) -> list[Image]:
    """Return all images by the cursors of pages: forwards, then backwards, which must be the same."""
    page = index.page(wanted, limit)
    assert page.previous == ""
    there, sizes = page.rows, [len(page.rows)]
    while page.next:
        page = index.page(wanted, limit, after=page.next)
        assert page.previous
        there += page.rows
        sizes.append(len(page.rows))
    assert all(size == limit for size in sizes[:-1])
    back = page.rows
    while page.previous:
        page = index.page(wanted, limit, before=page.previous)
        assert page.next
        back = page.rows + back
    assert back == there
    return there


def check_details(index: ImageIndex, tables: Tables, view: View, images: Sequence[Image]) -> None:
    """Compare details of the file with those of the tables, and their boxes with relation `detections`."""
    shas = [image["media_sha256"] for image in images]
    found = index.details("production", [*shas, "f" * 64])
    assert found == image_details(tables, shas, view)
    for image in images:
        boxes = [box for box in found[image["media_sha256"]].boxes if box.is_shown]
        assert sorted((b.label, b.score or -1) for b in boxes) == sorted(
            (label, score or -1) for label, score in image["labels"]
        )


def check(index: ImageIndex, images: Sequence[Image], wanted: dict[str, Any]) -> None:
    asked = ImageFilter(**wanted)
    expected = [image for image in images if fits(image, wanted)]
    event(f"images: {min(len(expected), 3)}")
    there = walked(index, asked, limit=2)
    stated = {image["media_sha256"]: image["stated"] for image in expected}
    for image in there:
        uncertain = image.pop("uncertain_score")
        image["distance"] = None if uncertain is None else abs(uncertain - 0.5)
        boxes = image.pop("boxes")
        assert len(boxes) <= min(10, image["n_boxes"]), "none without a size"
        if len(boxes) == image["n_boxes"]:
            assert [box["is_human"] for box in boxes].count(True) == stated[image["media_sha256"]]
        assert not image.pop("flagged")
        del image["height_px"], image["location"]
    assert there == [details(image, wanted["label"]) for image in expected]
    assert index.count(asked) == len(expected)
    for by in ("day", "hour", "camera", "status", "label"):
        assert dict(index.histogram(asked, by)) == bars(expected, by), by
    scored = {i["media_sha256"]: details(i)["distance"] for i in expected}
    ranked = index.uncertain(asked, 100)
    assert sorted(ranked) == sorted(sha for sha, far in scored.items() if far is not None)
    assert [scored[sha] for sha in ranked] == sorted(scored[sha] for sha in ranked)
    shas = [image["media_sha256"] for image in expected]
    assert index.select(asked, shas[:1])["media_sha256"].to_pylist() == shas[1:]
    for number, sha in enumerate(shas):
        around = [None, *shas, None]
        assert index.neighbours(asked, sha) == (around[number], around[number + 2])


@dataclass(frozen=True)
class Halves:
    """A world whose rows are written in two parts, and the images that fail."""

    world: World
    first: dict[str, pa.Table]
    then: dict[str, pa.Table]


@st.composite
def halves(draw: st.DrawFn) -> Halves:
    made = draw(worlds())
    lot = random.Random(draw(st.integers(0, 1000)))
    first: dict[str, pa.Table] = {}
    then: dict[str, pa.Table] = {}
    for name, rows in as_tables(made).items():
        listed = rows.to_pylist()
        for row in listed:
            if name == "results" and lot.random() < 0.2:
                row |= {"status": "failed", "detections": [], "error_code": "decode"}
        late = [name != "layers" and lot.random() < 0.3 for _ in listed]
        for part, chosen in ((first, False), (then, True)):
            some = [row for row, is_late in zip(listed, late, strict=True) if is_late is chosen]
            part[name] = pa.Table.from_pylist(some, schema=rows.schema)
    return Halves(made, first, then)


def write(tables: Tables, parts: dict[str, pa.Table]) -> None:
    for name, rows in parts.items():
        if len(rows):
            tables.append(name, rows, "test", lambda _, wanted: wanted)


def check_statements(tables: Tables, index: ImageIndex, some: list[dict[str, Any]]) -> None:
    """Compare the rows that SQL of filters selects with the images that the index selects."""
    filters = [ImageFilter(**wanted) for wanted in some]
    missing = set(index.select(ImageFilter(status="missing"))["media_sha256"].to_pylist())
    read = " ".join(statement(name, wanted) for name in FILTERED for wanted in filters)
    with connect(tables, statement=read) as sql:
        for wanted in filters:
            matching = set(index.select(wanted)["media_sha256"].to_pylist())
            shown, results = (
                [sha for (sha,) in sql.sql(f"select media_sha256 from ({statement(name, wanted)})").fetchall()]
                for name in FILTERED
            )
            assert sorted(results) == sorted(matching - missing), wanted
            assert set(shown) <= matching, wanted
            if wanted.status == "ok":
                assert set(shown) == matching, wanted


@settings(max_examples=4, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(given_=halves(), some=st.lists(FILTERS, min_size=3, max_size=3))
def test_an_index_equals_the_relations_before_and_after_it_follows(given_: Halves, some: list[dict[str, Any]]) -> None:
    everything = dict.fromkeys(some[0])
    with TemporaryDirectory() as place:
        tables, view = Tables(f"{place}/tables"), view_of(given_.world)
        index = ImageIndex(tables, Path(place) / "index")
        tables.snapshot("media")
        write(tables, given_.first)
        Views(tables.url).publish(view, after=0)
        before = of_relations(tables, view)
        check(index, before, some[0])
        write(tables, given_.then)
        shas = [image["media_sha256"] for image in before]
        as_of_tables = image_details(tables, shas, view)
        for sha, detail in index.details("production", shas).items():
            assert detail == as_of_tables[sha], "the file has all its rows"
        changed = index.refresh()
        event(f"followed: {changed}")
        assert index.state().behind_s == 0
        images = of_relations(tables, view)
        check_details(index, tables, view, images)
        for wanted in (everything, *some[1:]):
            check(index, images, wanted)
        check_statements(tables, index, [{}, *some, {"status": "ok"}])


@pytest.fixture(scope="module")
def images() -> list[dict[str, Any]]:
    return world(images=200)


@pytest.fixture(scope="module")
def tables(images: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Tables:
    tables = Tables(str(tmp_path_factory.mktemp("index") / "tables"))
    put(tables, images)
    Views(tables.url).publish(VIEW, after=0)
    return tables


@pytest.fixture
def index(tables: Tables) -> ImageIndex:
    """Return an index whose file the tests of this module share."""
    return ImageIndex(tables, Path(tables.url).parent / "index")


@pytest.mark.parametrize(
    "wanted",
    [
        *({"status": status} for status in ("ok", "empty", "failed", "missing")),
        {"camera": "north", "label": "deer"},
        {"min_score": 0.9, "until": START + timedelta(minutes=30)},
        {
            "label": "fox",
            "min_score": 0.7,
            "since": START + timedelta(minutes=10),
            "until": START + timedelta(minutes=30),
        },
    ],
    ids=str,
)
def test_a_walk_gives_what_a_search_gives(index: ImageIndex, tables: Tables, wanted: dict[str, Any]) -> None:
    found = find(tables, ImageSearch(limit=1000, **wanted), 60).images
    there = walked(index, ImageFilter(**wanted), limit=20)
    for name in ("media_sha256", "captured_at_local", "source_root", "path", "status"):
        assert [image[name] for image in there] == [image[name] for image in found]
    assert [image["n_boxes"] for image in there] == [sum(i["labels"].values()) for i in found]
    assert found


def test_a_list_of_a_label_has_its_scores(index: ImageIndex, tables: Tables) -> None:
    there = walked(index, ImageFilter(label="fox"), limit=20)
    best = "select media_sha256, label, max(score) from detections where label = 'fox' group by all"
    with connect(tables, statement=best) as sql:
        found = set(sql.sql(best).fetchall())
    assert {(image["media_sha256"], image["top_label"], image["top_score"]) for image in there} == found


def paths_at(index: ImageIndex, at: datetime) -> list[str]:
    return index.page(ImageFilter(), 5, at=at).columns["path"]


def test_a_page_begins_at_a_time(index: ImageIndex) -> None:
    everything = walked(index, ImageFilter(), limit=1000)
    moment = START + timedelta(minutes=20)
    older = [i for i in everything if not i["captured_at_local"] or i["captured_at_local"] <= moment]
    page = index.page(ImageFilter(), 5, at=moment)
    assert page.rows == older[:5]
    assert page.previous
    before = index.page(ImageFilter(), 1000, before=page.previous)
    assert before.rows + older == everything


def test_a_day_begins_with_its_last_image_and_the_past_with_the_oldest(index: ImageIndex) -> None:
    everything = walked(index, ImageFilter(), limit=1000)
    dated = [image["path"] for image in everything if image["captured_at_local"]]
    assert paths_at(index, datetime(START.year, START.month, START.day)) == dated[:5]
    assert paths_at(index, datetime(1990, 1, 1)) == dated[-5:]
    assert paths_at(index, datetime.max) == dated[:5]
    undated = index.page(ImageFilter(), 5, after=index.page(ImageFilter(), 5, at=datetime(1990, 1, 1)).next)
    assert undated.columns["path"] == [image["path"] for image in everything[len(dated) :][:5]]


@pytest.mark.parametrize(
    ("options", "words"),
    [({"limit": 1001}, "limit 1001"), ({"after": "x"}, "cursor"), ({"after": "x", "at": START}, "only one")],
)
def test_a_page_that_cannot_be_is_refused(index: ImageIndex, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        index.page(ImageFilter(), **options)


def test_texts_are_values_and_not_sql(index: ImageIndex) -> None:
    for text in ("'; drop table cells; --", "%", "\0", "é" * 2000):
        wanted = ImageFilter(camera=text, label=text, path=text)
        assert (index.count(wanted), len(index.page(wanted).rows)) == (0, 0)
    assert index.count(ImageFilter()) > 0


def test_neighbours_of_an_image_that_does_not_match(index: ImageIndex) -> None:
    everything = walked(index, ImageFilter(), limit=1000)
    empty = [n for n, image in enumerate(everything) if image["status"] == "empty"]
    sha = everything[empty[3] + 1]["media_sha256"]
    assert everything[empty[3] + 1]["status"] != "empty"
    around = [everything[n]["media_sha256"] for n in (empty[3], empty[4])]
    assert index.neighbours(ImageFilter(status="empty"), sha) == tuple(around)
    with pytest.raises(ModelNotFound, match="no image f+ is present"):
        index.neighbours(ImageFilter(), "f" * 64)


def test_a_selection_names_the_version_of_its_rows(index: ImageIndex) -> None:
    chosen = index.select(ImageFilter(label="deer"))
    assert chosen.schema.metadata == {b"index_version": index.state().index_version.encode()}
    assert len(chosen) == index.count(ImageFilter(label="deer"))


def test_a_list_that_takes_too_long_is_ended(tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = ImageIndex(tables, tmp_path, within_s=0.3)
    assert index.count(ImageFilter()) > 0
    forever = "select count(*) from range(1_000_000_000_000) a, range(1_000_000_000_000) b"
    monkeypatch.setattr(archive.views.image_index, "_COUNT", forever)
    with pytest.raises(DeadlinePassed, match="more than 0.3 s"):
        index.count(ImageFilter())


def test_without_a_view_every_image_is_missing_its_result(images: list[dict[str, Any]], tmp_path: Path) -> None:
    tables = Tables(str(tmp_path / "tables"))
    put(tables, images)
    index = ImageIndex(tables, tmp_path / "index")
    assert index.histogram(ImageFilter(), "status") == [("missing", index.state().images)]
    assert index.state().index_version.endswith(".0")


def test_another_view_has_another_index(index: ImageIndex, tables: Tables) -> None:
    everything = VIEW.model_copy(update={"name": "all", "threshold": 0.0, "label_thresholds": {}})
    Views(tables.url).publish(everything, after=0)
    shown, all_of_them = (index.count(ImageFilter(label="fox", view=v)) for v in ("production", "all"))
    assert 0 < shown < all_of_them
    with pytest.raises(BadRequest, match="nothing is published as 'other'"):
        index.count(ImageFilter(view="other"))
    with pytest.raises(BadRequest, match="name of a view"):
        index.state("../all")


def test_times_before_our_era_of_clocks_have_pages_too(tmp_path: Path) -> None:
    """Cameras write the year 1 after their battery was empty."""
    made = [
        image | {"captured_at_local": datetime(1, 1, 1, second=n), "gone": False}
        for n, image in enumerate(world(images=3))
    ]
    tables = Tables(str(tmp_path / "tables"))
    put(tables, made)
    index = ImageIndex(tables, tmp_path / "index")
    assert [i["path"] for i in walked(index, ImageFilter(), 1)] == [i["path"] for i in made[::-1]]
    assert index.histogram(ImageFilter(), "day") == [("0001-01-01", 3)]
