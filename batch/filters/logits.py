"""Logits of a classifier, (n, classes) float32: which rows have them, and the softmax of those kept, in float64.

A block of rows at a time, so that memory does not grow with the table; each row's figures depend on that row alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from batch.filters.contract import NO_RANK, Rows
from model_store.errors import BadRequest

BLOCK_VALUES = 2**21
"""16 MiB of float64."""
NAMED = 5
"""How many wrong names a message lists."""
IGNORED = ("human", "not identifiable", "person", "vehicle")
"""Labels that a classifier of animals has nothing to say of, and must not overrule."""


def names(given: tuple[str, ...]) -> tuple[str, ...]:
    """Sorted and each once: the order of a list makes no other layer."""
    return tuple(sorted(set(given)))


def classified(rows: Rows) -> NDArray[np.bool_]:
    """(n,): detections with finite logits."""
    out = np.zeros(len(rows), np.bool_)
    if rows.logits is None or not rows.classes:
        return out
    for part in blocks(np.flatnonzero(rows.rank != NO_RANK), len(rows.classes)):
        out[part] = np.isfinite(rows.logits[part]).all(axis=1)
    return out


def labelled(rows: Rows, labels: tuple[str, ...], ignored: tuple[str, ...]) -> NDArray[np.bool_]:
    """(n,): rows with one of `labels` (empty: any), and with none of `ignored`."""
    asked, never = frozenset(labels), frozenset(ignored)
    wanted = (label not in never and (not asked or label in asked) for label in rows.label)
    return np.fromiter(wanted, np.bool_, len(rows))


def blocks(index: NDArray[np.intp], classes: int) -> Iterator[NDArray[np.intp]]:
    """`index` in parts of at most BLOCK_VALUES logits (one row, if it has more)."""
    step = max(1, BLOCK_VALUES // max(1, classes))
    for start in range(0, len(index), step):
        yield index[start : start + step]


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, k) each row by itself; no overflow, and no row of zeros."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def kept_classes(keep: tuple[str, ...], classes: tuple[str, ...]) -> NDArray[np.intp]:
    """Numbers of the classes named in `keep`, ascending; empty: all.

    Raises BadRequest when there are no classes, or when a name is no class of them.
    """
    if not classes:
        raise BadRequest("keep: there are no classes to keep: choose a classifier that has some")
    if not keep:
        return np.arange(len(classes))
    unknown = sorted(set(keep) - set(classes))
    if unknown:
        few = ", ".join(map(repr, unknown[:NAMED])) + (", …" if len(unknown) > NAMED else "")
        some = ", ".join(map(repr, classes[:NAMED])) + (", …" if len(classes) > NAMED else "")
        none = "none of its names is a class" if len(unknown) == len(set(keep)) else "not a class"
        raise BadRequest(
            f"keep: {none} of this classifier ({len(unknown)} of {len(set(keep))}): {few}; its {len(classes)} "
            f"classes are called {some}: correct or remove these names"
        )
    kept = frozenset(keep)
    return np.array([i for i, name in enumerate(classes) if name in kept], np.intp)
