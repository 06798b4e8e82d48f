"""The filter of images as SQL, for exports and for `resight sql`.

statement("detections", ImageFilter(camera="north", label="fox")) -> "select * from detections where …"
Label and score also select the rows of `detections`; the other conditions select images. Files that are gone do not
count, as on the page.
"""

from __future__ import annotations

from archive.delta.sql_literal import literal
from archive.views.image_index import ImageFilter
from model_store.errors import BadRequest

FILTERED = ("detections", "results")


def statement(relation: str, wanted: ImageFilter) -> str:
    """Return a statement over the relations of the filter's view. Raises BadRequest for another relation."""
    if relation not in FILTERED:
        raise BadRequest(f"invalid relation '{relation}': use one of {', '.join(FILTERED)}")
    found = condition(relation, wanted)
    return f"select * from {relation}" + (f" where {found}" if found else "")


def condition(relation: str, wanted: ImageFilter) -> str:
    """Return the condition on the rows of `detections` or `results`; "" for all rows."""
    files = _joined(
        wanted.camera is not None and f"camera_id = {literal(wanted.camera)}",
        wanted.since and f"captured_at_corrected >= timestamp {literal(str(wanted.since))}",
        wanted.until and f"captured_at_corrected < timestamp {literal(str(wanted.until))}",
        wanted.path is not None and f"starts_with(path, {literal(wanted.path)})",
    )
    placed = _joined(
        wanted.deployment is not None and f"deployment_id = {literal(wanted.deployment)}",
        wanted.location is not None and f"location = {literal(wanted.location)}",
    )
    shown = _joined(
        wanted.label is not None and f"label = {literal(wanted.label)}",
        wanted.min_score is not None and f"score >= {wanted.min_score!r}::float",
    )
    status = wanted.status and f"status = {literal(wanted.status)}"
    event = wanted.event_id is not None and f"event_id = {literal(wanted.event_id)}"
    of_rows = relation == "detections"
    return _joined(
        (files or not of_rows) and _images("images", files),
        placed and _images("image_deployments", placed),
        shown and (shown if of_rows else _images("detections", shown)),
        status and (_images("results", status) if of_rows else status),
        event and _images("image_groups", event),
        wanted.reviewed is not None and ("" if wanted.reviewed else "not ") + _images("standing", ""),
        wanted.flagged is not None and ("" if wanted.flagged else "not ") + _images("flags", ""),
    )


def _images(relation: str, found: str) -> str:
    rows = f"select media_sha256 from {relation}" + (f" where {found}" if found else "")
    return f"media_sha256 in ({rows})"


def _joined(*conditions: str | bool | None) -> str:
    return " and ".join(str(each) for each in conditions if each)
