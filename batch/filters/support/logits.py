"""Logits of a classifier, (n, classes) float32: select rows and classes, and compute the softmax in float64.

Rows are processed in blocks, so that memory does not grow with the table; the result of a row depends on it alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from batch.filters.contract import NO_RANK, Rows
from batch.filters.support.names import labelled
from model_store.errors import BadRequest

BLOCK_VALUES = 2**21
"""16 MiB of float64."""
NAMED = 5
"""Maximum number of unknown names in an error message."""
IGNORED = ("human", "not identifiable", "person", "vehicle")
"""Labels that a classifier of animals does not cover and must not replace."""


def classified(rows: Rows) -> NDArray[np.bool_]:
    """Return (n,) bool: detections with finite logits."""
    out = np.zeros(len(rows), np.bool_)
    if rows.logits is None or not rows.classes:
        return out
    for part in blocks(np.flatnonzero(rows.rank != NO_RANK), len(rows.classes)):
        out[part] = np.isfinite(rows.logits[part]).all(axis=1)
    return out


def unclassified(rows: Rows, labels: tuple[str, ...], ignored: tuple[str, ...]) -> NDArray[np.bool_]:
    """Return (n,) bool: detections with one of `labels` (empty: any) and none of `ignored`, without finite logits."""
    return labelled(rows, labels, ignored) & ~classified(rows)


def blocks(index: NDArray[np.intp], classes: int) -> Iterator[NDArray[np.intp]]:
    """Split `index` into blocks of at most BLOCK_VALUES logits, and at least one row."""
    step = max(1, BLOCK_VALUES // max(1, classes))
    for start in range(0, len(index), step):
        yield index[start : start + step]


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the softmax of each row, (n, k), without overflow or rows of zeros."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def kept_classes(keep: tuple[str, ...], classes: tuple[str, ...]) -> NDArray[np.intp]:
    """Return the indices of the classes named in `keep`, ascending; all if it is empty.

    Raises BadRequest if `classes` is empty, or a name is not one of them.
    """
    if not classes:
        raise BadRequest("keep: the classifier has no classes; choose one with classes")
    if not keep:
        return np.arange(len(classes))
    unknown = sorted(set(keep) - set(classes))
    if unknown:
        wrong = ", ".join(map(repr, unknown[:NAMED])) + (", …" if len(unknown) > NAMED else "")
        valid = ", ".join(map(repr, classes[:NAMED])) + (", …" if len(classes) > NAMED else "")
        problem = "no name is a class" if len(unknown) == len(set(keep)) else "not a class"
        raise BadRequest(
            f"keep: {problem} of this classifier ({len(unknown)} of {len(set(keep))}): {wrong}; its {len(classes)} "
            f"classes are {valid}: correct or remove these names"
        )
    kept = frozenset(keep)
    return np.array([i for i, name in enumerate(classes) if name in kept], np.intp)
