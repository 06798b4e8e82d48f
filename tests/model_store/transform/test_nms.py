"""Compare suppression with the plain loops of the oracle, on sets full of ties and empty boxes."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model_store.config import Nms
from model_store.transform.nms import suppress
from tests.model_store.test_detections import detections, rows_of
from tests.oracles.nms import nms

# Few different values, so that equal scores, equal boxes, IoU exactly at the threshold, inverted boxes
# and boxes without area are common.
corners = st.integers(0, 6).map(float)
boxes = st.tuples(corners, corners, corners, corners)
rows = st.tuples(st.sampled_from([0.25, 0.5, 0.75]), st.integers(0, 2), boxes)
thresholds = st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 2 / 3, 1.0])

SAME = (0.0, 0.0, 4.0, 4.0)


@given(st.lists(rows, max_size=24), thresholds, st.booleans(), st.integers(1, 12))
@example([], 0.5, True, 1)
@example([(0.5, 0, SAME)] * 4, 0.5, True, 1)
@example([(0.5, 0, (1.0, 1.0, 1.0, 5.0))] * 3, 0.0, False, 2)
@settings(deadline=None, max_examples=80)
def test_the_kept_boxes_are_the_oracles(
    candidates: list[tuple[float, int, tuple[float, ...]]], iou: float, aware: bool, most: int
) -> None:
    found = detections(candidates)
    spec = Nms(iou=iou, class_aware=aware, max_detections=most)
    every = nms(
        [box for _, _, box in candidates],  # type: ignore[misc]
        [score for score, _, _ in candidates],
        [class_id for _, class_id, _ in candidates],
        threshold=iou,
        class_aware=aware,
    )
    wanted = found.select(np.array(every[:most], np.intp)).ranked()
    kept = suppress(found, spec)
    assert rows_of(kept) == rows_of(wanted)
    assert kept.saturated == (len(every) > most)


@pytest.mark.parametrize(("count", "most", "saturated"), [(0, 1, False), (2, 3, False), (3, 3, False), (4, 3, True)])
@pytest.mark.parametrize("kind", ["greedy", "none"])
def test_saturated_means_that_some_were_cut_off(kind: str, count: int, most: int, saturated: bool) -> None:
    apart = detections([(0.5, 0, (10.0 * i, 0, 10.0 * i + 5, 5)) for i in range(count)])
    kept = suppress(apart, Nms(kind=kind, max_detections=most))  # type: ignore[arg-type]
    assert len(kept) == min(count, most)
    assert kept.saturated is saturated


def test_kind_none_ranks_and_keeps_overlapping_boxes() -> None:
    found = detections([(0.25, 0, SAME), (0.75, 0, SAME), (0.5, 1, SAME)])
    kept = suppress(found, Nms(kind="none"))
    assert rows_of(kept) == [(0.75, 0, SAME), (0.5, 1, SAME), (0.25, 0, SAME)]


@given(st.lists(rows, max_size=24), thresholds, st.sampled_from([0.5, 1.0, 2.0]))
@settings(deadline=None, max_examples=80)
def test_inclusive_pixels_are_the_oracles(
    candidates: list[tuple[float, int, tuple[float, ...]]], iou: float, pixel: float
) -> None:
    """YOLOX's own suppression adds one pixel of the image to every side."""
    found = detections(candidates)
    kept = suppress(found, Nms(iou=iou, inclusive_px=True), image_px=pixel)
    every = nms(
        [box for _, _, box in candidates],  # type: ignore[misc]
        [score for score, _, _ in candidates],
        [class_id for _, class_id, _ in candidates],
        threshold=iou,
        class_aware=True,
        one_px=pixel,
    )
    assert rows_of(kept) == rows_of(found.select(np.array(every, np.intp)).ranked())


def test_of_equal_scores_the_first_candidate_stays() -> None:
    apart, near = (0.0, 0.0, 4.0, 4.0), (1.0, 0.0, 5.0, 4.0)
    for first, second in ((apart, near), (near, apart)):
        found = detections([(0.5, 0, first), (0.5, 0, second)])
        assert rows_of(suppress(found, Nms(iou=0.5))) == [(0.5, 0, first)]
