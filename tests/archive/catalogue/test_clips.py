"""The catalogue of clips: a row for each clip and each sampled frame, whatever happens to the clip."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archive.catalogue.clips
from archive.catalogue.clips import Sampling, clip_of, frame_file, frame_path
from archive.catalogue.ingest import IngestReport, ingest
from archive.delta.tables import Tables
from archive.views.query import archives, query
from model_store.errors import BadRequest, ImageUnreadable
from model_store.images.decode import decode
from tests.fixtures_local import jpeg, rows_of, write_files
from tests.support.clips import clip, noise, sequential

ONE, TWO = Sampling(1.0), Sampling(2.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return an archive of a clip of 4 s and an image."""
    clip(tmp_path / "archive" / "north" / "a.mp4", noise(40))
    return write_files(tmp_path / "archive", {"north/b.jpg": jpeg(), "north/notes.txt": b"x"})


def media(tables: Tables) -> dict[str, dict[str, Any]]:
    rows = rows_of(tables, "media")
    by_path = {row["path"]: row for row in rows}
    assert len(by_path) == len(rows), "a path has two rows"
    return by_path


def frames(tables: Tables, missing: bool = False) -> list[int]:
    return sorted(
        row["at_ms"]
        for row in media(tables).values()
        if row["clip_sha256"] and (row["missing_since"] is not None) == missing
    )


def counts(report: IngestReport) -> tuple[int, ...]:
    return report.files, report.new, report.changed, report.unchanged, report.missing, report.new_frames


def test_a_clip_and_its_frames_have_rows(root: Path, tables: Tables) -> None:
    report = ingest(tables, str(root), sampling=ONE)
    assert counts(report) == (2, 2, 0, 0, 0, 4)
    assert report.others == 1
    rows = media(tables)
    of_clip, data = rows["north/a.mp4"], (root / "north" / "a.mp4").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    expected = {
        "media_sha256": digest,
        "media_type": "video/mp4",
        "duration_ms": 3900,
        "frame_rate": 10.0,
        "frame_count": 40,
        "clip_sha256": None,
        "header_error": None,
        "camera_id": "north",
    }
    assert {name: of_clip[name] for name in expected} == expected
    third = rows["north/a.mp4#00002000"]
    expected = {
        "media_sha256": hashlib.sha256(f"{digest}#00002000".encode()).hexdigest(),
        "media_type": "image/bmp",
        "clip_sha256": digest,
        "quick_digest": of_clip["quick_digest"],
        "frame_index": 20,
        "at_ms": 2000,
        "frame_count": None,
        "captured_at_local": "2026-05-02T06:30:02",
        "timestamp_source": "video_created",
        "camera_id": "north",
        "width_px": 64,
        "height_px": 48,
    }
    assert {name: third[name] for name in expected} == expected
    lacking = {name for name, value in rows["north/b.jpg"].items() if value is not None and third[name] is None}
    assert lacking == set(), "columns that images have, and frames of clips do not"
    assert frames(tables) == [0, 1000, 2000, 3000]
    images = query(tables, "select path from images order by path")["path"].to_pylist()
    assert images == [*(f"north/a.mp4#0000{n}000" for n in range(4)), "north/b.jpg"], "a clip is no image"
    assert archives(tables) == {str(root): report.files}, "a frame is no file"


def test_clips_are_catalogued_only_if_frames_are_sampled(root: Path, tables: Tables) -> None:
    assert counts(ingest(tables, str(root))) == (1, 1, 0, 0, 0, 0)
    assert set(media(tables)) == {"north/b.jpg"}
    with pytest.raises(BadRequest, match="invalid sampling"):
        ingest(tables, str(root), sampling=Sampling(-1.0))


def test_without_sampling_clips_are_left_out_again_and_come_back(root: Path, tables: Tables) -> None:
    data = (root / "north" / "a.mp4").read_bytes()
    write_files(root, {f"north/c{n}.mp4": data for n in range(9)})
    ingest(tables, str(root), sampling=ONE)
    for sampling in (Sampling(), None):
        report = ingest(tables, str(root), sampling=sampling)
        assert (counts(report), report.withheld) == ((1, 0, 0, 1, 50, 0), {})
    assert {path for path, row in media(tables).items() if row["missing_since"] is None} == {"north/b.jpg"}
    ingest(tables, str(root), sampling=ONE)
    assert len(frames(tables)) == 40


def test_an_archive_of_clips_only_can_leave_them_out(root: Path, tables: Tables) -> None:
    (root / "north" / "b.jpg").unlink()
    ingest(tables, str(root), sampling=ONE)
    for sampling in (Sampling(), None):
        assert counts(ingest(tables, str(root), sampling=sampling)) == (0, 0, 0, 0, 5, 0)


def test_an_ingest_again_changes_nothing(root: Path, tables: Tables) -> None:
    ingest(tables, str(root), sampling=ONE)
    before, version = media(tables), tables.snapshot("media").version()
    assert counts(ingest(tables, str(root))) == (2, 0, 0, 2, 0, 0), "the archive keeps its sampling"
    assert tables.snapshot("media").version() == version
    assert counts(ingest(tables, str(root), verify=True)) == (2, 0, 0, 2, 0, 0)
    times = ("ingested_at",)
    after = media(tables)
    assert {p: {n: v for n, v in row.items() if n not in times} for p, row in after.items()} == {
        p: {n: v for n, v in row.items() if n not in times} for p, row in before.items()
    }


