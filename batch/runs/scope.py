"""The scope of a run: the media that it covers. Frozen, stored with the run; `batch/planning/select.py` has it in SQL.

`batch/runs/options.py` makes an option of each field.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from archive.catalogue.local_time import LocalEnd, LocalTime, end_in_words
from model_store.frozen import Frozen

MIDNIGHT = "T00:00:00"
PUBLISHED = "published"
Name = Annotated[str, Field(min_length=1)]
DIGITS = 12
"""Digits of the name of a list, in words."""


def _absolute(folder: str) -> str:
    from model_store.storage import absolute  # here, so that help imports no file systems

    return absolute(folder)


class MediaScope(Frozen):
    """Conditions on files: every field that is given narrows the scope; without any it is every present file.

    `latest_per_camera` selects the newest file of each camera by local time, after all other conditions. It selects a
    file with a doubtful time only if the camera has no other. `sample` is drawn from what is left, with the same chance
    for each image, by camera and by light. JSON has only the fields that are given.
    """

    camera: tuple[Name, ...] = Field(default=(), description="only images of this camera; repeat it for several")
    deployment: tuple[Name, ...] = Field(
        default=(), description="only images of this deployment, by its id; repeat it for several"
    )
    location: tuple[Name, ...] = Field(
        default=(), description="only images of deployments at this location; repeat it for several"
    )
    since: LocalTime | None = Field(
        default=None,
        description="only images taken at this time or later, by the camera's corrected clock: 2026-05-01 or "
        "2026-05-01T12:00",
    )
    until: LocalEnd | None = Field(
        default=None,
        description="only images taken before this time, or up to the end of this day, by the camera's corrected "
        "clock: 2026-05-31 or 2026-05-31T12:00",
    )
    folder: Annotated[str, AfterValidator(_absolute)] | None = Field(
        default=None,
        min_length=1,
        description="only files in this folder or below s3://bucket/prefix; of an archive or a part of one",
    )
    path: str | None = Field(
        default=None,
        min_length=1,
        description="only files with a path in the archive that matches this glob: 'north/2026-05/*'",
    )
    label: str | None = Field(default=None, min_length=1, description="only images shown with this label")
    min_score: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="only images with a detection of this score or more; with --label, of that label",
    )
    max_score: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="only images with a detection below this score; with --label, of that label",
    )
    ids: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="only images of this list: a file with one media_sha256 per line",
    )
    latest_per_camera: bool = Field(
        default=False, description="only the newest image of each camera, after all other conditions"
    )
    sample: int | None = Field(
        default=None,
        ge=1,
        description="only a sample of this many images, after all other conditions, by camera and light",
    )

    @model_validator(mode="after")
    def _limits_are_in_order(self) -> MediaScope:
        if self.since and self.until and self.since >= self.until:
            raise ValueError(f"since {self.since} is not before until {end_in_words(self.until)}")
        if None not in (self.min_score, self.max_score) and self.min_score >= self.max_score:  # type: ignore[operator]
            raise ValueError(f"min_score {self.min_score} is not below max_score {self.max_score}")
        return self

    @model_serializer(mode="wrap")
    def _given(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {name: value for name, value in serialize(self).items() if getattr(self, name) != fields[name].default}

    def words(self) -> str:
        return in_words(self.model_dump(mode="json"))


class Scope(MediaScope):
    """Scope of a run of one model, with a condition on the results of that model."""

    status: Literal["failed", "missing"] | None = Field(
        default=None, description="only images with a failed result of this model, or with none (missing)"
    )


class FilterScope(MediaScope):
    """Images with published results, unless a field narrows them or names another run."""

    run: str = Field(
        default=PUBLISHED,
        min_length=1,
        description="results to use: published, or a run id for all results of its inference key",
    )
    occurrence: str | None = Field(
        default=None, min_length=1, description="only images of this occurrence, from a tracking layer of the view"
    )


def in_words(scope: Mapping[str, Any]) -> str:
    """Return the JSON form of a scope in words: `camera north, since 2026-05-01, sample 50`."""
    last = sorted(scope.items(), key=lambda field: field[0] == "sample")
    return ", ".join(_in_words(name, value) for name, value in last) or "all"


def _in_words(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"not {words}"
    if name == "since":
        value = str(value).removesuffix(MIDNIGHT)
    elif name == "until":
        value = end_in_words(datetime.fromisoformat(value))
    elif name == "ids":
        value = str(value)[:DIGITS]
    return f"{words} {' or '.join(value) if isinstance(value, list) else value}"
