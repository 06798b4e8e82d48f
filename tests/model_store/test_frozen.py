"""The words for invalid fields: paths or other names, without prefixes of the library, a limited number."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError, model_validator

from model_store.frozen import MAX_ERRORS, Frozen, wrong_fields


class Inner(Frozen):
    width_px: int = 0


class Outer(Frozen):
    inner: Inner = Inner()
    sizes: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _few(self) -> Outer:
        if len(self.sizes) > 1:
            raise ValueError("too many sizes")
        return self


def rejected(value: Any) -> ValidationError:
    with pytest.raises(ValidationError) as error:
        Outer.model_validate(value)
    return error.value


@pytest.mark.parametrize(
    ("value", "words"), [({"sizes": [1, 2]}, "too many sizes"), ({"inner": {"width": 1}}, "inner.width: unknown field")]
)
def test_each_error_is_named_by_its_path(value: Any, words: str) -> None:
    assert wrong_fields(rejected(value)) == words


def test_an_unknown_field_of_a_model_has_a_suggestion() -> None:
    words = wrong_fields(rejected({"inner": {"width": 1}}), Outer)
    assert words == "inner.width: unknown field, did you mean width_px?"
    words = wrong_fields(rejected({"inner": {"zz": 1}}), Outer)
    assert words.endswith("it is misspelt, belongs to another section, or is of a newer Resight")


def test_the_whole_value_and_other_names() -> None:
    assert wrong_fields(rejected({"sizes": [1, 2]}), whole="config") == "config: too many sizes"
    last = wrong_fields(rejected({"inner": {"width": 1}}), name=lambda place: str(place[-1]))
    assert last == "width: unknown field"


def test_many_errors_are_counted() -> None:
    words = wrong_fields(rejected({"sizes": ["x"] * (MAX_ERRORS + 3)}))
    assert words.count("sizes.") == MAX_ERRORS
    assert words.endswith("; and 3 more")
