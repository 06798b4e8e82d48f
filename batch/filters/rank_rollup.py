"""Roll-up: where no species is sure enough, the genus, family ... whose classes are so together.

logits --softmax, summed over the classes of each taxon--> finest rank whose sum reaches its threshold --> relabel

A lineage is names of taxa from coarse to fine, joined by ";": the first stands for the first of `ranks`, and so on;
what is not known is empty, or left out at the end. A taxon is its name and all names before it, so that two species
"alpinus" of two genera are two. It is called as the class whose lineage ends with it, if there is just one, else by
its name in the lineage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from batch.filters.contract import NO_RANK, ClassFilterConfig, Filter, Rows, Said
from batch.filters.logits import (
    IGNORED,
    blocks,
    classified,
    kept_classes,
    labelled,
    names,
    softmax,
)
from batch.filters.reasons import compared
from model_store.errors import BadRequest

MISSING = -1
Taxon = tuple[str, ...]
Names = Annotated[tuple[str, ...], AfterValidator(names)]
Sum = Annotated[float, Field(ge=0, le=1)]


class RankRollupConfig(ClassFilterConfig):
    kind: Literal["rank-rollup"] = "rank-rollup"
    ranks: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=("class", "order", "family", "genus", "species"),
        min_length=1,
        description="what the places of a lineage are called, coarse to fine",
    )
    thresholds: dict[str, Sum] = Field(
        default={"species": 0.8, "genus": 0.6, "family": 0.4},
        min_length=1,
        validate_default=True,
        description="summed score, 0 to 1, by rank, that a taxon of this rank needs; ranks that are not named are "
        "not rolled up to",
    )
    strict: bool = Field(
        default=False,
        description="whether the sum must be more than the threshold; else it may equal it",
    )
    lineage: Literal["constrained", "global"] = Field(
        default="constrained",
        description="constrained: only ancestors of the class that stands (the label, if it is a class, else the "
        "best); global: the best taxon of a rank, wherever it is",
    )
    keep: Names = Field(
        default=(),
        description="names of the classes that are summed, in any order; none: all. Where a class-mask is below, "
        "the same list",
    )
    ignored_labels: Names = Field(
        default=IGNORED,
        description="labels, before this filter, of the detections that are left as they are",
    )

    @field_validator("ranks")
    @classmethod
    def _distinct(cls, ranks: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(ranks)) != len(ranks):
            raise ValueError("a rank is named twice")
        return ranks

    @field_validator("thresholds")
    @classmethod
    def _finest_first(cls, thresholds: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        ranks: tuple[str, ...] = info.data.get("ranks", tuple(thresholds))
        unknown = [rank for rank in thresholds if rank not in ranks]
        if unknown:
            raise ValueError(f"no such rank: {', '.join(unknown)}; there is: {', '.join(ranks)}")
        return {rank: thresholds[rank] for rank in reversed(ranks) if rank in thresholds}


@dataclass(frozen=True, slots=True)
class _Level:
    """Taxa of one rank, in the order of their first class; k kept classes, t taxa."""

    rank: str
    least: float
    taxon: NDArray[np.intp]  # (k,) of each class, MISSING where its lineage has none
    names: tuple[str, ...]  # (t,)
    classes: tuple[int, ...]  # (t,) how many are summed


def require(
    config: RankRollupConfig, classes: tuple[str, ...], lineage: tuple[str, ...]
) -> list[Taxon]:
    """Lineages of the kept classes. Raises BadRequest for a wrong `keep`, and for lineages that are missing, all
    empty, or longer than `ranks`.
    """
    kept = kept_classes(config.keep, classes)
    if len(lineage) != len(classes) or not any(lineage):
        raise BadRequest("this classifier has no lineages of its classes, which rank-rollup needs")
    taxa = [_taxon(text) for text in lineage]
    for name, taxon in zip(classes, taxa, strict=True):
        if len(taxon) > len(config.ranks):
            raise BadRequest(
                f"lineage of class '{name}' has {len(taxon)} names, ranks has {len(config.ranks)} "
                f"({', '.join(config.ranks)}): name a rank for each"
            )
    return [taxa[i] for i in kept]


def invalid(config: RankRollupConfig, rows: Rows) -> NDArray[np.bool_]:
    """(n,): detections it is about that have no logits, or not finite ones."""
    asked = labelled(rows, (), config.ignored_labels)
    return asked & (rows.rank != NO_RANK) & ~classified(rows)


def say(config: RankRollupConfig, rows: Rows) -> Iterator[Said]:
    """One `relabel`, `summed`, for each row whose label becomes another. Reason: "genus felis: 0.83 >= 0.6 over 4
    classes; felis catus 0.41". Raises BadRequest as `require` does.
    """
    if not rows.classes:
        return
    taxa = require(config, rows.classes, rows.class_lineage)
    if rows.logits is None:
        return
    kept = kept_classes(config.keep, rows.classes)
    levels = _levels(config, taxa, _called(rows))
    place = {rows.classes[number]: at for at, number in enumerate(kept.tolist())}
    asked = classified(rows) & labelled(rows, (), config.ignored_labels)
    for part in blocks(np.flatnonzero(asked), len(rows.classes)):
        shares = softmax(np.take(rows.logits[part], kept, axis=1).astype(np.float64))
        best = shares.argmax(axis=1).tolist()
        stands = [place.get(rows.label[row], top) for row, top in zip(part, best, strict=True)]
        top = np.array(stands, np.intp)
        for at, level, taxon, total in _winners(config, levels, shares, top):
            row, label = int(part[at]), level.names[taxon]
            if label == rows.label[row]:
                continue
            reason = (
                f"{_reached(config, level, label, total)} over {level.classes[taxon]} of {len(kept)} classes; "
                f"{rows.classes[kept[top[at]]]} {shares[at, top[at]]:.2f}"
            )
            yield Said(
                *(rows.media_sha256[row], int(rows.rank[row]), "relabel", reason),
                label=label,
                score=total,
                score_semantics="summed",
            )


def _winners(
    config: RankRollupConfig,
    levels: list[_Level],
    shares: NDArray[np.float64],
    top: NDArray[np.intp],
) -> Iterator[tuple[int, _Level, int, float]]:
    """(row, level, taxon, sum) of the finest level that is reached, by level; sums are float32, as scores are."""
    left = np.arange(len(shares))
    for level in levels:
        if not level.names or not len(left):
            continue
        sums = _sums(level, shares[left])
        taxon = level.taxon[top[left]] if config.lineage == "constrained" else sums.argmax(axis=1)
        total = sums[np.arange(len(left)), taxon]
        least = np.float32(level.least)
        reached = (taxon != MISSING) & (total > least if config.strict else total >= least)
        for at in np.flatnonzero(reached).tolist():
            yield int(left[at]), level, int(taxon[at]), float(total[at])
        left = left[~reached]


def _sums(level: _Level, shares: NDArray[np.float64]) -> NDArray[np.float32]:
    """(n, t) of the classes of each taxon."""
    order = np.argsort(level.taxon, kind="stable")
    order = order[level.taxon[order] != MISSING]
    starts = np.cumsum((0, *level.classes[:-1]))
    return np.add.reduceat(np.take(shares, order, axis=1), starts, axis=1).astype(np.float32)


def _levels(config: RankRollupConfig, taxa: list[Taxon], called: dict[Taxon, str]) -> list[_Level]:
    """Finest first, as the thresholds are."""
    levels: list[_Level] = []
    for rank, least in config.thresholds.items():
        depth = config.ranks.index(rank) + 1
        number: dict[Taxon, int] = {}
        taxon = [
            number.setdefault(one[:depth], len(number)) if _has(one, depth) else MISSING
            for one in taxa
        ]
        count = Counter(taxon)
        called_here = tuple(called.get(one, one[-1]) for one in number)
        sizes = tuple(count[i] for i in range(len(number)))
        levels.append(_Level(rank, least, np.array(taxon, np.intp), called_here, sizes))
    return levels


def _taxon(lineage: str) -> Taxon:
    """Names coarse to fine, without empty ones at the end."""
    parts = [part.strip() for part in lineage.split(";")]
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts)


def _has(taxon: Taxon, depth: int) -> bool:
    return len(taxon) >= depth and bool(taxon[depth - 1])


def _called(rows: Rows) -> dict[Taxon, str]:
    """The class of each taxon that is the end of just one class's lineage."""
    ends = [_taxon(text) for text in rows.class_lineage]
    count = Counter(ends)
    return {
        end: name for end, name in zip(ends, rows.classes, strict=True) if end and count[end] == 1
    }


def _reached(config: RankRollupConfig, level: _Level, label: str, total: float) -> str:
    """A sum that equals the threshold as float32 is written as the threshold is."""
    written = level.least if np.float32(level.least) == np.float32(total) else total
    return compared(f"{level.rank} {label}:", written, ">" if config.strict else ">=", level.least)


FILTER = Filter(
    config=RankRollupConfig,
    apply=say,
    context="image",
    order=60,
    invalid=invalid,
    require=require,
)
