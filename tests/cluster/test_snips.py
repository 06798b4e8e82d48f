"""Snips on both hosts: what a run says is what lies in the folder, and a second run writes nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from archive.delta.tables import Tables
from archive.views.query import query
from tests.cluster.hosts import Host

pytestmark = pytest.mark.cluster
BACKFILL = ("--model", "ssdlite-coco", "--latest-per-camera", "--snips")


def stamps(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def test_the_backfill_of_the_newest_of_each_camera(host: Host, catalogued: str, tmp_path: Path) -> None:
    tables, snips = catalogued, tmp_path / "snips"
    places = {"tables": tables, "RESIGHT_SNIPS": str(snips)}

    def reprocess(*options: str) -> dict[str, Any]:
        done = host.done("reprocess", "--format", "json", *BACKFILL, *options, **places)
        return dict(json.loads(done))

    planned = reprocess("--dry-run")
    assert planned["snip_images_unseen"] == planned["requested"] == planned["to_infer"]
    assert not snips.exists()

    first = reprocess()
    files = stamps(snips)
    counts = first["snips"]
    assert counts["files"] == len(files) > 0
    assert counts["bytes"] == sum((snips / name).stat().st_size for name in files)
    assert counts["wanted"] == counts["done"] <= planned["requested"]
    assert (counts["failed"], counts["reused"]) == (0, 0)

    rows = query(Tables(tables), "select names from snips").to_pylist()
    assert sorted(name for row in rows for name in row["names"]) == sorted(files)
    shown = """select media_sha256 || '-' || rank || '.jpg' as name, x2_px - x1_px as across
        from (select distinct media_sha256, rank, x1_px, x2_px from detections)"""
    across = {row["name"]: row["across"] for row in query(Tables(tables), shown).to_pylist()}
    assert sorted(across) == sorted(Path(name).name for name in files)
    for name in files:
        image = Image.open(io.BytesIO((snips / name).read_bytes()))
        assert image.format == "JPEG"
        assert image.width >= int(across[Path(name).name])

    second = reprocess()
    assert second["snips"]["reused"] == second["snips"]["wanted"] == counts["wanted"]
    assert second["snips"]["files"] == 0
    assert stamps(snips) == files
