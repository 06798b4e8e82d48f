"""Boxes and their labels are drawn on an image."""

from __future__ import annotations

import numpy as np
import pytest

from model_store.images.crops import Mark, draw_marks

RED, GREEN = (255, 0, 0), (0, 255, 0)


def drawn(size: tuple[int, int], box: tuple[float, ...], words: str = "") -> np.ndarray:
    canvas = np.zeros((*size, 3), np.uint8)
    draw_marks(canvas, [Mark(box, words, RED)])
    return canvas


@pytest.mark.parametrize("size", [(40, 60), (1500, 3000)])
def test_a_box_is_an_outline_that_grows_with_the_picture(size: tuple[int, int]) -> None:
    height, width = size
    canvas = drawn(size, (width * 0.25, height * 0.25, width * 0.75, height * 0.75))
    middle = canvas[height // 2, :, 0] > 0
    thick = max(1, round(2 * width / 1000))
    assert thick <= int(middle[: width // 2].sum()) <= thick + 2
    assert not canvas[height // 2, width // 2].any()
    assert not canvas[:, :, 1:].any(), "the colour is the canvas's own order of channels"


def area(canvas: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((canvas == colour).all(axis=2).sum())


@pytest.mark.parametrize("top", [0.0, 100.0])
def test_a_label_is_dark_on_a_light_background_within_the_picture(top: float) -> None:
    box = (10.0, top, 390.0, 390.0)
    canvas = drawn((400, 400), box, "deer 0.50")
    assert area(canvas, RED) - area(drawn((400, 400), box), RED) > 300
    letters = canvas[max(0, int(top) - 14) : int(top) + 12, 12:70]
    assert (letters.max(axis=2) < 80).sum() > 40


def test_labels_of_the_same_box_lie_beside_each_other() -> None:
    box, canvas = (100.0, 100.0, 200.0, 300.0), np.zeros((400, 400, 3), np.uint8)
    draw_marks(canvas, [Mark(box, "deer 0.50", RED), Mark(box, "deer 0.40", GREEN)])
    alone = area(drawn((400, 400), box, "deer 0.50"), RED)
    assert area(canvas, RED) > alone - 100, "the second hides at most part of the outline"
    assert area(canvas, GREEN) > 400


def test_a_label_without_a_free_place_is_left_out() -> None:
    box, canvas = (10.0, 10.0, 60.0, 40.0), np.zeros((50, 70, 3), np.uint8)
    draw_marks(canvas, [Mark(box, "deer", RED)] * 20 + [Mark(box, "deer", GREEN)])
    assert not area(canvas, GREEN), "all places have red labels, and the red box is on top"
