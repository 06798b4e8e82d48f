"""Which media a run is for. Frozen, stored with the run; `batch/select.py` says it in SQL.

`batch/scope_options.py` makes an option of each field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from archive.local_time import LocalTime

MIDNIGHT = "T00:00:00"
DIGITS = 12
"""Of the name of a list, in words."""


class MediaScope(BaseModel):
    """Every field that is given narrows the scope; without any it is every file that is there.

    `latest_per_camera` is the newest by local time of what meets all the others, one a camera, with a broken clock
    only where it has no other; `sample` is drawn from what is left, with the same chance for each image, by camera and
    by day and night. As JSON it has the fields that are given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    camera: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), description="only images of this camera; repeat it for several"
    )
    since: LocalTime | None = Field(
        default=None,
        description="only images taken at this time or later, by the camera's clock: 2026-05-01 or 2026-05-01T12:00",
    )
    until: LocalTime | None = Field(
        default=None, description="only images taken before this time, by the camera's clock"
    )
    path: str | None = Field(
        default=None,
        min_length=1,
        description="only files whose path in the archive matches this glob: 'north/2026-05/*'",
    )
    label: str | None = Field(
        default=None, min_length=1, description="only images that are shown with this label"
    )
    min_score: float | None = Field(
        default=None, ge=0, le=1, description="only images with such a label of this score or more"
    )
    max_score: float | None = Field(
        default=None, ge=0, le=1, description="only images with such a label below this score"
    )
    ids: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="only images of this list: a file with a media_sha256 a line",
    )
    latest_per_camera: bool = Field(
        default=False, description="only the newest image of each camera, of those that are left"
    )
    sample: int | None = Field(
        default=None,
        ge=1,
        description="only so many of those that are left, by camera and by day and night",
    )

    @model_validator(mode="after")
    def _limits_are_in_order(self) -> MediaScope:
        if self.since and self.until and self.since >= self.until:
            raise ValueError(f"since {self.since} is not before until {self.until}")
        if None not in (self.min_score, self.max_score) and self.min_score >= self.max_score:  # type: ignore[operator]
            raise ValueError(f"min_score {self.min_score} is not below max_score {self.max_score}")
        return self

    @model_serializer(mode="wrap")
    def _given(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {
            name: value
            for name, value in serialize(self).items()
            if getattr(self, name) != fields[name].default
        }

    @property
    def asks_for_labels(self) -> bool:
        return any(one is not None for one in (self.label, self.min_score, self.max_score))

    def words(self) -> str:
        return in_words(self.model_dump(mode="json"))


class Scope(MediaScope):
    """The scope of a run of one model, over images that have a result of it or not."""

    status: Literal["failed", "missing"] | None = Field(
        default=None, description="only images whose result of this model is failed, or missing"
    )


def in_words(scope: Mapping[str, Any]) -> str:
    """Return a scope, as a spec has it in JSON, in words: `camera north, since 2026-05-01, sample 50`."""
    last = sorted(scope.items(), key=lambda field: field[0] == "sample")
    return ", ".join(_in_words(name, value) for name, value in last) or "all"


def _in_words(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    if value is True:
        return words
    if name in ("since", "until"):
        value = str(value).removesuffix(MIDNIGHT)
    elif name == "ids":
        value = str(value)[:DIGITS]
    return f"{words} {' or '.join(value) if isinstance(value, list) else value}"
