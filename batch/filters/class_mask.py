"""The best class of those kept: a classifier's answer by a list of the taxa that can be there at all.

logits (n, classes) --only those kept--> softmax, float64 --best, of ties the lowest--> relabel with its score

The softmax is over the kept logits only, which equals masking and dividing by the sum, but never divides 0 by 0.
Without a list it is the plain answer of the classifier.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from batch.filters.contract import NO_RANK, ClassFilterConfig, Filter, Rows, Said
from batch.filters.logits import IGNORED, blocks, classified, kept_classes, labelled, names

Names = Annotated[tuple[str, ...], AfterValidator(names)]


class ClassMaskConfig(ClassFilterConfig):
    kind: Literal["class-mask"] = "class-mask"
    keep: Names = Field(
        default=(),
        description="names of the classes that may be answered, in any order; none: all of the classifier",
    )
    reweight: bool = Field(
        default=True,
        description="whether the score is the share among the kept classes (renormalised), 0 to 1; else the share "
        "among all (absolute)",
    )
    emit: Literal["all", "changed"] = Field(
        default="all",
        description="all: every classified detection is relabelled; changed: only where the best class of all is "
        "not kept, so that the label is another",
    )
    labels: Names = Field(
        default=(),
        description="labels, before this filter, of the detections it is about; none: any label",
    )
    ignored_labels: Names = Field(
        default=IGNORED,
        description="labels, before this filter, of the detections that are left as they are",
    )

    @model_validator(mode="after")
    def _labels_are_not_ignored(self) -> Self:
        both = sorted(set(self.labels) & set(self.ignored_labels))
        if both:
            raise ValueError(f"labels and ignored_labels both name: {', '.join(both)}")
        return self


def require(config: ClassMaskConfig, classes: tuple[str, ...]) -> NDArray[np.intp]:
    """Numbers of the kept classes, ascending. Raises BadRequest for names that the classifier does not know."""
    return kept_classes(config.keep, classes)


def invalid(config: ClassMaskConfig, rows: Rows) -> NDArray[np.bool_]:
    """(n,): detections it is about that have no logits, or not finite ones."""
    asked = labelled(rows, config.labels, config.ignored_labels)
    return asked & (rows.rank != NO_RANK) & ~classified(rows)


def say(config: ClassMaskConfig, rows: Rows) -> Iterator[Said]:
    """One `relabel` for each classified detection. Reason: "0.83 of 12 classes of 1000; of all: lion 0.41".

    Raises BadRequest as `require` does.
    """
    if not rows.classes:
        return
    kept = require(config, rows.classes)
    if rows.logits is None:
        return
    masked = len(kept) < len(rows.classes)
    semantics = ("renormalised" if config.reweight else "absolute") if masked else "softmax"
    asked = classified(rows) & labelled(rows, config.labels, config.ignored_labels)
    for part in blocks(np.flatnonzero(asked), len(rows.classes)):
        logits = rows.logits[part].astype(np.float64)
        first, first_score = _best(logits, logits)
        among = np.take(logits, kept, axis=1)
        place, score = _best(among, among if config.reweight else logits)
        top = kept[place]
        for at in np.flatnonzero(top != first) if config.emit == "changed" else range(len(part)):
            row, label = int(part[at]), rows.classes[top[at]]
            reason = f"{score[at]:.2f} {semantics}, best of {len(kept)} classes"
            if masked:
                reason += f" kept of {len(rows.classes)}; of all: {rows.classes[first[at]]} {first_score[at]:.2f}"
            yield Said(
                *(rows.media_sha256[row], int(rows.rank[row]), "relabel", reason),
                label=label,
                score=float(score[at]),
                score_semantics=semantics,
            )


def _best(
    among: NDArray[np.float64], of: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Column of the largest logit of each row of `among`, and its share of the softmax of `of`; (n,) each."""
    place = among.argmax(axis=1)
    best, most = among[np.arange(len(among)), place], of.max(axis=1)
    share = np.exp(best - most) / np.exp(of - most[:, np.newaxis]).sum(axis=1)
    return place, share.astype(np.float32)


FILTER = Filter(
    config=ClassMaskConfig,
    apply=say,
    context="image",
    order=50,
    invalid=invalid,
    require=lambda config, classes, _: require(config, classes),
)
