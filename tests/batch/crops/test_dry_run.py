"""What a dry run says of snips is what the run then does."""

from __future__ import annotations

from collections.abc import Mapping

from batch.crops.plan import snips_report
from batch.schedule.policy import Snips
from tests.batch.box_bench import picture
from tests.batch.crops.bench import SnipBench, spec_of
from tests.fixtures_local import encoded

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
