"""What other libraries say in their errors, as words for a message: one line, cut, no memory addresses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from textwrap import shorten
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

MOST_CHARS = 400


def said(error: BaseException, most: int = MOST_CHARS) -> str:
    """The kind of the error where it says nothing. Addresses go: they are others in every process."""
    words = re.sub(r"( object)? at 0x[0-9a-fA-F]+", "", str(error)) or type(error).__name__
    return shorten(words, most, placeholder=" …")


def wrong_fields(error: ValidationError, model: type[BaseModel], whole: str = "") -> str:
    """Return each wrong field of a `model` by its path (`whole`: of the value itself) with the reason.

    For a field that the model does not have: the one with nearly its name, else all there are.
    """
    return "; ".join(
        f"{'.'.join(map(str, item['loc'])) or whole}: "
        + (_unknown(model, item["loc"]) if item["type"] == "extra_forbidden" else item["msg"])
        for item in error.errors()
    )


def _unknown(model: type[BaseModel], place: Sequence[int | str]) -> str:
    kind: type[BaseModel] | None = model
    for part in place[:-1]:
        field = kind.model_fields.get(str(part)) if kind else None
        kind = next(_models_of(field.annotation), None) if field else None
    names = list(kind.model_fields) if kind else []
    near = get_close_matches(str(place[-1]), names, 1)
    if near:
        return f"unknown field, did you mean {near[0]}?"
    known = f"; there is: {', '.join(names)}" if names else ""
    return f"unknown field{known}; its name is misspelt, or the file is of a newer Resight"


def _models_of(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_of(part)
