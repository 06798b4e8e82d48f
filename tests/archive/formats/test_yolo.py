"""Data sets of YOLO."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from archive.formats.records import ImageRecord
from archive.formats.yolo import YoloOptions, write
from model_store.errors import BadRequest
from tests.archive.formats.some_images import ADDED, FACTS, START, burst, image


def parts_of(folder: Path) -> dict[str, list[str]]:
    """Return the digests of each part."""
    return {
        part: [Path(line).stem for line in (folder / f"{part}.txt").read_text().splitlines()]
        for part in ("train", "val", "test")
    }


def test_each_box_is_a_line_and_each_image_a_link(tmp_path: Path) -> None:
    (tmp_path / "archive" / "north").mkdir(parents=True)
    root = str(tmp_path / "archive")
    images = [image(n, *each.detections, source_root=root) for n, each in enumerate(burst()[:4], 1)]
    for each in images:
        (tmp_path / "archive" / each.path).write_text(each.path)
    copy = replace(images[0], path="copy.jpeg")
    failed = image(9, status="failed", source_root=root)
    images[0].reviewed_at = copy.reviewed_at = START
    counts = write([*images, copy, failed], FACTS, tmp_path / "out", YoloOptions(val_share=0))
    assert counts == {"images": 4, "reviewed": 1, "train": 4, "left_out": 1}  # the copy is one of the four
    config = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert config["names"] == {0: "deer", 1: "person", 2: "fox"}
    for each in images:
        name = f"{each.media_sha256[:2]}/{each.media_sha256}"
        assert (tmp_path / "out" / "images" / f"{name}.jpg").read_text() == each.path
        lines = (tmp_path / "out" / "labels" / f"{name}.txt").read_text().splitlines()
        for line, box in zip(lines, each.detections, strict=True):
            number, x, y, width, height = map(float, line.split())
            assert config["names"][int(number)] == box.label
            corners = ((x - width / 2) * 200, (y - height / 2) * 100)
            corners += ((x + width / 2) * 200, (y + height / 2) * 100)
            assert corners == pytest.approx((max(box.x1, 0), box.y1, box.x2, box.y2), abs=1e-3)
    listed = [digest for part in parts_of(tmp_path / "out").values() for digest in part]
    assert sorted(listed) == [each.media_sha256 for each in images]
    assert "path" not in config  # YOLO then takes the folder of the file


def test_no_burst_is_in_two_parts(tmp_path: Path) -> None:
    """60 bursts of 5 images, 2 hours apart, on 3 cameras; every tenth image continues an event of the one before."""
    images: list[ImageRecord] = []
    for number in range(300):
        burst_of, frame = divmod(number, 5)
        moment = START + timedelta(hours=2 * burst_of, seconds=frame)
        camera = f"c{burst_of % 3}"
        images.append(image(number, camera_id=camera, captured_at_local=moment, event_id=None))
    write(images, FACTS, tmp_path, YoloOptions(val_share=0.3, test_share=0.2))
    part_of = {digest: part for part, all_of in parts_of(tmp_path).items() for digest in all_of}
    chosen = [part_of[each.media_sha256] for each in images]
    for start in range(0, 300, 5):
        assert len(set(chosen[start : start + 5])) == 1
    assert len(part_of) == 300
    shares = [chosen.count(part) / 300 for part in ("train", "val", "test")]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.15)


def test_images_of_one_event_or_without_a_time_stay_together(tmp_path: Path) -> None:
    days = [image(n, captured_at_local=START + timedelta(days=n), event_id="e") for n in range(20)]
    undated = [image(n, captured_at_local=None, event_id=None) for n in range(20, 40)]
    write([*days, *undated], FACTS, tmp_path, YoloOptions(val_share=0.5))
    for part in parts_of(tmp_path).values():
        numbers = {int(digest, 16) for digest in part}
        assert numbers.isdisjoint(range(20)) or numbers >= set(range(20))
        assert numbers.isdisjoint(range(20, 40)) or numbers >= set(range(20, 40))


def test_other_cameras_do_not_move_images_to_another_part(tmp_path: Path) -> None:
    images = [image(n, captured_at_local=START + timedelta(days=n), event_id=None) for n in range(30)]
    more = [image(n, camera_id="a", event_id=None) for n in range(30, 40)]
    write(images, FACTS, tmp_path / "one", YoloOptions(val_share=0.5))
    write([*more, *images], FACTS, tmp_path / "two", YoloOptions(val_share=0.5))
    both = parts_of(tmp_path / "two")
    for part, digests in parts_of(tmp_path / "one").items():
        assert set(digests) <= set(both[part])


def test_there_is_always_an_image_for_validation(tmp_path: Path) -> None:
    later = START + timedelta(days=2)
    two = [image(1), image(2, captured_at_local=later, event_id=None)]
    write(two, FACTS, tmp_path / "a", YoloOptions(val_share=0.01))
    assert [len(digests) for digests in parts_of(tmp_path / "a").values()] == [1, 1, 0]
    with pytest.raises(BadRequest, match="none is left for validation"):
        write([image(1), image(2)], FACTS, tmp_path / "b", YoloOptions())


def test_boxes_and_empty_images_of_people_are_kept_without_a_result(tmp_path: Path) -> None:
    failed = [image(1, ADDED, status="failed"), image(2, status="failed"), image(3, status="missing", blank_by="human")]
    write(failed, FACTS, tmp_path, YoloOptions(val_share=0))
    assert len(parts_of(tmp_path)["train"]) == 2
    assert yaml.safe_load((tmp_path / "data.yaml").read_text())["left_out"] == 1


def test_something_is_left_for_training() -> None:
    with pytest.raises(ValidationError, match="must be less than 1 together"):
        YoloOptions(val_share=0.5, test_share=0.5)


def test_images_elsewhere_and_images_without_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="s3://bucket is not on this machine"):
        write([image(1, source_root="s3://bucket")], FACTS, tmp_path / "a", YoloOptions())
    with pytest.raises(BadRequest, match="no image has a result"):
        write([image(1, status="failed")], FACTS, tmp_path / "b", YoloOptions())
