"""The reader of large JSON files, compared with the standard library's."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import archive.formats.json_arrays
from archive.formats.json_arrays import members

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def read(text: str, chunk: int = 2**20) -> dict[str, Any]:
    """Return the value that `json.loads` gives, by the reader."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive.formats.json_arrays, "CHUNK_CHARS", chunk)
        found: dict[str, Any] = {}
        for name, value in members(io.StringIO(text), "items"):
            if name == "items":
                found.setdefault(name, []).append(value)
            else:
                found[name] = value
        return found


@settings(max_examples=40)
@given(st.dictionaries(st.text(), VALUES), st.lists(VALUES, min_size=1), st.integers(1, 9))
def test_any_object_is_read_in_chunks_of_any_size(more: dict[str, Any], items: list[Any], chunk: int) -> None:
    value = {**more, "items": items}
    assert read(json.dumps(value, indent=1), chunk) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file ends too early"),
        ("[1]", "character 1: an object is required"),
        ('{"a": 1', "the file ends too early"),
        ('{"a": 1} 2', "character 10: nothing may follow"),
        ('{"a": 1, "a": 2}', "does not occur twice"),
        ('{"items": {"b": 1}}', "must be an array"),
        ('{"items": [1 2]}', "',' or ']' is required"),
        ('{"items": [1, {"b": nul}]}', "character 21: Expecting value"),
        ('{"items": [NaN]}', "NaN is not JSON"),
        ('{"items": [1, "\\ud83d"]}', "character 15: a text of the value is not Unicode"),
        ('{"\\udc00": 1}', "character 2: a text of the value is not Unicode"),
        ('{"items": [{"b": "c', "the file ends too early|Unterminated"),
        ("{" + '"a":{' * 200_000, "nested too deeply|too early"),
    ],
)
def test_damage_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(text)


def test_one_value_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive.formats.json_arrays, "MAX_CHARS", 100)
    assert read('{"a": "' + 50 * "x" + '"}', 10)
    with pytest.raises(ValueError, match="Unterminated|too early"):
        read('{"a": "' + 5000 * "x" + '"}', 10)
