"""The review of repeat detections: a folder with a picture of each suspicious slot, and a file in which to accept.

candidates --write_review--> <folder>/{samples/*.jpg, review.json, index.html}; the page comes last
review.json, edited: "accepted": true --read_accepted--> ids, for the field `accepted` of the filter
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from batch.filters.repeats import SlotId
from batch.filters.review_page import Candidate, Shown, page
from batch.impact.pictures import Pictures, draw_sample
from batch.impact.report import require_empty
from batch.impact.samples import Sample, ShownBox
from model_store.config import Frozen
from model_store.errors import BadRequest, StorageUnreachable
from model_store.storage import Folder, absolute

FILE = "review.json"


class ReviewedSlot(Frozen):
    """Only `accepted` is for people to change."""

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
        twice = [slot for slot, n in Counter(one.id for one in slots).items() if n > 1]
        if twice:
            raise ValueError(f"slot {twice[0]} is there more than once")
        return slots


def write_review(
    layer_id: str, candidates: Iterable[Candidate], out: str, accepted: Collection[str] = ()
) -> Review:
    """Write into a new or empty folder, local or s3://, in the order of camera (unknown last), then most images.

    Raises BadRequest when something is there, nothing can be written, or a slot is there twice. An image that can
    no longer be read is none: there are words in its place. `accepted` are ids of slots that were so before.
    """
    folder = require_empty(out)
    ordered = sorted(
        candidates, key=lambda one: (one.camera_id is None, one.camera_id, -one.images, one.slot_id)
    )
    review = _review(layer_id, ordered, accepted)
    shown = [_shown(folder, number, one) for number, one in enumerate(ordered, 1)]
    _write(folder, FILE, json.dumps(review.model_dump(mode="json"), indent=1).encode())
    _write(folder, "index.html", page(layer_id, shown).encode("utf-8", "backslashreplace"))
    return review


def read_review(file: str | Path) -> Review:
    """Local or s3://. Raises BadRequest that names the file and what is wrong with it."""
    where = absolute(str(file))
    parent, _, name = where.rpartition("/")
    try:
        return Review.model_validate_json(Folder(parent or "/").read(name))
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}".lstrip(
                ": "
            )
            for item in error.errors(include_url=False)[:5]
        )
        raise BadRequest(f"{file}: {wrong}") from error
    except FileNotFoundError as error:
        raise BadRequest(f"there is no {file}: name the {FILE} of a review") from error
    except (OSError, StorageUnreachable) as error:
        raise BadRequest(f"cannot read {file}: {error}") from error


def read_accepted(file: str | Path) -> tuple[str, ...]:
    """The ids that are accepted, sorted. Raises BadRequest as `read_review`."""
    return tuple(sorted(slot.id for slot in read_review(file).slots if slot.accepted))


def _review(layer_id: str, candidates: Sequence[Candidate], accepted: Collection[str]) -> Review:
    try:
        slots = tuple(_slot(one, one.slot_id in accepted) for one in candidates)
        return Review(layer_id=layer_id, slots=slots)
    except ValidationError as error:
        raise BadRequest(f"these slots cannot be reviewed: {error.errors()[0]['msg']}") from error


def _slot(one: Candidate, accepted: bool) -> ReviewedSlot:
    return ReviewedSlot(
        id=one.slot_id,
        camera=one.camera_id,
        label=one.label,
        images=one.images,
        days=one.days,
        accepted=accepted,
    )


def _shown(folder: Folder, number: int, one: Candidate) -> Shown:
    box = ShownBox(rank=0, label=one.label, score=one.score, box_px=one.box_px, outcome="shown")
    sample = Sample(
        kind="slot",
        media_sha256=one.media_sha256,
        camera_id=one.camera_id,
        captured_at_local=None,
        places=((one.source_root, one.path),),
        old=(box,),
    )
    drawn = draw_sample(sample)
    if not isinstance(drawn, Pictures):
        return Shown(one, why_not=drawn)
    name = f"samples/{number:05d}.jpg"
    _write(folder, name, drawn.old)
    return Shown(one, picture=name)


def _write(folder: Folder, name: str, data: bytes) -> None:
    try:
        folder.write(name, data)
    except OSError as error:
        raise BadRequest(f"cannot write {folder.url}/{name}: {error}") from error
