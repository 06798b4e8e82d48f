"""Names: labels that a filter applies to, numbers in place of texts, and stable ids of groups."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from batch.filters.contract import Rows

T = TypeVar("T")


def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names sorted, without duplicates, so that their order does not change the layer's id."""
    return tuple(sorted(set(names)))


def by_key(values: dict[str, T]) -> dict[str, T]:
    """Return the values sorted by their keys, for the same reason."""
    return dict(sorted(values.items()))


Names = Annotated[tuple[str, ...], AfterValidator(distinct)]


def labelled(rows: Rows, labels: tuple[str, ...], ignored: tuple[str, ...]) -> NDArray[np.bool_]:
    """Return (n,) bool: rows with one of `labels` (empty: any), and with none of `ignored`."""
    included, excluded = frozenset(labels), frozenset(ignored)
    wanted = (label not in excluded and (not included or label in included) for label in rows.label)
    return np.fromiter(wanted, np.bool_, len(rows))


def numbered(values: NDArray[np.object_]) -> tuple[NDArray[np.intp], dict[str | None, int]]:
    """Return a number from 0 for each value, (n,), and the mapping: numpy is faster with numbers than with texts."""
    numbers: dict[str | None, int] = {}
    of = (numbers.setdefault(value, len(numbers)) for value in values)
    return np.fromiter(of, np.intp, len(values)), numbers


def group_id(kind: str, *first: str | float) -> str:
    """Return 32 hex digits of the filter's kind and the group's first member, which later images do not change."""
    return hashlib.sha256(json.dumps([kind, *first]).encode()).hexdigest()[:32]
