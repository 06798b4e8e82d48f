"""The whole circle of learning on the sample archive, twice in one home, as commands of a user."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from archive.annotations.assertions import human_assertions
from archive.delta.tables import Tables
from archive.views.views import Views
from batch.publishing.evaluation import evaluate
from batch.publishing.impact.result_sets import side
from batch.runs.scope import MediaScope
from cli.main import app
from examples.archive_plan import plan
from examples.circle import RANDOM, drawn, main
from examples.scenes import HEIGHT, WIDTH, subject_box
from model_store.store import ModelStore
from tests.fixtures_local import photo, rows_of, write_files
from tests.support.processes import clear_variables

IMAGES = 64


def circle(home: Path, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Run the circle with its commands in this process, which saves the start of Python for each."""

    def here(*arguments: str, show: bool = True) -> str:
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        return done.stdout

    clear_variables(patch)
    patch.setenv("RESIGHT_HOME", str(home))
    patch.setattr("examples.circle.resight", here)
    patch.setattr(sys, "argv", ["circle", "--images", str(IMAGES), str(folder)])
    main()


def test_the_circle_closes_twice_in_one_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, tables = tmp_path / "home", Tables(str(tmp_path / "home" / "tables"))
    other = write_files(tmp_path / "other", {"garden/cat.jpg": photo("cat"), "garden/moose.jpg": photo("moose")})
    circle(home, other, monkeypatch)
    assert "learned from Ana: {'sheep': 'moose'}" in capsys.readouterr().out
    assert [view.model_version for view in Views(tables.url).history()] == ["1", "2"]
    once = human_assertions(tables).to_pylist()
    assert {row["actor"] for row in once} == {"Ana"}
    assert len({row["individual_id"] for row in rows_of(tables, "individuals")}) == 1
    impact = json.loads((home / "circle" / "impact" / "impact.json").read_text())
    assert impact["impact"]["verified"]["lost"] == 0 < impact["impact"]["verified"]["gained"]

    store, scope = ModelStore(str(home / "models")), MediaScope(folder=str(home / f"circle-archive-{IMAGES}"))
    old, new = (
        evaluate(tables, side(tables, store, f"ssdlite-coco@{version}"), scope, RANDOM) for version in ("1", "2")
    )
    for found in (old, new):
        assert (found.sample.reviewed, found.sample.at_random) == (RANDOM, True)
        assert found.groups[0].undecided == 0
    assert new.groups[0].found > old.groups[0].found
    assert new.groups[0].wrong < old.groups[0].wrong
    stated = {group.name: group.stated for group in new.groups if group.by == "label" and group.stated}
    assert stated == subjects_drawn(tables, home), "everything that the archive shows in these images is stated"

    circle(home, other, monkeypatch)
    assert "learned from Ana" in capsys.readouterr().out
    again = human_assertions(tables).to_pylist()
    assert {row["assertion_id"] for row in once} <= {row["assertion_id"] for row in again}
    assert len(again) > len(once), "the second time selects other images"


def subjects_drawn(tables: Tables, home: Path) -> Counter[str]:
    """Return what the plan of the archive shows in the images of the random sample, by the digests of its order."""
    archive = str(home / f"circle-archive-{IMAGES}")
    failed = {row["media_sha256"] for row in rows_of(tables, "results") if row["status"] == "failed"}
    path_of = {row["media_sha256"]: row["path"] for row in rows_of(tables, "media") if row["source_root"] == archive}
    order = sorted(path_of.keys() - failed, key=lambda sha: hashlib.md5(f"0{sha}".encode()).hexdigest())
    shots = {shot.path: shot for shot in plan(IMAGES, 0)}
    return Counter(subject for sha in order[:RANDOM] if (subject := shots[path_of[sha]].subject))


@pytest.mark.parametrize("centre", [True, False])
def test_the_person_keeps_the_box_in_the_subject_or_draws_one(centre: bool) -> None:
    shot = next(shot for shot in plan(24, 0) if shot.subject == "cat")
    box = subject_box(shot, 0)
    assert box is not None
    x1, y1, x2, y2 = box
    assert 0 <= x1 < x2 <= WIDTH
    assert 0 <= y1 < y2 <= HEIGHT
    left, top = ((x1 + x2) / 2, (y1 + y2) / 2) if centre else (0.0, 0.0)
    value: dict[str, Any] = {"x": 100 * left / WIDTH, "y": 100 * top / HEIGHT, "width": 0.1, "height": 0.1}
    region = {"type": "rectanglelabels", "score": 0.5, "value": value | {"rectanglelabels": ["dog"]}}
    (kept,) = drawn({"predictions": [{"result": [region]}]}, shot)
    assert kept["value"]["rectanglelabels"] == ["cat"]
    assert (kept["value"]["x"] == value["x"]) is centre
