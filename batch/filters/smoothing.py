"""Smoothing: what most detections of an image, then of an event, are called, the vague ones among them are called too.

labels of an image --counts--> labels of the image --counts of the event--> final labels; a Said for each that changed

The counts decide and nothing else: a score stays that of the model for the old label (`inherited`). Each flip
is said, with the counts that made it. Two labels that are equally frequent change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from batch.filters.contract import NO_RANK, ClassFilterConfig, Filter, Needs, Rows, Said

OTHER = ("other", "unknown", "no cv result", "animal", "blank", "mammal")
IGNORED = ("person", "human", "vehicle", "not identifiable")


class SmoothingConfig(ClassFilterConfig):
    kind: Literal["smoothing"] = "smoothing"
    classifier: str = Field(
        default="",
        description="whose lineages flip_rare looks at: classifier_key, its first digits, or name@version; none: the "
        "only one there is, if any",
    )
    min_score: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="score, 0 to 1: rows below it are neither counted nor changed; at it they are",
    )
    other_labels: tuple[str, ...] = Field(
        default=OTHER,
        description="labels, in any case, that say less than a species: never the dominant one",
    )
    ignored_labels: tuple[str, ...] = Field(
        default=IGNORED, description="labels, in any case, that are neither counted nor changed"
    )
    others_to_dominant: bool = Field(
        default=True, description="whether other labels become the dominant one"
    )
    min_dominant_others: int = Field(
        default=2,
        ge=1,
        description="detections: others_to_dominant needs so many of the dominant label, or more",
    )
    flip_rare: bool = Field(
        default=False,
        description="whether rare labels become the dominant one: the one deer among 900 cows becomes a cow",
    )
    min_dominant_rare: int = Field(
        default=4,
        ge=2,
        description="detections: flip_rare needs so many of the dominant label, or more",
    )
    max_rare: int = Field(
        default=1,
        ge=1,
        description="detections: a label with so many, or fewer, is rare to flip_rare",
    )

    @property
    def needs(self) -> Needs:
        return "lineages" if self.flip_rare else None


@dataclass(frozen=True, slots=True)
class _Labels:
    """Labels of the rows that are considered, by number; `of_row` changes as flips are made, and `reasons` grows."""

    of_row: NDArray[np.int64]
    names: list[str]
    other: NDArray[np.bool_]
    taxa: list[list[str]]
    reasons: dict[int, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Count:
    """By row: its group's dominant label (-1: none) and how many have it, of how many, and its own label's count."""

    dominant: NDArray[np.int64]
    of_dominant: NDArray[np.int64]
    of_all: NDArray[np.int64]
    of_own: NDArray[np.int64]


def say(config: SmoothingConfig, rows: Rows) -> Iterator[Said]:
    """`relabel` for each row whose label changes, e.g. with the reason "event: 5 deer of 6; was animal"."""
    index, labels = _considered(config, rows)
    before = labels.of_row.copy()
    everywhere = np.arange(len(index))
    image, _ = _numbered(rows.media_sha256[index])
    _smooth(config, "image", image, everywhere, labels)
    event, numbers = _numbered(rows.event_id[index])
    inside = everywhere[event != numbers.get(None, -1)]
    _smooth(config, "event", event[inside], inside, labels)
    media = rows.media_sha256.tolist()
    for at in np.flatnonzero(labels.of_row != before).tolist():
        row = int(index[at])
        yield Said(
            media[row],
            int(rows.rank[row]),
            "relabel",
            "; ".join(labels.reasons[at]),
            label=labels.names[labels.of_row[at]],
            score=float(rows.score[row]),
            score_semantics="inherited",
        )


def _considered(config: SmoothingConfig, rows: Rows) -> tuple[NDArray[np.intp], _Labels]:
    """Which rows count, and their labels."""
    label, numbers = _numbered(rows.label)
    names = ["" if name is None else name for name in numbers]
    ignored = _any_of(names, (*config.ignored_labels, ""))
    counted = (rows.rank != NO_RANK) & (rows.score >= config.min_score)
    index = np.flatnonzero(counted & ~ignored[label])
    lineage = dict(zip(rows.classes, rows.class_lineage, strict=False))
    taxa = [_taxa(lineage.get(name, "")) for name in names]
    return index, _Labels(label[index], names, _any_of(names, config.other_labels), taxa)


def _smooth(
    config: SmoothingConfig,
    level: str,
    group: NDArray[np.int64],
    at: NDArray[np.intp],
    labels: _Labels,
) -> None:
    """Both steps over the rows `at`, which are in `group`; what the first changes the second counts."""
    if config.others_to_dominant:
        own = labels.of_row[at]
        count = _count(group, own, labels.other)
        enough = (count.dominant >= 0) & (count.of_dominant >= config.min_dominant_others)
        _flip(level, at, enough & labels.other[own], count, labels)
    if config.flip_rare:
        own = labels.of_row[at]
        count = _count(group, own, labels.other)
        enough = (count.dominant >= 0) & (count.of_dominant >= config.min_dominant_rare)
        rare = (count.dominant != own) & (count.of_own <= config.max_rare) & ~labels.other[own]
        flips = enough & rare
        for place in np.flatnonzero(flips).tolist():
            flips[place] = not _is_ancestor(labels, count.dominant[place], own[place])
        _flip(level, at, flips, count, labels)


def _flip(
    level: str, at: NDArray[np.intp], flips: NDArray[np.bool_], count: _Count, labels: _Labels
) -> None:
    for place in np.flatnonzero(flips).tolist():
        row, new = int(at[place]), int(count.dominant[place])
        counts = f"{count.of_dominant[place]} {labels.names[new]} of {count.of_all[place]}"
        was = labels.names[labels.of_row[row]]
        labels.reasons.setdefault(row, []).append(f"{level}: {counts}; was {was}")
        labels.of_row[row] = new


def _count(group: NDArray[np.int64], label: NDArray[np.int64], other: NDArray[np.bool_]) -> _Count:
    """The dominant label of a group is its most frequent one, but never an other label: it gives way to a real one
    as frequent as itself, and when it is more frequent there is none. Nor is there when two real ones are.
    """
    n_labels = max(1, len(other))
    pairs, own, n = np.unique(group * n_labels + label, return_inverse=True, return_counts=True)
    groups, names = np.divmod(pairs, n_labels)
    total = np.bincount(group)
    most = np.zeros(len(total), np.int64)
    np.maximum.at(most, groups, n)
    top = (n == most[groups]) & ~other[names]
    dominant = np.full(len(total), -1, np.int64)
    dominant[groups[top]] = names[top]
    dominant[np.bincount(groups[top], minlength=len(total)) != 1] = -1
    return _Count(dominant[group], most[group], total[group], n[own])


def _is_ancestor(labels: _Labels, coarse: int, fine: int) -> bool:
    """Return whether `coarse` is a taxon that `fine` lies in: by its name, or by its own lineage if it has one."""
    above, below = labels.taxa[coarse], labels.taxa[fine]
    by_name = labels.names[coarse].casefold() in below[:-1]
    return by_name or (0 < len(above) < len(below) and below[: len(above)] == above)


def _taxa(lineage: str) -> list[str]:
    return [name.strip().casefold() for name in lineage.split(";") if name.strip()]


def _any_of(names: list[str], wanted: tuple[str, ...]) -> NDArray[np.bool_]:
    folded = {name.casefold() for name in wanted}
    return np.array([name.casefold() in folded for name in names], bool)


def _numbered(
    values: NDArray[np.object_],
) -> tuple[NDArray[np.int64], dict[str | None, int]]:
    """Equal values get equal numbers, from 0."""
    numbers: dict[str | None, int] = {}
    of = (numbers.setdefault(value, len(numbers)) for value in values)
    return np.fromiter(of, np.int64, len(values)), numbers


FILTER = Filter(config=SmoothingConfig, apply=say, context="camera", order=80)
