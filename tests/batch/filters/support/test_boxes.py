"""Test the places of images (camera or folder), and the group ids that depend on them."""

from __future__ import annotations

import hashlib
import json

import pytest

from batch.filters.kinds.events import EventsConfig, actions
from batch.filters.support.boxes import Place, place_of, places, views
from tests.batch.filters.make import detection, image, rows

WHERE: list[tuple[str | None, str]] = [
    (None, "x/1.jpg"),
    ("x", "x/2.jpg"),
    (None, "3.jpg"),
    (None, "x/deeper/4.jpg"),
    ("north", "x/5.jpg"),
    (None, "x/6.jpg"),
]
TABLE = rows(
    *(
        detection(media_sha256=image(n), camera_id=camera, path=path, rank=rank)
        for n, (camera, path) in enumerate(WHERE, 1)
        for rank in range(2)
    )
)
IMAGES: dict[Place, list[int]] = {
    ("camera", "north"): [5],
    ("camera", "x"): [2],
    ("folder", ""): [3],
    ("folder", "x"): [1, 6],
    ("folder", "x/deeper"): [4],
}


@pytest.mark.parametrize(
    ("camera", "path", "place"),
    [
        ("north", "x/1.jpg", ("camera", "north")),
        (None, "x/1.jpg", ("folder", "x")),
        (None, "x/y/1.jpg", ("folder", "x/y")),
        (None, "1.jpg", ("folder", "")),
        ("", "x/1.jpg", ("camera", "")),
    ],
)
def test_a_place_is_a_camera_or_a_folder(camera: str | None, path: str, place: Place) -> None:
    assert place_of(camera, path) == place


def test_places_are_numbered_in_the_order_of_their_first_rows() -> None:
    number, named = places(TABLE)
    assert number.shape == (len(TABLE),)
    assert list(dict.fromkeys(number.tolist())) == list(range(len(IMAGES)))
    found: dict[Place, list[int]] = {place: [] for place in named}
    for row in range(0, len(TABLE), 2):
        assert number[row] == number[row + 1]
        found[named[number[row]]].append(int(TABLE.media_sha256[row], 16))
    assert found == IMAGES


def test_a_view_has_the_rows_of_one_place() -> None:
    found = {view.place: [int(digest, 16) for digest in view.rows.media_sha256] for view in views(TABLE)}
    assert found == {place: [n for n in ns for _ in range(2)] for place, ns in IMAGES.items()}


def test_no_rows_have_no_places() -> None:
    number, named = places(rows())
    assert (number.tolist(), named, list(views(rows()))) == ([], [], [])


@pytest.mark.parametrize(("place", "first"), [(place, ns[0]) for place, ns in IMAGES.items()])
def test_an_event_id_depends_on_place_and_first_image(place: Place, first: int) -> None:
    """Ids are literal here, because a changed id is a new event for users who store it."""
    words = json.dumps(["events", *place, image(first)])
    said = {one.media_sha256: one.group_id for one in actions(EventsConfig(), TABLE)}
    assert said[image(first)] == hashlib.sha256(words.encode()).hexdigest()[:32]
