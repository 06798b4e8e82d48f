"""The commands `individuals`, from a profile to a report, over an archive with vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archive.delta.tables import Tables
from tests.archive.named_animals import named_animals
from tests.cli.conftest import Resight

TURN = 2 * np.pi / 16


@pytest.fixture
def tables(home: Path) -> Tables:
    """Eight crops of two cameras; crop n has an angle of n / 16 turns to the first."""
    vectors = np.array([[np.cos(n * TURN), np.sin(n * TURN)] for n in range(8)], np.float32)
    return named_animals(home / "tables", vectors, ["north", "south"] * 4)


def crop(n: int) -> str:
    return f"{n:064x}-0"


def told(resight: Resight, *words: str) -> Any:
    return json.loads(resight("individuals", *words, "--format", "json").ok())


def test_from_a_profile_to_suggestions_and_reports(resight: Resight, tables: Tables) -> None:
    made = told(resight, "create", "mia", "--name", "Mia", "--detection", crop(0), "--by", "Ana")
    assert made["added"] == 2
    new = told(resight, "create", "--detection", crop(7), "--sex", "male", "--by", "Ana")["individual_id"]
    page = told(resight, "suggest", "--threshold", "0.9")
    assert [one["detection_id"] for one in page["detections"]] == [crop(n) for n in range(6, 0, -1)]
    by_crop = {one["detection_id"]: [c["individual_id"] for c in one["candidates"]] for one in page["detections"]}
    assert (by_crop[crop(1)], by_crop[crop(6)], by_crop[crop(3)]) == (["mia"], [new], [])
    lines = resight("individuals", "suggest", "--threshold", "0.9").ok().splitlines()
    for n, words in ((1, "Mia 0.924"), (3, "new")):
        (line,) = [line for line in lines if crop(n) in line]
        assert words in line

    told(resight, "assign", "mia", crop(1), crop(2), "--by", "Ben")
    wrong = told(resight, "reject", "mia", crop(2), "--by", "Ana")
    assert told(resight, "list")[0]["crops"] == 2
    told(resight, "undo", wrong["batch_id"], "--by", "Ana")
    assert [(row["name"], row["crops"]) for row in told(resight, "list")] == [("Mia", 3), (None, 1)]
    shown = told(resight, "show", "mia")
    assert [row["action"] for row in shown["statements"]] == [
        *("profile", "identify", "identify", "identify", "reject", "withdraw")
    ]
    assert {row["actor"] for row in shown["statements"]} == {"Ana", "Ben"}
    assert "withdraw" in resight("individuals", "show", "mia").ok()

    told(resight, "update", new, "--merge-into", "mia", "--by", "Ana")
    assert [row["crops"] for row in told(resight, "list")] == [4]
    told(resight, "update", "mia", "--retire", "--by", "Ana")
    assert told(resight, "list") == []
    assert len(told(resight, "list", "--all")) == 2
    rows = told(resight, "report", "sightings")
    assert sum(row["crops"] for row in rows) == 4
    assert told(resight, "report", "together") == []
    assert told(resight, "report", "readiness")["assignment_rate"] == 0.5
    assert told(resight, "threshold", "0.7")["identity_threshold"] == 0.7


@pytest.mark.parametrize(
    ("words", "error", "code"),
    [
        (("assign", "mia", crop(0), "--by", "Ana"), "unknown individual 'mia'", 2),
        (("create", "a b", "--by", "Ana"), "individual_id", 2),
        (("create", "a"), "actor", 2),
        (("show", "mia"), "unknown individual 'mia'", 6),
        (("undo", "x", "--by", "Ana"), "unknown batch x", 2),
        (("suggest", "x"), "invalid detection 'x'", 2),
    ],
)
def test_what_cannot_be_done_is_refused(
    resight: Resight, tables: Tables, words: tuple[str, ...], error: str, code: int
) -> None:
    assert error in resight("individuals", *words).refused(code)


def test_an_individual_is_created_once(resight: Resight, tables: Tables) -> None:
    told(resight, "create", "mia", "--by", "Ana")
    assert "exists already" in resight("individuals", "create", "mia", "--by", "Ben").refused(2)
