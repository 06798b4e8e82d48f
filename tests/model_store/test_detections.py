"""Detections keep their columns consistent, and have a total order."""

import numpy as np
import pytest

from model_store.detections import Detections


def detections(rows: list[tuple[float, int, tuple[float, ...]]]) -> Detections:
    """Return detections from tuples (score, class id, box)."""
    return Detections(
        np.array([box for _, _, box in rows], np.float32).reshape(-1, 4),
        np.array([score for score, _, _ in rows], np.float32),
        np.array([class_id for _, class_id, _ in rows], np.int32),
    )


def rows_of(found: Detections) -> list[tuple[float, int, tuple[float, ...]]]:
    columns = zip(found.scores, found.class_ids, found.boxes_xyxy, strict=True)
    return [(float(s), int(c), tuple(map(float, box))) for s, c, box in columns]


@pytest.mark.parametrize(
    ("boxes", "scores", "class_ids"), [((0, 5), 0, 0), ((4,), 1, 1), ((1, 4), 2, 2), ((2, 4), 2, 3)]
)
def test_columns_that_do_not_go_together_are_refused(boxes: tuple[int, ...], scores: int, class_ids: int) -> None:
    with pytest.raises(ValueError, match=rf"for {scores} scores"):
        Detections(np.zeros(boxes, np.float32), np.zeros(scores, np.float32), np.zeros(class_ids, np.int32))


def test_rank_is_score_then_class_then_each_corner() -> None:
    ordered = [
        (0.75, 9, (9, 9, 9, 9)),
        (0.5, 0, (5, 5, 5, 5)),
        (0.5, 1, (1, 2, 3, 4)),
        (0.5, 1, (1, 2, 3, 5)),
        (0.5, 1, (1, 2, 4, 0)),
        (0.5, 1, (1, 3, 0, 0)),
        (0.5, 1, (2, 0, 0, 0)),
        (0.25, 0, (0, 0, 0, 0)),
    ]
    for seed in range(5):
        shuffled = [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
        assert rows_of(detections(shuffled).ranked()) == ordered


def test_select_takes_positions_or_a_mask_and_keeps_saturated() -> None:
    three = detections([(0.5, 0, (0, 0, 1, 1)), (0.25, 1, (0, 0, 2, 2)), (0.75, 2, (0, 0, 3, 3))])
    full = Detections(three.boxes_xyxy, three.scores, three.class_ids, saturated=True)
    assert rows_of(full.select(np.array([2, 0]))) == [rows_of(three)[2], rows_of(three)[0]]
    assert rows_of(full.select(np.array([False, True, False]))) == [rows_of(three)[1]]
    assert full.select(np.array([1])).saturated
    assert full.ranked().saturated
