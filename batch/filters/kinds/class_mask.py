"""Relabel detections with the best class of a list, such as the taxa that can occur at the site.

logits (n, classes) --kept classes only--> softmax, float64 --best, of ties the lowest--> relabel with its score

The softmax over the kept logits equals masking and dividing by the sum, but never divides 0 by 0. Without a list, the
result is the classifier's best class.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from batch.filters.contract import ClassFilterConfig, Filter, FilterAction, Rows
from batch.filters.support.logits import IGNORED, blocks, classified, kept_classes, unclassified
from batch.filters.support.names import Names, labelled


class ClassMaskConfig(ClassFilterConfig):
    kind: Literal["class-mask"] = "class-mask"
    keep: Names = ()
    """names of the allowed classes, in any order; empty: all classes of the classifier"""
    reweight: bool = Field(
        True,
        description="true: the score is the share among the kept classes (renormalised), 0 to 1; "
        "false: the share among all classes (absolute)",
    )
    emit: Literal["all", "changed"] = "all"
    """all: relabel every classified detection; changed: only those with a best class that is not kept"""
    labels: Names = ()
    """labels, before this filter, of the detections to relabel; empty: any label"""
    ignored_labels: Names = IGNORED
    """labels, before this filter, of the detections that stay unchanged"""

    @model_validator(mode="after")
    def _labels_are_not_ignored(self) -> Self:
        both = sorted(set(self.labels) & set(self.ignored_labels))
        if both:
            raise ValueError(f"labels and ignored_labels overlap: {', '.join(both)}")
        return self


def actions(config: ClassMaskConfig, rows: Rows) -> Iterator[FilterAction]:
    """Yield `relabel` for each classified detection. Raises BadRequest as `kept_classes`.

    Reason: "0.83 renormalised, best of 12 classes kept of 1000; of all: lion 0.41".
    """
    if not rows.classes:
        return
    kept = kept_classes(config.keep, rows.classes)
    if rows.logits is None:
        return
    masked = len(kept) < len(rows.classes)
    semantics = ("renormalised" if config.reweight else "absolute") if masked else "softmax"
    selected = classified(rows) & labelled(rows, config.labels, config.ignored_labels)
    for block in blocks(np.flatnonzero(selected), len(rows.classes)):
        logits = rows.logits[block].astype(np.float64)
        best, best_score = _best(logits, logits)
        kept_logits = np.take(logits, kept, axis=1)
        column, score = _best(kept_logits, kept_logits if config.reweight else logits)
        top = kept[column]
        for i in np.flatnonzero(top != best) if config.emit == "changed" else range(len(block)):
            row, label = int(block[i]), rows.classes[top[i]]
            reason = f"{score[i]:.2f} {semantics}, best of {len(kept)} classes"
            if masked:
                reason += f" kept of {len(rows.classes)}; of all: {rows.classes[best[i]]} {best_score[i]:.2f}"
            yield FilterAction(
                *(*rows.target(row), "relabel", reason), label=label, score=float(score[i]), score_semantics=semantics
            )


def _best(candidates: NDArray[np.float64], total: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the column of the largest candidate of each row, and its share of the softmax of `total`; (n,) each."""
    column = candidates.argmax(axis=1)
    best, largest = candidates[np.arange(len(candidates)), column], total.max(axis=1)
    share = np.exp(best - largest) / np.exp(total - largest[:, np.newaxis]).sum(axis=1)
    return column, share.astype(np.float32)


FILTER = Filter(
    config=ClassMaskConfig,
    apply=actions,
    context="image",
    order=50,
    invalid=lambda config, rows: unclassified(rows, config.labels, config.ignored_labels),
    require=lambda config, classes, _: kept_classes(config.keep, classes),
)
