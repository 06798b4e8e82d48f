"""The base of configs, specs and messages, and the words for values that it rejects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, Protocol, get_args

from pydantic import BaseModel, ConfigDict

Location = tuple[int | str, ...]
MAX_ERRORS = 10


class Frozen(BaseModel):
    """Immutable, without unknown fields, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Invalid(Protocol):
    """Pydantic's ValidationError, or FastAPI's RequestValidationError."""

    def errors(self) -> Sequence[Any]: ...


def wrong_fields(
    error: Invalid,
    model: type[BaseModel] | None = None,
    whole: str = "",
    name: Callable[[Location], str] = lambda place: ".".join(map(str, place)),
    unknown_only: bool = False,
) -> str:
    """Return each invalid field by its `name`, by default its path (`whole` for the value itself), with the reason.

    For an unknown field of a `model`, suggests the field with a similar name, or lists all fields. With `unknown_only`,
    other errors are left out.
    """
    errors, words = error.errors(), list[str]()
    if unknown_only:
        errors = [item for item in errors if item["type"] == "extra_forbidden"]
    for item in errors[:MAX_ERRORS]:
        place, reason = name(item["loc"]) or whole, item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            reason = _unknown(model, item["loc"]) if model else "unknown field"
        words.append(f"{place}: {reason}" if place else reason)
    more = [f"and {len(errors) - MAX_ERRORS} more"] if len(errors) > MAX_ERRORS else []
    return "; ".join(words + more)


def by_field(error: Invalid, begin: str = "", skip: int = 0) -> dict[str, str]:
    """Return the reasons by the path of their field, without its first `skip` parts and after `begin`.

    Reasons about the value itself are left out.
    """
    reasons: dict[str, list[str]] = {}
    for item in error.errors()[:MAX_ERRORS]:
        if place := item["loc"][skip:]:
            words = item["msg"].removeprefix("Value error, ")
            reasons.setdefault(begin + ".".join(map(str, place)), []).append(words)
    return {name: "; ".join(words) for name, words in reasons.items()}


def _unknown(model: type[BaseModel], place: Sequence[int | str]) -> str:
    kind: type[BaseModel] | None = model
    for part in place[:-1]:
        field = kind.model_fields.get(str(part)) if kind else None
        kind = next(_models_of(field.annotation), None) if field else None
    names = list(kind.model_fields) if kind else []
    near = get_close_matches(str(place[-1]), names, 1)
    if near:
        return f"unknown field, did you mean {near[0]}?"
    fields = f"; available: {', '.join(names)}" if names else ""
    return f"unknown field{fields}; it is misspelt, belongs to another section, or is of a newer Resight"


def _models_of(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_of(part)