def test_another_rate_adds_frames_and_keeps_the_old_ones(root: Path, tables: Tables) -> None:
    ingest(tables, str(root), sampling=ONE)
    before = {row["media_sha256"] for row in media(tables).values()}
    assert counts(ingest(tables, str(root), sampling=TWO)) == (2, 0, 0, 2, 0, 4)
    assert frames(tables) == [500 * n for n in range(8)]
    assert counts(ingest(tables, str(root), sampling=ONE))[-1] == 0
    assert frames(tables) == [500 * n for n in range(8)]
    assert before < {row["media_sha256"] for row in media(tables).values()}


def test_frames_are_missing_and_come_back_with_their_clip(root: Path, tables: Tables) -> None:
    ingest(tables, str(root), sampling=TWO)
    (root / "north" / "a.mp4").rename(root / "away")
    report = ingest(tables, str(root), sampling=ONE)
    assert (report.missing, frames(tables)) == (9, [])
    (root / "away").rename(root / "north" / "a.mp4")
    ingest(tables, str(root))
    assert frames(tables) == [500 * n for n in range(8)], "also those of the former rate"


def test_a_changed_clip_ends_the_frames_that_it_lacks(root: Path, tables: Tables) -> None:
    ingest(tables, str(root), sampling=ONE)
    clip(root / "north" / "a.mp4", noise(15, seed=1))
    report = ingest(tables, str(root))
    assert (report.changed, report.missing) == (1, 2)
    assert (frames(tables), frames(tables, missing=True)) == ([0, 1000], [2000, 3000])
    digest = hashlib.sha256((root / "north" / "a.mp4").read_bytes()).hexdigest()
    present = [row for row in media(tables).values() if row["clip_sha256"] and row["missing_since"] is None]
    assert {row["clip_sha256"] for row in present} == {digest}
    assert counts(ingest(tables, str(root)))[:4] == (2, 0, 0, 2)


def test_a_new_template_renames_the_camera_of_frames_too(root: Path, tables: Tables) -> None:
    ingest(tables, str(root), sampling=ONE)
    report = ingest(tables, str(root), "{place}/{camera}.{extension}")
    assert counts(report) == (2, 0, 2, 0, 0, 0)
    rows = media(tables)
    assert {row["camera_id"] for path, row in rows.items() if path.startswith("north/a.mp4")} == {"a"}
    ingest(tables, str(root), "{camera=pond}")
    assert {row["camera_id"] for row in media(tables).values()} == {"pond"}


def test_damaged_clips_have_a_row_with_the_reason(root: Path, tables: Tables) -> None:
    data = clip(root / "north" / "cut.mkv", noise(40))
    (root / "north" / "cut.mkv").write_bytes(data[: len(data) // 2])
    (root / "north" / "empty.mov").write_bytes(b"")
    report = ingest(tables, str(root), sampling=ONE)
    assert (report.files, report.new) == (4, 4)
    assert set(report.damaged_clips) == {"north/cut.mkv", "north/empty.mov"}
    rows = media(tables)
    assert "cut short" in rows["north/cut.mkv"]["header_error"]
    assert "north/cut.mkv#00001000" in rows
    assert (rows["north/empty.mov"]["frame_count"], rows["north/empty.mov"]["header_error"]) == (
        0,
        "the file is empty; supported are mp4, mov, avi and mkv",
    )


def test_an_ingest_that_ends_between_a_clip_and_its_frames_is_repeated(
    root: Path, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "north" / "a.mp4").rename(root / "away")
    ingest(tables, str(root), sampling=ONE)
    (root / "away").rename(root / "north" / "a.mp4")
    monkeypatch.setattr("archive.catalogue.ingest.COMMIT_ROWS", 2)

    def killed(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(tables, str(root), progress=killed)
    assert len(media(tables)) == 1 + 2
    ingest(tables, str(root))
    assert frames(tables) == [0, 1000, 2000, 3000]


def test_a_name_with_a_number_sign_is_a_name(tmp_path: Path, tables: Tables) -> None:
    assert clip_of("a#00001000/b#1.mp4") == ("a#00001000/b#1.mp4", None)
    assert clip_of(frame_path("b#00000001.mp4", 1)) == ("b#00000001.mp4", 1)
    assert clip_of(frame_path("b\n.mp4", 1)) == ("b\n.mp4", 1)
    root = write_files(tmp_path / "odd", {"n/a.mp4#00001000.jpg": jpeg(), "n/a.mp4#00001000": b"x"})
    clip(root / "n" / "a.mp4", noise(11))
    assert counts(ingest(tables, str(root), sampling=ONE)) == (2, 2, 0, 0, 0, 2)
    assert clip_of("n/a.mp4#00001000.jpg")[1] is None


def test_frames_in_order_open_their_clip_once_and_those_kept_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = clip(tmp_path / "a.mkv", noise(20))
    expected, reads = sequential(data), list[str]()

    def frame(name: str, at_ms: int) -> np.ndarray:
        def read() -> bytes:
            reads.append(name)
            return data

        return decode(frame_file(read, ("once", str(tmp_path), name), at_ms)).pixels

    def read_in(order: Sequence[str]) -> list[str]:
        reads.clear()
        for n, name in enumerate(order):
            assert np.array_equal(frame(name, 100 * n), expected[n])
        return list(reads)

    assert read_in("aaaaaa") == ["a"]
    assert read_in("abab") == ["b"]
    monkeypatch.setattr(archive.catalogue.clips, "KEPT_BYTES", len(data))
    assert read_in("cdcd") == ["c", "d", "c", "d"]
    monkeypatch.setattr(archive.catalogue.clips, "KEPT_BYTES", len(data) - 1)
    assert read_in("eeff") == ["e", "f"], "a larger clip is not read again for each frame"
    with pytest.raises(ImageUnreadable):
        frame("c", 50)
