"""Forms from pydantic schemas: one control for each shape, values as they were sent, errors by field."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import Field

from batch.filters.registry import FILTERS
from model_store.frozen import Frozen
from pages.forms import fields_of, submitted


class Part(Frozen):
    share: float = 0.5


class Shapes(Frozen):
    kind: Literal["shapes"] = "shapes"
    share: float = Field(default=0.5, ge=0, le=1, description="share, 0 to 1")
    pixels: int | None = Field(default=None, gt=0)
    is_used: bool = True
    name: str = "deer"
    action: Literal["hide", "keep"] = "hide"
    month: Literal["jan", "feb", "mar", "apr", "may"] = "mar"
    ignored_labels: tuple[str, ...] = ("person",)
    ranks: tuple[str, ...] = ("class", "order")
    shares: dict[str, float] = {"fox": 0.4}
    parts: dict[str, Part] = {}
    either: int | str = 3
    one: Part | None = None


def test_each_shape_has_its_control() -> None:
    fields = {field.name: field for field in fields_of(Shapes)}
    assert {name: field.kind for name, field in fields.items()} == {
        "share": "number",
        "pixels": "number",
        "is_used": "switch",
        "name": "text",
        "action": "radio",
        "month": "select",
        "ignored_labels": "labels",
        "ranks": "lines",
        "shares": "rows",
        "parts": "json",
        "either": "json",
        "one": "json",
    }
    assert fields["share"].bounds == {"min": 0, "max": 1, "step": "any"}
    assert fields["share"].help == "share, 0 to 1"
    assert fields["pixels"].bounds == {"min": 0, "step": 1}
    assert [name for name, field in fields.items() if field.is_optional] == ["pixels", "one"]
    assert '"share"' in fields["parts"].schema, "$ref is resolved"
    assert '"share"' in fields["one"].schema


def test_labels_in_use_are_offered_after_the_chosen_ones() -> None:
    fields = {field.name: field for field in fields_of(Shapes, labels=["fox", "person"])}
    assert fields["ignored_labels"].value == [("person", True), ("fox", False)]


def test_what_was_sent_is_read_by_its_shape() -> None:
    pairs = [
        *[("share", "0.25"), ("pixels", ""), ("name", " roe deer "), ("action", "keep")],
        *[
            ("month", "may"),
            ("ignored_labels", "a,b\u2028c"),
            ("ignored_labels.more", "x\r\n\r\n y "),
        ],
        *[("ranks", "genus\r\nspecies"), ("shares.key", "fox"), ("shares.value", "1")],
        *[
            ("shares.key", ""),
            ("shares.value", "0.3"),
            ("parts", '{"a": {"share": 1}}'),
            ("either", "4"),
        ],
    ]
    sent = submitted(Shapes, pairs)
    assert sent.errors == {}
    assert Shapes.model_validate(sent.values) == Shapes(
        share=0.25,
        is_used=False,
        name="roe deer",
        action="keep",
        month="may",
        ignored_labels=("a,b\u2028c", "x", "y"),
        ranks=("genus", "species"),
        shares={"fox": 1.0},
        parts={"a": Part(share=1)},
        either=4,
    )


@pytest.mark.parametrize(
    ("pairs", "field", "words"),
    [
        ([("share", "2")], "share", "less than or equal to 1"),
        ([("share", "")], "share", "valid number"),
        ([("share", "nan")], "share", "finite number"),
        ([("action", "drop")], "action", "'hide' or 'keep'"),
        ([("shares.key", "fox"), ("shares.value", "much")], "shares", "fox: "),
        ([("shares.key", "fox"), ("shares.value", "1")] * 2, "shares", "listed twice: fox"),
        ([("parts", "{")], "parts", "invalid JSON"),
        ([("parts", '{"a": {"share": "x"}}')], "parts", "a.share: "),
        ([("colour", "red")], "", "colour: Extra inputs"),
    ],
)
def test_an_error_is_at_its_field(pairs: list[tuple[str, str]], field: str, words: str) -> None:
    valid = [("share", "1"), ("name", "a"), ("action", "hide"), ("month", "jan"), ("either", "1")]
    given = {name for name, _ in pairs}
    sent = submitted(Shapes, [*[pair for pair in valid if pair[0] not in given], *pairs])
    assert list(sent.errors) == [field]
    assert words in sent.errors[field][0]
    again = {field.name: field for field in fields_of(Shapes, sent.values, errors=sent.errors)}
    if field:
        assert again[field].errors == tuple(sent.errors[field])
    if field == "parts" and words == "invalid JSON":
        assert again["parts"].value == "{", "shown as it was sent"


def test_every_field_of_every_filter_has_a_control_and_a_help() -> None:
    for entry in FILTERS.values():
        fields = fields_of(entry.config)
        assert {field.name for field in fields} == {*entry.config.model_fields} - {"kind"}
        assert all(field.help for field in fields), entry.kind
