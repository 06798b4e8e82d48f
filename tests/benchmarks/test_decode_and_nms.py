"""The benchmark of decoders measures each decoder, and its scenes keep their objects."""

import pytest

from benchmarks.decode_and_nms import CASES, QUERIES, measured
from model_store.decoders import DECODERS


def test_every_decoder_is_measured() -> None:
    assert {name for name, _ in CASES} == {*DECODERS} - {"blobs"}


@pytest.mark.parametrize("decoder", [name for name, rows in CASES if rows == QUERIES])
def test_what_is_measured_keeps_the_objects_of_the_scene(decoder: str) -> None:
    assert measured(decoder, QUERIES, 1)["kept"] == 50
