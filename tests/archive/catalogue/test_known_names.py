"""Suggestions for misspelt names."""

from __future__ import annotations

import pytest

from archive.catalogue.known_names import MAX_NAMES, require_known
from model_store.errors import BadRequest


def test_a_similar_name_is_suggested_else_the_names_are_listed() -> None:
    many = [f"c{number:03d}" for number in range(MAX_NAMES + 2)]
    require_known("camera", "north", ["north", "south"])
    for name, names, words in (
        ("nroth", ["north", "south"], "unknown camera 'nroth'; did you mean 'north'\\?"),
        ("x", ["north", "south"], "unknown camera 'x'; available: north, south$"),
        ("x", [], "available: none$"),
        ("x", many, "c049 and 2 more$"),
    ):
        with pytest.raises(BadRequest, match=words):
            require_known("camera", name, names)
