"""The report of a comparison: a folder with index.html, impact.json and the pictures it shows.

Comparison, verdict --write_report--> <folder>/{samples/*.jpg, impact.json, index.html}; the page comes last
"""

from __future__ import annotations

import json
from typing import Any

from batch.impact.compare import Comparison
from batch.impact.facts import Impact
from batch.impact.html import Shown, page
from batch.impact.pictures import Pictures, draw_sample
from batch.impact.samples import Sample, choose
from batch.impact.verdict import Verdict
from model_store.errors import BadRequest
from model_store.storage import Folder, absolute


def write_report(comparison: Comparison, verdict: Verdict, out: str, per_kind: int) -> list[Sample]:
    """Write into a new or empty folder, local or s3://.

    Raises BadRequest when something is there, or nothing can be written; StorageUnreachable.
    """
    folder = require_empty(out)
    samples = choose(comparison.sql, per_kind)
    shown = [_shown(folder, number, sample) for number, sample in enumerate(samples, 1)]
    facts = as_json(comparison.impact, verdict) | {"samples": [_sample_json(one) for one in shown]}
    _write(folder, "impact.json", json.dumps(facts, indent=1).encode())
    text = page(comparison.impact, verdict, shown)
    _write(folder, "index.html", text.encode("utf-8", "backslashreplace"))
    return samples


def require_empty(out: str) -> Folder:
    """The folder of a report, before any work is done for it. Raises BadRequest."""
    folder = Folder(absolute(out))
    if folder.names() or (folder.exists() and not folder.fs.isdir(folder.root)):
        raise BadRequest(f"{out} is not empty: name a new folder for the report")
    return folder


def as_json(impact: Impact, verdict: Verdict) -> dict[str, Any]:
    return {"verdict": verdict.model_dump(mode="json"), "impact": impact.model_dump(mode="json")}


def _shown(folder: Folder, number: int, sample: Sample) -> Shown:
    drawn = draw_sample(sample)
    if not isinstance(drawn, Pictures):
        return Shown(sample, why_not=drawn)
    stem = f"samples/{number:03d}-{sample.kind}"
    _write(folder, f"{stem}-old.jpg", drawn.old)
    _write(folder, f"{stem}-new.jpg", drawn.new)
    return Shown(sample, f"{stem}-old.jpg", f"{stem}-new.jpg")


def _sample_json(shown: Shown) -> dict[str, Any]:
    sample = shown.sample.model_dump(mode="json", exclude={"places"})
    paths = [path for _, path in shown.sample.places]
    pictures = {"old_picture": shown.old, "new_picture": shown.new, "why_not": shown.why_not}
    return sample | {"paths": paths} | {name: value or None for name, value in pictures.items()}


def _write(folder: Folder, name: str, data: bytes) -> None:
    try:
        folder.write(name, data)
    except OSError as error:
        raise BadRequest(f"cannot write {folder.url}/{name}: {error}") from error
