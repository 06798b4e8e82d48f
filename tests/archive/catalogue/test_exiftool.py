"""Maker notes through ExifTool, or a program with its protocol: cameras by serial number, and failures of one file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from archive.catalogue.exiftool import ExifTool, MakerNotes
from archive.catalogue.ingest import ingest
from archive.delta.tables import Tables
from archive.views.query import query
from model_store.errors import BadRequest, ImageUnreadable
from tests.fixtures_local import jpeg, rows_of, write_files
from tests.reconyx import fake_exiftool, trap_jpeg

EXIFTOOL = shutil.which("exiftool")
needs_exiftool = pytest.mark.skipif(EXIFTOOL is None, reason="ExifTool is not installed")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the fake program the one that is found."""
    program = fake_exiftool(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return program


def five_cameras(place: Path) -> Path:
    files = {f"card/RCNX{n:04}.JPG": trap_jpeg(f"RCNX-{n % 5}", n // 5 + 1, 4, shade=10 * n) for n in range(20)}
    return write_files(place / "traps", files | {"card/other.jpg": jpeg(shade=7)})


def cameras(tables: Tables) -> dict[str | None, int]:
    rows = query(tables, "select camera_id, count(*)::int as n from images group by all").to_pylist()
    return {row["camera_id"]: row["n"] for row in rows}


@needs_exiftool
def test_exiftool_reads_the_notes_of_a_reconyx() -> None:
    with ExifTool() as tool:
        found = tool.read([trap_jpeg("RCNX-7", 3, 10), jpeg(), b"", trap_jpeg("0042")[:500]])
        assert found[0] == MakerNotes("RCNX-7", 3, 10, "Motion Detection", -3.0, "Full")
        assert found[1:3] == [MakerNotes(), MakerNotes()]
        assert tool.read([trap_jpeg("0042")])[0].camera_serial == "0042"  # type: ignore[union-attr]
        assert tool.read([]) == []


@needs_exiftool
def test_exiftool_tells_five_cameras_in_one_folder_apart(tables: Tables, tmp_path: Path) -> None:
    root = five_cameras(tmp_path)
    ingest(tables, str(root))
    assert cameras(tables) == {"card": 21}
    ingest(tables, str(root), exiftool=True)
    assert cameras(tables) == {**{f"RCNX-{n}": 4 for n in range(5)}, "card": 1}


def test_a_serial_number_is_the_camera(tables: Tables, tmp_path: Path, fake: Path) -> None:
    root = five_cameras(tmp_path)
    ingest(tables, str(root))
    assert cameras(tables) == {"card": 21}
    report = ingest(tables, str(root), exiftool=True)
    assert (report.changed, report.unchanged) == (20, 1), "the choice reads every file again"
    report = ingest(tables, str(root), verify=True)
    assert (report.unchanged, report.unreadable) == (21, {}), "the archive keeps the choice"
    assert cameras(tables) == {**{f"RCNX-{n}": 4 for n in range(5)}, "card": 1}
    row = next(row for row in rows_of(tables, "media") if row["camera_serial"] == "RCNX-1")
    assert (row["camera_source"], row["sequence_number"], row["sequence_length"]) == ("maker_serial", 2, 3)
    ingest(tables, str(root), template="{camera}/RCNX{rest}")
    assert cameras(tables)["RCNX-1"] == 4, "a template names only cameras without a serial number"
    ingest(tables, str(root), exiftool=False)
    assert "RCNX-1" not in cameras(tables)
    assert rows_of(tables, "media")[0]["sequence_number"] is None


@pytest.mark.parametrize(("is_first", "left"), [(False, 21), (True, 16)])
def test_a_choice_is_kept_only_after_every_catalogued_file_was_read(
    tables: Tables, tmp_path: Path, fake: Path, monkeypatch: pytest.MonkeyPatch, is_first: bool, left: int
) -> None:
    """A killed first ingest has no rows without notes, and continues."""
    monkeypatch.setattr("archive.catalogue.ingest.COMMIT_ROWS", 5)
    root = five_cameras(tmp_path)
    if not is_first:
        ingest(tables, str(root))

    def killed(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(tables, str(root), exiftool=True, progress=killed)
    total: list[int] = []
    ingest(tables, str(root), exiftool=True, progress=lambda done, files: total.append(files))
    assert total[0] == left
    assert cameras(tables) == {**{f"RCNX-{n}": 4 for n in range(5)}, "card": 1}


def test_one_file_that_fails_is_named_and_the_others_are_read(tables: Tables, tmp_path: Path, fake: Path) -> None:
    root = five_cameras(tmp_path)
    write_files(root, {"card/bad.jpg": trap_jpeg("RCNX-CRASH")})
    report = ingest(tables, str(root), exiftool=True)
    assert (report.new, report.unreadable) == (22, {})
    assert report.without_notes == {"card/bad.jpg": "ExifTool failed: it ended with code 3; --verify reads it again"}
    assert len(cameras(tables)) == 6
    assert ingest(tables, str(root), verify=True, exiftool=False).without_notes == {}


@pytest.mark.parametrize(
    ("serial", "words"), [("HANG", "it was stopped after 0.5 s"), ("GARBAGE", "its answer has another form")]
)
def test_a_file_has_a_bounded_time(fake: Path, serial: str, words: str) -> None:
    with ExifTool(str(fake), file_s=0.5) as tool:
        (found,) = tool.read([trap_jpeg(serial)])
        assert isinstance(found, ImageUnreadable)
        assert words in str(found)


@pytest.mark.parametrize("program", ["/no/such/exiftool", "/bin/false"])
def test_a_program_that_does_not_work_is_an_error_at_once(program: str) -> None:
    with pytest.raises(BadRequest, match=f"cannot run '{program}': .*Install ExifTool"), ExifTool(program):
        pass


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"Sequence": "3 of 10"}, MakerNotes(sequence_number=3, sequence_length=10)),
        ({"Sequence": "0 of 10"}, MakerNotes()),
        ({"Sequence": "11 of 10"}, MakerNotes()),
        ({"Sequence": "Single"}, MakerNotes()),
        ({"AmbientTemperature": "-12.5 C"}, MakerNotes(temperature_c=-12.5)),
        ({"AmbientTemperature": "21"}, MakerNotes(temperature_c=21.0)),
        ({"AmbientTemperature": "warm"}, MakerNotes()),
        ({"SerialNumber": "=1+1\u202e\n", "MoonPhase": ""}, MakerNotes(camera_serial="1+1")),
        ({"SerialNumber": {"a": 1}, "Sequence": None}, MakerNotes(camera_serial="{'a': 1}")),
    ],
)
def test_values_of_another_form_are_left_out(row: dict[str, Any], expected: MakerNotes) -> None:
    from archive.catalogue.exiftool import _notes

    assert _notes(row) == expected
