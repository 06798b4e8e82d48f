"""Registry of filters by kind. docs/reference/filters.md has the steps to add one ("A filter of your own")."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from batch.filters.contract import Filter, FilterConfig
from batch.filters.kinds import (
    class_mask,
    duplicates,
    events,
    fixed_slots,
    rank_rollup,
    repeat_detections,
    score_threshold,
    small_size,
    smoothing,
    species_list,
    tracking,
)
from model_store.errors import BadRequest
from model_store.frozen import by_field, wrong_fields

FILTERS: dict[str, Filter] = {
    module.FILTER.kind: module.FILTER
    for module in (
        duplicates,
        small_size,
        score_threshold,
        repeat_detections,
        class_mask,
        rank_rollup,
        species_list,
        events,
        smoothing,
        tracking,
        fixed_slots,
    )
}


def filter_of(kind: str) -> Filter:
    """Return the filter of this kind. Raises BadRequest that lists the kinds if it is unknown."""
    filter_ = FILTERS.get(kind)
    if filter_ is None:
        raise BadRequest(f"unknown filter '{kind}'; available: {', '.join(FILTERS)}")
    return filter_


def config_of(kind: str, fields: dict[str, Any]) -> FilterConfig:
    """Return the validated config. Raises BadRequest that names each invalid field and lists the filter's fields."""
    config = filter_of(kind).config
    try:
        return config.model_validate({"kind": kind} | fields)
    except ValidationError as error:
        names = ", ".join(name for name in config.model_fields if name != "kind")
        raise BadRequest(
            f"{wrong_fields(error, whole=kind)}; fields of {kind}: {names}", fields=by_field(error, "config.")
        ) from error
