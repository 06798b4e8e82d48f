"""Samples on the page: pictures side by side (one above the other on a telephone), words for each box.

Shown ... --sample_sections--> HTML; every text goes through `html.escape`
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from batch.impact.pictures import COLOURS_RGB
from batch.impact.samples import Said, Sample, ShownBox

MAX_BOXES = 30
"""Listed under a picture; all are drawn."""
_KINDS = {
    "verified": "Lost: people confirmed it, the new side has it not",
    "lost": "Lost: shown by the old side alone",
    "new": "New: shown by the new side alone",
    "relabelled": "Relabelled: the same box, another label",
    "emptied": "Emptied: images that show nothing now",
}


@dataclass(frozen=True)
class Shown:
    """A sample and its two pictures beside the page, or why there are none."""

    sample: Sample
    old: str = ""
    new: str = ""
    why_not: str = ""


def camera_name(camera_id: str | None) -> str:
    return "unknown" if camera_id is None else camera_id


def sample_sections(samples: Sequence[Shown]) -> str:
    if not samples:
        return ""
    colours = {"same": "matched", "lost": "lost", "new": "new", "relabelled": "relabelled"}
    keys = " ".join(
        f'<span class="key" style="background:rgb{COLOURS_RGB[name]}">{words}</span>'
        for words, name in (*colours.items(), ("said by people", "said"))
    )
    groups = (
        f"<h2>{escape(_KINDS[kind])}</h2>" + "".join(map(_sample, shown))
        for kind, shown in groupby(samples, lambda one: one.sample.kind)
    )
    return f"<p>Boxes: {keys}</p>" + "".join(groups)


def _sample(shown: Shown) -> str:
    sample = shown.sample
    where = [sample.path, f"camera {camera_name(sample.camera_id)}"]
    where += [sample.captured_at_local] if sample.captured_at_local else []
    files = (
        f" (one of {len(sample.places)} files with these bytes)" if len(sample.places) > 1 else ""
    )
    said = _list(_said_words(one) for one in sample.said)
    if shown.why_not:
        pair = f'<p class="fail">{escape(shown.why_not)}</p>'
        pair += f"<p>Old: {escape(_words(sample.old))}</p><p>New: {escape(_words(sample.new))}</p>"
    else:
        pair = (
            '<div class="pair">'
            + _figure("Old", shown.old, sample.old)
            + _figure("New", shown.new, sample.new)
            + "</div>"
        )
    return (
        f'<section class="sample"><h3>{escape(" · ".join(where))}{escape(files)}</h3>{pair}{said}'
        f"<p><small>{escape(sample.media_sha256)}</small></p></section>"
    )


def _figure(side: str, picture: str, boxes: Sequence[ShownBox]) -> str:
    words = f"{side}: {_words(boxes)}"
    return (
        f'<figure><img loading="lazy" src="{escape(picture)}" alt="{escape(words)}">'
        f"<figcaption>{escape(words)}</figcaption></figure>"
    )


def _words(boxes: Sequence[ShownBox]) -> str:
    told = [f"{box.label} {box.score:.2f} ({box.outcome})" for box in boxes[:MAX_BOXES]]
    more = [f"and {len(boxes) - MAX_BOXES} more"] if len(boxes) > MAX_BOXES else []
    return ", ".join(told + more) or "nothing shown"


def _said_words(one: Said) -> str:
    what = f"{one.action} {one.label or ''}".strip() if one.box_px else "nothing in the image"
    return f"{one.actor or 'somebody'} said: {what}; old side {one.old}, new side {one.new}"


def _list(items: Iterable[str]) -> str:
    rows = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f"<ul>{rows}</ul>" if rows else ""
