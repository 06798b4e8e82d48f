"""Which media a run is for. Frozen, stored with the run; `batch/select.py` says it in SQL."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from batch.scope_kind import ScopeKind

_FIELDS: dict[str, tuple[str, ...]] = {
    "all": (),
    "latest-per-camera": (),
    "camera": ("camera",),
    "time": ("start", "end"),
    "path": ("path",),
    "label": ("label", "min_score", "max_score"),
    "status": ("status",),
    "ids": ("ids",),
}
"""Fields of each kind; those of other kinds are refused."""


class Scope(BaseModel):
    """Exactly one kind, with its own fields, and perhaps a sample of it.

    all               every file that is still there
    latest-per-camera the newest by local time, one a camera; with a broken clock only where it has no other
    camera            one camera's (`camera`)
    time              taken from `start` on and before `end`, by the camera's clock; one may be open
    path              whose path matches a glob (`path`; * and ? do not stop at /)
    label             that the published view shows with this `label` or any, `min_score` <= score < `max_score`
    status            those without a result for this model (`missing`), or with a failed one (`failed`)
    ids               a list of contents, kept as `<tables>/scopes/<ids>.txt`
    sample            so many images of any of them, each with the same chance, by camera and by day and night
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ScopeKind = "all"
    camera: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    path: str | None = None
    label: str | None = None
    min_score: float | None = Field(default=None, ge=0, le=1)
    max_score: float | None = Field(default=None, ge=0, le=1)
    status: Literal["failed", "missing"] | None = None
    ids: str | None = Field(default=None, description="sha256 of the list")
    sample: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _fields_go_together(self) -> Scope:
        own = _FIELDS[self.kind]
        given = {
            field
            for fields in _FIELDS.values()
            for field in fields
            if getattr(self, field) is not None
        }
        for field in sorted(given - set(own)):
            kind = next(kind for kind, fields in _FIELDS.items() if field in fields)
            raise ValueError(f"{field} belongs to scope '{kind}', not to '{self.kind}'")
        if own and not given:
            raise ValueError(f"scope '{self.kind}' needs {' or '.join(own)}")
        if any(moment and moment.tzinfo for moment in (self.start, self.end)):
            raise ValueError("start and end are by the camera's clock: leave out the time zone")
        if self.start and self.end and self.start >= self.end:
            raise ValueError(f"start {self.start} is not before end {self.end}")
        if None not in (self.min_score, self.max_score) and self.min_score >= self.max_score:  # type: ignore[operator]
            raise ValueError(f"min_score {self.min_score} is not below max_score {self.max_score}")
        return self

    @property
    def retries_failed(self) -> bool:
        return self.status == "failed"
