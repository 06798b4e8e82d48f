"""Previews: the counts of a dry run, and one example for each of the images with the lowest digests."""

from __future__ import annotations

from pathlib import Path

import pytest

from archive.annotations.layers import read_layers
from archive.delta.tables import Tables
from batch.filters.prepare import prepare
from batch.filters.preview import preview
from batch.filters.run import dry_run, execute, here
from tests.batch.filters.scene import box, publish, put, sha, tables_at


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Images 0 to 9 of two cameras; the odd ones have two small boxes."""
    tables = tables_at(tmp_path)
    small = [box(1, 500, 500, 20.0, "fox", 0.5), box(2, 5, 5, 10.0, "fox", 0.4)]
    put(
        tables,
        {
            n: ("north" if n < 4 else "south", 60.0 * n, [box(0, 10, 10, 200.0), *(small if n % 2 else [])])
            for n in range(10)
        },
    )
    publish(tables)
    return tables


def test_examples_are_of_different_images_with_the_detection_before(tables: Tables) -> None:
    spec = prepare(tables, "small-size", {})
    report, examples = preview(spec, tables)
    assert report.tally == dry_run(spec, tables, here).tally
    assert [example.media_sha256 for example in examples] == [sha(n) for n in (1, 3, 5, 7, 9)]
    first = examples[0]
    assert (first.camera_id, first.label, first.action) == ("north", "fox", "suppress")
    assert first.box_px in ((500, 500, 520, 520), (5, 5, 15, 15))
    assert "area_frac" in first.reason
    assert read_layers(tables) == {}
    assert [one.media_sha256 for one in preview(spec, tables, 2)[1]] == [sha(1), sha(3)]


def test_a_layer_that_exists_has_no_examples(tables: Tables) -> None:
    spec = prepare(tables, "small-size", {})
    execute(spec, tables, here)
    report, examples = preview(spec, tables)
    assert (report.tally.flagged, report.tally.added, examples) == (10, 0, [])


def test_an_image_as_a_whole_has_no_box(tables: Tables) -> None:
    _, examples = preview(prepare(tables, "events", {}), tables)
    assert {(example.box_px, example.label, example.action) for example in examples} == {(None, None, "group")}
    assert len(examples) == 10


def test_detections_that_the_view_shows_come_first(tmp_path: Path) -> None:
    tables = tables_at(tmp_path)
    faint, clear = box(0, 1, 1, 20.0, "fox", 0.2), box(1, 5, 5, 20.0, "deer", 0.4)
    put(tables, {1: ("north", 0.0, [faint]), 2: ("north", 9.0, [faint, clear])})
    publish(tables, threshold=0.5, label_thresholds={"deer": 0.3})
    _, examples = preview(prepare(tables, "small-size", {}), tables)
    assert [(one.media_sha256, one.label) for one in examples] == [(sha(2), "deer"), (sha(1), "fox")]
