"""Oracle for repeat detections: quadratic loops with exact fractions, and images to try it on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from batch.filters.kinds.repeat_detections import RepeatsConfig
from tests.batch.filters.make import NOTHING, detection, image

START = datetime(2026, 5, 1, 12, 0, 0)
Row = dict[str, Any]


@dataclass
class Slot:
    row: Row
    members: list[Row]


def rational_iou(a: Row, b: Row) -> Fraction:
    """Return the IoU of boxes as shares of their images, clipped to them."""
    sides: list[Fraction] = []
    areas = [Fraction(1), Fraction(1)]
    for low, high, size in (("x1_px", "x2_px", "width_px"), ("y1_px", "y2_px", "height_px")):
        ends = [
            [min(max(Fraction(one[name]), Fraction(0)), Fraction(one[size])) / Fraction(one[size])
             for name in (low, high)]
            for one in (a, b)
        ]  # fmt: skip
        areas = [area * (end - start) for area, (start, end) in zip(areas, ends, strict=True)]
        sides.append(max(min(ends[0][1], ends[1][1]) - max(ends[0][0], ends[1][0]), Fraction(0)))
    shared = sides[0] * sides[1]
    return shared / (areas[0] + areas[1] - shared)


def share(row: Row) -> Fraction | None:
    """Return the share of the image that the box covers; None if its size is unknown, or the box lies outside."""
    numbers = [row[name] for name in ("x1_px", "y1_px", "x2_px", "y2_px", "width_px", "height_px")]
    if any(number is None or number != number for number in numbers):
        return None
    x1, y1, x2, y2, width, height = map(Fraction, numbers)
    wide, high = min(x2, width) - max(x1, 0), min(y2, height) - max(y1, 0)
    return wide * high / (width * height) if wide > 0 and high > 0 else None


def oracle(given: list[Row], config: RepeatsConfig) -> dict[tuple[str, int], tuple[str, int]]:
    """Map (image, rank) of each box of a suspicious slot to that of the slot's first box."""
    ordered = sorted(
        given,
        key=lambda row: (
            row["taken_local"] is None,
            row["taken_local"] or START,
            row["path"],
            row["media_sha256"],
            -1 if row["rank"] is None else row["rank"],
        ),
    )
    found: list[Slot] = []
    for row in ordered:
        area = None if row["rank"] is None else share(row)
        if area is None or not Fraction(config.min_area_frac) <= area <= Fraction(config.max_area_frac):
            continue
        if not config.min_score <= row["score"] <= config.max_score or row["label"] in config.exclude_labels:
            continue
        best: Slot | None = None
        for slot in found:
            if place(slot.row) == place(row) and slot.row["label"] == row["label"]:
                iou = rational_iou(slot.row, row)
                if iou >= Fraction(str(config.min_iou)) and (best is None or iou > rational_iou(best.row, row)):
                    best = slot
        if best is None:
            found.append(Slot(row, [row]))
        else:
            best.members.append(row)
    return {
        (row["media_sha256"], row["rank"]): (slot.row["media_sha256"], slot.row["rank"])
        for slot in found
        if suspicious(slot.members, config)
        for row in slot.members
    }


def place(row: Row) -> str:
    return "camera " + row["camera_id"] if row["camera_id"] else "/".join(row["path"].split("/")[:-1])


def suspicious(members: list[Row], config: RepeatsConfig) -> bool:
    images = {row["media_sha256"] for row in members}
    taken = [row["taken_local"] for row in members if row["taken_local"] and not row["clock_flags"]]
    days: set[date] = {moment.date() for moment in taken}
    span = (max(taken) - min(taken)) if taken else timedelta(0)
    return (
        len(images) >= config.min_images
        and len(days) >= config.min_days
        and span >= timedelta(days=config.min_span_days)
    )


SHIFTS = st.integers(-6, 6)
BOXES = st.tuples(st.sampled_from([(20, 20), (300, 40), (640, 400)]), SHIFTS, SHIFTS, SHIFTS, SHIFTS)
WORDS: dict[str, st.SearchStrategy[Any]] = {
    "taken_local": st.none() | st.integers(0, 200).map(lambda hour: START + timedelta(hours=hour)),
    "camera_id": st.sampled_from(["north", "south", None]),
    "clock_flags": st.sampled_from(["", "", "", "before_2001"]),
}
OF_BOX = st.fixed_dictionaries(
    {
        "label": st.sampled_from(["deer", "deer", "fox"]),
        "score": st.sampled_from([0.0625, 0.125, 0.5, 1.0]),
        "box": BOXES,
        "unknown": st.sampled_from([None, None, None, None, "x2_px", "width_px"]),
    }
)
IMAGE = st.tuples(st.fixed_dictionaries(WORDS), st.sampled_from(["a", "b/c", ""]), st.lists(OF_BOX, max_size=3))


def image_rows(number: int, words: Row, folder: str, boxes: list[Row]) -> list[Row]:
    path = f"{folder}/{number}.jpg" if folder else f"{number}.jpg"
    common = words | {"media_sha256": image(number), "path": path}
    found = []
    for rank, one in enumerate(boxes):
        (x, y), *moved = one["box"]
        corners = (x + moved[0], y + moved[1], x + 100 + moved[2], y + 80 + moved[3])
        names = ("x1_px", "y1_px", "x2_px", "y2_px")
        more = {"rank": rank, "label": one["label"], "score": one["score"]}
        box = {name: float(corner) for name, corner in zip(names, corners, strict=True)}
        unknown = {one["unknown"]: None} if one["unknown"] else {}
        size = {"width_px": 700.0, "height_px": 450.0}  # some boxes reach over its edge
        found.append(detection(**(common | size | more | box | unknown)))
    return found or [detection(**(common | NOTHING))]
