"""Count each label of each event while images pass by: MaxN, the largest number of boxes of a label in one image.

Keeps one record for each event of a deployment, a few hundred bytes, and no image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from archive.formats.records import BoxRecord, ImageRecord, Observer


@dataclass(slots=True)
class LabelCount:
    """MaxN of a label in an event, its highest score, and whether a person named all of its boxes."""

    max_n: int = 0
    score: float = 0.0
    is_human: bool = True

    def add(self, boxes: list[BoxRecord]) -> None:
        self.max_n = max(self.max_n, len(boxes))
        self.score = max(self.score, *(box.score or 0.0 for box in boxes))
        self.is_human = self.is_human and all(box.is_human for box in boxes)


@dataclass(slots=True)
class Event:
    """An event: the path of its first image, its time, its labels, and who found nothing in any of its images."""

    path: str
    start: datetime
    end: datetime
    blank_by: Observer | None = "human"
    labels: dict[str, LabelCount] = field(default_factory=dict)


class EventCounts:
    """Events by id and deployment, in the order of their first image."""

    def __init__(self) -> None:
        self.events: dict[tuple[str, str], Event] = {}

    def add(self, image: ImageRecord, deployment: str, moment: datetime) -> None:
        """Count an image of an event. An image without one adds nothing."""
        if image.event_id is None:
            return
        key = (image.event_id, deployment)
        event = self.events.setdefault(key, Event(image.path, moment, moment))
        event.start, event.end = min(event.start, moment), max(event.end, moment)
        if event.blank_by and image.blank_by != "human":
            event.blank_by = image.blank_by
        by_label: dict[str, list[BoxRecord]] = {}
        for box in image.detections:
            by_label.setdefault(box.label, []).append(box)
        for label, boxes in by_label.items():
            event.labels.setdefault(label, LabelCount()).add(boxes)
