"""`resight import`: what it prints, and how a file that does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.archive.formats.small_archive import ROOT, small_archive
from tests.cli.conftest import Resight


@pytest.fixture
def archive(home: Path) -> None:
    home.mkdir()
    small_archive(str(home / "tables"))


@pytest.mark.usefixtures("archive")
def test_an_export_is_imported_again_and_cannot_be_served(resight: Resight, tmp_path: Path) -> None:
    file = tmp_path / "md.json"
    resight("export", "megadetector", file).ok()
    done = resight("import", "megadetector", file, "--root", ROOT, "--format", "json")
    facts = json.loads(done.ok())
    assert (facts["images"], facts["matched"], facts["ok"], facts["reused"]) == (5, 4, 2, 0)
    assert facts["unmatched"] == {"a copy of another image of the file": 1}
    assert "left out: 1 a copy of another image of the file, such as south/copy.jpg" in done.err
    assert f"resight runs publish {facts['run_id']}" in done.err
    again = json.loads(resight("import", "megadetector", file, "--root", ROOT, "--format", "json").ok())
    assert (again["run_id"], again["reused"]) == (facts["run_id"], 4)
    assert facts["model"] in resight("models", "list").ok()
    assert "neither run nor served" in resight("models", "verify", facts["model"]).refused(6)
    refused = resight("reprocess", "--model", facts["model"], "--dry-run").refused(2)
    assert "has imported results and cannot be run" in refused
    assert "is not a file of speciesnet" in resight("import", "speciesnet", file, "--root", ROOT).refused(2)
