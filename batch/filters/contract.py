"""Interface of a filter: its config, the rows it reads and the actions it returns.

pa.Table (schema COLUMNS) --rows_of_table--> Rows --Filter.apply--> `FilterAction`, at most one for each target

The framework (`batch/filters/run.py`) reads the rows, stores actions as rows of `assertions`, withdraws those that
the filter no longer returns, and counts. A filter reads no table and no clock: equal rows give equal actions.
"""

# pyarrow.compute makes its functions at run time:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import ConfigDict

from model_store.frozen import Frozen

NO_RANK = -1
BOX_COLUMNS = ("x1_px", "y1_px", "x2_px", "y2_px")
COLUMNS = pa.schema(
    [
        ("media_sha256", pa.string()),
        ("path", pa.string()),
        ("camera_id", pa.string()),
        ("deployment_id", pa.string()),
        ("location", pa.string()),
        ("taken_local", pa.timestamp("us")),
        ("taken_utc", pa.timestamp("us")),
        ("clock_flags", pa.string()),
        ("sequence_number", pa.int32()),
        ("sequence_length", pa.int32()),
        ("width_px", pa.float64()),
        ("height_px", pa.float64()),
        ("rank", pa.int32()),
        ("label", pa.string()),
        ("score", pa.float32()),
        *((name, pa.float64()) for name in BOX_COLUMNS),
        ("human", pa.bool_()),
        ("group_id", pa.string()),
        ("event_id", pa.string()),
    ]
)
_FILLED = {"rank": NO_RANK, "sequence_number": 0, "sequence_length": 0}
"""Values in place of nulls."""
Action = Literal["suppress", "relabel", "rescore", "group"]
Context = Literal["image", "camera"]
Needs = Literal["logits", "lineages"] | None


class FilterConfig(Frozen):
    """Base of all configs. Its base refuses unknown fields, NaN and infinity; a filter does not check for them.

    Each config has `kind: Literal[...]` and fields with a description that names the unit: a docstring of one line,
    or `Field(description=…)` if it is longer. Lists (taxa, reviewed slots) are part of the config, and therefore of the
    layer's id.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)


class ClassFilterConfig(FilterConfig):
    """Base of the configs that name a classifier. A run pins its key and supplies the data named by `needs`."""

    classifier: str = ""
    """classifier to use: classifier_key, its first digits, or name@version; empty: the only one"""

    @property
    def needs(self) -> Needs:
        """Return the data that the filter requires.

        `logits`: the logits, classes and lineages of the classifier. `lineages`: classes and lineages, if a classifier
        is named or available. None: nothing.
        """
        return "logits"


@dataclass(frozen=True, slots=True)
class FilterAction:
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
    deployment_id: NDArray[np.object_]  # of the camera at that time; None: unknown
    location: NDArray[np.object_]  # of that deployment
    taken_local: NDArray[np.datetime64]  # us, the camera's clock; NaT: undated
    taken_utc: NDArray[np.datetime64]  # us; NaT where the offset is unknown
    clock_flags: NDArray[np.object_]  # doubts that people did not correct: before_2001, … joined by ","; "": none
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
    class_lineage: tuple[str, ...] = ()  # of each class, finest taxon last: "mammalia;carnivora;…"; "" if unknown

    def __len__(self) -> int:
        return len(self.rank)

    def target(self, row: int) -> tuple[str, int]:
        """Return digest and rank of one detection."""
        return self.media_sha256[row], int(self.rank[row])

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Rows:
        """Return the rows at `index`, in that order."""
        columns = {column.name: getattr(self, column.name) for column in fields(self)}
        taken = {name: column[index] for name, column in columns.items() if isinstance(column, np.ndarray)}
        return replace(self, **taken)

    def image_starts(self) -> NDArray[np.intp]:
        """Return the first row of each image, (images,)."""
        return np.flatnonzero(changes(self.media_sha256))

    def image_numbers(self) -> NDArray[np.intp]:
        """Return the number of each row's image, (n,), from 0."""
        return np.cumsum(changes(self.media_sha256)) - 1


def changes(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (n,) bool: values that differ from the one before; the first always does."""
    changed = np.ones(len(values), bool)
    changed[1:] = values[1:] != values[:-1]
    return changed


def rows_of_table(table: pa.Table, classes: tuple[str, ...] = (), lineage: tuple[str, ...] = ()) -> Rows:
    """Return the rows of the table. The optional column `logits` has lists of one length, or nulls."""
    columns: dict[str, Any] = {}
    for name in COLUMNS.names:
        column = table[name].fill_null(_FILLED[name]) if name in _FILLED else table[name]
        columns[name] = column.to_numpy(zero_copy_only=False)
    boxes_px = np.stack([columns.pop(name) for name in BOX_COLUMNS], axis=1)
    logits = _logits(table["logits"], len(classes)) if "logits" in table.column_names else None
    return Rows(**columns, boxes_px=boxes_px, logits=logits, classes=classes, class_lineage=lineage)


def _logits(lists: pa.ChunkedArray, n: int) -> NDArray[np.float32]:
    """Return (rows, n) float32; NaN for rows without exactly n logits."""
    out = np.full((len(lists), n), np.nan, np.float32)
    complete = pc.fill_null(pc.equal(pc.list_value_length(lists), n), False)
    out[complete.to_numpy()] = pc.list_flatten(lists.filter(complete)).to_numpy().reshape(-1, n)
    return out


@dataclass(frozen=True, slots=True)
class Filter:
    """Registry entry of a filter.

    `context`   unit that a part must hold whole: image or camera
    `order`     position of its layer in a view, lowest first; each filter has its own
    `version`   part of the layer's id; raise it when the same config gives other actions
    `groups`    meaning of its `group_id`: None, or "event" (of images), "occurrence", "slot" (of detections)
    `invalid`   returns the rows it cannot judge, (n,) bool; their detections are counted as skipped_invalid
    `require`   raises BadRequest if the config does not fit the classes and lineages of the classifier
    """

    config: type[FilterConfig]
    apply: Callable[[Any, Rows], Iterable[FilterAction]]
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
