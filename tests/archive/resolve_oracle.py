"""Oracle for what a view shows, by docs/reference/filters.md: dicts and loops, without SQL or product code.

World --shown, hidden, orphaned, events, occurrences--> rows as tuples, sorted
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np

Corners = tuple[float, float, float, float]
Row = dict[str, Any]
"""Row of `assertions` without null columns."""
Target = tuple[str, int]
NO_RANK, NO_SCORE = -1, -1.0
"""Rank and score of an animal that a person added."""


@dataclass(frozen=True)
class Seen:
    label: str
    score: float
    box: Corners


@dataclass(frozen=True)
class File:
    path: str
    camera: str | None
    taken: datetime | None
    missing: bool = False


@dataclass
class World:
    """Contents of the tables: `results` by inference key and image; `layers` by id, with the kind of their groups."""

    key: str
    files: dict[str, list[File]]
    results: dict[str, dict[str, list[Seen]]]
    layers: dict[str, str | None] = field(default_factory=dict)
    in_view: tuple[str, ...] = ()
    machine: list[Row] = field(default_factory=list)
    human: list[Row] = field(default_factory=list)
    threshold: float = 0.0
    label_thresholds: dict[str, float] = field(default_factory=dict)

    @property
    def detections(self) -> dict[Target, Seen]:
        found = self.results.get(self.key, {})
        return {(sha, rank): one for sha, seen in found.items() for rank, one in enumerate(seen)}


@dataclass
class Outcome:
    label: str
    score: float
    said_by: str | None = None
    reason: str | None = None
    hidden: bool = False
    person: bool = False
    occurrence: str | None = None


def f32(value: float) -> float:
    return float(np.float32(value))


def when(row: Row) -> tuple[datetime, str]:
    return row["asserted_at"], row["assertion_id"]


def box_of(row: Row) -> Corners | None:
    if row.get("x1_px") is None:
        return None
    return row["x1_px"], row["y1_px"], row["x2_px"], row["y2_px"]


def iou(a: Corners, b: Corners) -> Fraction:
    ax1, ay1, ax2, ay2 = map(Fraction, a)
    bx1, by1, bx2, by2 = map(Fraction, b)
    width, height = min(ax2, bx2) - max(ax1, bx1), min(ay2, by2) - max(ay1, by1)
    shared = max(width, Fraction(0)) * max(height, Fraction(0))
    return shared / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared)


def replaces(new: Row, old: Row) -> bool:
    """Return whether a later statement is about the same thing: same detection, same corners, or IoU >= 0.5."""
    if new["media_sha256"] != old["media_sha256"] or when(new) <= when(old):
        return False
    boxes = box_of(new), box_of(old)
    if boxes[0] is None or boxes[1] is None:
        return boxes[0] == boxes[1]
    if new["asserted_at"] == old["asserted_at"] and boxes[0] != boxes[1]:
        return False  # the same time: two things
    if new.get("inference_key") and new["inference_key"] == old.get("inference_key"):
        return new["rank"] == old["rank"]
    return boxes[0] == boxes[1] or iou(boxes[0], boxes[1]) >= Fraction(1, 2)


def standing(rows: Iterable[Row]) -> list[Row]:
    """Return statements that no later one replaces; a later keep, relabel or add replaces `empty`, which replaces all.

    A withdrawal of a box or image replaces like any other statement, and is not returned. One that names a statement
    removes it.
    """
    rows = list(rows)
    withdrawn = {row["withdraws"] for row in rows if row.get("withdraws")}
    rows = [row for row in rows if not row.get("withdraws") and row["assertion_id"] not in withdrawn]
    newest = [old for old in rows if not any(replaces(new, old) for new in rows)]
    held: list[Row] = []
    for row in newest:
        of_image = [one for one in newest if one["media_sha256"] == row["media_sha256"]]
        if box_of(row) is None:
            rivals = [one for one in of_image if box_of(one) and one["action"] not in ("suppress", "withdraw")]
        else:
            rivals = [one for one in of_image if box_of(one) is None]
        if all(when(row) > when(one) for one in rivals):
            held.append(row)
    return [row for row in held if row["action"] != "withdraw"]


class BatchModel:
    """The rules of batches: statements with their number as time, and the numbers of those withdrawn."""

    def __init__(self, begin: datetime) -> None:
        self.begin = begin
        self.rows: list[Row] = []
        self.batches: dict[str, list[int]] = {}
        self.undone: dict[str, list[int]] = {}
        self.gone: set[int] = set()

    def record(self, batch_id: str, rows: list[Row], actor: str) -> None:
        time = self.begin + timedelta(seconds=len(self.batches) + len(self.undone))
        self.batches[batch_id] = list(range(len(self.rows), len(self.rows) + len(rows)))
        for row in rows:
            more = {"actor": actor, "asserted_at": time, "assertion_id": f"{len(self.rows):04}"}
            self.rows.append({**row, **more})

    def withdraw(self, batch_id: str, of_batch: str, actor: str) -> None:
        if of_batch in self.undone:
            self.repeat(batch_id, of_batch, actor)
            return
        self.undone[batch_id] = [n for n in self.batches[of_batch] if n not in self.gone]
        self.gone.update(self.batches[of_batch])

    def repeat(self, batch_id: str, of_batch: str, actor: str) -> None:
        numbers = self.undone[of_batch] if of_batch in self.undone else self.batches[of_batch]
        self.record(batch_id, [self.rows[n] for n in numbers], actor)

    @property
    def standing(self) -> list[tuple[Any, ...]]:
        rows = standing(row for n, row in enumerate(self.rows) if n not in self.gone)
        columns = ("media_sha256", "action", "label", "x1_px", "actor")
        return sorted((tuple(row.get(c) for c in columns) for row in rows), key=str)


def chosen(world: World, row: Row, stands: Sequence[Row]) -> Target | None:
    """Return the detection of a statement about a box, one of `stands`: what it names, else the best with IoU >= 0.5.

    First come those with IoU >= 0.98, then those with IoU >= 0.75: of these, those that no other statement covers
    better, then those at the place of the highest score. Of equal ones, it is the first with the statement's label; for
    a relabel, with another label.
    """
    named = (row["media_sha256"], row.get("rank"))
    if row.get("inference_key") == world.key and named in world.detections:
        return named  # type: ignore[return-value]
    box, is_relabel = box_of(row), row["action"] == "relabel"
    assert box is not None
    here = {t: seen for t, seen in sorted(world.detections.items()) if t[0] == row["media_sha256"]}
    others = [box_of(other) for other in stands if other["media_sha256"] == row["media_sha256"]]
    best: Target | None = None
    best_fit: tuple[Any, ...] = ()
    for target, seen in here.items():
        cover = iou(box, seen.box)
        closeness = (cover >= Fraction(3, 4)) + (cover >= Fraction(98, 100))
        covers_best = cover >= max(iou(other, seen.box) for other in others if other)
        score = max(each.score for each in here.values() if each.box == seen.box)
        claim = (covers_best, score) if closeness == 1 else ()
        fit = (closeness, claim, cover, (seen.label == row.get("label")) != is_relabel)
        if cover >= Fraction(1, 2) and fit > best_fit:
            best, best_fit = target, fit
    return best


def attached(world: World) -> dict[Target, Row]:
    """Return one statement per detection: the better covered, then one that does not suppress, then the newer."""
    claims: defaultdict[Target, list[Row]] = defaultdict(list)
    stands = standing(world.human)
    for row in stands:
        target = chosen(world, row, stands) if box_of(row) else None
        if target:
            claims[target].append(row)

    def precedence(row: Row, target: Target) -> tuple[Any, ...]:
        box = box_of(row)
        assert box is not None
        return iou(box, world.detections[target].box), row["action"] != "suppress", when(row)

    return {target: max(rows, key=lambda row: precedence(row, target)) for target, rows in claims.items()}


def newest_of_layers(world: World) -> dict[str, dict[tuple[str, int | None], Row]]:
    """Return the valid rows of this inference key by layer and target, without withdrawn ones."""
    found: dict[str, dict[tuple[str, int | None], Row]] = {one: {} for one in world.in_view}
    for row in sorted(world.machine, key=when):
        if row["layer_id"] in found and row["inference_key"] == world.key:
            found[row["layer_id"]][row["media_sha256"], row.get("rank")] = row
    return {
        layer: {target: row for target, row in rows.items() if row["action"] != "withdraw"}
        for layer, rows in found.items()
    }


def outcomes(world: World) -> dict[Target, Outcome]:
    """Resolve every detection: the model, then each layer in order, then people."""
    result = {target: Outcome(seen.label, f32(seen.score)) for target, seen in world.detections.items()}
    said = newest_of_layers(world)
    for layer in world.in_view:
        for target, one in result.items():
            if target in said[layer]:
                _layer_says(one, said[layer][target], world.layers[layer])
    empty = {row["media_sha256"]: row for row in standing(world.human) if box_of(row) is None}
    heard = attached(world)
    for target, one in result.items():
        row = heard.get(target) or empty.get(target[0])
        if row:
            one.person, one.said_by, one.reason = True, "human", row["reason"]
            one.hidden = row["action"] == "suppress"
            if not one.hidden:
                one.label = row["label"]
    return result


def _layer_says(one: Outcome, row: Row, groups: str | None) -> None:
    action = row["action"]
    if action == "relabel":
        one.label = row["label"]
    if action in ("relabel", "rescore") and row.get("score") is not None:
        one.score = f32(row["score"])
    if action == "suppress" or (action != "group" and not one.hidden):
        one.said_by, one.reason = row["layer_id"], row["reason"]
    one.hidden |= action == "suppress"
    if groups == "occurrence" and row.get("group_id"):
        one.occurrence = row["group_id"]


def is_shown(world: World, one: Outcome) -> bool:
    least = world.label_thresholds.get(one.label, world.threshold)
    return not one.hidden and (one.person or np.float32(one.score) >= np.float32(least))


def rows_of_view(world: World, hidden: bool) -> list[tuple[Any, ...]]:
    """Return (media, path, rank, label, score, said_by, reason) for images with a present file."""
    rows = [
        (sha, rank, one.label, one.score, one.said_by or "", one.reason or "")
        for (sha, rank), one in outcomes(world).items()
        if (one.hidden if hidden else is_shown(world, one))
    ]
    if not hidden:
        rows += [(row["media_sha256"], NO_RANK, row["label"], NO_SCORE, "human", row["reason"]) for row in added(world)]
    return sorted((sha, image(world, sha).path, *more) for sha, *more in rows if is_present(world, sha))


def added(world: World) -> list[Row]:
    """Return the animals that people added and that no detection shows."""
    heard = {row["assertion_id"] for row in attached(world).values()}
    return [row for row in standing(world.human) if row["action"] == "add" and row["assertion_id"] not in heard]


def orphaned(world: World) -> list[tuple[str, bool]]:
    """Return (assertion_id, whether the image has detections) of statements that apply to no detection."""
    heard = {row["assertion_id"] for row in attached(world).values()}
    images = {sha for sha, _ in world.detections}
    return sorted(
        (row["assertion_id"], row["media_sha256"] in images)
        for row in standing(world.human)
        if box_of(row) and row["action"] != "add" and row["assertion_id"] not in heard
    )


def statuses(world: World) -> list[tuple[str, str]]:
    """Return (media, status) of every result."""
    busy = {sha for (sha, _), one in outcomes(world).items() if is_shown(world, one)}
    busy |= {row["media_sha256"] for row in added(world)}
    return sorted((sha, "ok" if sha in busy else "empty") for sha in world.results[world.key])


def is_present(world: World, sha: str) -> bool:
    return any(not file.missing for file in world.files[sha])


def image(world: World, sha: str) -> File:
    """Return the first present file of a content by path; all were catalogued at the same time."""
    return min((file for file in world.files[sha] if not file.missing), key=lambda file: file.path)


def events_by_image(world: World) -> dict[str, str]:
    said = newest_of_layers(world)
    found: dict[str, str] = {}
    for layer in world.in_view:
        if world.layers[layer] == "event":
            found |= {sha: row["group_id"] for (sha, rank), row in said[layer].items() if rank is None}
    return found


def events(world: World) -> list[tuple[Any, ...]]:
    """Return (event, images, MaxN by label, camera, start, end) for images with a present file."""
    images: defaultdict[str, list[str]] = defaultdict(list)
    for sha, event in events_by_image(world).items():
        if is_present(world, sha):
            images[event].append(sha)
    shown = {target: one for target, one in outcomes(world).items() if is_shown(world, one)}
    rows: list[tuple[Any, ...]] = []
    for event, shas in images.items():
        most: Counter[str] = Counter()
        for sha in shas:
            labels = [one.label for target, one in shown.items() if target[0] == sha]
            labels += [row["label"] for row in added(world) if row["media_sha256"] == sha]
            most |= Counter(labels)
        rows.append((event, len(shas), dict(most), *_where(world, shas)))
    return sorted(rows, key=lambda row: row[0])


def occurrences(world: World) -> list[tuple[Any, ...]]:
    """Return (occurrence, detections, label, best score, camera, start, end).

    The label is a person's, else the one with the largest sum of scores.
    """
    members: defaultdict[str, dict[Target, Outcome]] = defaultdict(dict)
    for target, one in outcomes(world).items():
        if one.occurrence and is_present(world, target[0]) and is_shown(world, one):
            members[one.occurrence][target] = one
    rows: list[tuple[Any, ...]] = []
    for name, all_of_it in members.items():
        label = _determined(all_of_it)
        best = max(one.score for one in all_of_it.values() if one.label == label)
        shas = {sha for sha, _ in all_of_it}
        rows.append((name, len(all_of_it), label, best, *_where(world, shas)))
    return sorted(rows, key=lambda row: row[0])


def _determined(members: Mapping[Target, Outcome]) -> str:
    said = {one.label for one in members.values() if one.person}
    weight: defaultdict[str, float] = defaultdict(float)
    for one in members.values():
        if not said or one.label in said:
            weight[one.label] += one.score
    return min(weight, key=lambda label: (-weight[label], label))


def _where(world: World, shas: Iterable[str]) -> tuple[str | None, datetime | None, datetime | None]:
    files = [image(world, sha) for sha in shas]
    times = [file.taken for file in files if file.taken]
    camera = min((file.camera for file in files if file.camera), default=None)
    return camera, min(times, default=None), max(times, default=None)
