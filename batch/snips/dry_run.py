"""What a run would write of snips: counts by SQL, and bytes from a few of its own images, cut here and now."""

from __future__ import annotations

from typing import Any

from archive.tables import Tables
from batch.plan import Plan
from batch.read import image_bytes
from batch.snips.crop import crop
from batch.snips.plan import SnipPlan, plan_snips
from batch.spec import RunSpec
from model_store.errors import ImageError, StorageError
from model_store.images import decode

SAMPLE = 8


def snips_report(spec: RunSpec, plan: Plan, tables: Tables) -> dict[str, Any]:
    """Images with snips, by what is known of them; nothing is written.

    `snip_images_unseen`: images that the run would see first, and may then cut snips of.
    """
    todo = plan_snips(tables, plan, spec, read_only=True)
    return {
        "snip_images": todo.wanted,
        "snip_images_reused": todo.wanted - todo.todo,
        "snip_images_to_do": todo.todo,
        "snips_to_write": todo.files,
        "snips_bytes_estimate": estimate_bytes(todo, spec.megapixels * 1_000_000),
        "snip_images_unseen": plan.todo,
    }


def estimate_bytes(plan: SnipPlan, max_pixels: int) -> int | None:
    """Of all that is to be written; None when that is nothing, or no sample can be read."""
    sizes: list[int] = []
    for row in plan.some(SAMPLE).to_pylist():
        try:
            data = image_bytes(row)
            if isinstance(data, bytes):
                pixels = decode(data, max_pixels).pixels
                sizes += [len(crop(pixels, box, plan.cut).data) for box in row["boxes"]]
        except (ImageError, StorageError, ValueError):
            continue
    return round(sum(sizes) / len(sizes) * plan.files) if sizes else None
