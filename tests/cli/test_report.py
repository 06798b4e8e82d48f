"""resight report: CSV as R reads it, and notes that name the source of the light."""

from __future__ import annotations

import json

from archive.delta.tables import Tables
from tests.cli.conftest import Resight


def test_reports_of_a_published_run(resight: Resight, two: Tables) -> None:
    assert "nothing is published" in resight("report", "activity").refused(2)
    resight("runs", "publish", "old").ok()
    done = resight("report", "activity", "--format", "csv")
    assert done.ok().startswith("label,hour,records,density,dawn,day,dusk,night,by_sun")
    assert "by the sun for 0, by fixed hours" in done.err
    done = resight("report", "occupancy", "blob", "--format", "json")
    assert (json.loads(done.ok()), "0 cameras" in done.err) == ([], True), "its images have no camera and no time"
