"""Compare score thresholds with plain comparisons of float32, and at the exact thresholds."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from batch.filters.contract import FilterAction, Rows
from batch.filters.kinds.score_threshold import FILTER, ScoreThresholdConfig
from tests.batch.filters.make import detection, image, invalid, rows

BELOW_07 = float(np.nextafter(np.float32(0.7), np.float32(0)))


def scored(number: int, score: float, label: str = "deer", **more: Any) -> dict[str, Any]:
    path = f"{number:04}.jpg"
    return detection(media_sha256=image(number), path=path, score=score, label=label, **more)


def said(table: Rows, **config: Any) -> dict[str, tuple[str, str | None]]:
    """Return reason and group by digest."""
    found: list[FilterAction] = list(FILTER.apply(ScoreThresholdConfig(**config), table))
    assert all(one.action == "suppress" for one in found)
    out = {one.media_sha256: (one.reason, one.group_id) for one in found}
    assert len(out) == len(found)
    return out


def slow(row: dict[str, Any], config: dict[str, Any]) -> str:
    least = config["per_label"].get(row["label"], config["min_score"])
    score = np.float32(row["score"])
    if not score < np.float32(least):
        return "shown"
    return "almost" if score >= np.float32(least - config["almost"]) else "below"


shares = st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.3, 0.4, 0.7, 1.0])
scores = st.one_of(shares, st.floats(0, 1, width=32), shares.map(lambda x: float(np.nextafter(np.float32(x), 0))))
configs = st.fixed_dictionaries(
    {
        "min_score": shares,
        "almost": shares,
        "per_label": st.dictionaries(st.sampled_from(["deer", "fox", "owl"]), shares),
    }
)
listed = st.lists(st.tuples(scores, st.sampled_from(["deer", "fox", "mole"]), st.booleans()), max_size=8)


@settings(deadline=None, max_examples=60)
@given(given_rows=listed, config=configs)
def test_it_matches_plain_comparisons(given_rows: list[Any], config: dict[str, Any]) -> None:
    table = [scored(number, score, label, human=human) for number, (score, label, human) in enumerate(given_rows)]
    found = said(rows(*table), **config)
    for row in table:
        reason, group = found.pop(row["media_sha256"], ("shown", None))
        wanted = slow(row, config)
        assert group == ("almost" if wanted == "almost" else None)
        assert reason.startswith({"below": "score "}.get(wanted, wanted))
    assert not found


def test_the_threshold_itself_is_shown_as_float32() -> None:
    assert said(rows(scored(1, 0.7)), min_score=0.7) == {}
    assert said(rows(scored(1, BELOW_07)), min_score=0.7, almost=0) == {image(1): ("score 0.6999999 < 0.7", None)}


def test_the_band_begins_with_its_lower_end_and_ends_before_the_threshold() -> None:
    table = rows(*(scored(number, score) for number, score in enumerate((0.29, 0.3, 0.39, 0.4))))
    assert said(table, min_score=0.4, almost=0.1) == {
        image(0): ("score 0.29 < 0.4", None),
        image(1): ("almost: score 0.3 < 0.4", "almost"),
        image(2): ("almost: score 0.39 < 0.4", "almost"),
    }
    on_the_end = rows(scored(1, 0.7))
    assert said(on_the_end, min_score=0.8, almost=0.1)[image(1)][1] == "almost"


def test_a_missing_score_is_counted_and_skipped() -> None:
    table = rows(scored(1, 0.1), scored(2, nan))
    assert set(said(table)) == {image(1)}
    assert invalid(FILTER, ScoreThresholdConfig(), table) == [False, True]


def test_the_order_of_labels_makes_no_other_config() -> None:
    one = ScoreThresholdConfig(per_label={"a": 0.1, "b": 0.2})
    two = ScoreThresholdConfig(per_label={"b": 0.2, "a": 0.1})
    assert one.model_dump_json() == two.model_dump_json()


@pytest.mark.parametrize(
    "wrong", [{"min_score": 1.1}, {"per_label": {"deer": -1}}, {"almost": nan}, {"threshold": 0.5}]
)
def test_wrong_fields_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ScoreThresholdConfig(**wrong)
