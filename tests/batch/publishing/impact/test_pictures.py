"""Pictures of samples: upright, of bounded size, with boxes where they belong."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from batch.publishing.impact.pictures import COLOURS_RGB, SIDE_PX, SidePictures, draw_sample
from batch.publishing.impact.samples import Sample, SampleStatement, ShownBox
from tests.fixtures_local import encoded, jpeg, write_files

BOX = (10.0, 20.0, 22.0, 40.0)


def sample(root: Path, *paths: str, data: bytes, box: tuple[float, ...] = BOX) -> Sample:
    return Sample(
        kind="lost",
        media_sha256=hashlib.sha256(data).hexdigest(),
        camera_id=None,
        captured_at_local=None,
        places=tuple((str(root), path) for path in paths),
        old=(ShownBox(rank=0, label="deer", score=0.5, box_px=box, outcome="lost"),),
    )


def pixels(data: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), 4)


def drawn(one: Sample) -> SidePictures:
    found = draw_sample(one)
    assert isinstance(found, SidePictures), found
    return found


def near(found: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float(np.abs(found.astype(int) - colour).mean())


def test_boxes_lie_on_the_image_as_displayed(tmp_path: Path) -> None:
    """Stored 48 x 32 with orientation 6: displayed 32 x 48, where y 40 is inside."""
    data = jpeg({0x0112: 6})
    write_files(tmp_path, {"a.jpg": data})
    found = drawn(sample(tmp_path, "a.jpg", data=data))
    old, new = pixels(found.old), pixels(found.new)
    assert old.shape == new.shape == (48, 32, 3)
    assert near(old[40, 10:22], COLOURS_RGB["lost"]) < 60, "the lower edge is drawn"
    assert near(new[40, 10:22], (90, 90, 90)) < 10, "the new side shows nothing"


def test_a_large_image_is_made_small_and_its_boxes_with_it(tmp_path: Path) -> None:
    data = encoded(np.full((2000, 4000, 3), 90, np.uint8), "JPEG")
    write_files(tmp_path, {"a.jpg": data})
    box = (1000.0, 400.0, 3000.0, 1600.0)
    old = pixels(drawn(sample(tmp_path, "a.jpg", data=data, box=box)).old)
    assert old.shape == (SIDE_PX // 2, SIDE_PX, 3)
    assert near(old[399:402, 260:740], COLOURS_RGB["lost"]) < 60
    assert near(old[200, 260:740], (90, 90, 90)) < 10, "a box is an outline"


def test_what_people_said_is_on_both_pictures(tmp_path: Path) -> None:
    data = encoded(np.full((200, 200, 3), 90, np.uint8), "PNG")
    write_files(tmp_path, {"a.png": data})
    said = SampleStatement(
        action="keep", label="deer", actor="kim", box_px=(20.0, 60.0, 180.0, 180.0), old="right", new="wrong", lost=True
    )
    one = sample(tmp_path, "a.png", data=data).model_copy(update={"said": (said,)})
    found = drawn(one)
    for picture in (found.old, found.new):
        assert near(pixels(picture)[184, 30:170], COLOURS_RGB["said"]) < 90


def test_another_place_of_the_same_bytes_will_do(tmp_path: Path) -> None:
    data = jpeg()
    write_files(tmp_path, {"changed.jpg": jpeg(shade=10), "b.jpg": data})
    drawn(sample(tmp_path, "away.jpg", "changed.jpg", "b.jpg", data=data))


@pytest.mark.parametrize(
    ("files", "data", "why"),
    [
        ({"b.jpg": b""}, jpeg(), "the file is missing"),
        ({"a.jpg": jpeg(shade=10)}, jpeg(), "the file has changed since it was ingested"),
        ({"a.jpg": b"<html>"}, b"<html>", "not an image"),
        ({"a.jpg": jpeg()[:40]}, jpeg()[:40], ""),
    ],
)
def test_an_image_that_cannot_be_shown_says_why(files: dict[str, bytes], data: bytes, why: str, tmp_path: Path) -> None:
    write_files(tmp_path, files)
    found = draw_sample(sample(tmp_path, "a.jpg", data=data))
    assert isinstance(found, str)
    assert found.startswith("the image cannot be shown: ")
    assert why in found or why == "not an image"
    assert str(tmp_path) not in found, "a report is passed on"


def test_an_archive_that_is_away_does_not_end_the_report(tmp_path: Path) -> None:
    found = draw_sample(sample(tmp_path / "away", "a.jpg", data=b"x"))
    assert isinstance(found, str)
