"""The page of all benchmarks: what is missed is first, what failed is there, what was said stands as it was said."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

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
    "result": {"machine": MACHINE, "verdicts": {"held": HELD, "missed": HELD | {"holds": False}}},
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


def test_every_step_is_a_script_that_begins_with_its_question() -> None:
    here = Path(bench.__file__).parent
    for step in bench.STEPS:
        question = report.first_line(here / f"{step.script}.py")
        assert question.endswith(("?", ".")), step.script
