"""Facts that formats for science require: places, times with a zone, kinds of labels, and counts of events.

Nothing is guessed: images without a fact are counted by reason, and `require_all` refuses them with what to state.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from archive.annotations.deployment_file import zone_of
from archive.catalogue.deployments import TimeZone
from archive.formats.records import BoxRecord, DeploymentFact, ImageRecord, Observer
from model_store.errors import BadRequest
from model_store.frozen import Frozen

ADD = "state them with 'resight deployments add'"
SHOWN = 20
EXAMPLE = (
    '{"contributors": [{"title": "Kim Doe", "role": "contact"}], "project": {"title": "Oak hill", "samplingDesign": '
    '"opportunistic", "captureMethod": ["activityDetection"], "individualAnimals": false}}'
)
Kind = Literal["animal", "human", "vehicle", "unknown"]
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("human", "person", "people", "pedestrian", "homo sapiens"), "human"),
    **dict.fromkeys(("vehicle", "car", "truck", "bus", "motorcycle", "motorbike", "bicycle", "boat"), "vehicle"),
    **dict.fromkeys(("unknown", "object", "blank", "no cv result"), "unknown"),
}
"""Names of MegaDetector, SpeciesNet and COCO. Every other label is an animal."""


def kind_of(label: str) -> Kind:
    """Return the kind of a label, in any case."""
    return _KINDS.get(label.strip().casefold(), "animal")


def iso(moment: datetime) -> str:
    """Return a time with its offset from UTC in seconds, such as 2026-05-01T12:00:00+02:00."""
    return moment.isoformat(timespec="seconds")


def utc(moment: datetime) -> str:
    """Return a time with a zone as UTC in seconds, such as 2026-05-01T10:00:00Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class PlacedOptions(Frozen):
    """Options of formats that require places."""

    package: Path | None = Field(
        default=None,
        description="JSON as for Camtrap DP; its taxa give labels their scientific names",
        examples=[json.loads(EXAMPLE)],
    )
    time_zone: TimeZone | None = Field(
        default=None, description="time zone of deployments without one: Europe/Berlin or +02:00"
    )
    leave_out: bool = Field(default=False, description="leave out images that lack a fact, instead of refusing them")


@lru_cache
def clock_of(zone: str, start: datetime) -> tzinfo:
    """Return the offset of a zone at the start of a deployment: the clock of a camera keeps it in summer and winter."""
    offset = start.replace(tzinfo=zone_of(zone)).utcoffset() or timedelta()
    return timezone(timedelta(minutes=offset // timedelta(minutes=1)))


@dataclass
class Places:
    """Places and times of images. `time_zone` applies to deployments without one."""

    time_zone: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def of(self, image: ImageRecord) -> tuple[DeploymentFact, datetime] | None:
        """Return the deployment of an image and its corrected time with the offset of its clock.

        If a fact is missing, count the reason and return None.
        """
        facts, camera, moment = image.deployment, image.camera_id or "no camera", image.captured_at_corrected
        if moment is None:
            where = "EXIF DateTimeOriginal" if image.frame_index is None else "the clip's metadata creation_time"
            return self.refuse(f"of {camera} without a time: write it as {where} and ingest again", image)
        if facts is None and image.is_outside_deployments:
            why = f"of {camera} outside the dates of its deployments: change them, or {ADD.replace('them', 'another')}"
            return self.refuse(why, image, f", taken {moment.isoformat(' ', 'seconds')}")
        if facts is None:
            return self.refuse(f"of {camera} without a deployment: {ADD}", image)
        if lacking := self.lacking(facts):
            return self.refuse(f"of deployment {facts.deployment_id} ({camera}) without {lacking}", image)
        return facts, moment.replace(tzinfo=self.clock(facts))

    def lacking(self, facts: DeploymentFact) -> str:
        """Return the fact that a deployment lacks, with the way to state it; empty if it has a zone and coordinates."""
        if not (facts.time_zone or self.time_zone):
            return f"a time zone: {ADD} (column time_zone), or with --set time_zone=Europe/Berlin"
        if facts.latitude is None or facts.longitude is None:
            return f"coordinates: {ADD} (columns latitude, longitude)"
        return ""

    def clock(self, facts: DeploymentFact) -> tzinfo:
        """Return the offset of the clock of a deployment that lacks nothing."""
        return clock_of(facts.time_zone or self.time_zone or "", facts.start)

    def refuse(self, reason: str, image: ImageRecord, more: str = "") -> None:
        """Count an image that the format cannot represent; `more` is about this one."""
        self.counts[reason] += 1
        self.examples.setdefault(reason, f"{image.path}{more}")

    def require_all(self, leave_out: bool) -> dict[str, Any]:
        """Return the number of images that are left out, and the reasons. Raises BadRequest, unless `leave_out`."""
        lines = [
            f"{n} image{'s' * (n != 1)} {why} (such as {self.examples[why]})" for why, n in self.counts.most_common()
        ]
        more = [f"and {len(lines) - SHOWN} more reasons"] if len(lines) > SHOWN else []
        if lines and not leave_out:
            ways = "nothing was written: state these facts, or leave the images out with --set leave_out=true"
            raise BadRequest("\n".join([ways, *lines[:SHOWN], *more]))
        return {"left_out": self.counts.total(), "reasons": lines} if lines else {}


@dataclass(slots=True)
class LabelCount:
    """MaxN of a label in an event (the largest number of its boxes in one image), and its highest score.

    `is_human`: a person named all of its boxes.
    """

    max_n: int = 0
    score: float = 0.0
    is_human: bool = True

    def add(self, boxes: list[BoxRecord]) -> None:
        self.max_n = max(self.max_n, len(boxes))
        self.score = max(self.score, *(box.score or 0.0 for box in boxes))
        self.is_human = self.is_human and all(box.is_human for box in boxes)


@dataclass(slots=True)
class EventSummary:
    """An event: the path of its first image, its time, its labels, and who found nothing in any of its images."""

    path: str
    deployment: DeploymentFact
    start: datetime
    end: datetime
    blank_by: Observer | None = "human"
    labels: dict[str, LabelCount] = field(default_factory=dict)


Events = dict[tuple[str, str], EventSummary]
"""Events by id and deployment, in the order of their first image: a few hundred bytes each, and no image."""


def count_image(
    events: Events, event_id: str, image: ImageRecord, deployment: DeploymentFact, moment: datetime
) -> None:
    """Count an image in its event."""
    new = EventSummary(image.path, deployment, moment, moment)
    event = events.setdefault((event_id, deployment.deployment_id), new)
    event.start, event.end = min(event.start, moment), max(event.end, moment)
    if event.blank_by and image.blank_by != "human":
        event.blank_by = image.blank_by
    by_label: dict[str, list[BoxRecord]] = {}
    for box in image.detections:
        by_label.setdefault(box.label, []).append(box)
    for label, boxes in by_label.items():
        event.labels.setdefault(label, LabelCount()).add(boxes)
