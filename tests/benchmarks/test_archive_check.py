"""archive.check: what counts as agreement with Detector."""

from typing import Any

import pytest

from benchmarks.peers.archive.check import EXACT, LOOSER, differences

BOX = [10.0, 20.0, 110.0, 220.0]


def rows(*detections: tuple[str, float, list[float]], path: str = "/a.jpg", error: str | None = None):
    found = [{"label": name, "score": score, "box": box} for name, score, box in detections]
    return [{"path": path, "error": error, "detections": found}]


def wanted(*detections: tuple[str, float, list[float]], path: str = "/a.jpg", error: str | None = None):
    found = [{"label": n, "score": s, "box_xyxy_px": box} for n, s, box in detections]
    return {path: {"error": error, "detections": found}}


CAT = ("cat", 0.9, BOX)


def test_rounding_is_no_difference():
    near = ("cat", 0.9009, [value + 0.4 for value in BOX])
    assert differences(rows(near), wanted(CAT), set(), EXACT) == []


@pytest.mark.parametrize("other", [("dog", 0.9, BOX), ("cat", 0.902, BOX), ("cat", 0.9, [BOX[0] + 0.6, *BOX[1:]])])
def test_another_label_score_or_box_differs(other: Any):
    said = differences(rows(other), wanted(CAT), set(), EXACT)
    assert len(said) == 2  # what is missing, and what is there instead


def test_unreadable_for_one_alone_differs_but_how_it_is_said_does_not():
    assert differences(rows(error="no"), wanted(error="no picture"), set(), EXACT) == []
    assert differences(rows(error="no"), wanted(), set(), EXACT)
    assert differences(rows(), wanted(error="no"), set(), EXACT)
    assert differences(rows(error="no"), wanted(CAT), {"/a.jpg"}, EXACT) == []


def test_looser_bounds_hold_to_the_stronger_detections():
    weak = ("dog", 0.2, BOX)
    moved = ("cat", 0.8, [10.0, 20.0, 115.0, 225.0])
    assert differences(rows(moved), wanted(CAT, weak), set(), LOOSER) == []
    elsewhere = ("cat", 0.9, [10.0, 20.0, 110.0, 160.0])
    assert len(differences(rows(elsewhere), wanted(CAT), set(), LOOSER)) == 2
