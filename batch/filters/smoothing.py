"""Smoothing: what most detections of an image, then of an event, are called, the vague ones among them are called too.

labels of an image --counts--> labels of the image --counts of the event--> final labels; a Said for each that changed

The counts decide and nothing else: a score stays that of the model for the old label (`inherited`). Each flip
is said, with the counts that made it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from batch.filters.contract import NO_RANK, Filter, FilterConfig, Rows, Said

OTHER = ("other", "unknown", "no cv result", "animal", "blank", "mammal")
IGNORED = ("person", "human", "vehicle", "not identifiable")


class SmoothingConfig(FilterConfig):
    kind: Literal["smoothing"] = "smoothing"
    min_score: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="score, 0 to 1: rows below it are neither counted nor changed (inclusive: at it they are)",
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
        default=2, ge=1, description="detections of the dominant label, at least, for others_to_dominant"
    )
    flip_rare: bool = Field(
        default=False,
        description="whether rare labels become the dominant one: the one deer among 900 cows becomes a cow",
    )
    min_dominant_rare: int = Field(
        default=4, ge=2, description="detections of the dominant label, at least, for flip_rare"
    )
    max_rare: int = Field(
        default=1, ge=1, description="detections of a label, at most, for which flip_rare calls it rare"
    )


@dataclass(frozen=True, slots=True)
class _Names:
    """Labels by number, and what is known of each; `contains[a, b]`: a is an ancestor of b."""

    names: list[str]
    other: NDArray[np.bool_]
    contains: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Count:
    """By row: its group's dominant label (-1: none) and how many have it, of how many, and its own label's count."""

    dominant: NDArray[np.int64]
    of_dominant: NDArray[np.int64]
    of_all: NDArray[np.int64]
    of_own: NDArray[np.int64]


def say(config: SmoothingConfig, rows: Rows) -> Iterator[Said]:
    """`relabel` for each row whose label changes, e.g. with the reason "event: 5 deer of 6; was animal"."""
    index = _considered(config, rows)
    if not len(index):
        return
    label, names = _names(config, rows, index)
    before = label.copy()
    reasons: dict[int, list[str]] = {}
    image = _numbered(rows.media_sha256[index])[0]
    _smooth(config, "image", image, np.arange(len(index)), label, names, reasons)
    event, ids = _numbered(rows.event_id[index])
    inside = np.flatnonzero(event != ids.get(None, -1))
    _smooth(config, "event", event[inside], inside, label, names, reasons)
    for at in np.flatnonzero(label != before).tolist():
        row = index[at]
        yield Said(
            rows.media_sha256[row],
            int(rows.rank[row]),
            "relabel",
            "; ".join(reasons[at]),
            label=names.names[label[at]],
            score=float(rows.score[row]),
            score_semantics="inherited",
        )


def _considered(config: SmoothingConfig, rows: Rows) -> NDArray[np.intp]:
    ignored = {name.casefold() for name in config.ignored_labels}
    spoken = np.fromiter(
        (label is not None and label.casefold() not in ignored for label in rows.label),
        np.bool_,
        len(rows),
    )
    return np.flatnonzero(spoken & (rows.rank != NO_RANK) & (rows.score >= config.min_score))


def _smooth(
    config: SmoothingConfig,
    level: str,
    group: NDArray[np.int64],
    at: NDArray[np.intp],
    label: NDArray[np.int64],
    names: _Names,
    reasons: dict[int, list[str]],
) -> None:
    """Both steps over the rows `at`, which are in `group`; changes `label` and adds to `reasons`."""
    if config.others_to_dominant and len(at):
        count = _count(group, label[at], names.other)
        enough = (count.dominant >= 0) & (count.of_dominant >= config.min_dominant_others)
        _flip(level, at, enough & names.other[label[at]], count, label, names, reasons)
    if config.flip_rare and len(at):
        count = _count(group, label[at], names.other)
        enough = (count.dominant >= 0) & (count.of_dominant >= config.min_dominant_rare)
        rare = (count.of_own <= config.max_rare) & (count.dominant != label[at])
        finer = names.contains[count.dominant, label[at]]
        flips = enough & rare & ~finer & ~names.other[label[at]]
        _flip(level, at, flips, count, label, names, reasons)


def _flip(
    level: str,
    at: NDArray[np.intp],
    flips: NDArray[np.bool_],
    count: _Count,
    label: NDArray[np.int64],
    names: _Names,
    reasons: dict[int, list[str]],
) -> None:
    for place in np.flatnonzero(flips).tolist():
        row, new = int(at[place]), int(count.dominant[place])
        of = f"{count.of_dominant[place]} {names.names[new]} of {count.of_all[place]}"
        reasons.setdefault(row, []).append(f"{level}: {of}; was {names.names[label[row]]}")
        label[row] = new


def _count(
    group: NDArray[np.int64], label: NDArray[np.int64], other: NDArray[np.bool_]
) -> _Count:
    """The dominant label of a group is its most frequent one. An other label never is: it stands back when it is as
    frequent as one real label, and leaves the group without one when it is more frequent, as two real ones do.
    """
    pairs, own, n = np.unique(group * len(other) + label, return_inverse=True, return_counts=True)
    groups, labels = np.divmod(pairs, len(other))
    size = int(group.max()) + 1
    most = np.zeros(size, np.int64)
    np.maximum.at(most, groups, n)
    top = (n == most[groups]) & ~other[labels]
    dominant = np.full(size, -1, np.int64)
    dominant[groups[top]] = labels[top]
    dominant[np.bincount(groups[top], minlength=size) != 1] = -1
    total = np.bincount(group, minlength=size)
    return _Count(dominant[group], most[group], total[group], n[own])


def _names(
    config: SmoothingConfig, rows: Rows, index: NDArray[np.intp]
) -> tuple[NDArray[np.int64], _Names]:
    label, numbers = _numbered(rows.label[index])
    names = [str(name) for name in numbers]
    others = {name.casefold() for name in config.other_labels}
    other = np.array([name.casefold() in others for name in names])
    contains = np.zeros((len(names), len(names)), bool)
    if config.flip_rare:
        lineage = dict(zip(rows.classes, rows.class_lineage, strict=False))
        for fine, name in enumerate(names):
            for coarse, candidate in enumerate(names):
                contains[coarse, fine] = _is_ancestor(candidate, name, lineage)
    return label, _Names(names, other, contains)


def _is_ancestor(coarse: str, fine: str, lineage: dict[str, str]) -> bool:
    """Whether `coarse` is one of the taxa that `fine` lies in, by name or by its own lineage."""
    taxa = _taxa(lineage.get(fine, ""))
    above = _taxa(lineage.get(coarse, ""))
    by_name = coarse.casefold() in taxa and coarse.casefold() != fine.casefold()
    return by_name or (0 < len(above) < len(taxa) and taxa[: len(above)] == above)


def _taxa(lineage: str) -> list[str]:
    return [name.strip().casefold() for name in lineage.split(";") if name.strip()]


def _numbered(
    values: NDArray[np.object_],
) -> tuple[NDArray[np.int64], dict[str | None, int]]:
    """Equal values get equal numbers, from 0."""
    numbers: dict[str | None, int] = {}
    of = (numbers.setdefault(value, len(numbers)) for value in values)
    return np.fromiter(of, np.int64, len(values)), numbers


FILTER = Filter(config=SmoothingConfig, apply=say, context="camera", order=80)
