"""Facts of a comparison as frozen classes, written to `impact.json`; docs/reference/impact.md explains each number."""

from __future__ import annotations

from batch.publishing.impact.result_sets import Side
from model_store.frozen import Frozen


class Images(Frozen):
    """Counts of images by unique content, of those with a present file; `gone` counts those without one."""

    old: int
    new: int
    both: int
    old_failed: int
    new_failed: int
    newly_failed: int
    compared: int
    changed: int
    emptied: int
    filled: int
    with_lost: int
    with_new: int
    with_relabelled: int
    gone: int

    @property
    def only_old(self) -> int:
        return self.old - self.both

    @property
    def only_new(self) -> int:
        return self.new - self.both


class Shift(Frozen):
    """Distribution of new score minus old score over matched boxes, in steps of 0.0001."""

    mean: float
    median: float
    p5: float
    p95: float


class Boxes(Frozen):
    """Counts of boxes: shown_old = matched + lost + relabelled_from; shown_new = matched + new + relabelled_to."""

    shown_old: int
    shown_new: int
    matched: int
    lost: int
    new: int
    relabelled_from: int
    relabelled_to: int
    shift: Shift | None


class LabelBoxes(Boxes):
    label: str


class CameraBoxes(Boxes):
    """Counts of boxes and images of one camera; `camera_id` is None for images of unknown cameras."""

    camera_id: str | None
    compared: int
    changed: int
    emptied: int
    filled: int


class Relabelled(Frozen):
    old_label: str
    new_label: str
    boxes: int


class Verified(Frozen):
    """Counts of human assertions on these images: `said` = confirmed + contradicted + unseen.

    `lost` are right on the old side and not on the new one, `gained` the reverse.
    """

    said: int
    confirmed: int
    contradicted: int
    unseen: int
    old_confirmed: int
    lost: int
    gained: int


class LostAssertion(Frozen):
    assertion_id: str
    media_sha256: str
    path: str
    action: str
    label: str | None
    box_px: tuple[float, float, float, float] | None
    new: str


class Impact(Frozen):
    old: Side
    new: Side
    match_iou: float
    images: Images
    boxes: Boxes
    labels: tuple[LabelBoxes, ...]
    relabelled: tuple[Relabelled, ...]
    cameras: tuple[CameraBoxes, ...]
    verified: Verified
    lost_assertions: tuple[LostAssertion, ...]
