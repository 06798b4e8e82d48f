"""Tables and reports in a bucket: the same facts as on a disk."""

from __future__ import annotations

import uuid
from pathlib import Path

import boto3
import pytest

from archive.delta.tables import Tables
from batch.publishing.impact.compare import compare, compared
from batch.publishing.impact.report import write_report
from batch.publishing.impact.verdict import verdict
from model_store.errors import BadRequest
from model_store.storage import Folder
from tests.batch.publishing.impact.scene import Seen, World, new_side, old_side

DEER: Seen = ("deer", 0.75, (0.0, 0.0, 40.0, 40.0))
FOX: Seen = ("fox", 0.5, (100.0, 0.0, 140.0, 40.0))


def test_a_bucket_is_compared_like_a_disk(s3_endpoint: str, tmp_path: Path) -> None:
    name = f"b{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=name)
    world = World().image("a", [DEER, FOX], [FOX]).image("b", [], [DEER]).image("c", [FOX], None)
    world.say("keep", "a", "deer", DEER[2])
    there = world.write(Tables(f"s3://{name}/tables"))
    here = world.write(Tables(str(tmp_path / "tables")))
    facts = compare(here, old_side(), new_side())
    assert facts.verified.lost == 1
    assert compare(there, old_side(), new_side()) == facts
    out = f"s3://{name}/reports/one"
    with compared(there, old_side(), new_side()) as comparison:
        write_report(comparison, verdict(there, comparison, []), out, per_kind=3)
        assert Folder(out).names() == ["impact.json", "index.html"]
        with pytest.raises(BadRequest, match="not empty"):
            write_report(comparison, verdict(there, comparison, []), out, per_kind=3)
