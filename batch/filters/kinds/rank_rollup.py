"""Relabel uncertain species with the genus, family or other rank that reaches its threshold in sum.

logits --softmax, summed over the classes of each taxon--> finest rank with a sum that reaches its threshold --> relabel

A lineage is a list of taxa from coarse to fine, joined by ";", in the order of `ranks`. Unknown taxa are empty, or left
out at the end. A taxon is its name with all names before it, so that species "alpinus" in two genera are two taxa. Its
label is the class with a lineage that ends there, if exactly one exists, else its name in the lineage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator

from batch.filters.contract import ClassFilterConfig, Filter, FilterAction, Rows
from batch.filters.support.lineages import Taxon, has_rank, labels_of_taxa, taxon_of
from batch.filters.support.logits import IGNORED, blocks, classified, kept_classes, softmax, unclassified
from batch.filters.support.names import Names, labelled
from batch.filters.support.reasons import compared
from model_store.errors import BadRequest

MISSING = -1
Sum = Annotated[float, Field(ge=0, le=1)]


class RankRollupConfig(ClassFilterConfig):
    kind: Literal["rank-rollup"] = "rank-rollup"
    ranks: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        ("class", "order", "family", "genus", "species"), min_length=1
    )
    """names of the positions of a lineage, coarse to fine"""
    thresholds: dict[str, Sum] = Field(
        {"species": 0.8, "genus": 0.6, "family": 0.4}, min_length=1, validate_default=True
    )
    """minimum summed score, 0 to 1, by rank; ranks without one are not used"""
    strict: bool = False
    """true: the sum must be more than the threshold; false: it can equal it"""
    lineage: Literal["constrained", "global"] = Field(
        "constrained",
        description="constrained: only ancestors of the current class (the label, if it is a class, else the best "
        "class); global: the best taxon of each rank",
    )
    keep: Names = ()
    """names of the classes to sum, in any order; empty: all. Use the same list as a class-mask below"""
    ignored_labels: Names = IGNORED
    """labels, before this filter, of the detections that stay unchanged"""

    @field_validator("ranks")
    @classmethod
    def _distinct(cls, ranks: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(ranks)) != len(ranks):
            raise ValueError("a rank is listed twice")
        return ranks

    @field_validator("thresholds")
    @classmethod
    def _finest_first(cls, thresholds: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        ranks: tuple[str, ...] = info.data.get("ranks", tuple(thresholds))
        unknown = [rank for rank in thresholds if rank not in ranks]
        if unknown:
            raise ValueError(f"unknown rank: {', '.join(unknown)}; available: {', '.join(ranks)}")
        return {rank: thresholds[rank] for rank in reversed(ranks) if rank in thresholds}


@dataclass(frozen=True, slots=True)
class _Level:
    """Taxa of one rank, in the order of their first class; k kept classes, t taxa."""

    rank: str
    threshold: float
    taxon: NDArray[np.intp]  # (k,) taxon of each class, MISSING if its lineage has none
    names: tuple[str, ...]  # (t,)
    classes: tuple[int, ...]  # (t,) number of classes summed


def require(config: RankRollupConfig, classes: tuple[str, ...], lineage: tuple[str, ...]) -> list[Taxon]:
    """Return the lineages of the kept classes.

    Raises BadRequest for an invalid `keep`, and if lineages are missing, all empty, or longer than `ranks`.
    """
    kept = kept_classes(config.keep, classes)
    if len(lineage) != len(classes) or not any(lineage):
        raise BadRequest("the classifier has no lineages of its classes, which rank-rollup needs")
    taxa = [taxon_of(text) for text in lineage]
    for name, taxon in zip(classes, taxa, strict=True):
        if len(taxon) > len(config.ranks):
            raise BadRequest(
                f"lineage of class '{name}' has {len(taxon)} names, ranks has {len(config.ranks)} "
                f"({', '.join(config.ranks)}): name a rank for each"
            )
    return [taxa[i] for i in kept]


def actions(config: RankRollupConfig, rows: Rows) -> Iterator[FilterAction]:
    """Yield `relabel` with a `summed` score for each row that gets another label. Raises BadRequest as `require`.

    Reason: "genus felis: 0.83 >= 0.6 over 4 of 12 classes; felis catus 0.41".
    """
    if not rows.classes:
        return
    taxa = require(config, rows.classes, rows.class_lineage)
    if rows.logits is None:
        return
    kept = kept_classes(config.keep, rows.classes)
    levels = _levels(config, taxa, labels_of_taxa(rows))
    column_of = {rows.classes[index]: column for column, index in enumerate(kept.tolist())}
    selected = classified(rows) & labelled(rows, (), config.ignored_labels)
    for block in blocks(np.flatnonzero(selected), len(rows.classes)):
        shares = softmax(np.take(rows.logits[block], kept, axis=1).astype(np.float64))
        best = shares.argmax(axis=1).tolist()
        current = [column_of.get(rows.label[row], top) for row, top in zip(block, best, strict=True)]
        top = np.array(current, np.intp)
        for i, level, taxon, total in _winners(config, levels, shares, top):
            row, label = int(block[i]), level.names[taxon]
            if label == rows.label[row]:
                continue
            reason = (
                f"{_reached(config, level, label, total)} over {level.classes[taxon]} of {len(kept)} classes; "
                f"{rows.classes[kept[top[i]]]} {shares[i, top[i]]:.2f}"
            )
            yield FilterAction(
                *(*rows.target(row), "relabel", reason), label=label, score=total, score_semantics="summed"
            )


def _winners(
    config: RankRollupConfig, levels: list[_Level], shares: NDArray[np.float64], top: NDArray[np.intp]
) -> Iterator[tuple[int, _Level, int, float]]:
    """Yield (row, level, taxon, sum) of the finest level that each row reaches; sums are float32, as scores are."""
    remaining = np.arange(len(shares))
    constrained = config.lineage == "constrained"
    for level in levels:
        if not level.names or not len(remaining):
            continue
        sums = _sums(level, shares[remaining])
        taxon = level.taxon[top[remaining]] if constrained else sums.argmax(axis=1)
        total = sums[np.arange(len(remaining)), taxon]
        threshold = np.float32(level.threshold)
        reached = (taxon != MISSING) & (total > threshold if config.strict else total >= threshold)
        for i in np.flatnonzero(reached).tolist():
            yield int(remaining[i]), level, int(taxon[i]), float(total[i])
        remaining = remaining[~reached]


def _sums(level: _Level, shares: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the summed shares of each taxon, (n, t)."""
    order = np.argsort(level.taxon, kind="stable")
    order = order[level.taxon[order] != MISSING]
    starts = np.cumsum((0, *level.classes[:-1]))
    return np.add.reduceat(np.take(shares, order, axis=1), starts, axis=1).astype(np.float32)


