"""Compare the grid of exemplars with a search over all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.filters.support.box_clusters import LEAST_IOU, match


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(0, 60)] * 2, *[st.floats(0.01, 300)] * 2, st.integers(0, 1)), max_size=40),
    st.floats(LEAST_IOU, 1),
)
def test_the_grid_matches_a_search_over_all_exemplars(
    given: list[tuple[float, float, float, float, int]], min_iou: float
) -> None:
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in given]).reshape(-1, 4)
    # similar boxes, which are rare in random data
    boxes = np.concatenate((boxes, boxes * 1.01, boxes + 0.2, boxes + np.array([0, 0, 0.5, 0])))
    labels = np.resize(np.array([one[4] for one in given] or [0]), len(boxes))
    exemplars: list[int] = []
    wanted = []
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        best, best_iou = i, 0.0
        for j in exemplars:
            a1, b1, a2, b2 = boxes[j].tolist()
            wide, high = min(x2, a2) - max(x1, a1), min(y2, b2) - max(y1, b1)
            shared = max(wide, 0) * max(high, 0)
            iou = shared / ((a2 - a1) * (b2 - b1) + (x2 - x1) * (y2 - y1) - shared)
            if labels[i] == labels[j] and iou >= min_iou and iou > best_iou:
                best, best_iou = j, iou
        exemplars += [i] if best == i else []
        wanted.append((best, best_iou if best != i else 1.0))
    found, overlap = match(boxes, labels, min_iou)
    assert list(zip(found.tolist(), overlap.tolist(), strict=True)) == wanted


@pytest.mark.parametrize("min_iou", [LEAST_IOU, 0.9, 0.99, 1.0])
def test_the_grid_finds_boxes_that_barely_match(min_iou: float) -> None:
    """The box is longer or shorter than the exemplar, at either end, or shifted: the extreme matches."""
    by_lot = np.random.default_rng(1)
    change = min(1.0, min_iou + 1e-7)
    for _ in range(500):
        x, y = by_lot.uniform(0, 2000, 2)
        width, height = np.exp(by_lot.uniform(0, 6, 2))
        longer, shift = width / change, width * (1 - change) / (1 + change)
        for low, high in (
            (x, x + longer),
            (x + width - longer, x + width),
            (x, x + width * change),
            (x + width * (1 - change), x + width),
            (x + shift, x + width + shift),
            (x - shift, x + width - shift),
        ):
            box = np.array([[x, y, x + width, y + height], [low, y, high, y + height]])
            for pair in (box, box[:, [1, 0, 3, 2]]):
                if min_iou == 1:
                    pair[1] = pair[0]
                found, _ = match(pair, np.zeros(2, np.intp), min_iou)
                assert found.tolist() == [0, 0], pair
