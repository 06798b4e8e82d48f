"""resight assertions add and list, and runs diff: from statements in a file to gates."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from archive.delta.tables import Tables
from archive.views.views import View, Views
from tests.archive.annotations.two_images import put_images
from tests.batch.publishing.impact.scene import NEW, OLD, Seen, World, sha
from tests.cli.conftest import Done, Resight

BOX = (4.0, 4.0, 20.0, 20.0)
DEER: Seen = ("deer", 0.75, BOX)
WHO = ("--by", "kim", "--at", "2026-05-14T09:30:00+02:00")


@pytest.fixture
def tables(home: Path, tmp_path: Path) -> Tables:
    """Two images: NEW confirms the first, loses the second."""
    world = World().image("a", [DEER], [DEER]).image("b", [DEER], [])
    return world.write(Tables(str(home / "tables")))


@pytest.fixture
def views(tables: Tables) -> None:
    for name, key in (("production", OLD), ("next", NEW)):
        view = View(name=name, inference_key=key, model_name="m", model_version="1", weights_sha256="w")
        Views(tables.url).publish(view, after=0)


def checked(place: Path, *rows: dict[str, Any]) -> Path:
    file = place / "checked.json"
    file.write_text(json.dumps(list(rows)))
    return file


def keep(name: str, **more: Any) -> dict[str, Any]:
    corners = dict(zip(("x1_px", "y1_px", "x2_px", "y2_px"), BOX, strict=True))
    return {"media_sha256": sha(name), "action": "keep", "label": "deer", **corners, **more}


def test_the_work_of_another_tool_is_added_once(resight: Resight, home: Path, tmp_path: Path) -> None:
    home.mkdir()
    put_images(Tables(str(home / "tables")))
    file = tmp_path / "coco.json"
    image = {"id": 1, "file_name": "a", "width": 40, "height": 30}
    box = {"category_id": 7, "bbox": [1, 2, 12, 12]}
    boxes = [{"image_id": number, **box} for number in (1, 2)]
    images = [image, image | {"id": 2, "file_name": "elsewhere.jpg"}]
    names = [{"id": 7, "name": "deer"}]
    file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": names}))
    words = ("assertions", "add", file, "--from", "coco", "--by", "kim", "--format", "json")
    done = resight(*words)
    facts = json.loads(done.ok())
    assert (facts["add"], facts["left_out"], facts["added"]) == (1, 1, 1)
    assert "left out: elsewhere.jpg: it is not in the catalogue" in done.err
    again = json.loads(resight(*words).ok())
    assert (again["repeated"], again["added"]) == (1, 0)
    assert "name the tool with --from" in resight("assertions", "add", file, "--root", "/").refused(2)


def test_a_file_is_added_once(resight: Resight, tables: Tables, tmp_path: Path) -> None:
    file = checked(tmp_path, keep("a"), keep("b", label="[b]roe[/b]"))
    words = ("assertions", "add", file, *WHO, "--format", "json")
    done = resight(*words, "--dry-run")
    counts = {"unchanged": 0, "repeated": 0, "keep": 2, "relabel": 0, "suppress": 0}
    counts |= {"add": 0, "withdraw": 0, "flag": 0}
    assert json.loads(done.ok()) == {"file": str(file), **counts, "added": 0, "batches": {}}
    assert done.err == ("new label '[b]roe[/b]' (rows: 1)\nnothing was added: leave out --dry-run\n")
    added = json.loads(resight(*words).ok())
    assert added.pop("batches")["kim"] in resight("assertions", "list", "--format", "csv").ok()
    assert added == {"file": str(file), **counts, "added": 2}
    assert json.loads(resight(*words).ok())["added"] == 0
    rows = json.loads(resight("assertions", "list", "--format", "json").ok())
    assert [(row["actor"], row["standing"], row["asserted_at"]) for row in rows] == [
        ("kim", True, "2026-05-14 07:30:00+00:00")
    ] * 2
    assert "[b]roe[/b]" in resight("assertions", "list").ok()
    (row,) = csv.DictReader(io.StringIO(resight("assertions", "list", "--label", "deer", "--format", "csv").ok()))
    assert (row["media_sha256"], row["path"]) == (sha("a"), "c1/0/a.jpg")


def test_a_list_has_a_header_before_anything_is_said(resight: Resight) -> None:
    assert resight("assertions", "list", "--format", "csv").ok().startswith("assertion_id,action")


def test_history_shows_what_was_superseded(resight: Resight, tables: Tables, tmp_path: Path) -> None:
    resight("assertions", "add", checked(tmp_path, keep("a")), *WHO).ok()
    later = keep("a", action="suppress", asserted_at="2026-05-15T00:00:00Z")
    resight("assertions", "add", checked(tmp_path, later), "--by", "lee").ok()
    assert len(json.loads(resight("assertions", "list", "--format", "json").ok())) == 1
    words = ("assertions", "list", "--history", "--media", sha("a")[:8], "--format", "json")
    rows = json.loads(resight(*words).ok())
    assert [(row["action"], row["standing"]) for row in rows] == [("keep", False), ("suppress", True)]


def add(resight: Resight, file: Path, *words: object) -> tuple[dict[str, str], dict[str, Any], str]:
    """Add a file; return the batch of each author, the facts, and the notes."""
    done = resight("assertions", "add", file, *words, "--format", "json")
    facts = json.loads(done.ok())
    return facts["batches"], facts, done.err


def undo(resight: Resight, batch: str, by: str = "lee") -> tuple[dict[str, Any], str]:
    done = resight("assertions", "undo", batch, "--by", by, "--format", "json")
    return json.loads(done.ok()), done.err


def labels(resight: Resight) -> list[str]:
    rows = json.loads(resight("assertions", "list", "--format", "json").ok())
    return sorted(f"{row['actor']}: {row['label']}" for row in rows)


def test_a_file_is_undone_and_what_stood_before_stands_again(resight: Resight, tables: Tables, tmp_path: Path) -> None:
    add(resight, checked(tmp_path, keep("a", label="bob's")), "--by", "bob", "--at", "2026-05-14T09:00:00Z")
    again = (checked(tmp_path, keep("a", label="ana's")), "--by", "ana", "--at", "2026-05-15T09:00:00Z")
    batches, _, notes = add(resight, *again)
    assert f"to undo what ana states in it: resight assertions undo {batches['ana']} --by NAME" in notes
    assert labels(resight) == ["ana: ana's"]
    undone, notes = undo(resight, batches["ana"])
    assert (undone["added"], undone["kept"], labels(resight)) == (1, 0, ["bob: bob's"])
    assert f"to take this back: resight assertions undo {undone['batch_id']} --by NAME" in notes

    none, facts, notes = add(resight, *again)
    assert (none, facts["added"], "do not stand, because later ones replaced or withdrew them: 1" in notes) == (
        {},
        0,
        True,
    )
    assert f"to restore what was withdrawn: resight assertions undo {undone['batch_id']}" in notes
    assert "was withdrawn before" in undo(resight, batches["ana"])[1]
    assert (undo(resight, undone["batch_id"])[0]["added"], labels(resight)) == (1, ["lee: ana's"])
    assert "do not stand" not in add(resight, *again)[2], "another row states the same"
    assert "never recorded" in resight("assertions", "undo", "0" * 32, "--by", "lee").refused(2)
    assert "no author" in resight("assertions", "undo", batches["ana"], "--by", " ").refused(2)


def test_what_others_stated_later_stays_until_a_file_is_stated_again(
    resight: Resight, tables: Tables, tmp_path: Path
) -> None:
    mine, _, _ = add(resight, checked(tmp_path, keep("a"), keep("b")), *WHO)
    add(resight, checked(tmp_path, keep("a", label="bob's")), "--by", "bob")
    undone, _ = undo(resight, mine["kim"], "kim")
    assert (undone["kept"], undone["by"], labels(resight)) == (1, ["bob"], ["bob: bob's"])
    _, notes = undo(resight, undone["batch_id"], "kim")
    assert "later statements of bob were replaced in images: 1" in notes
    assert labels(resight) == ["kim: deer"] * 2


def test_a_file_that_is_stated_again_keeps_its_order(resight: Resight, tables: Tables, tmp_path: Path) -> None:
    def at(minute: int, label: str, **more: Any) -> dict[str, Any]:
        return keep("a", label=label, asserted_at=f"2026-05-14T09:{minute:02d}:00Z", **more)

    nearly = {"x2_px": 21.0}  # another box of the same animal
    rows = at(0, "first"), at(1, "second"), at(2, "third", **nearly), at(3, "fourth"), at(4, "fifth", **nearly)
    batches, _, _ = add(resight, checked(tmp_path, *rows), "--by", "kim")
    assert labels(resight) == ["kim: fifth"]
    undone, _ = undo(resight, batches["kim"])
    assert (undone["kept"], undone["by"], labels(resight)) == (0, [], [])
    undo(resight, undone["batch_id"], "kim")
    assert labels(resight) == ["kim: fifth"]


def test_a_withdrawal_of_a_file_is_undone_too(resight: Resight, tables: Tables, tmp_path: Path) -> None:
    withdrawal = keep("a", action="withdraw", label=None, asserted_at="2026-05-14T09:00:01Z")
    rows = keep("a", asserted_at="2026-05-14T09:00:00Z"), withdrawal
    batches, _, _ = add(resight, checked(tmp_path, *rows), "--by", "kim")
    assert labels(resight) == []
    assert "withdrew them: 1\n" in add(resight, checked(tmp_path, *rows), "--by", "kim")[2], "that of the box"
    undone, _ = undo(resight, batches["kim"])
    assert (undone["kept"], undone["by"], labels(resight)) == (0, [], [])
    undo(resight, undone["batch_id"])
    assert labels(resight) == []


def test_only_authors_with_new_rows_have_a_batch(resight: Resight, tables: Tables, tmp_path: Path) -> None:
    when = {"asserted_at": "2026-05-14T09:00:00Z"}
    first, second = keep("a", actor="ana", **when), keep("b", actor="bob", **when)
    assert list(add(resight, checked(tmp_path, first))[0]) == ["ana"]
    batches, facts, _ = add(resight, checked(tmp_path, first, second))
    assert (list(batches), facts["added"]) == (["bob"], 1)
    undo(resight, batches["bob"])
    assert labels(resight) == ["ana: deer"]


def test_corrections_that_do_not_stand_are_counted(
    resight: Resight, tables: Tables, views: None, tmp_path: Path
) -> None:
    table = tmp_path / "x.csv"
    resight("export", "detections", table).ok()
    table.write_text(table.read_text().replace("deer", "moose", 1))
    batches, _, _ = add(resight, table, "--by", "kim")
    assert "do not stand" not in add(resight, table, "--by", "kim")[2]
    undo(resight, batches["kim"])
    _, facts, notes = add(resight, table, "--by", "kim")
    assert (facts["repeated"], "withdrew them: 1" in notes) == (1, True)


def test_wrong_rows_are_named_and_nothing_is_added(resight: Resight, tables: Tables, tmp_path: Path) -> None:
    file = checked(tmp_path, keep("a"), keep("c"), keep("b", rank=1))
    words = resight("assertions", "add", file, *WHO).refused(2)
    assert "row 2: image" in words
    assert "row 3: inference_key and rank must be given together" in words
    assert json.loads(resight("assertions", "list", "--format", "json").ok()) == []


Diff = Callable[..., Done]


@pytest.fixture
def diff(resight: Resight, views: None) -> Diff:
    return partial(resight, "runs", "diff")


def test_diff_prints_the_facts_and_the_gates(diff: Diff) -> None:
    words = diff("published", "next").ok()
    assert "images_emptied" in words
    assert "pass: 0 human assertions" in words
    assert words.startswith("verdict")
    facts = json.loads(diff("published", "next", "--format", "json").ok())
    assert facts["impact"]["boxes"]["lost"] == 1
    assert {gate["name"]: gate["passed"] for gate in facts["verdict"]["gates"]} == {
        "max_lost_verified": True,
        "max_failed_frac": True,
        "min_coverage_frac": True,
    }
    (row,) = csv.DictReader(io.StringIO(diff("published", "next", "--format", "csv").ok()))
    assert (row["boxes_lost"], row["images_emptied"]) == ("1", "1")


def test_a_gate_that_fails_ends_a_diff_only_when_asked(resight: Resight, diff: Diff, tmp_path: Path) -> None:
    resight("assertions", "add", checked(tmp_path, keep("b")), *WHO).ok()
    assert "FAIL: 1 human assertions" in diff("published", "next").ok()
    done = diff("published", "next", "--gate")
    assert (done.code, "at most 0 (max_lost_verified)" in done.err) == (5, True)
    diff("next", "published", "--gate").ok()


def test_gates_are_those_of_the_policy(diff: Diff, home: Path) -> None:
    (home / "policy.toml").write_text("[gates]\nmax_lost_frac = 0.4\n")
    done = diff("published", "next", "--gate")
    assert (done.code, "1 of 2 (50 %) detections" in done.err) == (5, True)


def test_a_report_is_written_where_it_is_asked_for(diff: Diff, tmp_path: Path) -> None:
    done = diff("published", "next", "--out", tmp_path / "out", "--samples", 2)
    assert f"1 images to look at: {tmp_path}/out/index.html\n" in done.err
    page = (tmp_path / "out" / "index.html").read_text()
    assert "the image cannot be shown" in page, "the archive of this world is nowhere"
    assert "not empty" in diff("published", "next", "--out", tmp_path / "out").refused(2)


def test_what_cannot_be_compared_is_refused(diff: Diff, tmp_path: Path) -> None:
    assert "views: next, production" in diff("published", "nxt", "--out", tmp_path / "out").refused(2)
    assert not (tmp_path / "out").exists()
