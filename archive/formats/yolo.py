"""Write a data set of YOLO to train the next model: linked images, a text file of boxes for each, and data.yaml.

images --write--> images/AB/DIGEST.jpg -> the file, labels/AB/DIGEST.txt, train.txt, val.txt, test.txt, data.yaml
A line of labels is: class, centre x, centre y, width, height, in parts of the displayed image. Images of a camera
within an hour of each other, or of one event, are always in one part. So no part has images that are almost equal
to those of another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, model_validator

from archive.catalogue.clips import clip_of, frame_file
from archive.formats.records import ExportLineage, ImageRecord
from model_store.errors import BadRequest
from model_store.frozen import Frozen
from model_store.storage import is_local

GAP = timedelta(hours=1)
"""Images of a camera with a longer time between them may be in different parts."""
DECIMALS = 6
Part = Literal["train", "val", "test"]


class YoloOptions(Frozen):
    """Options of the format."""

    val_share: float = Field(default=0.2, ge=0, le=0.9, description="share of images for validation")
    test_share: float = Field(default=0.0, ge=0, le=0.9, description="share of images for tests")

    @model_validator(mode="after")
    def _leaves_images_for_training(self) -> YoloOptions:
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share and test_share must be less than 1 together")
        return self


@dataclass(frozen=True, slots=True)
class _Listed:
    """Facts that decide the part of an image."""

    camera: str
    moment: datetime | None
    name: str
    event_id: str | None


def write(images: Iterable[ImageRecord], facts: ExportLineage, out: Path, options: YoloOptions) -> dict[str, int]:
    """Write the data set to the folder `out`; return the numbers of its images and parts, and of those left out.

    Images without a result of the model or a person, or without a size, are left out, and counted in data.yaml.
    `reviewed` ones have a person's statement.

    Raises BadRequest for images that are not on this machine, and if no image is left.
    """
    classes = {label: number for number, label in enumerate(facts.labels)}
    listed: list[_Listed] = []
    written = set[str]()
    left_out = reviewed = 0
    for image in images:
        if not image.is_judged or not image.width_px or not image.height_px:
            left_out += 1
            continue
        if image.media_sha256 in written:
            continue  # a copy, possibly with another suffix
        written.add(image.media_sha256)
        name = _link(image, out)
        reviewed += image.reviewed_at is not None
        labels = out / "labels" / name.rpartition(".")[0]
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.with_name(f"{labels.name}.txt").write_text("".join(_lines(image, classes)), "utf-8")
        camera = image.camera_id or image.path.rpartition("/")[0]
        listed.append(_Listed(camera, image.captured_at_local, name, image.event_id))
    if not listed:
        raise BadRequest("nothing was written: no image has a result")
    parts = _split(listed, options)
    for part, names in parts.items():
        (out / f"{part}.txt").write_text("".join(f"./images/{name}\n" for name in names), "utf-8")
    config = {
        **{part: f"{part}.txt" for part, names in parts.items() if names},
        "names": {number: label for label, number in classes.items()},
        "left_out": left_out,
    }
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    (out / "data.yaml").write_text(text, "utf-8")
    counts = {part: len(names) for part, names in parts.items() if names}
    return {"images": len(listed), "reviewed": reviewed, **counts, "left_out": left_out}


def _link(image: ImageRecord, out: Path) -> str:
    """Link the file of an image by its content, or write a frame of a clip; return its name in images/.

    YOLO finds labels by the last /images/ of a path, so a folder of the archive must not be part of it.
    """
    if not is_local(image.source_root):
        raise BadRequest(
            f"{image.source_root} is not on this machine: YOLO reads files, so copy the images to a local folder first"
        )
    sha256 = image.media_sha256
    clip, at_ms = clip_of(image.path)
    file = Path(image.source_root.removeprefix("file://")).resolve() / clip
    name = f"{sha256[:2]}/{sha256}{Path(clip).suffix.lower() if at_ms is None else '.bmp'}"
    link = out / "images" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    if at_ms is None:
        link.symlink_to(file)
    else:
        link.write_bytes(frame_file(file.read_bytes, (str(file), "unverified"), at_ms))
    return name


def _lines(image: ImageRecord, classes: dict[str, int]) -> Iterator[str]:
    width, height = image.width_px or 1, image.height_px or 1
    for box in image.detections:
        x1, y1, x2, y2 = box.fractions(width, height)
        number = classes.setdefault(box.label, len(classes))
        values = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
        yield " ".join([str(number), *(f"{value:.{DECIMALS}f}" for value in values)]) + "\n"


def _split(images: Sequence[_Listed], options: YoloOptions) -> dict[Part, list[str]]:
    """Return the names of each part; the same images give the same parts, also with other cameras.

    Raises BadRequest if all images belong together, so that none is left for validation.
    """
    parts: dict[Part, list[str]] = {"train": [], "val": [], "test": []}
    groups: list[list[_Listed]] = []  # neighbours in time or event, and those of a camera without a time
    for image in sorted(images, key=lambda i: (i.camera, i.moment or datetime.min, i.name)):
        if groups and _together(groups[-1][-1], image):
            groups[-1].append(image)
        else:
            groups.append([image])
    placed = sorted((_place(group[0]), [i.name for i in group]) for group in groups)
    if options.val_share and len(placed) == 1:
        raise BadRequest(
            "nothing was written: all images are of one camera within an hour of each other, so none is left for "
            "validation; export more images, or set val_share=0"
        )
    for number, (place, names) in enumerate(placed):
        part: Part = "train" if place >= options.val_share + options.test_share else "test"
        if place < options.val_share or (options.val_share and number == 0):  # also of a few groups
            part = "val"
        parts[part] += names
    return parts


def _place(first: _Listed) -> float:
    """Return a number from 0 to 1 that only the camera and the time of a group determine."""
    key = f"{first.camera}\0{first.moment}"
    return int(hashlib.sha256(key.encode()).hexdigest()[:12], 16) / 16**12


def _together(before: _Listed, image: _Listed) -> bool:
    if before.camera != image.camera:
        return False
    if before.moment is None or image.moment is None:
        return before.moment is image.moment
    is_near = image.moment - before.moment <= GAP
    return is_near or (image.event_id is not None and image.event_id == before.event_id)
