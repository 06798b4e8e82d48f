"""Preview a filter run: the counts of a dry run, and examples of what it would change. Writes nothing.

(FilterSpec, tables) --preview--> FilterReport, up to `most` examples of different images
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from archive.delta.tables import Tables
from batch.filters.contract import BOX_COLUMNS
from batch.filters.evaluate import Evaluated, Question, evaluate
from batch.filters.run import FilterReport, dry_run
from batch.filters.spec import FilterSpec

MOST = 24
_READ = ["media_sha256", "rank", "action", "label", "reason", *BOX_COLUMNS]


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
    kept: dict[str, Example] = {}

    def judge(parts: Iterable[pa.Table], question: Question) -> Iterator[Evaluated]:
        for part in parts:
            evaluated = evaluate(part, question)
            for example in _examples(part, evaluated.rows):
                earlier = kept.setdefault(example.media_sha256, example)
                if is_below(earlier) and not is_below(example):
                    kept[example.media_sha256] = example
            for digest in sorted(kept, key=order)[most:]:
                del kept[digest]
            yield evaluated

    def is_below(example: Example) -> bool:
        """Return whether the score of the detection is below what the view shows."""
        limit = spec.view.label_thresholds.get(example.label or "", spec.view.threshold)
        return example.score is not None and example.score < limit

    def order(digest: str) -> tuple[bool, str]:
        return is_below(kept[digest]), digest

    report = dry_run(spec, tables, judge)
    return report, [kept[digest] for digest in sorted(kept, key=order)]


def _examples(part: pa.Table, rows: pa.Table) -> Iterator[Example]:
    columns = [part[name].to_pylist() for name in ("media_sha256", "rank", "label", "score")]
    before = {(digest, rank): found for digest, rank, *found in zip(*columns, strict=True)}
    cameras = dict(zip(columns[0], part["camera_id"].to_pylist(), strict=True))
    for row in rows.select(_READ).to_pylist():
        digest, of_image = row["media_sha256"], row["rank"] is None
        label, score = (None, None) if of_image else before[digest, row["rank"]]
        yield Example(
            media_sha256=digest,
            camera_id=cameras[digest],
            box_px=None if of_image else tuple(row[name] for name in BOX_COLUMNS),
            label=label,
            score=score,
            action=row["action"],
            new_label=row["label"],
            reason=row["reason"] or "",
        )
