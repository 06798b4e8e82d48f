"""Compare class masking with loops over decimals: ties, huge logits, rows without logits, invalid lists."""

from __future__ import annotations

from decimal import Decimal
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from batch.filters.contract import FilterAction, Rows
from batch.filters.kinds.class_mask import FILTER, ClassMaskConfig
from batch.filters.support import logits as blocks_of
from model_store.errors import BadRequest
from tests.batch.filters.make import NOTHING, detection, image, invalid, rows

CLASSES = ("lion", "lynx", "felis catus", "red deer", "roe deer")


def classified(number: int, logits: list[float] | None, **more: Any) -> dict[str, Any]:
    return detection(media_sha256=image(number), path=f"{number:04}.jpg", logits=logits, **({"label": "animal"} | more))


def table_of(*listed: dict[str, Any]) -> Rows:
    return rows(*listed, classes=CLASSES)


def said(table: Rows, **config: Any) -> dict[str, FilterAction]:
    """Return the actions by digest."""
    found: list[FilterAction] = list(FILTER.apply(ClassMaskConfig(**config), table))
    assert all(one.action == "relabel" for one in found)
    out = {one.media_sha256: one for one in found}
    assert len(out) == len(found)
    return out


def best(logits: list[float], among: list[int]) -> int:
    """Return the index of the largest value, the first of equals."""
    found = among[0]
    for i in among:
        if logits[i] > logits[found]:
            found = i
    return found


def share(logits: list[float], one: int, among: list[int]) -> float:
    powers = {i: Decimal(logits[i]).exp() for i in among}
    return float(powers[one] / sum(powers.values()))


def slow(row: dict[str, Any], config: dict[str, Any]) -> tuple[str, float, str] | None:
    logits, label, every = row["logits"], row["label"], list(range(len(CLASSES)))
    if label in ("person", "vehicle", "human", "not identifiable"):
        return None
    if config["labels"] and label not in config["labels"]:
        return None
    if logits is None or any(x != x or abs(x) == inf for x in logits):
        return None
    kept = [i for i in every if not config["keep"] or CLASSES[i] in config["keep"]]
    top = best(logits, kept)
    if config["emit"] == "changed" and top == best(logits, every):
        return None
    score = share(logits, top, kept if config["reweight"] else every)
    semantics = "renormalised" if config["reweight"] else "absolute"
    return CLASSES[top], score, "softmax" if kept == every else semantics


logit = st.one_of(st.integers(-3, 3).map(float), st.floats(-30, 30, width=32), st.sampled_from([1e4, -1e4, 88.75]))
vector = st.one_of(
    st.lists(logit, min_size=5, max_size=5),
    st.lists(logit, min_size=5, max_size=5),
    st.none(),
    st.lists(st.sampled_from([nan, inf, -inf, 1.0]), min_size=5, max_size=5),
)
listed = st.lists(st.tuples(vector, st.sampled_from(["animal", "bird", "person"]), st.booleans()), max_size=8)
configs = st.fixed_dictionaries(
    {
        "keep": st.lists(st.sampled_from(CLASSES), max_size=6),
        "reweight": st.booleans(),
        "emit": st.sampled_from(["all", "changed"]),
        "labels": st.lists(st.sampled_from(["animal", "bird"]), max_size=2),
    }
)


def given_table(given_rows: list[Any]) -> list[dict[str, Any]]:
    return [
        classified(number, logits, label=label, human=human) for number, (logits, label, human) in enumerate(given_rows)
    ]


@settings(deadline=None, max_examples=60)
@given(given_rows=listed, config=configs)
def test_it_matches_loops_over_decimals(given_rows: list[Any], config: dict[str, Any]) -> None:
    table = given_table(given_rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks_of, "BLOCK_VALUES", 3 * len(CLASSES))
        found = said(table_of(*table), **config)
    for row in table:
        wanted = slow(row, config)
        one = found.pop(row["media_sha256"], None)
        assert (one is None) == (wanted is None)
        if one is not None and wanted is not None:
            assert (one.label, one.score_semantics) == (wanted[0], wanted[2])
            assert one.score == pytest.approx(wanted[1], rel=1e-6, abs=1e-38)
    assert not found


