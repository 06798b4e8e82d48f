"""Render the report as one HTML page: Impact, verdict, samples with the names of their pictures --page--> HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from batch.publishing.impact.facts import Boxes, Impact, Shift
from batch.publishing.impact.pictures import COLOURS_RGB
from batch.publishing.impact.result_sets import Side
from batch.publishing.impact.samples import Said, Sample, ShownBox
from batch.publishing.impact.verdict import Verdict, model_of
from serve.pages import render

MAX_ROWS = 500
"""Maximum rows of a table on the page; `impact.json` has all."""
MAX_BOXES = 30
"""Maximum boxes listed under a picture; all boxes are drawn."""
_BOXES = ("shown old", "shown new", "matched", "lost", "new", "relabelled from", "to")
_SHIFT = ("shift mean", "median", "p5", "p95")
_KINDS = {
    "verified": "Lost: confirmed by people, not shown by the new side",
    "lost": "Lost: shown only by the old side",
    "new": "New: shown only by the new side",
    "relabelled": "Relabelled: the same box, another label",
    "emptied": "Emptied: no detections on the new side",
}
_COLOURS = {"same": "matched", "lost": "lost", "new": "new", "relabelled": "relabelled", "human assertion": "said"}


@dataclass(frozen=True)
class Shown:
    """A sample with the names of its two picture files, or the reason why it has none."""

    sample: Sample
    old: str = ""
    new: str = ""
    why_not: str = ""


def page(impact: Impact, verdict: Verdict, samples: Sequence[Shown]) -> str:
    groups = groupby(samples, lambda shown: shown.sample.kind)
    return render(
        "batch/publishing/impact/report.html",
        title=f"Impact: {impact.old.name} → {impact.new.name}",
        verdict=verdict,
        summary=_summary(impact),
        tables=_tables(impact),
        max_rows=MAX_ROWS,
        colours=[(words, COLOURS_RGB[name]) for words, name in _COLOURS.items()],
        samples=[(_KINDS[kind], list(shown)) for kind, shown in groups],
        camera_name=_camera_name,
        list_boxes=_list_boxes,
        describe=_describe,
    )


def _summary(impact: Impact) -> list[tuple[str, str]]:
    images, verified = impact.images, impact.verified
    return [
        ("old side", _side(impact.old)),
        ("new side", _side(impact.new)),
        (
            "images",
            f"{images.compared} compared, {images.only_old} only old, {images.only_new} only new, "
            f"{images.old_failed} failed old, {images.new_failed} failed new",
        ),
        (
            "human assertions",
            f"{verified.said}: {verified.confirmed} confirmed, {verified.contradicted} contradicted, "
            f"{verified.unseen} unseen; {verified.lost} lost, {verified.gained} gained",
        ),
    ]


def _side(side: Side) -> str:
    own = f" ({len(side.label_thresholds)} labels with other thresholds)" if side.label_thresholds else ""
    return f"{side.name}: {model_of(side)}, shown from {side.threshold:g}{own}, key {side.inference_key[:12]}"


Rows = list[tuple[object, ...]]


def _tables(impact: Impact) -> list[tuple[str, str, tuple[str, ...], Rows]]:
    """Return heading, caption, header and rows of each table."""
    labels: Rows = [(label.label, *_numbers(label)) for label in impact.labels]
    pairs: Rows = [(pair.old_label, pair.new_label, pair.boxes) for pair in impact.relabelled]
    cameras: Rows = [
        (_camera_name(c.camera_id), c.compared, c.changed, c.emptied, c.filled, *_numbers(c)) for c in impact.cameras
    ]
    images = ("camera", "images", "changed", "emptied", "filled")
    relabelled = ("Relabelled", "detections", ("from", "to", "boxes"), pairs)
    return [
        ("By label", "detections", ("label", *_BOXES, *_SHIFT), labels),
        *([relabelled] if pairs else []),
        ("By camera", "images and detections", (*images, *_BOXES, *_SHIFT), cameras),
    ]


def _numbers(boxes: Boxes) -> tuple[object, ...]:
    counts = (boxes.shown_old, boxes.shown_new, boxes.matched, boxes.lost, boxes.new)
    return (*counts, boxes.relabelled_from, boxes.relabelled_to, *_shift(boxes.shift))


def _shift(shift: Shift | None) -> tuple[str, ...]:
    if shift is None:
        return ("",) * len(_SHIFT)
    return tuple(f"{x:+.4f}" for x in (shift.mean, shift.median, shift.p5, shift.p95))


def _camera_name(camera_id: str | None) -> str:
    return "unknown" if camera_id is None else camera_id


def _list_boxes(boxes: Sequence[ShownBox]) -> str:
    words = [f"{box.label} {box.score:.2f} ({box.outcome})" for box in boxes[:MAX_BOXES]]
    more = [f"and {len(boxes) - MAX_BOXES} more"] if len(boxes) > MAX_BOXES else []
    return ", ".join(words + more) or "nothing shown"


def _describe(said: Said) -> str:
    what = f"{said.action} {said.label or ''}".strip() if said.box_px else "nothing in the image"
    return f"{said.actor or 'unknown'}: {what}; old side {said.old}, new side {said.new}"
