"""The sample archive keeps every promise of its Summary, at its smallest size."""

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from examples.archive_plan import MIN_IMAGES, plan
from examples.sample_archive import Summary, build, main, summarise
from examples.scenes import background

WITH_OFFSET = {"deer-north", "bee-hotel"}
WITH_GPS = {"deer-north", "moth-sheet"}
WITH_SERIAL = {"deer-south", "moth-sheet"}
CAMERAS = {"deer-north", "deer-south", "bee-hotel", "moth-sheet"}
END_OF_IMAGE = b"\xff\xd9"

Built = tuple[Path, Summary]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    out = tmp_path_factory.mktemp("sample") / "archive"
    return out, build(out, images=MIN_IMAGES)


def files_of(out: Path) -> dict[str, bytes]:
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()}


def pixels(file: Path, mode: int = cv2.IMREAD_COLOR) -> NDArray[Any]:
    """As OpenCV reads the file: BGR or grey, turned upright."""
    frame = cv2.imread(str(file), mode)
    assert frame is not None, file
    return frame


def exif_of(file: Path) -> tuple[dict[int, Any], dict[int, Any], dict[int, Any]]:
    """(tags of the image, tags of the exposure, tags of the place)"""
    with Image.open(file) as image:
        exif = image.getexif()
        return dict(exif), exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)


def degrees(dms: tuple[Any, Any, Any], ref: str) -> float:
    value = float(dms[0]) + float(dms[1]) / 60 + float(dms[2]) / 3600
    return -value if ref in "SW" else value


def copied(summary: Summary) -> set[str]:
    return {copy for _, copy in summary.duplicates}


def test_fewer_files_than_the_odd_ones_need_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 24"):
        build(tmp_path / "archive", images=MIN_IMAGES - 1)
    assert not list(tmp_path.iterdir())


def test_the_same_arguments_give_the_same_bytes(built: Built, tmp_path: Path) -> None:
    out, summary = built
    background.cache_clear()
    assert build(tmp_path / "again", images=summary.files) == summary
    assert files_of(tmp_path / "again") == files_of(out)


def test_another_seed_gives_other_pixels(built: Built, tmp_path: Path) -> None:
    out, _ = built
    other = build(tmp_path / "other", images=MIN_IMAGES, seed=1)
    ours = set(files_of(out).values())
    shared = [name for name, data in files_of(tmp_path / "other").items() if data in ours]
    assert len(shared) == 2, "only the empty file and the HTML page are the same"
    assert set(shared) < set(other.expected_failures)


def test_only_the_promised_duplicates_share_their_bytes(built: Built) -> None:
    out, summary = built
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files_of(out).items()}
    assert len(set(digests.values())) == summary.unique_files == summary.files - 2
    assert all(digests[original] == digests[copy] for original, copy in summary.duplicates)
    cameras = [[Path(name).parts[0] for name in pair] for pair in summary.duplicates]
    assert sorted(len(set(pair)) for pair in cameras) == [1, 2]


def test_the_unreadable_files_open_nowhere_and_all_others_do(built: Built) -> None:
    out, summary = built
    assert len(summary.expected_failures) == 3
    for name in files_of(out):
        if name in summary.expected_failures:
            assert cv2.imread(str(out / name)) is None
            with pytest.raises((UnidentifiedImageError, OSError)), Image.open(out / name) as image:
                image.load()
        else:
            assert pixels(out / name).shape == (960, 1280, 3), name


def test_the_jpeg_cut_in_its_data_decodes_in_part(built: Built) -> None:
    out, summary = built
    (name,) = summary.truncated
    data = (out / name).read_bytes()
    assert data.startswith(b"\xff\xd8")
    assert not data.endswith(END_OF_IMAGE)
    # cv2.imdecode wants an end-of-image marker in what it is given; cv2.imread does not
    frame = cv2.imdecode(np.frombuffer(data + END_OF_IMAGE, np.uint8), cv2.IMREAD_COLOR)
    assert frame is not None
    assert frame.shape == (960, 1280, 3)
    assert frame[:240].std() > 10
    assert frame[-1].std() == 0