def _levels(config: RankRollupConfig, taxa: list[Taxon], labels: dict[Taxon, str]) -> list[_Level]:
    """Return the levels finest first, in the order of the thresholds."""
    levels: list[_Level] = []
    for rank, threshold in config.thresholds.items():
        depth = config.ranks.index(rank) + 1
        number: dict[Taxon, int] = {}
        numbers = [
            number.setdefault(taxon[:depth], len(number)) if has_rank(taxon, depth) else MISSING for taxon in taxa
        ]
        count = Counter(numbers)
        labels_here = tuple(labels.get(taxon, taxon[-1]) for taxon in number)
        sizes = tuple(count[i] for i in range(len(number)))
        levels.append(_Level(rank, threshold, np.array(numbers, np.intp), labels_here, sizes))
    return levels


def _reached(config: RankRollupConfig, level: _Level, label: str, total: float) -> str:
    """Format the comparison; a sum that equals the threshold as float32 is written like the threshold."""
    equal = np.float32(level.threshold) == np.float32(total)
    value, operator = level.threshold if equal else total, ">" if config.strict else ">="
    return compared(f"{level.rank} {label}:", value, operator, level.threshold)


FILTER = Filter(
    config=RankRollupConfig,
    apply=actions,
    context="image",
    order=60,
    invalid=lambda config, rows: unclassified(rows, (), config.ignored_labels),
    require=require,
)
