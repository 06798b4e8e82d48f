"""What a dry run says of snips is what the run then does."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from batch.crops.plan import snips_report
from batch.planning.dry_run import dry_run_report
from batch.schedule.policy import Snips
from model_store.store import ModelStore
from tests.batch.box_bench import picture
from tests.batch.crops.bench import SnipBench, spec_of
from tests.fixtures_local import MODELS, encoded

SPEC = spec_of(snips=Snips())


def test_it_counts_what_the_run_then_writes(bench: SnipBench, three: Mapping[str, str], without_ray: object) -> None:
    bench.catalogue("unseen.png", encoded(picture(9), "PNG"))
    said = snips_report(SPEC, bench.detection_plan(), bench.tables)
    assert bench.files == {}
    assert bench.tables.existing("snips") is None
    counts = bench.counts()
    assert said == {
        "snip_images": 2,
        "snip_images_reused": 0,
        "snip_images_to_do": 2,
        "snips_to_write": counts.detections,
        "snips_bytes_estimate": counts.bytes,  # so few that all of them are the sample
        "snip_images_unseen": 1,
    }
    again = snips_report(SPEC, bench.detection_plan(), bench.tables)
    assert again == said | {
        "snip_images_reused": 2,
        "snip_images_to_do": 0,
        "snips_to_write": 0,
        "snips_bytes_estimate": None,
    }


def test_an_image_that_cannot_be_read_is_left_out_of_the_estimate(bench: SnipBench, three: Mapping[str, str]) -> None:
    full = snips_report(SPEC, bench.detection_plan(), bench.tables)["snips_bytes_estimate"]
    (bench.root / "one/a.png").unlink()
    part = snips_report(SPEC, bench.detection_plan(), bench.tables)["snips_bytes_estimate"]
    assert 0 < part != full
    (bench.root / "both/a.png").unlink()
    assert snips_report(SPEC, bench.detection_plan(), bench.tables)["snips_bytes_estimate"] is None


@pytest.mark.parametrize("snips", [None, Snips()])
def test_the_report_of_a_run_has_them_if_asked_for(bench: SnipBench, snips: Snips | None) -> None:
    bench.catalogue("a.png", encoded(picture(1), "PNG"))
    spec = spec_of(model="motion", snips=snips)
    report = dry_run_report(spec, bench.tables, ModelStore(str(MODELS)))
    assert ("snips_to_write" in report) is (snips is not None)
