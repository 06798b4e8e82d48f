"""Rows and facts, for people and for programs."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

import cli.output
from cli.output import Format, note, print_facts, print_rows

NOON = datetime(2026, 5, 14, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


@pytest.mark.parametrize(
    ("rows", "want"),
    [
        ([], []),
        ([{"a": 1, "b": None}], [{"a": 1, "b": None}]),
        ([{"a": Decimal("5"), "b": Decimal("0.5")}], [{"a": 5, "b": 0.5}]),
        ([{"a": NOON, "b": [1, {"c": "ü"}]}], [{"a": str(NOON), "b": [1, {"c": "ü"}]}]),
        ([{"a": math.nan, "b": [-math.inf, NOON, "NaN"]}], [{"a": None, "b": [None, str(NOON), "NaN"]}]),
    ],
)
def test_json_is_a_list_of_objects(
    rows: list[dict[str, Any]], want: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    print_rows(rows, Format.json)
    out = capsys.readouterr().out
    assert json.loads(out) == want
    assert out.count("\n") == 1, "a line of a log"


@pytest.mark.parametrize(
    ("rows", "want"),
    [
        ([], []),
        ([{"a": 1, "b": None}], [["1", ""]]),
        ([{"a": 'x,"\ny', "b": [1, "z"]}], [['x,"\ny', '[1, "z"]']]),
        ([{"a": 0.123456789, "b": {"n": Decimal(2)}}], [["0.123456789", '{"n": 2}']]),
        ([{"a": math.nan, "b": [math.nan]}], [["nan", "[null]"]]),
    ],
)
def test_csv_has_a_header_even_without_rows(
    rows: list[dict[str, Any]], want: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    print_rows(rows, Format.csv, ("a", "b"))
    printed = capsys.readouterr().out
    assert list(csv.reader(io.StringIO(printed, newline=""))) == [["a", "b"], *want]
    assert "\r" not in printed, "a shell keeps it in what it reads"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], []),
        ([{"a": 0.123456789, "b": None}], ["0.1235"]),
        ([{"a": 52.49871, "b": -113.4}], ["52.4987", "-113.4"]),
        ([{"a": 12345.678, "b": 7e6}], ["12345.678", "7000000"]),
        ([{"a": "[/x] [bold]y[/bold]", "b": "cam[1]"}], ["[/x] [bold]y[/bold]", "cam[1]"]),
    ],
)
def test_a_table_shows_values_as_they_are(
    rows: list[dict[str, Any]], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    print_rows(rows, Format.table, ("a", "b"))
    printed = capsys.readouterr().out
    assert printed.split()[:2] == ["a", "b"]
    for word in words:
        assert word in printed


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "none"),
        ([], "none"),
        (None, ""),
        ({"a": 1, "b": None, "c": {"d": [2, 3]}}, "a 1, c (d 2, 3)"),
        ({"found": 3, "expected": 119.6, "low": 80.2, "high": 160.0}, "120 (80 to 160)"),
        ({"lost": {"expected": 4, "low": 2, "high": 9}, "n": 3}, "lost 4 (2 to 9), n 3"),
    ],
)
def test_a_table_has_words_instead_of_json(value: object, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({"x": value}, Format.table)
    print_rows([{"x": value}], Format.table)
    line, _, row = capsys.readouterr().out.splitlines()
    assert (line.removeprefix("x").strip(), row.strip()) == (words, words)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_long_list_is_cut_in_a_terminal_only(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.StringIO()
    monkeypatch.setattr(cli.output, "console", Console(file=printed, width=300, force_terminal=is_terminal))
    monkeypatch.setattr(sys, "stdout", printed)
    print_rows([{"logits": list(range(1000)), "few": [1, 2]}], Format.table)
    shown = "0, 1, 2, 3, 4, 5, 6, 7, … (1000; all with --format json)"
    assert ("999" in printed.getvalue(), shown in printed.getvalue()) == (not is_terminal, is_terminal)


def test_rows_that_are_wider_than_the_terminal_are_blocks_of_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.output, "console", Console(force_terminal=True, color_system=None, width=40))
    rows = [
        {"run_id": "20261125T224730-9f2c1a", "label": label, "reason": "r" * n} for label, n in (("a", 3), ("", 19))
    ]
    print_rows(rows[:1], Format.table)
    assert capsys.readouterr().out.splitlines()[1].split() == ["20261125T224730-9f2c1a", "a", "rrr"]
    print_rows(rows, Format.table)
    first, second = capsys.readouterr().out.rstrip().split("\n\n")
    assert first.splitlines() == ["run_id  20261125T224730-9f2c1a", "label   a", "reason  rrr"]
    assert second.splitlines() == ["run_id  20261125T224730-9f2c1a", f"reason  {'r' * 19}"]


def test_facts_are_one_record_in_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"name": "[/x] cam[1]", "files": ("a", "b"), "none": None}
    print_facts(facts, Format.table)
    assert capsys.readouterr().out.splitlines() == ["name   [/x] cam[1]", "files  a, b", "none   "]
    print_facts(facts, Format.json)
    assert json.loads(capsys.readouterr().out) == facts | {"files": ["a", "b"]}
    print_facts(facts, Format.csv)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert rows == [{"name": "[/x] cam[1]", "files": '["a", "b"]', "none": ""}]


def test_a_note_is_for_people_only_and_taken_literally(capsys: pytest.CaptureFixture[str]) -> None:
    line = "unreadable: cam[1]/[/x].jpg " + "a long reason " * 50
    note(line)
    assert capsys.readouterr() == ("", f"{line}\n")
