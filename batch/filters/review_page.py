"""The page of a review: a section for each slot. No scripts, nothing from the network, readable on a telephone.

candidates with the names of their pictures --page--> HTML; every text goes through `html.escape`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from itertools import groupby

_STYLE = """
body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;max-width:1000px;padding:1rem;color:#1b1b1b;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2rem;border-top:1px solid #ccc;padding-top:1rem}
section{margin:1.5rem 0}h3{font-size:1rem;margin:.5rem 0}img{width:100%;height:auto;display:block;background:#eee}
p,h1,h2,h3{overflow-wrap:anywhere}.closed{color:#a80000;font-weight:bold}code{user-select:all}
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#161616}.closed{color:#ff8080}}
"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A suspicious slot and one image of it. Times are by the camera's clock, None: no image is dated.

    `box_px` x1, y1, x2, y2 is the box in that image as displayed, `score` the detection's; `path` is below
    `source_root`; `days` are distinct calendar days.
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
    """A candidate and its picture beside the page, or why there is none."""

    candidate: Candidate
    picture: str = ""
    why_not: str = ""


def page(layer_id: str, shown: Sequence[Shown]) -> str:
    title = f"Repeat detections: {_count(len(shown), 'slot')} to review"
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="script-src \'none\'">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
    )
    what = (
        "<p>Each picture shows a box that came back at the same place. Where it is no animal (a branch, a stone, "
        "a mark on the lens), set <code>accepted</code> of its id to <code>true</code> in "
        "<code>review.json</code> beside this page, and run the filter again with that file. "
        "What is not accepted stays as it is.</p>"
    )
    cameras = groupby(shown, lambda one: one.candidate.camera_id)
    parts = [
        f"<h1>{escape(title)}</h1>",
        what,
        f"<p><small>layer {escape(layer_id)}</small></p>",
        *(_camera(camera, list(slots)) for camera, slots in cameras),
    ]
    return head + "\n".join(parts) + "</body></html>\n"


def _camera(camera_id: str | None, shown: Sequence[Shown]) -> str:
    name = "Unknown camera" if camera_id is None else f"Camera {camera_id}"
    return f"<h2>{escape(name)}</h2>" + "\n".join(map(_section, shown))


def _section(shown: Shown) -> str:
    one = shown.candidate
    words = f"{one.label}: {_count(one.images, 'image')}, {_count(one.days, 'day')}, {_period(one)}"
    picture = f'<p class="closed">{escape(shown.why_not)}</p>'
    if shown.picture:
        picture = f'<img loading="lazy" src="{escape(shown.picture)}" alt="{escape(words)}">'
    return (
        f"<section><h3>{escape(words)}</h3>{picture}"
        f"<p>id <code>{escape(one.slot_id)}</code><br><small>{escape(one.path)}</small></p></section>"
    )


def _period(one: Candidate) -> str:
    if one.first_local is None or one.last_local is None:
        return "undated"
    first, last = (moment.isoformat(" ", "seconds") for moment in (one.first_local, one.last_local))
    return first if first == last else f"{first} to {last}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