def test_every_readable_file_says_when_and_by_which_camera(built: Built) -> None:
    out, summary = built
    for name in set(files_of(out)) - set(summary.expected_failures) - copied(summary):
        camera = Path(name).parts[0]
        tags, details, place = exif_of(out / name)
        assert tags[ExifTags.Base.Make], name
        assert tags[ExifTags.Base.Model], name
        assert len(details[ExifTags.Base.DateTimeOriginal]) == 19, name
        assert len(details[ExifTags.Base.SubsecTimeOriginal]) == 3, name
        offset = details.get(ExifTags.Base.OffsetTimeOriginal)
        assert offset == ("+02:00" if camera in WITH_OFFSET else None), name
        assert (ExifTags.Base.BodySerialNumber in details) == (camera in WITH_SERIAL), name
        assert bool(place) == (camera in WITH_GPS), name


@pytest.mark.parametrize(
    ("camera", "lat_lon"), [("deer-north", (47.6612, 9.1747)), ("moth-sheet", (-12.7704, -71.3921))]
)
def test_places_come_back_with_their_signs(built: Built, camera: str, lat_lon: tuple[float, float]) -> None:
    out, _ = built
    _, _, place = exif_of(next((out / camera).rglob("*.JPG")))
    latitude = degrees(place[ExifTags.GPS.GPSLatitude], place[ExifTags.GPS.GPSLatitudeRef])
    longitude = degrees(place[ExifTags.GPS.GPSLongitude], place[ExifTags.GPS.GPSLongitudeRef])
    assert (latitude, longitude) == pytest.approx(lat_lon, abs=1e-5)


def test_one_clock_was_reset_and_the_others_agree_with_their_folder(built: Built) -> None:
    out, summary = built
    astray = []
    for name in set(files_of(out)) - set(summary.expected_failures) - copied(summary):
        taken = exif_of(out / name)[1][ExifTags.Base.DateTimeOriginal]
        if taken[:10].replace(":", "-") != Path(name).parts[1]:
            astray.append((Path(name).parts[0], taken))
    assert astray == [("moth-sheet", "2000:01:01 00:00:00")]


def test_rotated_frames_show_upright_once_their_orientation_is_applied(built: Built) -> None:
    out, summary = built
    orientations = {name: exif_of(out / name)[0][ExifTags.Base.Orientation] for name in summary.rotated}
    assert set(orientations.values()) == {3, 6, 8}
    for name, orientation in orientations.items():
        with Image.open(out / name) as image:
            assert image.size == ((1280, 960) if orientation == 3 else (960, 1280))
            shown = np.asarray(ImageOps.exif_transpose(image).convert("L"))
        assert np.abs(shown - pixels(out / name, cv2.IMREAD_GRAYSCALE)).mean() < 2


def test_a_second_build_touches_nothing(built: Built) -> None:
    out, summary = built
    before = {file: file.stat().st_mtime_ns for file in out.parent.rglob("*")}
    assert build(out, images=summary.files) == summary
    assert {file: file.stat().st_mtime_ns for file in out.parent.rglob("*")} == before


def test_an_archive_of_other_arguments_is_refused(built: Built) -> None:
    out, summary = built
    with pytest.raises(FileExistsError, match="not empty"):
        build(out, images=summary.files, seed=1)


def test_the_command_line_refuses_a_foreign_folder_and_leaves_it_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "holiday.txt").write_text("mine")
    assert main([str(tmp_path), "--images", "24"]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["holiday.txt"]


@pytest.mark.parametrize(("images", "seed"), [(24, 0), (25, 1), (27, 2), (47, 3), (1000, 4)])
def test_every_size_and_seed_can_be_planned(images: int, seed: int) -> None:
    shots = plan(images, seed)
    summary = summarise(shots)
    assert len({shot.path.lower() for shot in shots}) == images == summary.files
    assert {shot.orientation for shot in shots} == {1, 3, 6, 8}
    assert {shot.subject for shot in shots} >= {"cat", "person", "moose", "crocodile", "panda"}
    assert sum(shot.kind == "grey_jpeg" for shot in shots) in range(1, len(summary.night))
    assert 0.05 < len(summary.blank) / images < 0.25


def test_frames_of_a_burst_are_one_second_apart_and_bursts_minutes_to_a_day() -> None:
    shots = [shot for shot in plan(400, 0) if shot.copy_of is None and shot.taken.year == 2026]
    for earlier, later in pairwise(shots):
        if later.camera != earlier.camera:
            continue
        gap_s = (later.taken - earlier.taken).total_seconds()
        if later.burst == earlier.burst:
            assert gap_s == later.frame - earlier.frame
        else:
            assert 120 < gap_s < 24 * 3600
