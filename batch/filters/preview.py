"""Preview a filter run: the counts of a dry run, and examples of what it would change. Writes nothing.

(FilterSpec, tables) --preview--> FilterReport, up to `most` examples of different images
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from archive.delta.tables import Tables
from batch.filters.evaluate import Evaluated, Question, evaluate
from batch.filters.run import FilterReport, dry_run
from batch.filters.spec import FilterSpec

MOST = 24
_BOX = ("x1_px", "y1_px", "x2_px", "y2_px")


@dataclass(frozen=True, slots=True)
class Example:
    """A row that the run would add about one image, and the detection before it; `box_px` None: the whole image."""

    media_sha256: str
    camera_id: str | None
    box_px: tuple[float, float, float, float] | None
    label: str | None
    score: float | None
    action: str
    new_label: str | None
    reason: str


def preview(
    spec: FilterSpec, tables: Tables, most: int = MOST
) -> tuple[FilterReport, list[Example]]:
    """Return the report and the examples with the lowest digests, which are a random choice.

    Raises as `batch.filters.run.dry_run`.
    """
    examples: dict[str, Example] = {}

    def judge(parts: Iterable[pa.Table], question: Question, actors: int) -> Iterator[Evaluated]:
        del actors
        for part in parts:
            evaluated = evaluate(part, question)
            examples.update(_examples(part, evaluated.rows, most))
            for digest in sorted(examples)[most:]:
                del examples[digest]
            yield evaluated

    report = dry_run(spec, tables, judge)
    return report, [examples[digest] for digest in sorted(examples)]


def _examples(part: pa.Table, rows: pa.Table, most: int) -> Iterator[tuple[str, Example]]:
    """Yield one example for each of the images with the lowest digests."""
    digests = rows["media_sha256"].to_numpy(zero_copy_only=False)
    _, first = np.unique(digests.astype(str), return_index=True)
    chosen = rows.take(pa.array(first[:most], pa.int64()))
    of_images = part.filter(pc.is_in(part["media_sha256"], value_set=chosen["media_sha256"]))  # pyright: ignore[reportAttributeAccessIssue]
    before = {(row["media_sha256"], row["rank"]): row for row in of_images.to_pylist()}
    cameras = {row["media_sha256"]: row["camera_id"] for row in before.values()}
    for row in chosen.to_pylist():
        digest, box = row["media_sha256"], tuple(row[name] for name in _BOX)
        detection = before.get((digest, row["rank"]), {"label": None, "score": None})
        yield (
            digest,
            Example(
                media_sha256=digest,
                camera_id=cameras[digest],
                box_px=None if row["rank"] is None else box,
                label=detection["label"] if row["rank"] is not None else None,
                score=detection["score"] if row["rank"] is not None else None,
                action=row["action"],
                new_label=row["label"],
                reason=row["reason"] or "",
            ),
        )
