"""Interface of a filter: its config, the rows it reads and the actions it returns.

Rows (detections of some cameras or images, in order) --Filter.apply--> `Said`, at most one for each target

The framework (`batch/filters/run.py`) reads the rows, stores actions as rows of `assertions`, withdraws those that
the filter no longer returns, and counts. A filter reads no table and no clock: equal rows give equal actions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from model_store.frozen import Frozen

NO_RANK = -1
Action = Literal["suppress", "relabel", "rescore", "group"]
Context = Literal["image", "camera"]
Needs = Literal["logits", "lineages"] | None


class FilterConfig(Frozen):
    """Base of all configs.

    Each config has `kind: Literal[...]` and fields with a description that names the unit. Lists (taxa, reviewed
    slots) are part of the config, and therefore of the layer's id.
    """


class ClassFilterConfig(FilterConfig):
    """Base of the configs that name a classifier. A run pins its key and supplies the data named by `needs`."""

    classifier: str = Field(
        default="",
        description="classifier to use: classifier_key, its first digits, or name@version; empty: the only one",
    )

    @property
    def needs(self) -> Needs:
        """Return the data that the filter requires.

        `logits`: the logits, classes and lineages of the classifier. `lineages`: classes and lineages, if a classifier
        is named or available. None: nothing.
        """
        return "logits"


@dataclass(frozen=True, slots=True)
class Said:
    """A filter's action on one detection, or on one image (`rank` None; the action is then `group`).

    suppress  hide it                            relabel   set `label`, and optionally `score` and `score_semantics`
    rescore   set `score` and `score_semantics`  group     assign it to `group_id` (an event, an occurrence, a slot)
    Every action can also carry a `group_id`. `reason` is for people: "area_frac 0.00061 < 0.0008".
    """

    media_sha256: str
    rank: int | None
    action: Action
    reason: str
    label: str | None = None
    score: float | None = None
    score_semantics: str | None = None
    group_id: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Detections as the layers below resolve them, without suppressed ones; n rows, columns of length n.

    Ordered by camera (unknown last), time by the camera's clock (undated last), path, digest, rank. An image
    without detections has one row with rank NO_RANK, label None and NaN numbers. A part holds whole images; for a
    filter of context `camera`, whole cameras.
    """

    media_sha256: NDArray[np.object_]
    path: NDArray[np.object_]
    camera_id: NDArray[np.object_]  # None: unknown
    taken_local: NDArray[np.datetime64]  # us, the camera's clock; NaT: undated
    taken_utc: NDArray[np.datetime64]  # us; NaT where the offset is unknown
    clock_flags: NDArray[
        np.object_
    ]  # doubts about the file's time: "", or before_2001, reset_default, after_now, joined by ","
    sequence_number: NDArray[np.int32]  # "3 of 10" of the maker notes: 3; 0: unknown
    sequence_length: NDArray[np.int32]  # and 10
    width_px: NDArray[np.float64]  # of the image as displayed, more than 0; NaN: unknown
    height_px: NDArray[np.float64]
    rank: NDArray[np.int32]
    label: NDArray[np.object_]
    score: NDArray[np.float32]
    boxes_px: NDArray[np.float64]  # (n, 4) x1, y1, x2, y2 in the image as displayed; partly outside it too
    human: NDArray[np.bool_]  # annotated by a person: actions are counted and change nothing
    group_id: NDArray[np.object_]  # group of the detection, from the last layer below that groups detections; None
    event_id: NDArray[np.object_]  # event of the image, from the last layer below that groups images; None
    logits: NDArray[np.float32] | None = None  # (n, classes) of a classifier; NaN rows are not classified
    classes: tuple[str, ...] = ()  # class names of the logits
    class_lineage: tuple[str, ...] = field(
        default=()
    )  # lineage of each class, finest taxon last: "mammalia;carnivora;…"; "" if unknown

    def __len__(self) -> int:
        return len(self.rank)

    def target(self, row: int) -> tuple[str, int]:
        """Return digest and rank of one detection."""
        return self.media_sha256[row], int(self.rank[row])

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Rows:
        """Return the rows at `index`, in that order."""
        columns = {name: getattr(self, name)[index] for name in _COLUMNS}
        logits = None if self.logits is None else self.logits[index]
        return Rows(**columns, logits=logits, classes=self.classes, class_lineage=self.class_lineage)

    def images(self) -> Iterator[slice]:
        """Yield the rows of each image."""
        return _equal_slices(self.media_sha256)

    def cameras(self) -> Iterator[slice]:
        """Yield the rows of each camera; those of unknown cameras come last, together."""
        return _equal_slices(self.camera_id)


_COLUMNS = (
    *("media_sha256", "path", "camera_id", "taken_local", "taken_utc", "clock_flags"),
    *("sequence_number", "sequence_length"),
    *("width_px", "height_px", "rank", "label", "score", "boxes_px", "human", "group_id", "event_id"),
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Registry entry of a filter.

    `context`   unit that a part must hold whole: image or camera
    `order`     position of its layer in a view, lowest first; each filter has its own
    `version`   part of the layer's id; raise it when the same config gives other actions
    `groups`    meaning of its `group_id`: None, or "event" (of images), "occurrence", "slot" (of detections)
    `invalid`   returns the rows it cannot judge, (n,) bool; they are counted as skipped_invalid and get no action
    `require`   raises BadRequest if the config does not fit the classes and lineages of the classifier
    """

    config: type[FilterConfig]
    apply: Callable[[Any, Rows], Iterable[Said]]
    context: Context
    order: int
    version: int = 1
    groups: Literal["event", "occurrence", "slot"] | None = None
    invalid: Callable[[Any, Rows], NDArray[np.bool_]] | None = None
    require: Callable[[Any, tuple[str, ...], tuple[str, ...]], object] | None = None

    @property
    def kind(self) -> str:
        return str(self.config.model_fields["kind"].default)

    @property
    def what(self) -> str:
        """Return the first line of its module's docstring."""
        docstring = sys.modules[self.config.__module__].__doc__ or ""
        return docstring.strip().partition("\n")[0]


def _equal_slices(values: NDArray[np.object_]) -> Iterator[slice]:
    if not len(values):
        return
    ends = np.flatnonzero(values[1:] != values[:-1]) + 1
    start = 0
    for end in (*ends.tolist(), len(values)):
        yield slice(start, end)
        start = end
