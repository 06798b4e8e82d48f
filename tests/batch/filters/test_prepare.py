"""Test filters that use a classifier, from rows of `classifications` to the detections that a view shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from archive.annotations.classes import write_classes
from archive.delta.tables import Tables
from archive.schemas import CLASSIFICATIONS
from batch.filters.layers import switch
from batch.filters.prepare import prepare
from batch.filters.run import FilterReport, execute, here
from model_store.errors import BadRequest
from tests.batch.filters.scene import KEY, box, publish, put, sha, shown, tables_at
from tests.fixtures_local import rows_of

NAMES = ("lion", "lynx", "cat")
CLASSIFIER = "c" * 64


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Image 1 has two classified detections and one without classification, image 2 a failed one."""
    tables = tables_at(tmp_path)
    three = [box(rank, 100.0 * rank, 1, 90, "animal", 0.9 - rank / 10) for rank in range(3)]
    put(tables, {1: ("north", 0.0, three), 2: ("north", 9.0, three[:1])})
    publish(tables)
    digest = write_classes(tables.url, NAMES, ("",) * 3)
    rows = [answer(1, 0, [2.0, 1.0, 0.0], digest), answer(1, 1, [0.0, 1.0, 3.0], digest), answer(2, 0, None, digest)]
    put_answers(tables, rows)
    return tables


def answer(number: int, rank: int, logits: list[float] | None, digest: str, **more: Any) -> dict[str, Any]:
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
    tables.append("classifications", pa.Table.from_pylist(rows, schema=CLASSIFICATIONS), "test", lambda _, new: new)


def run(tables: Tables, **fields: Any) -> FilterReport:
    spec = prepare(tables, "class-mask", fields)
    return execute(spec, tables, here)


def softmax(logits: list[float]) -> list[float]:
    exact = np.exp(np.array(logits, np.float64))
    return list(exact / exact.sum())


def test_the_best_kept_class_is_shown_and_undone(tables: Tables) -> None:
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


def test_the_list_and_the_classifier_are_in_the_layer_and_their_order_is_not(tables: Tables) -> None:
    def layer(**fields: Any) -> str:
        return prepare(tables, "class-mask", fields).layer().layer_id

    one = layer(keep=["lynx", "cat"])
    assert layer(keep=["cat", "lynx", "cat"]) == one
    assert layer(keep=["cat"]) != one
    assert layer(keep=["lynx", "cat"], classifier="net@1") == one
    assert layer(keep=["lynx", "cat"], classifier="cccc") == one
    digest = rows_of(tables, "classifications")[0]["labels_digest"]
    put_answers(tables, [answer(3, 0, [1.0, 2.0, 0.0], digest, model_version="2")])
    assert {layer(keep=["lynx", "cat"], classifier=f"net@{version}") for version in "12"} == {one}, "they share a key"


def test_a_config_that_does_not_fit_the_classifier_starts_nothing(tables: Tables) -> None:
    with pytest.raises(BadRequest, match="tiger"):
        run(tables, keep=["tiger"])
    with pytest.raises(BadRequest, match="matches 0 classifiers of these detections; available: net@1"):
        run(tables, classifier="net@2")
    with pytest.raises(BadRequest, match="lineages"):
        prepare(tables, "rank-rollup", {})
    assert tables.existing("runs") is None


def test_one_of_two_classifiers_must_be_named(tables: Tables) -> None:
    digest = rows_of(tables, "classifications")[0]["labels_digest"]
    put_answers(tables, [answer(1, 0, [0.0, 0.0, 9.0], digest, classifier_key="d" * 64)])
    with pytest.raises(BadRequest, match="several classifiers"):
        run(tables)
    assert run(tables, classifier="dddd").tally.flagged == 1


def herd(place: Path, lineage: dict[str, str], classified: bool = True) -> Tables:
    """One event with five cervidae and a roe deer, and a classifier with these lineages."""
    tables = tables_at(place)
    labels = [*["cervidae"] * 5, "roe deer"]
    frames = {
        number: ("north", float(number), [box(0, 1, 1, 90, label, 0.9)]) for number, label in enumerate(labels, 1)
    }
    put(tables, frames)
    publish(tables)
    digest = write_classes(tables.url, tuple(lineage), tuple(lineage.values()))
    if classified:
        put_answers(tables, [answer(1, 0, [0.0] * len(lineage), digest)])
    events = prepare(tables, "events", {})
    switch(tables, on=[execute(events, tables, here).layer_id])
    return tables


def smoothed(tables: Tables, **fields: Any) -> list[str]:
    wanted = {"flip_rare": True, **fields}
    spec = prepare(tables, "smoothing", wanted)
    switch(tables, on=[execute(spec, tables, here).layer_id])
    return sorted(row[2] for row in shown(tables))


ROE = "mammalia;artiodactyla;cervidae;capreolus;capreolus capreolus"
RARE = [*["cervidae"] * 5, "roe deer"]


@pytest.mark.parametrize(
    ("lineage", "labels"),
    [
        ({"roe deer": ROE, "lion": "mammalia;carnivora;felidae"}, RARE),
        ({"roe deer": "mammalia;artiodactyla;bovidae;x"}, ["cervidae"] * 6),
    ],
)
def test_smoothing_keeps_a_rare_label_with_a_lineage_of_the_classifier(
    tmp_path: Path, lineage: dict[str, str], labels: list[str]
) -> None:
    assert smoothed(herd(tmp_path, lineage)) == labels


def test_smoothing_with_several_classifiers_takes_the_lineages_of_the_one_that_is_named(tmp_path: Path) -> None:
    tables = herd(tmp_path, {"roe deer": ROE})
    digest = write_classes(tables.url, ("roe deer",), ("",))
    put_answers(tables, [answer(2, 0, [0.0], digest, classifier_key="d" * 64, model_version="2")])
    with pytest.raises(BadRequest, match="several classifiers"):
        smoothed(tables)
    assert smoothed(tables, flip_rare=False) == RARE, "without step 2 no lineage matters"
    assert smoothed(tables, classifier="net@2") == ["cervidae"] * 6
    assert smoothed(tables, classifier="net@1") == RARE


def test_smoothing_sees_lineages_of_labels_that_a_layer_below_gave(tmp_path: Path) -> None:
    """The detector's label is animal; the roll-up gives cervidae for unsure rows, else the species."""
    tables = herd(tmp_path, {"roe deer": ROE, "red deer": ROE.replace("capreolus", "cervus")})
    digest = rows_of(tables, "classifications")[0]["labels_digest"]
    logits = [[0.0, 0.1]] * 4 + [[9.0, 0.0]]
    put_answers(tables, [answer(n, 0, one, digest) for n, one in enumerate(logits, 2)])
    fields = {"thresholds": {"species": 0.9, "family": 0.9}}
    spec = prepare(tables, "rank-rollup", fields)
    switch(tables, on=[execute(spec, tables, here).layer_id])
    before = sorted(row[2] for row in shown(tables))
    assert before.count("cervidae") == 5
    assert smoothed(tables) == before
