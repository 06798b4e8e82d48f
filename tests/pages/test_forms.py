"""Forms from pydantic schemas: one control for each shape. What they send is in tests/browser/test_forms.py."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from batch.filters.registry import FILTERS
from model_store.frozen import Frozen
from pages.forms import fields_of


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


def test_every_field_of_every_filter_has_a_control_and_a_help() -> None:
    for entry in FILTERS.values():
        fields = fields_of(entry.config)
        assert {field.name for field in fields} == {*entry.config.model_fields} - {"kind"}
        assert all(field.help for field in fields), entry.kind
