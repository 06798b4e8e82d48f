"""Tiles and their merging on numbers worked out by hand."""

from __future__ import annotations

import pytest

from tests.oracles.anchor_decoders import Box
from tests.oracles.tiling import grid, merge, overlap, tiles


@pytest.mark.parametrize(
    ("length", "tile", "overlap_frac", "starts"),
    [
        (80, 100, 0.25, [0]),
        (100, 100, 0.25, [0]),
        (101, 100, 0.25, [0, 1]),
        (175, 100, 0.25, [0, 75]),  # a step of 75 just reaches
        (176, 100, 0.25, [0, 38, 76]),
        (250, 100, 0.5, [0, 50, 100, 150]),
        (300, 100, 0.0, [0, 100, 200]),
        (261, 100, 0.25, [0, 54, 107, 161]),  # thirds of 161: 53.67, 107.33
        (9, 4, 0.25, [0, 2, 5]),  # 2.5 goes to the even 2
        (15, 8, 0.5, [0, 4, 7]),  # 3.5 to 4
        (10, 5, 0.5, [0, 2, 3, 5]),  # steps of floor(2.5); 1.67, 3.33
        (4, 2, 0.75, [0, 1, 2]),  # floor(0.5) is 0, and a step at least 1
    ],
)
def test_starts_of_an_axis(length: int, tile: int, overlap_frac: float, starts: list[int]) -> None:
    assert grid(length, tile, overlap_frac) == starts


def test_tiles_go_row_by_row_and_the_whole_image_comes_last() -> None:
    four = [(0, 0, 4, 4), (3, 0, 4, 4), (0, 2, 4, 4), (3, 2, 4, 4)]
    assert tiles(7, 6, 4, 0.25, False) == four
    assert tiles(7, 6, 4, 0.25, True) == [*four, (0, 0, 7, 6)]


def test_a_short_axis_has_tiles_of_its_own_length() -> None:
    assert tiles(7, 2, 4, 0.25, True) == [(0, 0, 4, 2), (3, 0, 4, 2), (0, 0, 7, 2)]
    assert tiles(3, 5, 4, 0.25, False) == [(0, 0, 3, 4), (0, 1, 3, 4)]


@pytest.mark.parametrize(("w", "h"), [(4, 4), (3, 2)])
def test_one_tile_is_the_whole_image_already(w: int, h: int) -> None:
    assert tiles(w, h, 4, 0.25, True) == [(0, 0, w, h)]


def test_measures_by_hand() -> None:
    big, small = (0.0, 0.0, 10.0, 10.0), (8.0, 0.0, 12.0, 5.0)  # areas 100 and 20, shared 10
    assert overlap(big, small, "iou") == 10 / 110
    assert overlap(big, small, "smaller") == overlap(small, big, "smaller") == 0.5
    assert overlap(big, (2.0, 2.0, 4.0, 4.0), "smaller") == 1
    assert overlap(big, (20.0, 0.0, 30.0, 10.0), "smaller") == 0
    assert overlap(big, (3.0, 3.0, 3.0, 9.0), "smaller") == 0
    assert overlap(big, (3.0, 3.0, 3.0, 9.0), "iou") == 0
    with pytest.raises(ValueError, match="no measure 'larger'"):
        overlap(big, small, "larger")


def wide(x1: float, x2: float, score: float, class_id: int = 0) -> Box:
    """A box 10 px high at the top."""
    return Box(x1, 0, x2, 10, score, class_id)


# Left and right share 8 of 12 columns: IoU 2/3, 0.8 of the smaller.
LEFT, RIGHT = wide(0, 10, 0.5), wide(2, 12, 0.75)


def test_boxes_of_two_tiles_clash() -> None:
    assert merge([[LEFT], [RIGHT]], "best", "iou", 0.5, True, 10) == ([RIGHT], False)
    grown = wide(0, 12, 0.75)
    assert merge([[LEFT], [RIGHT]], "union", "iou", 0.5, True, 10) == ([grown], False)
    both = ([RIGHT, LEFT], False)
    assert merge([[LEFT], [RIGHT]], "best", "iou", 0.7, True, 10) == both
    assert merge([[LEFT], [RIGHT]], "best", "smaller", 0.7, True, 10) == ([RIGHT], False)
    assert merge([[LEFT], [RIGHT]], "best", "smaller", 0.8, True, 10) == both  # strictly
    assert merge([[LEFT], [RIGHT]], "union", "iou", 80 / 120, True, 10) == both


