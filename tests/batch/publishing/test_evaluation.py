"""Precision, recall and calibration of small worlds, against loops over boxes and the definitions of the intervals."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archive.delta.tables import Tables
from archive.views.views import View, Views
from batch.publishing.evaluation import Evaluation, Fraction, evaluate
from batch.publishing.impact.result_sets import ResultSet
from batch.runs.scope import MediaScope
from model_store.errors import BadRequest
from tests.batch.publishing.impact.oracle import HALF, iou, pairs
from tests.batch.publishing.impact.scene import NEW, OLD, Seen, World, new_side, old_side, sha

BOX, AWAY = (0.0, 0.0, 40.0, 40.0), (100.0, 100.0, 140.0, 140.0)
DEER, FOX = ("deer", 0.75, BOX), ("fox", 0.75, BOX)
ANY = ("any label", "")
Z_95 = 1.959964


def evaluated(
    world: World, place: Path, model: ResultSet | None = None, scope: MediaScope | None = None, **more: Any
) -> Evaluation:
    tables = Tables(str(place / "tables"))
    if not (place / "tables").exists():
        world.write(tables)
        same = {"model_name": "m", "model_version": "1", "weights_sha256": "w"}
        Views(tables.url).publish(View(inference_key=OLD, **same), after=0)
    return evaluate(tables, model or new_side(0.5), scope or MediaScope(), **more)


CASES: list[tuple[list[tuple[str, str | None, Any]], list[Seen], str]] = [
    ([("keep", "deer", BOX)], [DEER], "found correct"),
    ([("keep", "deer", BOX)], [("deer", 0.25, BOX)], "missed"),
    ([("add", "deer", BOX)], [], "missed"),
    ([("relabel", "fox", BOX)], [DEER], "missed wrong"),
    ([("relabel", "fox", BOX)], [FOX], "found correct"),
    ([("keep", "deer", BOX)], [DEER, ("deer", 0.75, AWAY)], "found correct undecided"),
    ([("keep", "deer", BOX)], [DEER, DEER], "found correct undecided"),
    ([("keep", "deer", BOX), ("suppress", None, AWAY)], [DEER, ("fox", 0.75, AWAY)], "found correct wrong"),
    ([("suppress", None, BOX)], [DEER], "wrong"),
    ([("suppress", None, AWAY)], [DEER], "undecided"),
    ([("suppress", None, None)], [DEER, ("fox", 0.75, AWAY)], "wrong wrong"),
    ([("suppress", None, None)], [], ""),
]


def test_what_statements_decide(tmp_path: Path) -> None:
    """Each case is an image of a camera of its own."""
    world = World()
    for number, (said, seen, _) in enumerate(CASES):
        world.image(f"{number:03d}", [DEER], seen, cameras=[f"{number:03d}"])
        for statement in said:
            world.say(statement[0], f"{number:03d}", *statement[1:])
    found = {group.name: group for group in evaluated(world, tmp_path).groups if group.by == "camera"}
    for number, (*_, expected) in enumerate(CASES):
        group, words = found.get(f"{number:03d}"), Counter(expected.split())
        counts = (group.found, group.stated, group.correct, group.wrong, group.undecided) if group else (0,) * 5
        stated = words["found"] + words["missed"]
        assert counts == (words["found"], stated, words["correct"], words["wrong"], words["undecided"]), CASES[number]


def random_world(seed: int) -> World:
    """Return images with up to three boxes each; people state most of them, at the corners of the model or others."""
    rng, world = np.random.default_rng(seed), World()
    for number in range(60):
        name, seen, said = f"{number:03d}", list[Seen](), list[Any]()
        for place in range(3):
            box = tuple(float(x) for x in np.array([0, 0, 40, 40]) + 100 * place)
            model, person, shift = rng.choice(["deer", "fox"]), rng.choice(["deer", "fox"]), float(rng.integers(0, 30))
            if rng.random() < 0.7:
                seen.append((str(model), float(np.float32(rng.random())), box))
            if rng.random() < 0.7:
                moved = (box[0] + shift, box[1], box[2] + shift, box[3])
                action = str(rng.choice(["relabel", "add", "suppress"]))
                said.append((action, None if action == "suppress" else str(person), moved))
        world.image(name, [], seen, cameras=[str(rng.choice(["c1", "c2"]))])
        for statement in said:
            world.say(statement[0], name, *statement[1:])
    return world


def oracle(world: World, threshold: float) -> tuple[dict[tuple[str, str], Counter[str]], list[tuple[float, bool]]]:
    """Return the counts by group, and the score of each decided detection with whether it is correct."""
    groups = {ANY: Counter[str]()}
    decided: list[tuple[float, bool]] = []

    def count(what: str, name: str, label: str) -> None:
        for key in (("all", ""), ("label", label), ("camera", str(world.files[name][0][0]))):
            groups.setdefault(key, Counter())[what] += 1

    names = {sha(name): name for name in world.files}
    by_image: dict[str, list[dict[str, Any]]] = {}
    for row in world.said:
        by_image.setdefault(names[row["media_sha256"]], []).append(row)
    for name, rows in by_image.items():
        corners = {id(r): (r["x1_px"], r["y1_px"], r["x2_px"], r["y2_px"]) for r in rows}
        truth = [(n, r["label"], 1, corners[id(r)]) for n, r in enumerate(rows) if r["action"] != "suppress"]
        denied = [corners[id(r)] for r in rows if r["action"] == "suppress"]
        boxes = [(n, *seen) for n, seen in enumerate(world.new[name] or ()) if seen[1] >= threshold]
        matched = pairs(truth, boxes)
        for i, o in enumerate(truth):
            count("stated", name, o[1])
            if any(a == i and boxes[b][1] == o[1] for a, b in matched):
                count("found", name, o[1])
            groups[ANY]["stated"] += 1
            groups[ANY]["found"] += any(a == i for a, _ in matched)
        for j, n in enumerate(boxes):
            of = [truth[a][1] for a, b in matched if b == j]
            if not of and not any(iou(n[3], box) >= HALF for box in denied):
                count("undecided", name, n[1])
                groups[ANY]["undecided"] += 1
                continue
            right = of == [n[1]]
            count("correct" if right else "wrong", name, n[1])
            groups[ANY]["correct" if of else "wrong"] += 1
            decided.append((n[2], right))
    return groups, decided


@pytest.mark.parametrize("seed", [0, 1])
def test_counts_and_calibration_are_those_of_loops(tmp_path: Path, seed: int) -> None:
    world = random_world(seed)
    groups, decided = oracle(world, 0.5)
    found = evaluated(world, tmp_path)
    names = ("stated", "found", "correct", "wrong", "undecided")
    assert {(g.by, g.name or ""): {n: getattr(g, n) for n in names if getattr(g, n)} for g in found.groups} == groups
    assert min(groups["all", ""][name] for name in names) > 2, "the world has every kind"
    assert groups["all", ""]["correct"] < groups[ANY]["correct"]
    for group in found.groups:
        check_interval(group.precision, group.correct, group.correct + group.wrong)
        check_interval(group.recall, group.found, group.stated)
    scores, right = np.array([s for s, _ in decided]), np.array([r for _, r in decided])
    places = np.minimum((scores * 10).astype(int), 9)
    errors = [abs(scores[places == p].mean() - right[places == p].mean()) * (places == p).sum() for p in set(places)]
    assert found.calibration_error == pytest.approx(sum(errors) / len(decided))
    assert [round(b.from_score * 10) for b in found.bins] == sorted(set(places.tolist()))
    assert [b.detections for b in found.bins] == [int((places == p).sum()) for p in sorted(set(places.tolist()))]


def check_interval(found: Fraction, part: int, whole: int) -> None:
    """Both limits p satisfy |part / whole - p| = z sqrt(p (1 - p) / whole), which defines Wilson's interval."""
    if not whole:
        assert found == Fraction(value=None, low=None, high=None)
        return
    assert found.value == part / whole
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high
    for limit in (found.low, found.high):
        assert abs(found.value - limit) == pytest.approx(Z_95 * math.sqrt(limit * (1 - limit) / whole), abs=1e-9)


