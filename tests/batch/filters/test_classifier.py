"""Filters over the answers of a classifier, from rows of `classifications` to what a view shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from archive.classes import write_classes
from archive.schemas import CLASSIFICATIONS
from archive.tables import Tables
from batch.filters.here import here
from batch.filters.layers import switch
from batch.filters.prepare import prepare
from batch.filters.run import FilterReport, execute
from batch.filters.scope import parse_scope
from model_store.errors import BadRequest
from tests.batch.filters.scene import KEY, box, publish, put, sha, shown, tables_at
from tests.fixtures_local import rows_of

NAMES = ("lion", "lynx", "cat")
CLASSIFIER = "c" * 64


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Image 1 has two classified detections and one that is not, image 2 one that failed."""
    tables = tables_at(tmp_path)
    three = [box(rank, 100.0 * rank, 1, 90, "animal", 0.9 - rank / 10) for rank in range(3)]
    put(tables, {1: ("north", 0.0, three), 2: ("north", 9.0, three[:1])})
    publish(tables)
    digest = write_classes(tables.url, NAMES, ("",) * 3)
    rows = [
        answer(1, 0, [2.0, 1.0, 0.0], digest),
        answer(1, 1, [0.0, 1.0, 3.0], digest),
        answer(2, 0, None, digest),
    ]
    put_answers(tables, rows)
    return tables


def answer(
    number: int, rank: int, logits: list[float] | None, digest: str, **more: Any
) -> dict[str, Any]:
    return {
        "inference_key": KEY,
        "media_sha256": sha(number),
        "rank": rank,
        "classifier_key": CLASSIFIER,
        "margin_frac": 0.0,
        "status": "ok" if logits else "failed",
        "logits": logits,
        "labels_digest": digest,
        "model_name": "net",
        "model_version": "1",
    } | more


def put_answers(tables: Tables, rows: list[dict[str, Any]]) -> None:
    tables.append(
        "classifications",
        pa.Table.from_pylist(rows, schema=CLASSIFICATIONS),
        "test",
        lambda _, new: new,
    )


def run(tables: Tables, **fields: Any) -> FilterReport:
    (spec,) = prepare(tables, "class-mask", fields, [parse_scope("run=published")])
    return execute(spec, tables, here)


def softmax(logits: list[float]) -> list[float]:
    exact = np.exp(np.array(logits, np.float64))
    return list(exact / exact.sum())


def test_the_best_of_the_kept_classes_is_shown_and_undone(tables: Tables) -> None:
    before = shown(tables)
    report = run(tables, keep=["lynx", "cat"])
    tally = report.tally
    assert (tally.checked, tally.flagged, tally.changed, tally.skipped_invalid) == (4, 2, 2, 2)
    switch(tables, on=[report.layer_id])
    found = {row[:2]: row[2:] for row in shown(tables)}
    assert found[sha(1), 0] == ("lynx", pytest.approx(softmax([1.0, 0.0])[0], abs=1e-6))
    assert found[sha(1), 1] == ("cat", pytest.approx(softmax([1.0, 3.0])[1], abs=1e-6))
    assert found[sha(1), 2][0] == found[sha(2), 0][0] == "animal"
    assert run(tables, keep=["lynx", "cat"]).tally.added == 0
    switch(tables, off=["class-mask"])
    assert shown(tables) == before


def test_the_list_and_the_classifier_are_in_the_layer_and_their_order_is_not(
    tables: Tables,
) -> None:
    one = run(tables, keep=["lynx", "cat"]).layer_id
    assert run(tables, keep=["cat", "lynx", "cat"]).layer_id == one
    assert run(tables, keep=["cat"]).layer_id != one
    assert run(tables, keep=["lynx", "cat"], classifier="net@1").layer_id == one
    assert run(tables, keep=["lynx", "cat"], classifier="cccc").layer_id == one


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep": ["tiger"]}, "tiger"),
        ({"classifier": "net@2"}, "means 0 classifiers of these detections; there is: net@1"),
    ],
)
def test_what_does_not_go_with_the_classifier_starts_nothing(
    tables: Tables, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadRequest, match=message):
        run(tables, **fields)
    assert tables.existing("runs") is None


def test_of_two_classifiers_one_must_be_named(tables: Tables) -> None:
    digest = rows_of(tables, "classifications")[0]["labels_digest"]
    put_answers(tables, [answer(1, 0, [0.0, 0.0, 9.0], digest, classifier_key="d" * 64)])
    with pytest.raises(BadRequest, match="several classifiers"):
        run(tables)
    assert run(tables, classifier="dddd").tally.flagged == 1


def test_rollup_says_before_it_starts_that_lineages_are_missing(tables: Tables) -> None:
    with pytest.raises(BadRequest, match="lineages"):
        prepare(tables, "rank-rollup", {}, [parse_scope("run=published")])
