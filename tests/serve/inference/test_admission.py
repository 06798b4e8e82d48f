"""Bounds of a replica: places are counted, rejected above the bound, and given back."""

from __future__ import annotations

import contextlib

import pytest

from model_store.errors import Overloaded
from serve.inference.admission import Admission, Room
from serve.settings import Limits


@pytest.mark.parametrize(("taken", "count", "fits"), [(0, 3, True), (1, 2, True), (2, 2, False)])
def test_several_places_are_taken_together_or_not_at_all(taken: int, count: int, fits: bool) -> None:
    room = Room(3, "things wait")
    with room.place(taken):
        expected = contextlib.nullcontext() if fits else pytest.raises(Overloaded)
        with expected, room.place(count):
            assert room.taken == taken + count
        assert room.taken == taken
    assert room.taken == 0


def test_a_full_bound_on_images_is_reported_and_names_the_wait() -> None:
    full: list[str] = []
    admission = Admission(Limits(online_queue=1), lambda: 7.0, lambda: full.append("full"))
    with admission.images.place():
        with pytest.raises(Overloaded, match="1 images .* the bound is 1") as raised:
            admission.images.place().__enter__()
        with admission.forms.place(), admission.forwarded.place(), admission.uploads.place(2):
            assert admission.images.is_full
    assert (raised.value.retry_after_s, full) == (7.0, ["full"])
    assert not admission.images.is_full
