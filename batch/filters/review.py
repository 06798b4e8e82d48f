"""Write and read the review of repeat detections: a picture of each suspicious slot, and a file to accept them in.

candidates --write_review--> <folder>/{samples/*.jpg, review.json, index.html}; the page is written last
review.json, edited: "accepted": true --read_accepted--> ids, for the field `accepted` of the filter
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from batch.filters.kinds.repeat_detections import SlotId
from batch.publishing.impact.pictures import Pictures, draw_sample
from batch.publishing.impact.report import require_empty, write_file
from batch.publishing.impact.samples import Sample, ShownBox
from model_store.errors import BadRequest, StorageUnreachable
from model_store.frozen import Frozen, wrong_fields
from model_store.storage import Folder, absolute
from serve.pages import render


@dataclass(frozen=True, slots=True)
class Candidate:
    """A suspicious slot and one image of it. Times are by the camera's clock; None if no image is dated.

    `box_px` is x1, y1, x2, y2 in the image as displayed; `score` is the detection's; `path` is relative to
    `source_root`; `days` counts distinct calendar days.
    """

    slot_id: str
    camera_id: str | None
    label: str
    images: int
    days: int
    first_local: datetime | None
    last_local: datetime | None
    box_px: tuple[float, float, float, float]
    score: float
    media_sha256: str
    path: str
    source_root: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A candidate with the file name of its picture, or the reason why it has none."""

    candidate: Candidate
    picture: str = ""
    why_not: str = ""


def page(layer_id: str, shown: Sequence[Shown]) -> str:
    """Return the HTML of the page; `shown` is ordered by camera."""
    title = f"Repeat detections: {_count(len(shown), 'slot')} to review"
    return render("batch/filters/review.html", title=title, layer_id=layer_id, shown=shown, describe=_describe)


def _describe(slot: Candidate) -> str:
    images, days = _count(slot.images, "image"), _count(slot.days, "day")
    return f"{slot.label}: {images}, {days}, {_period(slot)}"


def _period(slot: Candidate) -> str:
    if slot.first_local is None or slot.last_local is None:
        return "undated"
    first = slot.first_local.isoformat(" ", "seconds")
    last = slot.last_local.isoformat(" ", "seconds")
    return first if first == last else f"{first} to {last}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


FILE = "review.json"


class ReviewedSlot(Frozen):
    """A slot in review.json; people change only `accepted`."""

    id: SlotId
    camera: str | None
    label: str
    images: int = Field(ge=0)
    days: int = Field(ge=0)
    accepted: bool = Field(strict=True)


class Review(Frozen):
    layer_id: str
    slots: tuple[ReviewedSlot, ...]

    @field_validator("slots")
    @classmethod
    def _once(cls, slots: tuple[ReviewedSlot, ...]) -> tuple[ReviewedSlot, ...]:
        repeated = [slot_id for slot_id, n in Counter(slot.id for slot in slots).items() if n > 1]
        if repeated:
            raise ValueError(f"slot {repeated[0]} is listed more than once")
        return slots


def write_review(layer_id: str, candidates: Iterable[Candidate], out: str, accepted: Collection[str] = ()) -> Review:
    """Write a review into a new or empty folder, local or s3://, by camera (unknown last), then most images first.

    `accepted` are the ids of slots accepted before. An unreadable image is replaced by the reason. Raises BadRequest if
    the folder is not empty or cannot be written, or if a slot occurs twice.
    """
    folder = require_empty(out)
    ordered = sorted(candidates, key=lambda c: (c.camera_id is None, c.camera_id, -c.images, c.slot_id))
    review = _review(layer_id, ordered, accepted)
    shown = [_shown(folder, number, candidate) for number, candidate in enumerate(ordered, 1)]
    write_file(folder, FILE, json.dumps(review.model_dump(mode="json"), indent=1))
    write_file(folder, "index.html", page(layer_id, shown))
    return review


def read_review(file: str | Path) -> Review:
    """Return the review in this file, local or s3://. Raises BadRequest that names the file and the problem."""
    parent, _, name = absolute(str(file)).rpartition("/")
    try:
        return Review.model_validate_json(Folder(parent or "/").read(name))
    except ValidationError as error:
        raise BadRequest(f"{file}: {wrong_fields(error, Review)}") from error
    except FileNotFoundError as error:
        raise BadRequest(f"{file} does not exist: name the {FILE} of a review") from error
    except (OSError, StorageUnreachable) as error:
        raise BadRequest(f"cannot read {file}: {error}") from error


def read_accepted(file: str | Path) -> tuple[str, ...]:
    """Return the ids of accepted slots, sorted. Raises BadRequest as `read_review`."""
    return tuple(sorted(slot.id for slot in read_review(file).slots if slot.accepted))


def _review(layer_id: str, candidates: Sequence[Candidate], accepted: Collection[str]) -> Review:
    try:
        slots = tuple(_slot(c, c.slot_id in accepted) for c in candidates)
        return Review(layer_id=layer_id, slots=slots)
    except ValidationError as error:
        raise BadRequest(f"these slots cannot be reviewed: {wrong_fields(error)}") from error


def _slot(candidate: Candidate, accepted: bool) -> ReviewedSlot:
    return ReviewedSlot(
        id=candidate.slot_id,
        camera=candidate.camera_id,
        label=candidate.label,
        images=candidate.images,
        days=candidate.days,
        accepted=accepted,
    )


def _shown(folder: Folder, number: int, candidate: Candidate) -> Shown:
    box = ShownBox(rank=0, label=candidate.label, score=candidate.score, box_px=candidate.box_px, outcome="shown")
    sample = Sample(
        kind="slot",
        media_sha256=candidate.media_sha256,
        camera_id=candidate.camera_id,
        captured_at_local=None,
        places=((candidate.source_root, candidate.path),),
        old=(box,),
    )
    drawn = draw_sample(sample)
    if not isinstance(drawn, Pictures):
        return Shown(candidate, why_not=drawn)
    name = f"samples/{number:05d}.jpg"
    write_file(folder, name, drawn.old)
    return Shown(candidate, picture=name)