def test_masking_is_renormalised_or_absolute() -> None:
    table = table_of(classified(1, [float(np.log(x)) for x in (4, 3, 1, 1, 1)]))
    keep = ["lynx", "red deer"]
    (plain,) = said(table).values()
    (masked,) = said(table, keep=keep).values()
    (absolute,) = said(table, keep=keep, reweight=False).values()
    assert (plain.label, plain.score_semantics) == ("lion", "softmax")
    assert plain.score == pytest.approx(0.4)
    assert plain.reason == "0.40 softmax, best of 5 classes"
    assert (masked.label, masked.score_semantics) == ("lynx", "renormalised")
    assert masked.score == pytest.approx(0.75)
    assert masked.reason == "0.75 renormalised, best of 2 classes kept of 5; of all: lion 0.40"
    assert (absolute.label, absolute.score_semantics) == ("lynx", "absolute")
    assert absolute.score == pytest.approx(0.3)


def test_what_would_underflow_has_a_score() -> None:
    table = table_of(classified(1, [1e4, 1.0, 0.0, -1e4, -1e4]))
    found = said(table, keep=["red deer", "roe deer"])[image(1)]
    assert (found.label, found.score) == ("red deer", 0.5)
    assert said(table, keep=["red deer"], reweight=False)[image(1)].score == 0.0


def test_the_list_is_a_set() -> None:
    one = ClassMaskConfig(keep=("lynx", "lion", "lynx"), labels=("b", "a"))
    assert one.keep == ("lion", "lynx")
    assert one == ClassMaskConfig(keep=("lion", "lynx"), labels=("a", "b"))


def test_people_and_not_identifiable_stay_unless_configured() -> None:
    table = table_of(
        *(
            classified(number, [float(number), 0, 0, 0, 1], label=label)
            for number, label in enumerate(("person", "not identifiable", "deer"))
        )
    )
    assert set(said(table)) == {image(2)}
    assert set(said(table, ignored_labels=[])) == {image(0), image(1), image(2)}
    assert set(said(table, labels=["person"], ignored_labels=[])) == {image(0)}


def test_rows_without_logits_are_counted_and_skipped() -> None:
    table = table_of(
        classified(1, [1.0, 2, 3, 4, 5]),
        classified(2, None),
        classified(3, [1.0, nan, 3, 4, 5]),
        classified(4, [1.0, 2]),
        classified(5, None, label="person"),
        classified(6, None, **NOTHING),
    )
    assert set(said(table)) == {image(1)}
    assert invalid(FILTER, ClassMaskConfig(), table) == [False, True, True, True, False, False]
    assert invalid(FILTER, ClassMaskConfig(labels=["bird"]), table) == [False] * 6


def test_unknown_class_names_are_rejected_with_examples() -> None:
    table = table_of(classified(1, [0.0] * 5))
    with pytest.raises(BadRequest, match=r"not a class of this classifier \(1 of 2\): 'lnyx'"):
        said(table, keep=["lnyx", "lion"])
    with pytest.raises(BadRequest, match=r"'a', 'b', 'c', 'd', 'e', …; its 5 classes are 'lion'"):
        said(table, keep=[*"abcdefg", "lion"])
    with pytest.raises(BadRequest, match="no name is a class"):
        said(table_of(), keep=["a"])
    with pytest.raises(BadRequest, match="no classes"):
        FILTER.require(ClassMaskConfig(), (), ())


@pytest.mark.parametrize("wrong", [{"keep": "lion"}, {"emit": "some"}, {"labels": ["person"]}, {"taxa": ["lion"]}])
def test_wrong_fields_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ClassMaskConfig(**wrong)
