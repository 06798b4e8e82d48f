"""Compare rank roll-up with loops over decimals: exact thresholds, gaps, ties and masks."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from batch.filters.contract import FilterAction, Rows
from batch.filters.kinds.rank_rollup import FILTER, RankRollupConfig, require
from batch.filters.support import logits as blocks_of
from model_store.errors import BadRequest
from tests.batch.filters.make import NOTHING, detection, image, invalid, rows

LINEAGE = {
    "cat": "mammalia;carnivora;felidae;felis;felis catus",
    "wild cat": "mammalia;carnivora;felidae;felis;felis silvestris",
    "lynx": "mammalia;carnivora;felidae;lynx;lynx lynx",
    "fox": "mammalia;carnivora;canidae;vulpes;vulpes vulpes",
    "stag": "mammalia;cetartiodactyla;cervidae;cervus;cervus elaphus",
    "hind": "mammalia;cetartiodactyla;cervidae;cervus;cervus elaphus",
    "dog family": "mammalia;carnivora;canidae",
    "shrew": "mammalia;eulipotyphla;;sorex;sorex araneus",
    "leaf": "",
}
CLASSES = tuple(LINEAGE)
RANKS = ("class", "order", "family", "genus", "species")
NAMES = {"canidae": "dog family"} | {
    lineage.split(";")[-1]: name for name, lineage in LINEAGE.items() if name not in ("stag", "hind", "leaf")
}


def shares(**of: float) -> list[float]:
    """Return logits that give the named classes these shares of 1 (`_` for a space), the others almost 0."""
    given = {name.replace("_", " "): share for name, share in of.items()}
    assert set(given) <= set(CLASSES)
    return [float(np.log(given[name])) if name in given else -200.0 for name in CLASSES]


def row(number: int, logits: list[float] | None, **more: Any) -> dict[str, Any]:
    given = {"label": "animal", "logits": logits, "path": f"{number:04}.jpg"} | more
    return detection(media_sha256=image(number), **given)


def table_of(*listed: dict[str, Any]) -> Rows:
    return rows(*listed, classes=CLASSES, lineage=tuple(LINEAGE.values()))


def said(table: Rows, **config: Any) -> dict[str, FilterAction]:
    """Return the actions by digest."""
    found: list[FilterAction] = list(FILTER.apply(RankRollupConfig(**config), table))
    assert all(one.action == "relabel" and one.score_semantics == "summed" for one in found)
    out = {one.media_sha256: one for one in found}
    assert len(out) == len(found)
    return out


def label_of(logits: list[float], label: str = "animal", **config: Any) -> str | None:
    found = said(table_of(row(1, logits, label=label)), **config)
    return found[image(1)].label if found else None


def slow(one: dict[str, Any], config: dict[str, Any]) -> tuple[str, float] | None:
    """Return label and sum; each name occurs in one taxon of these lineages."""
    if one["logits"] is None or one["label"] == "person":
        return None
    logits = dict(zip(CLASSES, one["logits"], strict=True))
    kept = [name for name in CLASSES if not config["keep"] or name in config["keep"]]
    powers = {name: Decimal(logits[name]).exp() for name in kept}
    total = sum(powers.values())
    top = one["label"] if one["label"] in kept else max(kept, key=lambda name: logits[name])
    for rank in reversed(RANKS):
        if rank not in config["thresholds"]:
            continue
        sums: dict[str, Decimal] = {}
        for name in kept:
            taxon = taxon_at(name, rank)
            if taxon:
                sums[taxon] = sums.get(taxon, Decimal(0)) + powers[name] / total
        if config["lineage"] == "constrained":
            sums = {taxon: x for taxon, x in sums.items() if taxon == taxon_at(top, rank)}
        rounded = {taxon: np.float32(x) for taxon, x in sums.items()}
        if not rounded:
            continue
        winner = max(rounded, key=lambda taxon: rounded[taxon])
        least = np.float32(config["thresholds"][rank])
        if rounded[winner] > least or (not config["strict"] and rounded[winner] == least):
            label = NAMES.get(winner, winner)
            return None if label == one["label"] else (label, float(rounded[winner]))
    return None


def taxon_at(name: str, rank: str) -> str:
    parts = LINEAGE[name].split(";")
    place = RANKS.index(rank)
    return parts[place] if place < len(parts) else ""


logit = st.one_of(st.integers(-2, 2).map(float), st.floats(-5, 5, width=16), st.sampled_from([300.0, -300.0]))
vector = st.one_of(
    st.lists(logit, min_size=len(CLASSES), max_size=len(CLASSES)),
    st.permutations([0.0, 0.0, 0.0, 0.0, -300.0, -300.0, -300.0, -300.0, -300.0]),
    st.none(),
)
listed = st.lists(
    st.tuples(vector, st.sampled_from(["animal", "cat", "felidae", "stag", "person"]), st.booleans()), max_size=8
)
configs = st.fixed_dictionaries(
    {
        "thresholds": st.dictionaries(st.sampled_from(RANKS), st.sampled_from([0.25, 0.5, 0.75, 0.8, 1.0]), min_size=1),
        "strict": st.booleans(),
        "lineage": st.sampled_from(["constrained", "global"]),
        "keep": st.lists(st.sampled_from(CLASSES), max_size=6),
    }
)


def given_table(given_rows: list[Any]) -> list[dict[str, Any]]:
    return [row(number, logits, label=label, human=human) for number, (logits, label, human) in enumerate(given_rows)]


@settings(deadline=None, max_examples=60)
@given(given_rows=listed, config=configs)
def test_it_matches_loops_over_decimals(given_rows: list[Any], config: dict[str, Any]) -> None:
    table = given_table(given_rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks_of, "BLOCK_VALUES", 3 * len(CLASSES))
        found = said(table_of(*table), **config)
    for one in table:
        wanted = slow(one, config)
        told = found.pop(one["media_sha256"], None)
        assert (told and told.label) == (wanted and wanted[0])
        if told is not None and wanted is not None:
            assert told.score == pytest.approx(wanted[1], rel=1e-6)
    assert not found


def test_the_finest_rank_at_its_threshold_wins() -> None:
    assert label_of(shares(cat=0.85, lynx=0.15)) == "cat"
    assert label_of(shares(cat=0.5, wild_cat=0.15, fox=0.35)) == "felis"
    assert label_of(shares(cat=0.3, lynx=0.2, fox=0.25, leaf=0.25)) == "felidae"
    assert label_of(shares(cat=0.35, fox=0.33, stag=0.32)) is None
    assert label_of(shares(cat=0.35, fox=0.33, stag=0.32), thresholds={"order": 0.6}) == "carnivora"


def test_reasons_have_the_sum_and_the_previous_class() -> None:
    (one,) = said(table_of(row(1, shares(cat=0.5, wild_cat=0.15, fox=0.35)))).values()
    assert one.reason == "genus felis: 0.65 >= 0.6 over 2 of 9 classes; cat 0.50"
    assert one.score == pytest.approx(0.65)


def test_a_sum_is_a_float32_as_its_threshold_is() -> None:
    fifths = shares(cat=1, wild_cat=1, lynx=1, fox=1, stag=1)
    found = said(table_of(row(1, fifths)), thresholds={"order": 0.8})
    assert found[image(1)].reason == "order carnivora: 0.8 >= 0.8 over 5 of 9 classes; cat 0.20"
    assert label_of(fifths, thresholds={"order": 0.8}, strict=True) is None


def test_constrained_stays_in_the_lineage_and_global_may_leave_it() -> None:
    split = shares(fox=0.3, cat=0.25, wild_cat=0.2, lynx=0.25)
    thresholds = {"family": 0.6, "order": 0.9}
    assert label_of(split, thresholds=thresholds) == "carnivora"
    assert label_of(split, thresholds=thresholds, lineage="global") == "felidae"


def test_equal_names_of_two_genera_are_two_species() -> None:
    lineage = ("m;c;d;cuon;alpinus", "m;c;d;capra;alpinus", "m;c;d;x;y")
    table = rows(detection(label="a", logits=[0.1, 0.0, -300.0]), classes=("a", "b", "c"), lineage=lineage)
    assert said(table, thresholds={"species": 0.9}) == {}


def test_equal_and_ignored_labels_stay() -> None:
    sure = shares(cat=1)
    assert label_of(sure, label="cat") is None
    assert label_of(sure, label="person") is None
    assert label_of(sure, label="not identifiable") is None
    assert label_of(sure, label="person", ignored_labels=[]) == "cat"


def test_rows_without_logits_are_counted_and_skipped() -> None:
    table = table_of(
        row(1, shares(cat=1)), row(2, None), row(3, None, label="person"), row(4, None, **NOTHING), row(5, None)
    )
    assert set(said(table)) == {image(1)}
    assert invalid(FILTER, RankRollupConfig(), table) == [False, True, False, False, True]


def test_lineages_must_be_there_and_fit_the_ranks() -> None:
    with pytest.raises(BadRequest, match="has no lineages"):
        require(RankRollupConfig(), ("a", "b"), ())
    with pytest.raises(BadRequest, match="has no lineages"):
        require(RankRollupConfig(), ("a", "b"), ("", ""))
    with pytest.raises(BadRequest, match="'a' has 6 names, ranks has 5"):
        require(RankRollupConfig(), ("a",), ("x;m;c;f;g;s",))
    with pytest.raises(BadRequest, match="'lino'"):
        said(table_of(), keep=["lino"])


def test_thresholds_are_sorted_finest_first() -> None:
    one = RankRollupConfig(thresholds={"family": 0.4, "species": 0.8, "genus": 0.6})
    assert one.model_dump_json() == RankRollupConfig().model_dump_json()


@pytest.mark.parametrize(
    "wrong", [{"thresholds": {"tribe": 0.5}}, {"ranks": ["order", "class"]}, {"ranks": ["genus", "genus"]}]
)
def test_wrong_fields_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RankRollupConfig(**wrong)
