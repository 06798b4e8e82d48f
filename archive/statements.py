"""People's statements as files have them, one a row.

rows --read_statements--> Statement by row number, and what is wrong by row number. Nothing is looked up here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

DIGEST = r"^[0-9a-f]{64}$"
BOX = ("x1_px", "y1_px", "x2_px", "y2_px")
Named = Annotated[str, StringConstraints(min_length=1)]


def _moment(value: object) -> datetime:
    """A number would be read as seconds since 1970, and a time without offset as somebody's."""
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    if moment.tzinfo is None:
        raise ValueError(
            f"{value} has no offset from UTC; write for example 2026-05-14T09:30:00+02:00"
        )
    return moment.astimezone(UTC)


class Statement(BaseModel):
    """One row: what a person says about a box, or of a whole image (suppress or withdraw without a box)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    action: Literal["keep", "relabel", "suppress", "add", "withdraw"]
    media_sha256: str | None = Field(default=None, pattern=DIGEST)
    path: str | None = None
    source_root: str | None = None
    label: str | None = None
    x1_px: float | None = None
    y1_px: float | None = None
    x2_px: float | None = None
    y2_px: float | None = None
    inference_key: str | None = None
    rank: int | None = Field(default=None, ge=0)
    actor: Named
    asserted_at: Annotated[datetime, BeforeValidator(_moment)]
    reason: str | None = None

    @property
    def box(self) -> dict[str, float] | None:
        return None if self.x1_px is None else {name: getattr(self, name) for name in BOX}

    @model_validator(mode="after")
    def _consistent(self) -> Statement:
        if (self.media_sha256 is None) == (self.path is None):
            raise ValueError("name the image by media_sha256 or by path, one of them")
        if (self.inference_key is None) != (self.rank is None):
            raise ValueError(
                "inference_key and rank go together: they name the detection looked at"
            )
        corners = [getattr(self, name) for name in BOX]
        if len({corner is None for corner in corners}) > 1:
            raise ValueError(f"a box needs all of {', '.join(BOX)}")
        if self.box and not (corners[0] < corners[2] and corners[1] < corners[3]):
            raise ValueError("a box needs x1_px < x2_px and y1_px < y2_px")
        of_image = self.box is None and self.rank is None
        if self.action == "add" and (self.box is None or self.rank is not None):
            raise ValueError("add needs the box of an animal that no detection has")
        if self.action in ("keep", "relabel") and of_image:
            raise ValueError(f"{self.action} needs a box, or inference_key and rank of a detection")
        if self.label and of_image:
            raise ValueError(f"{self.action} without a box is about the whole image: no label then")
        if self.action in ("relabel", "add") and not self.label:
            raise ValueError(f"{self.action} needs the right label")
        return self


def read_statements(
    rows: Sequence[object], defaults: Mapping[str, str | None]
) -> tuple[dict[int, Statement], dict[int, str]]:
    """Return statements, and words for rows that are none; both by number, from 1 without a header.

    `defaults` are for fields that a row leaves out.
    """
    said: dict[int, Statement] = {}
    wrong: dict[int, str] = {}
    for number, row in enumerate(rows, 1):
        try:
            said[number] = Statement.model_validate(_filled(row, defaults))
        except ValidationError as error:
            wrong[number] = words(error)
        except ValueError as error:
            wrong[number] = str(error)
    return said, wrong


def _filled(row: object, defaults: Mapping[str, str | None]) -> dict[str, Any]:
    """Empty fields are left out, so that a CSV says what JSON says."""
    if not isinstance(row, dict):
        raise ValueError("it must be an object with a value for each field")
    if None in row:
        raise ValueError("it has more fields than the header")
    given = {str(name): value for name, value in row.items() if value not in (None, "")}
    return {name: value for name, value in defaults.items() if value} | given


def words(error: ValidationError) -> str:
    """Describe what is wrong with a row, with the values."""
    parts: list[str] = []
    for item in error.errors():
        where, value = ".".join(map(str, item["loc"])), item["input"]
        why = item["msg"].removeprefix("Value error, ")
        if item["type"] == "string_pattern_mismatch":
            why = "not 64 hex digits"
        if item["type"] == "missing":
            options = {"actor": "--by", "asserted_at": "--at"}
            why = "missing" + (
                f"; add the column, or give {options[where]}" if where in options else ""
            )
        elif where:
            where = f"{where} {value!r}"
        parts.append(f"{where}: {why}" if where else why)
    return "; ".join(parts)
