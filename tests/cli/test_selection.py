"""Test the notes that `resight select` prints after its rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from archive.delta.tables import Tables
from archive.views.views import View, Views
from tests.batch.publishing.impact.scene import OLD, World
from tests.cli.conftest import Resight

SEEN = [("deer", 0.9, (0.0, 0.0, 40.0, 40.0))]


@pytest.fixture(autouse=True)
def _published(home: Path) -> None:
    tables = World().image("a", SEEN, SEEN).image("b", SEEN, SEEN).write(Tables(str(home / "tables")))
    view = View(name="trial", inference_key=OLD, model_name="m", model_version="1", weights_sha256="w")
    Views(tables.url).publish(view, after=0)


def test_the_evaluation_of_a_draw_is_of_the_same_view(resight: Resight) -> None:
    done = resight("select", "--by", "random", "--view", "trial", "--seed", "3")
    assert "resight evaluate --random 2 --seed 3 --view trial" in done.err, done.err


def test_an_evaluation_without_a_review_names_the_way_out_instead_of_zeros(resight: Resight) -> None:
    words = ("evaluate", "trial", "--view", "trial")
    done = resight(*words)
    assert done.ok() == ""
    assert "nothing is reviewed yet, of 2 images: choose some with resight select --by random --count 100" in done.err
    assert json.loads(resight(*words, "--format", "json").ok())[0]["groups"][0]["stated"] == 0


def test_without_a_reason_nobody_is_said_to_have_reviewed_anything(resight: Resight) -> None:
    done = resight("select", "--by", "disagree", "--against", "trial", "--view", "trial")
    assert "nothing to label: no image without a person's statement has such a reason: disagree" in done.err, done.err
