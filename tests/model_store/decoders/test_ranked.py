"""Blobs of the motion runtime: padding is dropped, and a full list is saturated."""

import numpy as np
import pytest

from model_store.decoders.layout import DecodeSpec
from model_store.decoders.ranked import decode_blobs
from tests.model_store.test_detections import rows_of

BLOB = (1.0, 2.0, 3.0, 4.0)
PADDING = (0.0,) * 5


@pytest.mark.parametrize(
    ("blobs", "floor", "wanted", "saturated"),
    [
        ([PADDING, PADDING], 0.0, [], False),
        ([(*BLOB, 0.5), PADDING], 0.25, [(0.5, 0, BLOB)], False),
        ([(*BLOB, 0.5), (*BLOB, 0.25), PADDING], 0.5, [], False),
        ([(*BLOB, 0.5), (*BLOB, 0.25)], 0.125, [(0.5, 0, BLOB), (0.25, 0, BLOB)], True),
    ],
    ids=["nothing", "padding", "at the floor", "full"],
)
def test_rows_with_a_score_are_blobs(
    blobs: list[tuple[float, ...]], floor: float, wanted: list[tuple[float, int, tuple[float, ...]]], saturated: bool
) -> None:
    raw = {"blobs": np.array([blobs], np.float32)}
    (found,) = decode_blobs(raw, DecodeSpec((64, 64), 1, floor))
    assert rows_of(found) == wanted
    assert found.saturated is saturated
