"""Relabel vague or rare detections with the dominant label of their image, then of their event.

labels of an image --counts--> labels of the image --counts of the event--> final labels; a `FilterAction` each

Only counts decide. A score stays the model's score for the old label (`inherited`). The reason lists every change with
its counts. Two equally frequent labels change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from batch.filters.contract import NO_RANK, ClassFilterConfig, Filter, FilterAction, Needs, Rows
from batch.filters.support.names import numbered

OTHER = ("other", "unknown", "no cv result", "animal", "blank", "mammal")
IGNORED = ("person", "human", "vehicle", "not identifiable")


class SmoothingConfig(ClassFilterConfig):
    kind: Literal["smoothing"] = "smoothing"
    classifier: str = Field(
        "",
        description="classifier with the lineages for flip_rare: classifier_key, its first digits, or name@version; "
        "empty: the only one, if any",
    )
    min_score: float = Field(0.5, ge=0, le=1)
    """score, 0 to 1: minimum for detections to be counted and changed (inclusive)"""
    other_labels: tuple[str, ...] = OTHER
    """labels, in any case, that are less precise than a species; never dominant"""
    ignored_labels: tuple[str, ...] = IGNORED
    """labels, in any case, that are neither counted nor changed"""
    others_to_dominant: bool = True
    """replace other_labels with the dominant label"""
    min_dominant_others: int = Field(2, ge=1)
    """detections: minimum number with the dominant label for others_to_dominant"""
    flip_rare: bool = False
    """replace rare labels with the dominant label: one deer among 900 cows becomes a cow"""
    min_dominant_rare: int = Field(4, ge=2)
    """detections: minimum number with the dominant label for flip_rare"""
    max_rare: int = Field(1, ge=1)
    """detections: maximum number with a label that flip_rare considers rare"""

    @property
    def needs(self) -> Needs:
        return "lineages" if self.flip_rare else None


@dataclass(frozen=True, slots=True)
class _Labels:
    """Labels of the selected rows, by number; each change updates `of_row` and adds to `reasons`."""

    of_row: NDArray[np.int64]
    names: list[str]
    other: NDArray[np.bool_]
    taxa: list[list[str]]
    reasons: dict[int, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Count:
    """Dominant label of each row's group (-1: none), and the group's counts: of it, of all rows, of the row's label."""

    dominant: NDArray[np.int64]
    of_dominant: NDArray[np.int64]
    of_all: NDArray[np.int64]
    of_own: NDArray[np.int64]


def actions(config: SmoothingConfig, rows: Rows) -> Iterator[FilterAction]:
    """Yield `relabel` for each row that gets another label. Reason: "event: 5 deer of 6; was animal"."""
    index, labels = _selected(config, rows)
    before = labels.of_row.copy()
    everywhere = np.arange(len(index))
    image, _ = numbered(rows.media_sha256[index])
    _smooth(config, "image", image, everywhere, labels)
    event, numbers = numbered(rows.event_id[index])
    in_event = everywhere[event != numbers.get(None, -1)]
    _smooth(config, "event", event[in_event], in_event, labels)
    for i in np.flatnonzero(labels.of_row != before).tolist():
        row = int(index[i])
        yield FilterAction(
            *rows.target(row),
            "relabel",
            "; ".join(labels.reasons[i]),
            label=labels.names[labels.of_row[i]],
            score=float(rows.score[row]),
            score_semantics="inherited",
        )


def _selected(config: SmoothingConfig, rows: Rows) -> tuple[NDArray[np.intp], _Labels]:
    """Return the indices of the rows that are counted, and their labels."""
    label, numbers = numbered(rows.label)
    names = ["" if name is None else name for name in numbers]
    ignored = _any_of(names, (*config.ignored_labels, ""))
    counted = (rows.rank != NO_RANK) & (rows.score >= config.min_score)
    index = np.flatnonzero(counted & ~ignored[label])
    lineage = dict(zip(rows.classes, rows.class_lineage, strict=False))
    taxa = [_taxa(lineage.get(name, "")) for name in names]
    return index, _Labels(label[index], names, _any_of(names, config.other_labels), taxa)


def _smooth(
    config: SmoothingConfig, level: str, group: NDArray[np.int64], index: NDArray[np.intp], labels: _Labels
) -> None:
    """Apply both steps to the rows `index` in their `group`; the second counts the labels after the first."""
    if config.others_to_dominant:
        own = labels.of_row[index]
        count = _count(group, own, labels.other)
        enough = (count.dominant >= 0) & (count.of_dominant >= config.min_dominant_others)
        _flip(level, index, enough & labels.other[own], count, labels)
    if config.flip_rare:
        own = labels.of_row[index]
        count = _count(group, own, labels.other)
        enough = (count.dominant >= 0) & (count.of_dominant >= config.min_dominant_rare)
        rare = (count.dominant != own) & (count.of_own <= config.max_rare) & ~labels.other[own]
        flips = enough & rare
        for i in np.flatnonzero(flips).tolist():
            flips[i] = not _is_ancestor(labels, count.dominant[i], own[i])
        _flip(level, index, flips, count, labels)


def _flip(level: str, index: NDArray[np.intp], flips: NDArray[np.bool_], count: _Count, labels: _Labels) -> None:
    for i in np.flatnonzero(flips).tolist():
        row, new = int(index[i]), int(count.dominant[i])
        counts = f"{count.of_dominant[i]} {labels.names[new]} of {count.of_all[i]}"
        old = labels.names[labels.of_row[row]]
        labels.reasons.setdefault(row, []).append(f"{level}: {counts}; was {old}")
        labels.of_row[row] = new


def _count(group: NDArray[np.int64], label: NDArray[np.int64], other: NDArray[np.bool_]) -> _Count:
    """Count the labels of each group and find the dominant one.

    It is the most frequent label. One of `other` is never dominant: if it is more frequent than every real label, the
    group has none, and an equally frequent real label wins. Two equally frequent real labels also give none.
    """
    n_labels = max(1, len(other))
    pairs, own, n = np.unique(group * n_labels + label, return_inverse=True, return_counts=True)
    groups, names = np.divmod(pairs, n_labels)
    total = np.bincount(group)
    largest = np.zeros(len(total), np.int64)
    np.maximum.at(largest, groups, n)
    top = (n == largest[groups]) & ~other[names]
    dominant = np.full(len(total), -1, np.int64)
    dominant[groups[top]] = names[top]
    dominant[np.bincount(groups[top], minlength=len(total)) != 1] = -1
    return _Count(dominant[group], largest[group], total[group], n[own])


def _is_ancestor(labels: _Labels, coarse: int, fine: int) -> bool:
    """Return whether taxon `coarse` contains `fine`, by its name or by its own lineage if it has one."""
    above, below = labels.taxa[coarse], labels.taxa[fine]
    by_name = labels.names[coarse].casefold() in below[:-1]
    return by_name or (0 < len(above) < len(below) and below[: len(above)] == above)


def _taxa(lineage: str) -> list[str]:
    return [name.strip().casefold() for name in lineage.split(";") if name.strip()]


def _any_of(names: list[str], wanted: tuple[str, ...]) -> NDArray[np.bool_]:
    folded = {name.casefold() for name in wanted}
    return np.array([name.casefold() in folded for name in names], bool)


FILTER = Filter(config=SmoothingConfig, apply=actions, context="camera", order=80)