@pytest.mark.parametrize("kind", ["best", "union"])
def test_boxes_of_one_tile_never_clash(kind: str) -> None:
    assert merge([[LEFT, RIGHT], []], kind, "iou", 0.5, True, 10) == ([RIGHT, LEFT], False)
    # The third is kept beside a box of its own tile; the fourth, of another, meets both.
    third, fourth = wide(1, 11, 0.25), wide(1, 11, 0.125)
    found, _ = merge([[LEFT, third], [fourth]], kind, "iou", 0.5, True, 10)
    assert found == [wide(0, 11 if kind == "union" else 10, 0.5), third]


def test_classes_matter_or_not() -> None:
    other = RIGHT._replace(class_id=1)
    parts = [[LEFT], [other]]
    assert merge(parts, "union", "iou", 0.5, True, 10) == ([other, LEFT], False)
    grown = wide(0, 12, 0.75, 1)  # the class stays that of the better box
    assert merge(parts, "union", "iou", 0.5, False, 10) == ([grown], False)


def test_ties_go_by_tile_and_then_by_place() -> None:
    a, b, c = wide(0, 10, 0.5), wide(1, 11, 0.5), wide(40, 50, 0.5)
    assert merge([[a], [b]], "best", "iou", 0.5, True, 10) == ([a], False)
    assert merge([[b], [a]], "best", "iou", 0.5, True, 10) == ([b], False)
    assert merge([[c], [b, a]], "best", "iou", 0.5, True, 10)[0] == [c, b, a]
    assert merge([[], [c, a]], "best", "iou", 0.5, True, 10)[0] == [c, a]


def test_a_dropped_box_drops_nothing() -> None:
    # Each shares 6 of 14 columns with the next (3/7), the outer two 2 of 18.
    chain = [[wide(0, 10, 0.75)], [wide(4, 14, 0.5)], [wide(8, 18, 0.25)]]
    found, _ = merge(chain, "best", "iou", 0.4, True, 10)
    assert found == [wide(0, 10, 0.75), wide(8, 18, 0.25)]


def test_a_grown_box_is_compared_as_it_came_in() -> None:
    # Grown to 0..14, the first would share 6 of the third's 10 columns; as it came in, 2.
    chain = [[wide(0, 10, 0.75)], [wide(4, 14, 0.5)], [wide(8, 18, 0.25)]]
    found, _ = merge(chain, "union", "smaller", 0.5, True, 10)
    assert found == [wide(0, 14, 0.75), wide(8, 18, 0.25)]


def test_a_box_grows_by_all_it_absorbs_in_every_direction() -> None:
    first = Box(10, 10, 20, 20, 0.75, 0)
    parts = [[first], [Box(8, 11, 18, 21, 0.5, 0)], [Box(12, 7, 22, 17, 0.25, 0)]]
    found, _ = merge(parts, "union", "iou", 0.25, True, 10)  # they share 72 and 56 px
    assert found == [Box(8, 7, 22, 21, 0.75, 0)]


def test_only_the_first_box_it_clashes_with_grows() -> None:
    # The middle one shares 6 columns with each, and no more with the worse than with the better.
    better, worse, middle = wide(0, 10, 0.75), wide(8, 18, 0.5), wide(4, 14, 0.25)
    found, _ = merge([[better], [worse], [middle]], "union", "smaller", 0.5, True, 10)
    assert found == [wide(0, 14, 0.75), worse]
    # Even where it shares more with the worse: 9 columns.
    middle = wide(7, 17, 0.25)
    found, _ = merge([[better], [worse], [middle]], "union", "smaller", 0.25, True, 10)
    assert found == [wide(0, 17, 0.75), worse]
    # Not with one of its own tile.
    found, _ = merge([[better, middle], [worse]], "union", "smaller", 0.25, True, 10)
    assert found == [better, wide(7, 18, 0.5)]


def test_the_cut_comes_last() -> None:
    apart = [wide(0, 10, 0.25), wide(20, 30, 0.75), wide(40, 50, 0.5)]
    best_first = [apart[1], apart[2], apart[0]]
    for limit in range(4):
        expected = (best_first[:limit], limit < 3)
        assert merge([apart], "best", "iou", 0.5, True, limit) == expected
    # Two of four are dropped, so two are not too many.
    parts = [[LEFT, apart[2]], [RIGHT, wide(41, 51, 0.125)]]
    assert merge(parts, "best", "iou", 0.5, True, 2) == ([RIGHT, apart[2]], False)
    # The worst box still grows the best, though another was already cut.
    parts = [[wide(0, 10, 0.75), wide(40, 50, 0.5)], [wide(2, 12, 0.25)]]
    assert merge(parts, "union", "iou", 0.5, True, 1) == ([wide(0, 12, 0.75)], True)


def test_no_boxes() -> None:
    assert merge([], "union", "iou", 0.5, True, 10) == ([], False)
    assert merge([[], []], "union", "smaller", 0.5, True, 0) == ([], False)
