"""The pass over snips of a detection run: images with shown detections, anti-join `snips`; estimate their bytes.

(tables, Plan of the run, spec) --plan_snips--> Plan of a SnipPass; its units are images
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archive.delta.tables import Tables
from batch.crops.write import Cut, SnipStage, crop, cut_of
from batch.pipeline.read_image import image_bytes
from batch.planning.passes import EVERY, BoxPass
from batch.planning.plan import Plan, plan_more
from batch.runs.accounting import Counts
from batch.runs.spec import RunSpec
from batch.schedule.policy import Snips
from model_store.errors import ImageError, StorageError
from model_store.images.decode import decode
from model_store.storage import require_create
from serve.settings import Settings

CHUNK = 16
"""Images per chunk: some seconds of one thread at 12 megapixels, so that rows arrive as often as commits."""


@dataclass(frozen=True)
class SnipPass(BoxPass):
    """Write a crop of each box into the folder `url`: a row of `snips` for each image."""

    table, counted = "snips", "count(distinct id)"
    line = (
        "snips of {requested} images {sign} done {ok} + failed {failed} + reused {reused}: "
        "{detections} files, {bytes} bytes"
    )
    event = "snips_progress"
    needs_replica = False

    cut: Cut
    url: str

    @property
    def key(self) -> Mapping[str, str]:
        key = self.model.info.inference_key
        return {"inference_key": key, "settings_key": self.cut.key}

    @property
    def figures(self) -> Mapping[str, str]:
        """`detections` and `bytes` are the files of this run and their size."""
        figures = {"ok": "status = 'ok'", "failed": "status = 'failed'"}
        return figures | {"detections": "len(names)", "bytes": "bytes"}

    @property
    def limits(self) -> Mapping[str, object]:
        least = dict(zip(self.model.detector_config.labels, self.cut.least, strict=True))
        shown = {"labels": list(least), "scores": list(least.values()), "threshold": EVERY}
        return shown | {"least_score": EVERY, "only": [], "min_side_px": EVERY}

    def written(self, tables: Tables) -> tuple[str, ...]:
        return tables.url, self.url

    def prepare(self, tables: Tables) -> None:
        require_create(self.url)

    def stage(self, spec: RunSpec) -> tuple[type, tuple[Any, ...], int]:
        return SnipStage, (spec, self.model, self.cut, self.url), CHUNK

    def counts(self, counts: Counts, plan: Plan | None = None) -> dict[str, int]:
        return {
            "wanted": counts.requested,
            "done": counts.ok,
            "failed": counts.failed,
            "reused": counts.reused,
            "files": counts.detections,
            "bytes": counts.bytes,
        }


def plan_snips(tables: Tables, plan: Plan, spec: RunSpec, read_only: bool = False) -> Plan:
    """Plan the missing snips of images with results; call it after the run has written them.

    With `read_only`, no table is created. Raises StorageUnreachable.
    """
    cut = cut_of(spec.snips or Snips(), plan.model.detector_config)
    max_pixels = spec.megapixels * 1_000_000
    work = SnipPass(plan.model, max_pixels, cut, Settings().snips_url)
    return plan_more(tables, work, plan, read_only)


SAMPLE = 8


def snips_report(spec: RunSpec, plan: Plan, tables: Tables) -> dict[str, Any]:
    """Return the counts of images with snips; nothing is written.

    `snip_images_unseen` counts images without results: the run detects in them first and may then make snips.
    """
    snips = plan_snips(tables, plan, spec, read_only=True)
    return {
        "snip_images": snips.requested,
        "snip_images_reused": snips.reused,
        "snip_images_to_do": snips.todo,
        "snips_to_write": snips.rows,
        "snips_bytes_estimate": estimate_bytes(snips),
        "snip_images_unseen": plan.todo,
    }


def estimate_bytes(plan: Plan) -> int | None:
    """Estimate the bytes of all missing snips; None if none are missing or no sample can be read."""
    work = plan.work
    assert isinstance(work, SnipPass)
    sizes: list[int] = []
    for row in plan.some(SAMPLE).to_pylist():
        try:
            data = image_bytes(row)
            if isinstance(data, bytes):
                pixels = decode(data, work.max_pixels).pixels
                sizes += [len(crop(pixels, box, work.cut).data) for box in row["boxes"]]
        except (ImageError, StorageError, ValueError):
            continue
    return round(sum(sizes) / len(sizes) * plan.rows) if sizes else None
