"""The report of real images: a page, its pictures and its JSON, whatever names there are."""

from __future__ import annotations

import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.delta.tables import Tables
from batch.publishing.impact.compare import compared
from batch.publishing.impact.measure import LabelBoxes
from batch.publishing.impact.report import MAX_ROWS, page, write_report
from batch.publishing.impact.verdict import Gate, Verdict, judge, verdict
from batch.schedule.policy import Gates
from model_store.errors import BadRequest
from tests.batch.publishing.impact.scene import NEW, OLD, World, new_side, old_side
from tests.batch.publishing.impact.test_gates import impact
from tests.fixtures_local import jpeg, write_files

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>&amp;"\'\x00\u202e'
BOX = (4.0, 4.0, 20.0, 20.0)
WORDS = dict.fromkeys(("headline", "compared", "changes", "estimate", "next", "command"), HOSTILE)
VERDICT = Verdict(
    passed=False,
    gates=(
        Gate(name="max_lost_frac", passed=False, found=1, limit=0, words="lost <many>"),
        Gate(name="max_failed_frac", passed=True, found=0, limit=0, words="failed none"),
    ),
    **WORDS,
)


class Page(HTMLParser):
    """Tags with their attributes, and the text of an HTML page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def put(tables: Tables, name: str, rows: pa.Table) -> None:
    tables.append(name, rows, "test", lambda _, wanted: wanted)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Three images of a camera with a hostile name: lost, relabelled, and one whose file is away."""
    tables = Tables(str(tmp_path / "tables"))
    world = World()
    deer, other = (HOSTILE, 0.75, BOX), ("fox", 0.5, BOX)
    for name, new in (("lost", []), ("relabelled", [other]), ("away", [])):
        world.image(name, [deer], new, ["<b>cam&"])
    root = tmp_path / "archive"
    paths = [row["path"] for row in world.media().to_pylist()]
    files = {path: jpeg(shade=60 + 30 * n) for n, path in enumerate(paths)}
    write_files(root, {path: data for path, data in files.items() if "away" not in path})
    digests = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    real = {row["media_sha256"]: digests[row["path"]] for row in world.media().to_pylist()}

    world.say("keep", "lost", HOSTILE, BOX)
    world.said[0] |= {"actor": HOSTILE}
    for name, rows in (
        ("media", world.media()),
        ("results", world.results(OLD, world.old)),
        ("results", world.results(NEW, world.new)),
        ("assertions", world.assertions()),
    ):
        named = [row | {"media_sha256": real[row["media_sha256"]]} for row in rows.to_pylist()]
        if name == "media":
            named = [row | {"source_root": str(root)} for row in named]
        put(tables, name, pa.Table.from_pylist(named, schema=rows.schema))
    return tables


def written(tables: Tables, out: Path, per_kind: int = 3) -> tuple[Page, dict[str, Any]]:
    with compared(tables, old_side(), new_side()) as comparison:
        found = verdict(tables, comparison, judge(comparison.impact, Gates(max_lost_frac=0.5)))
        write_report(comparison, found, str(out), per_kind)
    return Page((out / "index.html").read_text()), json.loads((out / "impact.json").read_text())


def test_a_report_shows_each_change(tables: Tables, tmp_path: Path) -> None:
    shown, facts = written(tables, tmp_path / "out")
    pictures = [image["src"] for image in shown.all("img")]
    assert len(pictures) == 4, "two images, each old and new; the third is away"
    for picture in pictures:
        assert (tmp_path / "out" / str(picture)).read_bytes().startswith(b"\xff\xd8")
    assert {one["kind"]: one["paths"] for one in facts["samples"]}["verified"] == ["<b>cam&/0/lost.jpg"]
    assert sorted(one["why_not"] is None for one in facts["samples"]) == [False, True, True]
    assert "the image cannot be shown: the file is missing" in shown.text
    assert facts["impact"]["verified"]["lost"] == 1
    gates = {one["name"]: one["passed"] for one in facts["verdict"]["gates"]}
    assert gates["max_lost_verified"] is False
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in shown.all("meta")
    again, _ = written(tables, tmp_path / "again")
    assert again.text == shown.text, "the same comparison gives the same report"


def test_hostile_names_are_text_and_nothing_is_fetched_or_run(tables: Tables, tmp_path: Path) -> None:
    shown, _ = written(tables, tmp_path / "out")
    assert {tag for tag, _ in shown.tags}.isdisjoint({"script", "b", "i", "iframe", "object", "link"})
    for tag, attributes in shown.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
    assert all(str(image["src"]).startswith("samples/") for image in shown.all("img"))
    alts = [str(image["alt"]) for image in shown.all("img")]
    assert any('<script>alert("x")</script>' in alt for alt in alts)
    assert all(alts)
    text = (tmp_path / "out" / "index.html").read_text()
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert any(HOSTILE.replace("\x00", "")[:20] in one for one in shown.text)
    assert str(tmp_path) not in text, "a report is passed on"


def test_the_verdict_comes_first_and_is_text() -> None:
    shown = Page(page(impact(), VERDICT, []))
    assert {tag for tag, _ in shown.tags}.isdisjoint({"script", "img"})
    text = "".join(shown.text)
    order = [text.index(words) for words in ("fail: lost <many>", "pass: failed none", "Next", "Summary")]
    assert order == sorted(order)


def test_a_report_of_nothing(tmp_path: Path) -> None:
    shown, facts = written(Tables(str(tmp_path / "none")), tmp_path / "out")
    assert facts["impact"]["images"]["compared"] == 0
    assert shown.all("h1")


def test_a_long_table_is_cut_on_the_page_alone() -> None:
    numbers = dict.fromkeys(("shown_old", "shown_new", "matched", "lost", "new", "relabelled_from", "relabelled_to"), 1)
    labels = tuple(LabelBoxes(label=f"label {n}", shift=None, **numbers) for n in range(MAX_ROWS + 7))
    text = page(impact().model_copy(update={"labels": labels}), VERDICT, [])
    assert f"label {MAX_ROWS - 1}<" in text
    assert f"label {MAX_ROWS}<" not in text
    assert "7 more rows are in impact.json" in text


def test_a_report_replaces_nothing(tables: Tables, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    for place in (tmp_path / "out", tmp_path / "out" / "mine.txt"):
        with pytest.raises(BadRequest, match="not empty: use a new folder"):
            written(tables, place)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]
