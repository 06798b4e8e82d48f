"""Encode random boxes for a decoder and decode them again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.decoders import DECODERS
from model_store.decoders.layout import DecodeSpec
from tests.model_store.decoders.test_every_decoder import columns, wanted
from tests.oracles.anchor_decoders import Box
from tests.oracles.decoders import ORACLES
from tests.oracles.tensors import encode

SIDE_PX, CLASSES, FLOOR = 64, 5, 0.05

places = st.floats(-20, SIDE_PX + 20, width=32)
sizes = st.floats(0.5, SIDE_PX, width=32)
corners = st.tuples(places, places, sizes, sizes).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
thousandths = st.integers(60, 990)


@st.composite
def scenes(draw: st.DrawFn) -> list[Box]:
    """Up to 20 boxes with scores that differ by at least a thousandth."""
    scores = draw(st.lists(thousandths, max_size=20, unique=True))
    labels = st.integers(0, CLASSES - 1)
    return [Box(*draw(corners), score / 1000, draw(labels)) for score in scores]


@pytest.mark.parametrize("decoder", ORACLES)
@given(boxes=scenes())
@settings(deadline=None, max_examples=15)
def test_decoding_what_was_encoded_gives_it_back(decoder: str, boxes: list[Box]) -> None:
    outputs = encode(decoder, boxes, CLASSES, SIDE_PX)
    (found,) = DECODERS[decoder](outputs, DecodeSpec((SIDE_PX, SIDE_PX), CLASSES, FLOOR))
    have, want = columns(found), wanted(boxes)
    assert have.shape == want.shape
    np.testing.assert_allclose(have[:, :4], want[:, :4], atol=1e-3, rtol=1e-5)
    np.testing.assert_allclose(have[:, 4], want[:, 4], atol=1e-5)
    assert (have[:, 5] == want[:, 5]).all()
