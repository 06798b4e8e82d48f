"""Every filter, by kind. To add one: a file beside this one, a line here, a test, a paragraph in docs/filters.md."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from batch.filters import (
    class_mask,
    duplicates,
    events,
    rank_rollup,
    repeats,
    score_threshold,
    slots,
    small_size,
    smoothing,
    tracking,
)
from batch.filters.contract import Filter, FilterConfig
from model_store.errors import BadRequest

FILTERS: dict[str, Filter] = {
    module.FILTER.kind: module.FILTER
    for module in (
        duplicates,
        small_size,
        score_threshold,
        repeats,
        class_mask,
        rank_rollup,
        events,
        smoothing,
        tracking,
        slots,
    )
}


def filter_of(kind: str) -> Filter:
    """Raises BadRequest that lists the kinds."""
    found = FILTERS.get(kind)
    if found is None:
        raise BadRequest(f"no filter '{kind}'; there is: {', '.join(FILTERS)}")
    return found


def config_of(kind: str, fields: dict[str, Any]) -> FilterConfig:
    """Raises BadRequest that names each field that is wrong, and what the filter has."""
    one = filter_of(kind)
    try:
        return one.config.model_validate({"kind": kind} | fields)
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, item['loc'])) or kind}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        ]
        names = ", ".join(name for name in one.config.model_fields if name != "kind")
        raise BadRequest(f"{'; '.join(wrong)}; {kind} has: {names}") from error
