"""Draw the two pictures of a sample: the boxes of the old side, and those of the new side.

Sample --draw_sample--> Pictures(old, new: JPEG bytes) | why the image cannot be shown

The image is decoded upright by the same code as in runs, from the first place with unchanged bytes.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (OpenCV has no complete types)

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2

from archive.catalogue.clips import clip_of, frame_file, frame_sha256
from batch.publishing.impact.samples import Sample, SampleStatement, ShownBox
from model_store.errors import ImageError, StorageUnreachable
from model_store.images.crops import Colour, Mark, draw_marks
from model_store.images.decode import DecodedImage, Pixels, decode
from model_store.storage import Folder

SIDE_PX = 1000
"""Maximum length of the longer side of a picture."""
JPEG_QUALITY = 82
MAX_LABEL = 60
AROUND_PX = 4
"""Distance of a drawn human assertion from its box, which may equal the box of a model."""
COLOURS_RGB: dict[str, Colour] = {
    "matched": (60, 200, 60),
    "shown": (60, 200, 60),
    "relabelled": (255, 165, 0),
    "lost": (255, 60, 60),
    "new": (70, 150, 255),
    "said": (255, 0, 255),
}


@dataclass(frozen=True, slots=True)
class SidePictures:
    """The JPEG files of both sides, of equal size."""

    old: bytes
    new: bytes


def draw_sample(sample: Sample) -> SidePictures | str:
    """Draw both sides of a sample; return the reason as a text if the image cannot be shown."""
    try:
        image = decode(_bytes_of(sample), shrink=_shrink)
    except (ImageError, OSError, StorageUnreachable, MemoryError) as error:
        return f"the image cannot be shown: {_plain(error, sample)}"
    canvas, scale = _small(image)
    return SidePictures(
        old=_drawn(canvas, scale, sample.old, sample.said), new=_drawn(canvas, scale, sample.new, sample.said)
    )


def _bytes_of(sample: Sample) -> bytes:
    """Read the bytes of a sample. If no place has them, raises the error of the first place."""
    first: Exception | None = None
    for root, path in sample.places:
        try:
            clip, at_ms = clip_of(path)
            data = Folder(root).read(clip)
        except (OSError, StorageUnreachable) as error:
            first = first or error
            continue
        digest = hashlib.sha256(data).hexdigest()
        if at_ms is None and digest == sample.media_sha256:
            return data
        if at_ms is not None and frame_sha256(digest, at_ms) == sample.media_sha256:
            return frame_file(partial(bytes, data), (digest,), at_ms)
        first = first or OSError("the file has changed since it was ingested")
    assert first is not None
    raise first


def _plain(error: BaseException, sample: Sample) -> str:
    """Format an error without local paths of the archive, because reports are passed on."""
    if isinstance(error, FileNotFoundError):
        return "the file is missing"
    words = str(error)
    for root, _ in sample.places:
        words = words.replace(f"{root}/", "").replace(root, "")
    return words[:300]


def _shrink(width_px: int, height_px: int) -> int:
    """Return the divisor at which a JPEG is decoded: not larger than it is shown."""
    return max((n for n in (1, 2, 4, 8) if max(width_px, height_px) >= n * SIDE_PX), default=1)


def _small(image: DecodedImage) -> tuple[Pixels, float]:
    """Return pixels of at most SIDE_PX, and the scale from px of the displayed image to them."""
    height, width = image.pixels.shape[:2]
    full_px = max(image.facts.width_px, image.facts.height_px)
    pixels: Any = image.pixels
    if max(width, height) > SIDE_PX:
        shrink = SIDE_PX / max(width, height)
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return pixels, max(pixels.shape[:2]) / full_px


def _drawn(pixels: Pixels, scale: float, boxes: Sequence[ShownBox], said: Sequence[SampleStatement]) -> bytes:
    canvas: Any = pixels.copy()
    marks = [
        Mark([x * scale for x in box.box_px], f"{box.label[:MAX_LABEL]} {box.score:.2f}", COLOURS_RGB[box.outcome])
        for box in boxes
    ]
    for assertion in said:
        if assertion.box_px is not None:
            x1, y1, x2, y2 = (x * scale for x in assertion.box_px)
            around = (x1 - AROUND_PX, y1 - AROUND_PX, x2 + AROUND_PX, y2 + AROUND_PX)
            marks.append(Mark(around, "", COLOURS_RGB["said"]))
    draw_marks(canvas, marks)
    bgr = cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
