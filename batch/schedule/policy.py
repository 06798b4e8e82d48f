"""The policy of a team, one TOML file: when a run is due, when it stops, what is published, which pictures are shown.

The file is RESIGHT_POLICY, default HOME/policy.toml; without a file, the defaults below apply. TOML has no null, so
"off" stands for no weekly window, or no such gate. docs/reference/policy.md explains it.
"""

from __future__ import annotations

import tomllib
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from model_store.errors import InvalidPolicy
from model_store.frozen import Frozen, wrong_fields

if TYPE_CHECKING:
    from serve.settings import Settings

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)
WEEK = timedelta(days=7)
OFF = "off"


def _off(value: Any) -> Any:
    return None if value == OFF else value


Off = BeforeValidator(_off)
"""Validator of a field that accepts "off" for None."""


class Weekly(Frozen):
    """Weekly window for a reprocess that can wait, in the local time of this machine."""

    day: Day = Field(default="sun", description="day on which the window opens")
    start: time = Field(default=time(2, 0), description="time at which the window opens")
    hours: float = Field(default=6.0, gt=0, le=168, description="hours that the window is open")

    @field_validator("start", mode="before")
    @classmethod
    def _not_a_number(cls, start: Any) -> Any:
        if isinstance(start, int | float):
            raise ValueError(f"invalid time {start}: use 02:00:00")
        return start

    @field_validator("start")
    @classmethod
    def _local(cls, start: time) -> time:
        if start.tzinfo:
            raise ValueError("start is local time: leave out the time zone")
        return start

    def opened(self, now: datetime) -> datetime:
        """Return when the window last opened, at or before `now`. Both are local and without a zone."""
        days = (now.weekday() - DAYS.index(self.day)) % 7
        opened = datetime.combine(now.date() - timedelta(days=days), self.start)
        return opened if opened <= now else opened - WEEK

    def is_open(self, now: datetime) -> bool:
        """Return whether the window is open: from its first moment on, but not at its last."""
        return now < self.opened(now) + timedelta(hours=self.hours)

    def opens_next(self, now: datetime) -> datetime:
        """Return the first opening after `now`."""
        return self.opened(now) + WEEK


class DueConditions(Frozen):
    """Conditions under which a reprocess is due at once, or waits for the weekly window."""

    new_model: bool = Field(
        default=True, description="another inference key than the published one is due at once; false: it waits"
    )
    numerics: bool = Field(
        default=True, description="the same model with another numerics version is due at once; false: it waits"
    )
    threshold_delta: float = Field(
        default=0.05, ge=0, description="a threshold that moved by more is published at once, else it waits"
    )
    import_over: int = Field(default=10_000, ge=0, description="more new images than this are all due at once")
    incremental_under: int = Field(
        default=1_000, ge=0, description="fewer new images than this are due at once, without other images"
    )
    weekly: Annotated[Weekly | None, Off] = Field(
        default=Weekly(), description='window for what waits; "off": nothing waits, all is due at once'
    )

    @model_validator(mode="after")
    def _waiting_has_an_end(self) -> Self:
        for name in ("new_model", "numerics"):
            if self.weekly is None and not getattr(self, name):
                raise ValueError(
                    f'{name} = false waits for the weekly window, but weekly is "off": change one '
                    "of them (to keep a schedule on one version, use --model NAME@VERSION)"
                )
        return self


class Stop(Frozen):
    """Limits at which a run gives up. Its results are committed."""

    failed_frac: float = Field(
        default=0.5, gt=0, le=1, description="give up if a larger share of the images tried fails"
    )
    failed_after: int = Field(
        default=200, ge=1, description="number of images tried before the limit of failures applies"
    )
    stall_s: float = Field(default=900, gt=0, description="give up after this many seconds without a result")
    free_mib: int = Field(
        default=1024, ge=0, description="MiB that a run leaves free on the disks of tables and snips; 0: no check"
    )


class Gates(Frozen):
    """Conditions for a publication; "off": no such gate.

    Only contents with a present file count. Images of a side have a result there, failed or not; compared images have
    one on both sides and failed on neither.
    """

    max_lost_verified: Annotated[int | None, Off] = Field(
        default=0, ge=0, description="number of human assertions that are right on the old side and not on the new one"
    )
    max_lost_frac: Annotated[float | None, Off] = Field(
        default=None, ge=0, le=1, description="share of the old side's detections in compared images that have no match"
    )
    max_emptied_frac: Annotated[float | None, Off] = Field(
        default=None, ge=0, le=1, description="share of compared images that showed detections and show none now"
    )
    max_failed_frac: Annotated[float | None, Off] = Field(
        default=0.05, ge=0, le=1, description="share of failed images among those of the new side"
    )
    min_coverage_frac: Annotated[float | None, Off] = Field(
        default=0.99, ge=0, le=1, description="share of the old side's images that the new side has too"
    )


class Snips(Frozen):
    """Settings for crops of detections, made by runs with --snips (docs/reference/snips.md)."""

    margin_frac: float = Field(
        default=0.1, ge=0, le=2, description="margin around the box, as a share of its longer side"
    )
    quality: int = Field(default=90, ge=1, le=100, description="JPEG quality, 1 to 100")
    min_score: Annotated[float | None, Off] = Field(
        default=None, ge=0, le=1, description="minimum score of a crop; off: the thresholds of the model"
    )


class Privacy(Frozen):
    """Pictures that the page shows as they are only to people with a token of scope `review`."""

    hide_labels: list[str] = Field(
        default=[], description='labels to hide, such as ["person"], in any case; none: pictures are shown'
    )
    mode: Literal["blur", "hide"] = Field(
        default="blur", description="blur: the boxes are unrecognisable; hide: the picture is not shown"
    )
    min_score: float = Field(default=0.1, ge=0, le=1, description="minimum score of a detection that is hidden")


class Policy(Frozen):
    due: DueConditions = DueConditions()
    stop: Stop = Stop()
    gates: Gates = Gates()
    snips: Snips = Snips()
    privacy: Privacy = Privacy()


def policy_of(settings: Settings) -> Policy:
    """Return the policy of a home; a file that RESIGHT_POLICY names must exist. Raises InvalidPolicy."""
    return read_policy(settings.policy_path, required=bool(settings.policy))


def policy_fault(settings: Settings) -> str:
    """Return why the policy cannot be used, or an empty text."""
    try:
        policy_of(settings)
    except InvalidPolicy as error:
        return str(error)
    return ""


def read_policy(path: Path, required: bool = False) -> Policy:
    """Read the policy; without a file, return the defaults.

    Raises InvalidPolicy that names file and field, also for a missing file that is `required` (named by the user).
    """
    try:
        return Policy.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError as error:
        if required:
            raise InvalidPolicy(f"no policy file {path}: correct RESIGHT_POLICY") from error
        return Policy()
    except ValidationError as error:
        raise _invalid(path, wrong_fields(error, Policy)) from error
    except OSError as error:
        raise InvalidPolicy(f"cannot read the policy {path}: {error.strerror}") from error
    except ValueError as error:
        raise _invalid(path, error) from error


def _invalid(path: Path, why: object) -> InvalidPolicy:
    return InvalidPolicy(f"invalid policy; correct {path}: {why}")
