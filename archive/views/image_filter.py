"""The filter of images, as SQL over the relations of a view (searches, exports, `resight sql`) and over an index.

statement("detections", ImageFilter(camera="north", label="fox")) -> "select * from detections where …"
selected(ImageFilter(camera="north", label="fox")) -> the table of an index, its conditions, and their values
Label and score also select the rows of `detections`; the other conditions select images. Files that are gone do not
count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field

from archive.catalogue.local_time import LocalEnd, LocalTime
from archive.delta.sql_literal import literal
from archive.views.views import NAME, PRODUCTION
from model_store.errors import BadRequest
from model_store.frozen import Frozen

FILTERED = ("detections", "results")
ViewName = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
_CONDITIONS = {
    "camera": ("images", "camera_id = {}"),
    "since": ("images", "captured_at_corrected >= {}::timestamp"),
    "until": ("images", "captured_at_corrected < {}::timestamp"),
    "path": ("images", "starts_with(path, {})"),
    "deployment": ("image_deployments", "deployment_id = {}"),
    "location": ("image_deployments", "location = {}"),
    "label": ("detections", "label = {}"),
    "min_score": ("detections", "score >= {}::float"),
    "status": ("results", "status = {}"),
    "event_id": ("image_groups", "event_id = {}"),
    "reviewed": ("standing", ""),
    "flagged": ("flags", ""),
}
"""The relation of each condition, and the condition on its rows; of the last two, whether the image has a row."""
_OF_INDEX = {
    "since": "moment >= {}",
    "until": "moment < {} and moment > '-infinity'",
    "min_score": "top_score >= {}::float",
    "reviewed": "reviewed = {}",
    "flagged": "flagged = {}",
}
"""Conditions on an index that differ from those on the relations."""


class Conditions(Frozen):
    """Conditions on images; all must hold. `status` is that of relation `results`, or `missing` without a row.

    `since` and `until` (exclusive; a day without a time is included) are local camera times after corrections of
    clocks, without an offset.
    """

    camera: str | None = None
    status: Literal["ok", "empty", "failed", "missing"] | None = Field(
        default=None,
        description="ok: the view shows a detection; empty: it shows none; missing: the image has no result",
    )
    label: str | None = Field(default=None, description="label of a shown detection")
    min_score: float | None = Field(default=None, ge=0, le=1, description="minimum score of that detection")
    since: LocalTime | None = Field(default=None, description="earliest time taken, by the camera's corrected clock")
    until: LocalEnd | None = Field(
        default=None,
        description="end of the times taken, by the camera's corrected clock: a day (inclusive) or a time (exclusive)",
    )
    deployment: str | None = Field(default=None, description="id of the image's deployment")
    location: str | None = Field(default=None, description="location of that deployment")


class ImageFilter(Conditions):
    """Conditions on the images of a view, and on what people stated about them."""

    reviewed: bool | None = Field(default=None, description="whether a statement of a person about the image is valid")
    flagged: bool | None = Field(
        default=None, description="whether colleagues should look, because no decision followed a flag"
    )
    path: str | None = Field(default=None, description="start of the path below its root")
    event_id: str | None = None
    view: ViewName = PRODUCTION


def statement(relation: str, wanted: Conditions) -> str:
    """Return a statement over the relations of the filter's view. Raises BadRequest for another relation."""
    if relation not in FILTERED:
        raise BadRequest(f"invalid relation '{relation}': use one of {', '.join(FILTERED)}")
    return f"select * from {relation}{_where(condition(relation, wanted))}"


def condition(relation: str, wanted: Conditions) -> str:
    """Return the condition on the rows of `detections` or `results`; "" for all rows."""
    return _condition(relation, wanted, lambda name: _literal(getattr(wanted, name)))


def parameterised(wanted: Conditions) -> tuple[str, dict[str, Any]]:
    """Return the condition on the rows of `images` with named parameters, and their values."""
    values = {name: value for name, value in _given(wanted).items() if value != "missing" or name != "status"}
    return _condition("images", wanted, "${}".format), values


def _condition(relation: str, wanted: Conditions, written: Callable[[str], str]) -> str:
    """Return the condition on the rows of `relation`; `written` gives the SQL of a value, by its name.

    Conditions on one other relation are joined, so that a single row of it meets all of them.
    """
    # `results` also has rows of files that are gone: only those of `images` count, with or without conditions
    of_rows: dict[str, list[str]] = {"images": []} if relation == "results" else {}
    more: list[str] = []
    for name, value in _given(wanted).items():
        of, sql = _CONDITIONS[name]
        found = sql.format(written(name))
        if isinstance(value, bool):
            more.append(_in_rows(of, negation="" if value else "not "))
        elif name == "status" and relation == "images" and value in ("failed", "missing"):  # cheaper than `results`
            more.append(_in_rows("seen", found) if value == "failed" else _in_rows("seen", negation="not "))
        else:
            of_rows.setdefault(of, []).append(found)
    joined = {of: " and ".join(conditions) for of, conditions in of_rows.items()}
    files = joined.get("images", "") if relation == "images" else ""
    return " and ".join([*(sql if of == relation else _in_rows(of, sql, files) for of, sql in joined.items()), *more])


def _given(wanted: Conditions) -> dict[str, Any]:
    return {name: value for name in _CONDITIONS if (value := getattr(wanted, name, None)) is not None}


def _literal(value: object) -> str:
    return repr(value) if isinstance(value, float) else literal(str(value))


def _in_rows(relation: str, found: str = "", files: str = "", negation: str = "") -> str:
    """Return the condition on the images of some rows. Detections are only resolved for images with `files`."""
    if relation == "detections" and files:
        relation += f" semi join (select media_sha256 from images where {files}) using (media_sha256)"
    return f"{negation}media_sha256 in (select media_sha256 from {relation}{_where(found)})"


def _where(found: str) -> str:
    return f" where {found}" if found else ""


def selected(wanted: Conditions) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the table of an index, its label and the conditions of a filter for a statement, and their values."""
    values = _given(wanted)
    conditions = ["true", *(_OF_INDEX.get(name, _CONDITIONS[name][1]).format(f"${name}") for name in values)]
    rows, label = ("cells", "top_label") if wanted.label is None else ("found", "label")
    return {"rows": rows, "label": label, "conditions": " and ".join(conditions)}, values
