"""Detections with equal scores in a golden probe depend on rounding, and need not be reproduced."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model_store.adding.add import NoisySession, mark_ties
from model_store.config import Nms
from model_store.detector import LoadedDetector
from model_store.errors import ModelRefused, ProbeFailed
from model_store.probe import EXPECTED, check_probe, record_probe
from tests.model_store.test_probe import detector
from tests.shared_data import photo

CLASSES = 80
Rows = NDArray[np.float32]


class Fixed:
    """A session that returns rows x, y, w, h, score of class 3, with a noise in each score by the input's bits."""

    device = "cpu"

    def __init__(self, rows: list[tuple[float, ...]], ties: int) -> None:
        """The first `ties` rows have equal scores up to 1e-6, in an order that depends on the input."""
        self._rows, self._ties = np.array(rows, np.float32), ties

    def run(self, tensor: NDArray[np.float32]) -> Mapping[str, Rows]:
        seed = int.from_bytes(tensor.tobytes()[: 2**16], "little") % 2**32
        output = np.zeros((len(tensor), 4 + CLASSES, len(self._rows)), np.float32)
        output[:, :4], output[:, 7] = self._rows[:, :4].T, self._rows[:, 4]
        output[:, 7, : self._ties] += np.random.default_rng(seed).permutation(self._ties) * 1e-6
        return {"output0": output}


def model(rows: list[tuple[float, ...]], ties: int, **nms: Any) -> LoadedDetector:
    shipped = detector()
    config = shipped.config.model_copy(update={"nms": Nms(**nms)})
    labels = tuple(f"c{i}" for i in range(CLASSES))
    info = replace(shipped.info, labels=labels)
    return replace(shipped, config=config, info=info, session=Fixed(rows, ties))


def elsewhere(one: LoadedDetector, draw: int) -> LoadedDetector:
    """Return the model on a machine that rounds numbers differently."""
    session = NoisySession(one.session)
    for _ in range(draw):
        session.run(np.zeros((1, 3, 300, 300), np.float32))
    return replace(one, session=session)


def recorded(one: LoadedDetector) -> dict[str, bytes]:
    files = record_probe(one, {"cat.jpg": photo("cat")})
    return files | mark_ties(one, files)


GROUP = [(100 + 8 * i, 100, 60, 60, 0.6) for i in range(6)]
"""Boxes with one score, each overlapping its neighbours."""
SURE = (220.0, 220.0, 50.0, 50.0, 0.9)


def test_what_suppression_keeps_of_equal_scores_may_differ() -> None:
    one = model([*GROUP, SURE], ties=len(GROUP))
    files = recorded(one)
    rows = json.loads(files[EXPECTED])["images"]["cat.jpg"]
    assert "tied" not in rows[0]
    assert any(row.get("tied") for row in rows)
    unmarked, failed = record_probe(one, {"cat.jpg": photo("cat")}), 0
    for draw in range(DRAWS_ELSEWHERE):
        check_probe(elsewhere(one, draw), files)
        try:
            check_probe(elsewhere(one, draw), unmarked)
        except ProbeFailed:
            failed += 1
    assert failed


DRAWS_ELSEWHERE = 6


def test_what_is_not_tied_still_binds() -> None:
    files = recorded(model([*GROUP, SURE], ties=len(GROUP)))
    for changed, said in (
        ((220.0, 220.0, 50.0, 50.0, 0.8), "expected c3 0.900"),
        ((220.0, 180.0, 50.0, 50.0, 0.9), "expected c3 0.900"),
    ):
        with pytest.raises(ProbeFailed, match=said):
            check_probe(model([*GROUP, changed], ties=len(GROUP)), files)
    for extra in ((100.0, 100.0, 60.0, 60.0, 0.8), (220.0, 60.0, 40.0, 40.0, 0.6)):
        with pytest.raises(ProbeFailed, match="unexpected c3"):
            check_probe(model([*GROUP, SURE, extra], ties=len(GROUP)), files)


def test_a_probe_of_ties_alone_is_refused_with_the_way_out() -> None:
    with pytest.raises(ModelRefused, match=r"cannot distinguish ssdlite-coco@1 .*another image with --probe"):
        recorded(model(GROUP, ties=len(GROUP)))


APART = [(25.0 + 50 * (i % 6), 25.0 + 50 * (i // 6), 30.0, 30.0, 0.6) for i in range(36)]


def test_a_list_cut_among_equal_scores_may_end_otherwise() -> None:
    one = model([*APART, (150.0, 150.0, 290.0, 290.0, 0.9)], ties=36, max_detections=10)
    files = recorded(one)
    assert json.loads(files[EXPECTED])["full"] == ["cat.jpg"]
    for draw in range(DRAWS_ELSEWHERE):
        check_probe(elsewhere(one, draw), files)
    low = model([*APART, (150.0, 150.0, 290.0, 290.0, 0.7)], ties=36, max_detections=10)
    with pytest.raises(ProbeFailed, match="expected c3 0.900"):
        check_probe(low, files)


def test_nothing_found_and_little_above_the_floor_are_no_ties() -> None:
    floor = detector().config.score_floor
    for rows in ([(1.0, 1.0, 1.0, 1.0, 0.0)], [(*GROUP[0][:4], floor + 0.01)]):
        recorded(model(rows, ties=0))


def test_a_recording_without_ties_is_written_as_before() -> None:
    one = detector()
    files = record_probe(one, {"cat.jpg": photo("cat")})
    expected = json.loads((files | mark_ties(one, files))[EXPECTED])
    assert expected.keys() == {"tolerance", "images"}
    assert all(row.keys() == {"label", "score", "box_xyxy_px"} for row in expected["images"]["cat.jpg"])


def test_the_nearest_counterpart_is_taken() -> None:
    """Two boxes match each other's counterpart: the first must not take the second's."""
    rows = [(100.0, 100.0, 100.0, 100.0, 0.6), (103.0, 100.0, 100.0, 100.0, 0.61)]
    one = model(rows, ties=0, kind="none")
    files = record_probe(one, {"cat.jpg": photo("cat")})
    moved = [(101.5, 100.0, 100.0, 100.0, 0.611), (97.5, 100.0, 100.0, 100.0, 0.6)]
    check_probe(model(moved, ties=0, kind="none"), files)
