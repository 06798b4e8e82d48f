"""Boxes on a picture."""

from __future__ import annotations

import numpy as np
import pytest

from model_store.drawing import draw_box

RED = (255, 0, 0)


def drawn(size: tuple[int, int], box: tuple[float, ...], words: str = "") -> np.ndarray:
    canvas = np.zeros((*size, 3), np.uint8)
    draw_box(canvas, box, words, RED)
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


def test_words_stand_at_the_corner_and_inside_the_picture() -> None:
    box = (10.0, 0.0, 390.0, 390.0)
    words = drawn((400, 400), box, "deer 0.50").astype(int) - drawn((400, 400), box)
    assert np.abs(words[:30, 10:150]).sum() > 0
    assert np.abs(words[60:]).sum() == 0


@pytest.mark.parametrize("words", ["", "ü\x00\u202e" * 50, "x" * 5000])
def test_any_words_and_any_box_can_be_drawn(words: str) -> None:
    drawn((30, 30), (-500.0, -500.0, 5000.0, 5000.0), words)
    drawn((1, 1), (0.0, 0.0, 0.0, 0.0), words)
