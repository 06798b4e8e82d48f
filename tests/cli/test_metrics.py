"""resight metrics: printed, or a file that is there whole; also when a store is away."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.conftest import Resight
from tests.fixtures_local import copy_of_models, jpeg, write_files


@pytest.fixture
def archive(resight: Resight, home: Path, tmp_path: Path) -> Path:
    files = {f"cam{i % 2}/{i}.jpg": jpeg(shade=50 + 30 * i) for i in range(3)}
    archive = write_files(tmp_path / "archive", files)
    resight("ingest", archive).ok()
    copy_of_models(home)
    return archive


def values(text: str, name: str) -> list[float]:
    return [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    ]


def test_metrics_are_printed(resight: Resight, archive: Path) -> None:
    text = resight("metrics").ok()
    assert values(text, "resight_archive_files") == [3]
    assert values(text, "resight_camera_undated_files") == [2, 1]
    assert values(text, "resight_store_up") == [1, 1]
    assert values(resight("metrics", "--cameras", 1).ok(), "resight_cameras_left_out") == [1]


def test_a_file_is_written_in_one_step(resight: Resight, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "node" / "resight.prom"
    out.parent.mkdir()
    out.write_text("# HELP node_up of another exporter")
    assert "resight did not write it" in resight("metrics", "--out", out).refused(2)
    out.write_text("# HELP resight_store_up")
    before = out.stat().st_ino
    assert resight("metrics", "--out", out).ok() == ""
    assert values(out.read_text(), "resight_archive_files") == [3]
    assert out.stat().st_ino != before, "written over, a reader would see a part"
    assert [path.name for path in out.parent.iterdir()] == ["resight.prom"]
    assert out.stat().st_mode & 0o044 == 0o044, "node_exporter runs as somebody else"


def test_a_file_that_cannot_be_written_is_named_with_the_way_out(
    resight: Resight, archive: Path, tmp_path: Path
) -> None:
    out = tmp_path / "away" / "a.prom"
    refused = resight("metrics", "--out", out).refused(7)
    assert f"cannot write {out}: [Errno 2] No such file or directory; create the folder" in refused


def test_tables_that_are_away_are_an_exit_code_and_a_file_that_says_so(
    resight: Resight, archive: Path, home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "resight.prom"
    resight("metrics", "--out", out).ok()
    shutil.move(home / "tables", home / "elsewhere")
    assert "is it mounted" in resight("metrics", "--out", out).refused(7)
    assert values(out.read_text(), "resight_store_up") == [0, 1]
    assert values(out.read_text(), "resight_archive_files") == []
    printed = resight("metrics")
    assert (printed.code, values(printed.out, "resight_store_up")) == (7, [0, 1])
    assert not (home / "tables").exists()


def test_both_stores_are_named_when_both_are_away(resight: Resight, home: Path) -> None:
    done = resight("metrics")
    assert done.code == 7
    assert f"{home}/tables" in done.err
    assert f"{home}/models" in done.err


def test_a_file_that_would_never_be_read_is_refused(resight: Resight, archive: Path) -> None:
    assert ".prom" in resight("metrics", "--out", "resight.txt").refused(2)
    assert "cannot write" in resight("metrics", "--out", "no/such/folder/resight.prom").refused(7)
