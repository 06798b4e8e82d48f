"""resight report: CSV as R reads it, and notes that name the source of the light."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from archive.delta.tables import Tables
from archive.views import occupancy as occupancies
from cli import report
from cli.output import Format
from tests.cli.conftest import Resight


def test_reports_of_a_published_run(resight: Resight, two: Tables) -> None:
    assert "nothing is published" in resight("report", "activity").refused(2)
    resight("runs", "publish", "old").ok()
    done = resight("report", "activity", "--format", "csv")
    assert done.ok().startswith("label,hour,records,density,dawn,day,dusk,night,by_sun")
    assert "by the sun for 0, by fixed hours" in done.err
    for words in (["activity"], ["occupancy", "blob"]):
        assert "unknown camera 'north'" in resight("report", *words, "--camera", "north").refused(2)
    of_path = resight("report", "activity", "--path", "*", "--format", "csv")
    assert of_path.ok() == done.out
    for words in (["activity"], ["occupancy"]):
        assert "unknown label 'blo'; did you mean 'blob'?" in resight("report", *words, "blo").refused(2)
    done = resight("report", "occupancy", "blob", "--format", "json")
    assert (json.loads(done.ok()), "0 cameras" in done.err) == ([], True), "its images have no camera and no time"


def test_a_terminal_has_the_totals_of_many_occasions(
    two: Tables, resight: Resight, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resight("runs", "publish", "old").ok()
    cells = {f"2026-05-{day:02}": {1: 1, 2: None}.get(day, 0) for day in range(1, 22)}
    monkeypatch.setattr(occupancies, "histories", lambda *_: [{"camera_id": "north"} | cells])
    monkeypatch.setattr(report, "console", Console(force_terminal=True))
    report.occupancy("blob", days=1, since=None, until=None, effort=False, view="production", fmt=Format.table)
    printed = capsys.readouterr()
    assert [line.split() for line in printed.out.splitlines()] == [
        ["camera_id", "with_effort", "detected"],
        ["north", "20", "1"],
    ]
    assert "21 occasions is for programs: add --format csv > FILE" in printed.err
