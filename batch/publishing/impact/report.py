"""Write the report of a comparison: a folder with index.html, impact.json and pictures.

Comparison, verdict --write_report--> <folder>/{samples/*.jpg, impact.json, index.html}; the page is written last
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from archive.delta.tables import Tables
from batch.publishing.impact.compare import Comparison, compared
from batch.publishing.impact.measure import Impact
from batch.publishing.impact.pictures import COLOURS_RGB, SidePictures, draw_sample
from batch.publishing.impact.result_sets import side
from batch.publishing.impact.samples import Sample, choose
from batch.publishing.impact.verdict import Translator, Verdict, judge, model_of, verdict
from batch.schedule.policy import policy_of
from model_store.storage import Folder
from model_store.store import ModelStore
from serve.pages import render
from serve.report_folder import require_empty, write_file
from serve.settings import Settings

MAX_ROWS = 500
"""Maximum rows of a table on the page; `impact.json` has all."""
MAX_BOXES = 30
"""Maximum boxes listed under a picture; all boxes are drawn."""
_KINDS = {
    "verified": "Lost: confirmed by people, not shown by the new side",
    "lost": "Lost: shown only by the old side",
    "new": "New: shown only by the new side",
    "relabelled": "Relabelled: the same box, another label",
    "emptied": "Emptied: no detections on the new side",
}


@dataclass(frozen=True, slots=True)
class ImpactReport:
    """Changes if NEW replaced OLD, with a bounded number of images of each kind of change."""

    impact: Impact
    verdict: Verdict
    samples: list[Sample]

    def as_json(self) -> dict[str, Any]:
        return as_json(self.impact, self.verdict) | {"samples": [_sample_json(sample) for sample in self.samples]}


@dataclass(frozen=True, slots=True)
class Shown:
    """A sample with the names of its two picture files, or the reason why it has none."""

    sample: Sample
    old: str = ""
    new: str = ""
    why_not: str = ""


@contextmanager
def judged(
    settings: Settings, tables: Tables, store: ModelStore, old: str, new: str, t: Translator = str.format
) -> Iterator[tuple[Comparison, Verdict]]:
    """Yield the comparison of two sides by name, and its verdict. Raises what `side` and `compared` raise."""
    gates = policy_of(settings).gates
    sides = side(tables, store, old), side(tables, store, new)
    with compared(tables, *sides) as comparison:
        yield comparison, verdict(tables, comparison, judge(comparison.impact, gates, t), t)


def impact_report(
    settings: Settings, tables: Tables, store: ModelStore, old: str, new: str, per_kind: int, t: Translator = str.format
) -> ImpactReport:
    """Compare two sides, with up to `per_kind` images of each kind of change. Raises what `judged` raises."""
    with judged(settings, tables, store, old, new, t) as (comparison, found):
        return ImpactReport(comparison.impact, found, choose(comparison.sql, per_kind))


def write_report(comparison: Comparison, verdict: Verdict, out: str, per_kind: int) -> list[Sample]:
    """Write a report into a new or empty folder, local or s3://; return the samples that it shows.

    Raises BadRequest if the folder is not empty or not writable. Raises StorageUnreachable.
    """
    folder = require_empty(out)
    samples = choose(comparison.sql, per_kind)
    shown = [_shown(folder, number, sample) for number, sample in enumerate(samples, 1)]
    facts = as_json(comparison.impact, verdict) | {"samples": [_shown_json(sample) for sample in shown]}
    write_file(folder, "impact.json", json.dumps(facts, indent=1))
    write_file(folder, "index.html", page(comparison.impact, verdict, shown))
    return samples


def page(impact: Impact, verdict: Verdict, samples: Sequence[Shown]) -> str:
    """Return the HTML of the page; `samples` are in the order of their kinds."""
    return render(
        "batch/publishing/impact/report.html",
        title=f"Impact: {impact.old.name} → {impact.new.name}",
        verdict=verdict,
        impact=impact,
        model_of=model_of,
        colours=COLOURS_RGB,
        max_rows=MAX_ROWS,
        max_boxes=MAX_BOXES,
        samples=[(_KINDS[kind], list(shown)) for kind, shown in groupby(samples, lambda shown: shown.sample.kind)],
    )


def as_json(impact: Impact, verdict: Verdict) -> dict[str, Any]:
    return {"verdict": verdict.model_dump(mode="json"), "impact": impact.model_dump(mode="json")}


def _shown(folder: Folder, number: int, sample: Sample) -> Shown:
    drawn = draw_sample(sample)
    if not isinstance(drawn, SidePictures):
        return Shown(sample, why_not=drawn)
    stem = f"samples/{number:03d}-{sample.kind}"
    write_file(folder, f"{stem}-old.jpg", drawn.old)
    write_file(folder, f"{stem}-new.jpg", drawn.new)
    return Shown(sample, f"{stem}-old.jpg", f"{stem}-new.jpg")


def _sample_json(sample: Sample) -> dict[str, Any]:
    return sample.model_dump(mode="json", exclude={"places"}) | {"paths": [path for _, path in sample.places]}


def _shown_json(shown: Shown) -> dict[str, Any]:
    pictures = {"old_picture": shown.old, "new_picture": shown.new, "why_not": shown.why_not}
    return _sample_json(shown.sample) | {name: value or None for name, value in pictures.items()}
