"""The page of all benchmarks: missed bounds and failures first, changes since the result before, words as they are."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench, report

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc00000"
    "0301010018dd8db00000000049454e44ae426082"
)
MACHINE = {"cores": 2, "cpu": "a <processor>"}
HELD = {"value": 0.97531, "bound": "> 0.9 & so", "holds": True}
GOOD = {
    "script": "lanes",
    "command": "python benchmarks/lanes.py",
    "seconds": 12.4,
    "said": "p99 < 3",
    "result": {
        "machine": MACHINE,
        "config": {},
        "at": "2026",
        "verdicts": {"held": HELD, "missed": HELD | {"holds": False}},
    },
}
BAD = {"script": "filters", "command": "python benchmarks/filters.py", "seconds": 1.0, "failed": "no <disk>"}


class Tags(HTMLParser):
    """Every tag with its attributes, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"


def page_of(folder: Path, *outcomes: dict[str, Any]) -> Tags:
    tags = Tags()
    tags.feed(report.write_report(folder, "abc1234", outcomes).read_text())
    return tags


def test_what_is_missed_and_what_failed_comes_before_what_holds(tmp_path: Path) -> None:
    text = page_of(tmp_path, GOOD, BAD).text
    assert text.index("missed") < text.index("held")
    assert text.index("it runs to its end") < text.index("held")


def test_words_of_scripts_are_text_and_no_markup(tmp_path: Path) -> None:
    tags = page_of(tmp_path, GOOD, BAD)
    assert {"processor", "disk"}.isdisjoint(tag for tag, _ in tags.found)
    for words in ("0.975", "> 0.9 & so", "a <processor>", "p99 < 3", "no <disk>", "python benchmarks/lanes.py"):
        assert words in tags.text


def kept(folder: Path, at: str, value: object, bound: str = "≥ 1.0", **config: object) -> dict[str, Any]:
    verdicts = {"steady / bare": {"value": value, "bound": bound, "holds": True}}
    result = {"benchmark": "archive_run", "at": at, "commit": at[-4:], "machine": MACHINE, "config": config}
    folder.mkdir(exist_ok=True)
    (folder / f"archive_run-{at}.json").write_text(json.dumps(result | {"verdicts": verdicts}))
    return result | {"verdicts": verdicts}


def changed(folder: Path, result: dict[str, Any]) -> list[tuple[str, str, float, bool]]:
    outcome = {"script": "archive_run", "command": "archive_run.py", "result": result}
    rows = report.changes([outcome], folder)
    return [(row["before"], row["value"], round(row["change"], 3), row["worse"]) for row in rows]


def test_a_figure_is_compared_with_the_newest_earlier_one_of_its_subject(tmp_path: Path) -> None:
    kept(tmp_path, "2026-01-01", 0.5, images=100, here=True)
    kept(tmp_path, "2026-01-02", 0.9, images=100, here=True)
    kept(tmp_path, "2026-01-03", 0.6, images=900, here=True)  # fewer settings are equal
    kept(tmp_path, "2026-01-04", 0.7, images=100, here=False)  # another subject
    now = kept(tmp_path, "2026-01-05", 0.81, images=100, here=True)
    kept(tmp_path, "2026-01-06", 0.4, images=100, here=True)  # later
    assert changed(tmp_path, now) == [("0.9", "0.81", 0.9, False)]


@pytest.mark.parametrize(
    ("bound", "before", "value", "change", "worse"),
    [
        ("≥ 1", 0.9, 0.8, 0.889, True),
        ("> 1", 0.8, 0.9, 1.125, False),
        ("≤ 50", 40, 50, 0.8, True),
        ("< 50", 50, 40.0, 1.25, False),
        ("≥ 1", "0.900 (0.8 to 1.0)", "0.450 (0.4 to 0.5)", 0.5, True),
    ],
)
def test_a_change_is_over_one_where_the_figure_is_better(
    tmp_path: Path, bound: str, before: object, value: object, change: float, worse: bool
) -> None:
    kept(tmp_path, "2026-01-01", before, bound)
    (row,) = changed(tmp_path, kept(tmp_path, "2026-01-02", value, bound))
    assert row[2:] == (change, worse)


@pytest.mark.parametrize(("bound", "value"), [("0", 3), ("≤ 3", 0), ("≤ 3", "None"), ("True", True)])
def test_what_has_no_ratio_is_not_compared(tmp_path: Path, bound: str, value: object) -> None:
    kept(tmp_path, "2026-01-01", value, bound)
    assert changed(tmp_path, kept(tmp_path, "2026-01-02", value, bound)) == []


def test_the_page_says_what_differed(tmp_path: Path) -> None:
    kept(tmp_path / "results", "2026-01-01", 2.0, images=100)
    now = kept(tmp_path / "results", "2026-01-02", 1.0, images=200)
    rows = report.changes([{"script": "archive_run", "command": "x", "result": now}], tmp_path / "results")
    assert rows[0]["when"] == "2026-01-01, 1-01, images 100"


def test_every_step_is_a_script_that_begins_with_its_question() -> None:
    here = Path(bench.__file__).parent
    for step in bench.STEPS:
        question = report.first_line(here / f"{step.script}.py")
        assert question.endswith(("?", ".")), step.script
