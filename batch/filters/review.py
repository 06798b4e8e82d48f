"""Write and read the review of repeat detections: a picture of each suspicious slot, and a file to accept them in.

(tables, layer, inference key) --candidates--> a Candidate for each slot: camera, number of images, period, first box
candidates --write_review--> <folder>/{samples/*.jpg, review.json, index.html}; the page is written last
review.json, edited: "accepted": true --accepted_in--> ids, for the field `accepted` of the filter
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pydantic import Field, ValidationError, field_validator

from archive.annotations.layers import Layer, newest
from archive.catalogue.images import images_of
from archive.delta.snapshot import dataset, open_tables, scan
from archive.delta.tables import Tables
from archive.schemas import ASSERTIONS, MEDIA, RESULTS
from archive.views.clocks import with_deployments
from batch.filters.kinds.repeat_detections import SlotId
from batch.publishing.impact.pictures import SidePictures, draw_sample
from batch.publishing.impact.samples import Sample, ShownBox
from model_store.errors import BadRequest
from model_store.frozen import Frozen, wrong_fields
from model_store.storage import Folder, absolute
from serve.pages import render
from serve.report_folder import require_empty, write_file

FILE = "review.json"
_CANDIDATES = """
    with said as (from ({newest}) where action <> 'withdraw' and group_id is not null),
    files as (
        select media_sha256, source_root as root, path, camera_id as camera, captured_at_corrected::timestamp as taken,
            len(coalesce(timestamp_flags, [])) = 0 or taken is distinct from captured_at_local::timestamp as sure
        from {images}),
    boxes as (select media_sha256, unnest(detections) as d from result_rows),
    members as (
        select s.group_id, s.media_sha256, s.rank, s.x1_px, s.y1_px, s.x2_px, s.y2_px, b.d.label as label,
            b.d.score as score, root, path, camera, taken, sure
        from said s join files using (media_sha256)
            join boxes b on b.media_sha256 = s.media_sha256 and b.d.rank = s.rank)
    select group_id, min(camera), min(label), count(distinct media_sha256), count(distinct taken::date) filter (sure),
        min(taken), max(taken),
        arg_min({{'media_sha256': media_sha256, 'places': [(root, path)], 'camera_id': camera, 'score': score,
            'box_px': (x1_px, y1_px, x2_px, y2_px)}}, coalesce(strftime(taken, '%Y-%m-%dT%H:%M:%S'), '~') || path)
    from members group by group_id order by 1
"""


class ReviewedSlot(Frozen):
    """A slot in review.json; people change only `accepted`. `days` counts distinct calendar days."""

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


@dataclass(frozen=True, slots=True)
class Candidate:
    """A suspicious slot and its first image. Times are by the camera's clock; None if no image is dated."""

    slot: ReviewedSlot
    first_local: datetime | None
    last_local: datetime | None
    sample: Sample

    def __str__(self) -> str:
        images, days = _count(self.slot.images, "image"), _count(self.slot.days, "day")
        times = [time.isoformat(" ", "seconds") for time in (self.first_local, self.last_local) if time]
        return f"{self.slot.label}: {images}, {days}, {' to '.join(dict.fromkeys(times)) or 'undated'}"


def candidates(tables: Tables, layer: Layer, inference_key: str) -> list[Candidate]:
    """Return the slots in order of id. Raises BadRequest for a layer of another kind, StorageUnreachable."""
    if layer.kind != "repeat-detections":
        raise BadRequest(f"layer {layer.layer_id[:12]} is {layer.kind}; only repeat-detections layers can be reviewed")
    with open_tables(tables) as sql:
        sql.register("assertion_rows", dataset(tables.existing("assertions"), ASSERTIONS))
        scan(sql, "media_rows", tables.existing("media"), MEDIA)
        scan(sql, "result_rows", tables.existing("results"), RESULTS, inference_key)
        images = with_deployments(sql, tables, images_of("media_rows"))
        statement = _CANDIDATES.format(newest=newest("assertion_rows"), images=images)
        rows = sql.execute(statement, {"layer": layer.layer_id, "key": inference_key}).fetchall()
    accepted = frozenset(layer.config.get("accepted", ()))
    found: list[Candidate] = []
    for slot_id, camera, label, n_images, days, first, last, image in rows:
        box = ShownBox(rank=0, label=label, score=image.pop("score"), box_px=image.pop("box_px"), outcome="shown")
        slot = ReviewedSlot(
            id=slot_id, camera=camera, label=label, images=n_images, days=days, accepted=slot_id in accepted
        )
        found.append(Candidate(slot, first, last, Sample(kind="slot", captured_at_local=None, old=(box,), **image)))
    return found


def write_review(layer_id: str, candidates: Iterable[Candidate], out: str) -> Review:
    """Write a review into a new or empty folder, local or s3://, by camera (unknown last), then most images first.

    An unreadable image is replaced by the reason. Raises BadRequest if the folder is not empty or cannot be written.
    """
    folder = require_empty(out)

    def by_camera(each: Candidate) -> tuple[object, ...]:
        return each.slot.camera is None, each.slot.camera, -each.slot.images, each.slot.id

    ordered = sorted(candidates, key=by_camera)
    shown: list[tuple[Candidate, str, str]] = []
    for number, candidate in enumerate(ordered, 1):
        drawn, name = draw_sample(candidate.sample), f"samples/{number:05d}.jpg"
        if isinstance(drawn, SidePictures):
            write_file(folder, name, drawn.old)
        shown.append((candidate, name, "") if isinstance(drawn, SidePictures) else (candidate, "", drawn))
    review = Review(layer_id=layer_id, slots=tuple(each.slot for each in ordered))
    write_file(folder, FILE, json.dumps(review.model_dump(mode="json"), indent=1))
    title = f"Repeat detections: {_count(len(shown), 'slot')} to review"
    write_file(folder, "index.html", render("batch/filters/review.html", title=title, layer_id=layer_id, shown=shown))
    return review


def read_text(file: str) -> str:
    """Return the text of a file, local or s3://, without a byte order mark. Raises BadRequest, StorageUnreachable."""
    folder, _, name = absolute(file).rpartition("/")
    try:
        return Folder(folder or "/").read(name).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"cannot read {file}: {error}") from error


def accepted_in(file: str, text: str) -> tuple[str, ...]:
    """Return the ids of accepted slots of a review, sorted. Raises BadRequest for the text of another file."""
    try:
        review = Review.model_validate_json(text)
    except ValidationError as error:
        raise BadRequest(f"{file}: {wrong_fields(error, Review)}") from error
    return tuple(sorted(slot.id for slot in review.slots if slot.accepted))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
