"""Preview a filter run: the counts of a dry run, and examples of what it would change. Writes nothing.

(FilterSpec, tables) --preview--> FilterReport, up to `most` examples of different images
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from archive.delta.tables import Tables
from archive.views.views import View
from batch.filters.evaluate import Evaluated, Question, evaluate
from batch.filters.run import FilterReport, dry_run
from batch.filters.spec import FilterSpec

MOST = 24
_BOX = ("x1_px", "y1_px", "x2_px", "y2_px")
_READ = ["media_sha256", "rank", "action", "label", "reason", *_BOX]


@dataclass(frozen=True, slots=True)
class Example:
    """A row that the run would add about one image, and the detection before it; `box_px` None: the whole image."""

    media_sha256: str
    camera_id: str | None
    box_px: tuple[float, ...] | None
    label: str | None
    score: float | None
    action: str
    new_label: str | None
    reason: str


def preview(spec: FilterSpec, tables: Tables, most: int = MOST) -> tuple[FilterReport, list[Example]]:
    """Return the report and examples: first detections that the view shows, else those with the lowest digests.

    Digests are random, so these are examples of all cameras. Raises as `batch.filters.run.dry_run`.
    """
    kept: dict[str, tuple[bool, Example]] = {}

    def judge(parts: Iterable[pa.Table], question: Question, actors: int) -> Iterator[Evaluated]:
        del actors
        for part in parts:
            evaluated = evaluate(part, question)
            for is_below, example in _examples(part, evaluated.rows, spec.view):
                digest = example.media_sha256
                if digest not in kept or is_below < kept[digest][0]:
                    kept[digest] = (is_below, example)
            for digest in _in_order(kept)[most:]:
                del kept[digest]
            yield evaluated

    report = dry_run(spec, tables, judge)
    return report, [kept[digest][1] for digest in _in_order(kept)]


def _in_order(kept: dict[str, tuple[bool, Example]]) -> list[str]:
    return sorted(kept, key=lambda digest: (kept[digest][0], digest))


def _examples(part: pa.Table, rows: pa.Table, view: View) -> Iterator[tuple[bool, Example]]:
    """Yield each row that would be added, and whether its detection is below the score that the view shows."""
    columns = [part[name].to_pylist() for name in ("media_sha256", "rank", "label", "score")]
    before = {(digest, rank): found for digest, rank, *found in zip(*columns, strict=True)}
    cameras = dict(zip(columns[0], part["camera_id"].to_pylist(), strict=True))
    for row in rows.select(_READ).to_pylist():
        digest, of_image = row["media_sha256"], row["rank"] is None
        label, score = (None, None) if of_image else before[digest, row["rank"]]
        least = view.label_thresholds.get(label or "", view.threshold)
        yield (
            score is not None and score < least,
            Example(
                media_sha256=digest,
                camera_id=cameras[digest],
                box_px=None if of_image else tuple(row[name] for name in _BOX),
                label=label,
                score=score,
                action=row["action"],
                new_label=row["label"],
                reason=row["reason"] or "",
            ),
        )
