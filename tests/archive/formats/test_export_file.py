"""Exports of other tools' formats: recorded, all or nothing, and never over a folder that no export made."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest

from archive.catalogue.deployments import Deployment, record
from archive.delta.tables import Tables
from archive.formats import megadetector
from archive.formats.export_file import export_file
from archive.formats.file_formats import FORMATS, FileFormat
from archive.formats.records import ExportLineage, ImageRecord
from archive.formats.yolo import YoloOptions
from archive.views.views import Views
from model_store.errors import BadRequest, StorageFull
from model_store.frozen import Frozen
from tests.archive.formats.small_archive import KEY, media_row, put_media, small_archive
from tests.fixtures_local import rows_of

FILE, FOLDER = FORMATS["megadetector"], FORMATS["megadetector-folders"]


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return small_archive(str(tmp_path_factory.mktemp("small") / "tables"))


@pytest.fixture
def tables(untouched: Tables, tmp_path: Path) -> Tables:
    return Tables(str(shutil.copytree(untouched.url, tmp_path / "tables")))


def test_an_export_is_recorded_with_its_view(tables: Tables, tmp_path: Path) -> None:
    out = tmp_path / "out" / "md.json"
    with pytest.raises(BadRequest, match=f"the folder {out.parent} does not exist; is it mounted"):
        export_file(tables, FILE, out)
    out.parent.mkdir()
    assert export_file(tables, FILE, out, floor=0.1, narrowed_by={"camera": ["north"]}) == {"images": 6}
    (row,) = rows_of(tables, "exports")
    assert (row["relation"], row["inference_keys"], row["view"]) == (FILE.name, [KEY], "production 1")
    assert (row["model"], row["layers"], row["rows"], row["file"]) == ("md@5a", [], 6, str(out))
    info = json.loads(out.read_text())["info"]
    assert info["detection_completion_time"] == "2026-05-01 12:00:00"
    assert json.loads(row["filter"]) == {"camera": ["north"], "floor": 0.1}
    assert json.loads(row["thresholds"]) == {"default": 0.2, "per_label": {}}
    assert [file.name for file in out.parent.iterdir()] == ["md.json"]


def test_only_an_export_of_the_whole_archive_has_its_deployments(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stated = {"deployment_id": "d", "camera_id": "unseen", "from_local": "2026-04-01", "until_local": "2026-04-09"}
    record(tables, {"": Deployment.model_validate(stated | {"location": "Oak hill"})}, "ana")
    seen: list[list[str]] = []

    def written(images: Iterable[ImageRecord], facts: ExportLineage, out: Path, options: Frozen) -> None:
        seen.append([each.deployment_id for each in facts.deployments])
        assert "deployments" not in facts.described()
        out.write_text("x")

    monkeypatch.setattr(megadetector, "write", written)
    monkeypatch.setitem(written.__annotations__, "options", Frozen)
    export_file(tables, FILE, tmp_path / "md.json")
    part = pa.table({"source_root": ["/data/deer"], "path": ["none"]})
    export_file(tables, FILE, tmp_path / "md.json", files=part)
    assert seen == [["d"], []]


def test_a_writer_that_fails_leaves_nothing(tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out" / "md"
    out.parent.mkdir()

    def broken(images: Iterable[ImageRecord], facts: ExportLineage, out: Path, options: Frozen) -> None:
        out.mkdir()
        (out / "half").write_text("x")
        raise BadRequest("no")

    monkeypatch.setattr(megadetector, "write_folders", broken)
    monkeypatch.setitem(broken.__annotations__, "options", Frozen)
    with pytest.raises(BadRequest, match="no"):
        export_file(tables, FOLDER, out)
    assert list(out.parent.iterdir()) == []
    assert tables.existing("exports") is None


def test_a_folder_is_replaced_only_if_an_export_made_it(tables: Tables, tmp_path: Path) -> None:
    out = tmp_path / "out" / "md"
    out.parent.mkdir()
    export_file(tables, FOLDER, out)
    (out / "mine.txt").write_text("x")
    export_file(tables, FOLDER, out)
    assert not (out / "mine.txt").exists()
    assert [file.name for file in out.parent.iterdir()] == ["md"]
    other = tmp_path / "photos"
    other.mkdir()
    (other / "a.jpg").write_text("x")
    with pytest.raises(BadRequest, match="no export made this folder"):
        export_file(tables, FOLDER, other)
    with pytest.raises(BadRequest, match="is a file, choose another"):
        export_file(tables, FILE, out.rename(out.with_suffix(".json")))
    with pytest.raises(BadRequest, match=r"ends in \.json"):
        export_file(tables, FILE, tmp_path / "md.txt")


def test_images_of_two_archives_are_refused_where_paths_are_relative_to_one(tables: Tables, tmp_path: Path) -> None:
    put_media(tables, media_row("a", "north/a.jpg", source_root="/other"))
    for fmt in (FILE, FORMATS["label-studio"]):
        with pytest.raises(BadRequest, match=r"several archives .*--folder"):
            export_file(tables, fmt, tmp_path / f"out{fmt.suffix}")
    assert export_file(tables, FORMATS["csv"], tmp_path / "csv") == {"images": 7}


def test_a_full_disk_is_reported_as_such(tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(images: Iterable[ImageRecord], facts: ExportLineage, out: Path, options: Frozen) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(megadetector, "write", full)
    monkeypatch.setitem(full.__annotations__, "options", Frozen)
    with pytest.raises(StorageFull, match="free some space"):
        export_file(tables, FILE, tmp_path / "md.json")


def test_unknown_and_invalid_options_are_refused(tables: Tables, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="unknown option 'colour' of megadetector; its options: none"):
        export_file(tables, FILE, tmp_path / "md.json", options={"colour": "red"})

    with pytest.raises(BadRequest, match="invalid option of yolo: val_share"):
        FORMATS["yolo"].options({"val_share": "x"})
    assert FORMATS["yolo"].options({"val_share": "0.5"}) == YoloOptions(val_share=0.5)


def test_without_a_view_there_is_nothing_to_export(tmp_path: Path) -> None:
    tables = Tables(str(tmp_path / "tables"))
    tables.snapshot("media")
    assert Views(tables.url).current() is None
    with pytest.raises(BadRequest, match="nothing is published"):
        export_file(tables, FILE, tmp_path / "md.json")


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda fmt: fmt.name)
def test_each_format_has_a_writer_with_options(fmt: FileFormat) -> None:
    assert fmt == FORMATS[fmt.name]
    kind = fmt._function().__globals__
    assert fmt.place.split(":")[1] in kind
