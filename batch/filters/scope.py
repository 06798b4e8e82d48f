"""What a filter run is about: exactly one of a run, a camera, a time range, a list of images, an occurrence."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from batch.id_list import name_ids
from model_store.errors import BadRequest

PUBLISHED = "published"
_KINDS = {
    "run": ("run",),
    "camera": ("camera",),
    "time": ("start", "end"),
    "ids": ("ids",),
    "occurrence": ("occurrence",),
}


class FilterScope(BaseModel):
    """Two kinds, or none, are an error that names the fields.

    run         all that this run's inference key has said; `published` is the run that is published
    camera      one camera's images
    start, end  taken from `start` on and before `end`, by the camera's clock; one may be open
    ids         a list of contents, kept as `<tables>/scopes/<ids>.txt`
    occurrence  the images of an occurrence that a layer of the view has made
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str | None = Field(default=None, min_length=1, description="a run's id, or 'published'")
    camera: str | None = Field(default=None, min_length=1, description="camera_id")
    start: datetime | None = Field(default=None, description="by the camera's clock")
    end: datetime | None = Field(default=None, description="by the camera's clock, not included")
    ids: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{64}$", description="sha256 of the list"
    )
    occurrence: str | None = Field(default=None, min_length=1, description="occurrence_id")

    @model_validator(mode="after")
    def _exactly_one(self) -> FilterScope:
        given = [name for name in self.model_fields_set if getattr(self, name) is not None]
        kinds = {kind for kind, fields in _KINDS.items() if set(fields) & set(given)}
        if len(kinds) != 1:
            what = f"{', '.join(sorted(given))} are given" if given else "none is given"
            raise ValueError(
                f"a scope is exactly one of run, camera, start and end, ids, occurrence; {what}"
            )
        if any(moment and moment.tzinfo for moment in (self.start, self.end)):
            raise ValueError("start and end are by the camera's clock: leave out the time zone")
        if self.start and self.end and self.start >= self.end:
            raise ValueError(f"start {self.start} is not before end {self.end}")
        return self

    @property
    def kind(self) -> str:
        return next(
            kind for kind, fields in _KINDS.items() if any(getattr(self, f) for f in fields)
        )

    def words(self) -> str:
        """`camera deer-north`, `time 2026-05-01 to 2026-06-01`."""
        if self.kind == "time":
            return f"time {self.start or ''} to {self.end or ''}"
        return f"{self.kind} {getattr(self, self.kind)}"


def parse_scope(text: str) -> FilterScope:
    """`camera=deer-north`, `run=published`, `time=2026-05-01..2026-06-01`, `ids=FILE`, `occurrence=ID`.

    Raises BadRequest.
    """
    kind, equals, value = text.partition("=")
    if kind not in _KINDS or not equals or not value:
        raise BadRequest(
            f"--scope: '{text}' is none; write run=ID (or run=published), camera=ID, "
            "time=FROM..UNTIL, ids=FILE or occurrence=ID"
        )
    fields: dict[str, str | None] = {kind: value}
    if kind == "time":
        start, dots, end = value.partition("..")
        if not dots:
            raise BadRequest(f"--scope: '{text}' needs two dots: time=2026-05-01..2026-06-01")
        fields = {"start": start or None, "end": end or None}
    elif kind == "ids":
        fields = {"ids": name_ids(Path(value))}
    return scope_of({name: given for name, given in fields.items() if given is not None})


def scope_of(fields: dict[str, str]) -> FilterScope:
    """Raises BadRequest that names the field."""
    try:
        return FilterScope.model_validate(fields)
    except ValidationError as error:
        words = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'scope'}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        )
        raise BadRequest(words) from error
