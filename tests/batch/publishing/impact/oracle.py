"""The impact of a small world, counted slowly: loops, fractions and lists, nothing of the product's."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any

from tests.batch.publishing.impact.scene import Seen, World

HALF = Fraction(1, 2)


def iou(a: Sequence[float], b: Sequence[float]) -> Fraction:
    ax1, ay1, ax2, ay2, bx1, by1, bx2, by2 = (Fraction(x) for x in (*a, *b))
    inter = max(min(ax2, bx2) - max(ax1, bx1), 0) * max(min(ay2, by2) - max(ay1, by1), 0)
    either = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inter
    return Fraction(inter, either) if either else Fraction(0)


def shown(seen: Sequence[Seen] | None, least: Mapping[str, float], default: float) -> list[Any]:
    """(rank, label, score, box) of what is shown."""
    return [
        (rank, label, score, box)
        for rank, (label, score, box) in enumerate(seen or ())
        if score >= least.get(label, default)
    ]


def pairs(old: Sequence[Any], new: Sequence[Any]) -> list[tuple[int, int]]:
    """Positions: first within the label, then across, each time the best that is left."""
    found: list[tuple[int, int]] = []
    for across in (False, True):
        while True:
            best: Any = None
            for i, o in enumerate(old):
                for j, n in enumerate(new):
                    if any(i == a or j == b for a, b in found):
                        continue
                    if (o[1] != n[1]) != across or iou(o[3], n[3]) < HALF:
                        continue
                    key = (iou(o[3], n[3]), -o[0], -n[0])
                    if best is None or key > best[0]:
                        best = (key, i, j)
            if best is None:
                break
            found.append((best[1], best[2]))
    return found


def steps(old: float, new: float) -> int:
    """A score shift in steps of 0.0001."""
    exact = (Decimal(new) - Decimal(old)) * 10_000
    return int(exact.quantize(Decimal(1), ROUND_HALF_UP))


def shift(values: Sequence[int]) -> dict[str, float] | None:
    if not values:
        return None
    ordered = sorted(values)

    def quantile(percent: int) -> float:
        place = max(1, math.ceil(Fraction(percent * len(ordered), 100)))
        return round(ordered[place - 1] / 10_000, 6)

    mean = round(sum(values) / len(values) / 10_000, 6)
    return {"mean": mean, "median": quantile(50), "p5": quantile(5), "p95": quantile(95)}


class Tally:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.shifts: list[int] = []

    def facts(self) -> dict[str, Any]:
        names = ("matched", "lost", "new", "relabelled_from", "relabelled_to")
        names += ("shown_old", "shown_new")
        return {name: self.counts[name] for name in names} | {"shift": shift(self.shifts)}


def impact(world: World, old_least: Mapping[str, float], new_least: Mapping[str, float]) -> dict[str, Any]:
    """Thresholds by label, "" for all others."""
    total = Tally()
    labels: dict[str, Tally] = defaultdict(Tally)
    cameras: dict[str | None, Tally] = defaultdict(Tally)
    images: Counter[str] = Counter()
    relabelled: Counter[tuple[str, str]] = Counter()
    for name in {*world.old, *world.new}:
        places = [
            (f"{camera}/{number}", camera) for number, (camera, there) in enumerate(world.files.get(name, ())) if there
        ]
        under = [camera for _, camera in sorted(places, key=lambda place: place[0])[:1]]
        if not under:
            images["gone"] += name in world.old and name not in world.new
            continue
        has_old, has_new = name in world.old, name in world.new
        old_failed = has_old and world.old[name] is None
        new_failed = has_new and world.new[name] is None
        images["old"] += has_old
        images["new"] += has_new
        images["both"] += has_old and has_new
        images["old_failed"] += old_failed
        images["new_failed"] += new_failed
        images["newly_failed"] += has_old and not old_failed and new_failed
        if not (has_old and has_new) or old_failed or new_failed:
            continue
        images["compared"] += 1
        o = shown(world.old[name], old_least, old_least[""])
        n = shown(world.new[name], new_least, new_least[""])
        both = pairs(o, n)
        of_cameras = [cameras[camera] for camera in under]
        change: Counter[str] = Counter()
        for i, j in both:
            if o[i][1] == n[j][1]:
                for tally in (total, labels[o[i][1]], *of_cameras):
                    tally.counts["matched"] += 1
                    tally.shifts.append(steps(o[i][2], n[j][2]))
            else:
                relabelled[o[i][1], n[j][1]] += 1
                change["with_relabelled"] = 1
                for tally in (total, labels[o[i][1]], *of_cameras):
                    tally.counts["relabelled_from"] += 1
                for tally in (total, labels[n[j][1]], *of_cameras):
                    tally.counts["relabelled_to"] += 1
        for kind, boxes, taken in (("lost", o, {i for i, _ in both}), ("new", n, {j for _, j in both})):
            for place, box in enumerate(boxes):
                if place not in taken:
                    change[f"with_{kind}"] = 1
                    for tally in (total, labels[box[1]], *of_cameras):
                        tally.counts[kind] += 1
        for side, boxes in (("shown_old", o), ("shown_new", n)):
            for box in boxes:
                for tally in (total, labels[box[1]], *of_cameras):
                    tally.counts[side] += 1
        change["changed"] = bool(change)
        change["emptied"] = bool(o) and not n
        change["filled"] = bool(n) and not o
        images.update(change)
        for tally in of_cameras:
            tally.counts["compared"] += 1
            for fact in ("changed", "emptied", "filled"):
                tally.counts[fact] += change[fact]
    return {
        "images": images,
        "boxes": total.facts(),
        "labels": {label: tally.facts() for label, tally in labels.items()},
        "cameras": {
            camera: tally.facts() | {name: tally.counts[name] for name in ("compared", "changed", "emptied", "filled")}
            for camera, tally in cameras.items()
        },
        "relabelled": dict(relabelled),
    }
