"""What a filter gets and what it says.

Rows (detections of some cameras or images, in order) --a filter's function--> Said, at most one for each target

The framework (`batch/filters/run.py`) reads the rows, keeps what is said as rows of `assertions`, withdraws what
is no longer said, and counts. A filter reads no table and no clock, and says the same of the same rows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

NO_RANK = -1
Action = Literal["suppress", "relabel", "rescore", "group"]
Context = Literal["image", "camera"]
Needs = Literal["logits", "lineages"] | None


class FilterConfig(BaseModel):
    """Base of all configs: frozen, closed, finite. Each has `kind: Literal[...]` and fields with a description
    that names the unit. What is in a list (taxa, reviewed slots) is part of the config, so of the layer's id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ClassFilterConfig(FilterConfig):
    """Base of the configs that name a classifier. A run pins it, and gives the filter what `needs` says."""

    classifier: str = Field(
        default="",
        description="which classifier: classifier_key, its first digits, or name@version; none: the only one there is",
    )

    @property
    def needs(self) -> Needs:
        """Return what the rows must have: `logits` with the classes and their lineages; `lineages`: the classes and
        their lineages where a classifier is named or there is one; None: nothing.
        """
        return "logits"


@dataclass(frozen=True, slots=True)
class Said:
    """What a filter says about one detection, or about one image (`rank` None: only `group` then).

    suppress  it is not shown              relabel   `label`, perhaps `score` with its `score_semantics`
    rescore   `score`, `score_semantics`   group     it belongs to `group_id` (an event, an occurrence, a slot)
    Any of them may carry a `group_id` besides. `reason` is for people: "rel_area 0.00061 < 0.0008".
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
    """Detections as they stand after the layers below, suppressed ones left out; n rows, columns of length n.

    Ordered by camera (unknown last), time by the camera's clock (undated last), path, digest, rank. An image
    without detections has one row of rank NO_RANK, whose label is None and whose numbers are NaN. A part is whole
    images; for a filter of context `camera` it is whole cameras.
    """

    media_sha256: NDArray[np.object_]
    path: NDArray[np.object_]
    camera_id: NDArray[np.object_]  # None: unknown
    taken_local: NDArray[np.datetime64]  # us, the camera's clock; NaT: undated
    taken_utc: NDArray[np.datetime64]  # us; NaT where the offset is unknown
    clock_flags: NDArray[
        np.object_
    ]  # of the file's time: "", or before_2001, reset_default, after_now, joined by ","
    width_px: NDArray[np.float64]
    height_px: NDArray[np.float64]
    rank: NDArray[np.int32]
    label: NDArray[np.object_]
    score: NDArray[np.float32]
    boxes_px: NDArray[np.float64]  # (n, 4) x1, y1, x2, y2; of the image as displayed
    human: NDArray[np.bool_]  # a person has spoken of it: what is said counts, and changes nothing
    group_id: NDArray[
        np.object_
    ]  # of the detection, by the newest layer below that groups detections; None
    event_id: NDArray[
        np.object_
    ]  # of the image, by the newest layer below that groups images; None
    logits: NDArray[np.float32] | None = (
        None  # (n, classes) of a classifier; NaN rows: not classified
    )
    classes: tuple[str, ...] = ()  # names of the logits
    class_lineage: tuple[str, ...] = field(
        default=()
    )  # of each class, finest last: "mammalia;carnivora;…"; "" unknown

    def __len__(self) -> int:
        return len(self.rank)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Rows:
        """The rows at `index`, in that order."""
        columns = {name: getattr(self, name)[index] for name in _COLUMNS}
        logits = None if self.logits is None else self.logits[index]
        return Rows(
            **columns, logits=logits, classes=self.classes, class_lineage=self.class_lineage
        )

    def images(self) -> Iterator[slice]:
        """Rows of one image after another."""
        return _stretches(self.media_sha256)

    def cameras(self) -> Iterator[slice]:
        """Rows of one camera after another; all of unknown camera are the last one."""
        return _stretches(self.camera_id)


_COLUMNS = (
    *("media_sha256", "path", "camera_id", "taken_local", "taken_utc", "clock_flags"),
    *(
        "width_px",
        "height_px",
        "rank",
        "label",
        "score",
        "boxes_px",
        "human",
        "group_id",
        "event_id",
    ),
)


@dataclass(frozen=True, slots=True)
class Filter:
    """A line of the registry.

    `context`   whether a part must hold whole cameras, or images alone suffice
    `order`     where its layer stands in a view, small first (domain: dedupe, size, repeats, classes, events, …)
    `version`   part of the layer's id: raised when the same config begins to say other things
    `groups`    what a `group_id` of it is: None, or "event" (of images), "occurrence", "slot" (of detections)
    `invalid`   which rows it cannot judge, (n,) bool: counted as skipped_invalid, and nothing is said of them
    `require`   raises BadRequest where the config does not go with the classes and lineages of the classifier
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
        """The first line of its file."""
        words = sys.modules[self.config.__module__].__doc__ or ""
        return words.strip().partition("\n")[0]


def _stretches(values: NDArray[np.object_]) -> Iterator[slice]:
    if not len(values):
        return
    ends = np.flatnonzero(values[1:] != values[:-1]) + 1
    start = 0
    for end in (*ends.tolist(), len(values)):
        yield slice(start, end)
        start = end
