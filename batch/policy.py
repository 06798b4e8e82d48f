"""The policy of a team, one TOML file: when a reprocess is due, when a run stops, what may be published.

RESIGHT_POLICY, default HOME/policy.toml; where there is none, the defaults below hold. TOML has no null, so
"off" is how the file says that there is no weekly window, or no such gate. docs/policy.md explains it.
"""

from __future__ import annotations

import tomllib
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from model_store.config import Frozen
from model_store.errors import BadRequest
from model_store.said import wrong_fields

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)
WEEK = timedelta(days=7)
OFF = "off"


def _off(value: Any) -> Any:
    return None if value == OFF else value


Off = BeforeValidator(_off)
"""Of a field that may be None."""


class Weekly(Frozen):
    """When a reprocess that can wait is done; local time of this machine, as its clock on the wall says."""

    day: Day = Field(default="sun", description="on which it opens")
    start: time = Field(default=time(2, 0), description="when it opens")
    hours: float = Field(default=6.0, gt=0, le=168, description="for which it is open")

    @field_validator("start", mode="before")
    @classmethod
    def _on_the_wall(cls, start: Any) -> Any:
        if isinstance(start, int | float):
            raise ValueError(f"a time is written as 02:00:00, not as {start}")
        return start

    @field_validator("start")
    @classmethod
    def _local(cls, start: time) -> time:
        if start.tzinfo:
            raise ValueError("start is local time: leave out the time zone")
        return start

    def opened(self, now: datetime) -> datetime:
        """When it opened last, at or before `now`. Both are local and without a zone."""
        days = (now.weekday() - DAYS.index(self.day)) % 7
        this = datetime.combine(now.date() - timedelta(days=days), self.start)
        return this if this <= now else this - WEEK

    def is_open(self, now: datetime) -> bool:
        """From its first moment on, and not at its last."""
        return now < self.opened(now) + timedelta(hours=self.hours)

    def opens_next(self, now: datetime) -> datetime:
        """The first opening after `now`."""
        return self.opened(now) + WEEK


class Due(Frozen):
    """What makes a whole reprocess due at once, and what waits for the weekly window."""

    new_model: bool = Field(
        default=True,
        description="another inference key than the published: due at once, else it waits",
    )
    numerics: bool = Field(
        default=True,
        description="the same model by code of another numerics version: due at once, else it waits",
    )
    threshold_delta: float = Field(
        default=0.05,
        ge=0,
        description="a label's threshold moved by more: publish at once, else it waits",
    )
    import_over: int = Field(
        default=10_000, ge=0, description="more new images than this: all are due at once"
    )
    incremental_under: int = Field(
        default=1_000, ge=0, description="fewer new images than this are done at once, alone"
    )
    weekly: Annotated[Weekly | None, Off] = Field(
        default=Weekly(),
        description='in which what waits is done; "off": nothing waits, it is due at once',
    )

    @model_validator(mode="after")
    def _what_waits_has_an_end(self) -> Self:
        for name in ("new_model", "numerics"):
            if self.weekly is None and not getattr(self, name):
                raise ValueError(
                    f'{name} = false waits for the weekly window, and weekly is "off": give one of them '
                    "(to keep a schedule to one version, give it --model NAME@VERSION)"
                )
        return self


class Stop(Frozen):
    """When a run gives up. What it has done by then is committed."""

    failed_frac: float = Field(
        default=0.5, gt=0, le=1, description="share of the images tried that has failed"
    )
    failed_after: int = Field(
        default=200, ge=1, description="but not before so many images were tried"
    )
    stall_s: float = Field(default=900, gt=0, description="seconds without a single result")


class Gates(Frozen):
    """What may be published; "off": no such gate.

    Of contents of which a file is there: `images` have a result, failed or not, and those are `compared` that
    have one on both sides and failed on neither. Each share is of another whole, which its description names.
    """

    max_lost_verified: Annotated[int | None, Off] = Field(
        default=0,
        ge=0,
        description="human assertions that the old side has right and the new one not: a count",
    )
    max_lost_frac: Annotated[float | None, Off] = Field(
        default=None,
        ge=0,
        le=1,
        description="detections without a match, of those the old side shows in compared images",
    )
    max_emptied_frac: Annotated[float | None, Off] = Field(
        default=None,
        ge=0,
        le=1,
        description="images that showed detections and show none now, of all compared images",
    )
    max_failed_frac: Annotated[float | None, Off] = Field(
        default=0.05, ge=0, le=1, description="images that failed, of all images of the new side"
    )
    min_coverage_frac: Annotated[float | None, Off] = Field(
        default=0.99,
        ge=0,
        le=1,
        description="images that the new side has too, of all images of the old side",
    )


class Snips(Frozen):
    """How crops of detections are cut, by runs with --snips (docs/snips.md)."""

    margin_frac: float = Field(
        default=0.1, ge=0, le=2, description="around the box, of its longer side"
    )
    quality: int = Field(default=90, ge=1, le=100, description="of the JPEG")
    min_score: Annotated[float | None, Off] = Field(
        default=None, ge=0, le=1, description='"off": from the thresholds of the model on'
    )


class Policy(Frozen):
    due: Due = Due()
    stop: Stop = Stop()
    gates: Gates = Gates()
    snips: Snips = Snips()


def read_policy(path: Path, required: bool = False) -> Policy:
    """Defaults where there is no file, unless it is `required` (somebody named it).

    Raises BadRequest that names file and field.
    """
    try:
        return Policy.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError as error:
        if required:
            raise BadRequest(f"there is no policy {path}: correct RESIGHT_POLICY") from error
        return Policy()
    except ValidationError as error:
        raise BadRequest(f"{path}: {wrong_fields(error, Policy)}") from error
    except (OSError, ValueError) as error:
        raise BadRequest(f"{path}: {error}") from error