def test_the_report_says_which_images_it_is_of(tmp_path: Path) -> None:
    world = World()
    for number in range(6):
        world.image(str(number), [DEER], [DEER] if number else None)
    for number in range(5):
        world.say("keep", str(number), "deer", BOX)
    part = evaluated(world, tmp_path).sample
    assert (part.reviewed, part.population, part.unseen, part.at_random) == (5, 6, 1, False)
    assert "5 of 6 images are reviewed, 1 of them without a result of this model, which people chose" in part.words
    samples = [evaluated(world, tmp_path, old_side(0.5), random=n, seed=3).sample for n in range(1, 7)]
    complete = [sample.at_random for sample in samples]
    assert [sample.drawn for sample in samples] == [1, 2, 3, 4, 5, 6]
    assert complete == sorted(complete, reverse=True)
    assert (complete[0], complete[-1]) == (True, False), "the unreviewed image is not the first one of this seed"
    assert samples[0].words == "1 of 1 images drawn at random from 6 are reviewed: an unbiased estimate"
    assert "resight select --by random --count 6 --seed 3" in samples[-1].words
    sample = evaluated(world, tmp_path, old_side(0.5), MediaScope(sample=6)).sample
    assert (sample.reviewed, sample.drawn, sample.at_random) == (5, 6, False)
    world = World().image("0", [("deer", 0.7, BOX), ("fox", 0.75, AWAY)]).say("keep", "0", "deer", BOX)
    partly = evaluated(world, tmp_path / "partly", old_side(0.5), random=1)
    assert [place.from_score for place in partly.bins] == [0.7], "scores have 32 bits: 0.7 is just below it in 64"
    assert partly.sample.words.endswith(
        "are reviewed: an unbiased estimate, but precision leaves out 1 undecided detections"
    )
    unseen = evaluated(world, tmp_path, scope=MediaScope(path="*/0.jpg")).sample
    assert (unseen.reviewed, unseen.population, unseen.unseen, unseen.at_random) == (1, 1, 1, False)
    with pytest.raises(BadRequest, match="camera 'c9'"):
        evaluated(world, tmp_path, scope=MediaScope(camera=("c9",)))


def test_without_statements_there_is_nothing_to_count(tmp_path: Path) -> None:
    found = evaluated(World().image("a", [DEER], [DEER]), tmp_path, ResultSet(name="new", inference_key=NEW))
    assert (found.bins, found.calibration_error, found.sample.at_random) == ((), None, False)
    assert [(g.by, g.stated, g.precision.value) for g in found.groups] == [("all", 0, None), ("any label", 0, None)]
