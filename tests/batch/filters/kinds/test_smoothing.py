"""Compare smoothing with counts in dictionaries, at the minimum counts, and with ties."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from batch.filters.contract import FilterAction
from batch.filters.kinds.smoothing import FILTER, SmoothingConfig
from tests.batch.filters.make import detection, image, rows

LINEAGE = {
    "deer": "mammalia;cetartiodactyla;cervidae",
    "roe": "mammalia;cetartiodactyla;cervidae;capreolus;capreolus capreolus",
    "fox": "mammalia;carnivora;canidae;vulpes;vulpes vulpes",
}


def table(*frames: str, event: str | None = "e", **more: Any) -> list[dict[str, Any]]:
    """Return rows of frames such as "deer deer animal", one word per detection."""
    return [
        detection(
            media_sha256=image(number), path=f"north/{number:04}.jpg", event_id=event, rank=rank, label=label, **more
        )
        for number, frame in enumerate(frames)
        for rank, label in enumerate(frame.split())
    ]


def said(given: list[dict[str, Any]], lineage: Any = None, **config: Any) -> list[FilterAction]:
    names = dict(lineage or {})
    made = rows(*given, classes=tuple(names), lineage=tuple(names.values()))
    found = list(FILTER.apply(SmoothingConfig(**config), made))
    assert len({(one.media_sha256, one.rank) for one in found}) == len(found)
    assert all(one.action == "relabel" for one in found)
    return found


def flips(*given: Any, **more: Any) -> list[tuple[int, int | None, str | None]]:
    found = said(*given, **more)
    return sorted((int(one.media_sha256, 16), one.rank, one.label) for one in found)


def test_others_of_an_image_become_its_dominant_label() -> None:
    (one,) = said(table("deer deer animal", event=None))
    assert (one.rank, one.label) == (2, "deer")
    assert one.reason == "image: 2 deer of 3; was animal"
    assert one.score == pytest.approx(0.9)
    assert one.score_semantics == "inherited"


def test_others_of_an_event_become_its_dominant_label() -> None:
    (one,) = said(table("deer", "deer", "deer", "Animal", "deer", "deer"))
    assert (int(one.media_sha256, 16), one.label) == (3, "deer")
    assert one.reason == "event: 5 deer of 6; was Animal"


def test_a_tie_of_two_labels_changes_nothing() -> None:
    assert flips(table("deer deer fox fox animal")) == []
    assert flips(table("deer deer fox fox fox animal")) == [(0, 5, "fox")]


def test_the_image_goes_first_and_the_event_counts_again() -> None:
    """Fox and deer are equal in the event, three each; the image step first makes its animal a fox."""
    given = table("fox fox animal", "fox", "deer deer deer", "unknown")
    assert flips(given) == [(0, 2, "fox"), (3, 0, "fox")]


def test_the_reason_of_two_flips_is_a_chain() -> None:
    given = table("fox fox fox fox deer", "cow", "cow", "cow", "cow", "cow", "cow")
    found = said(given, flip_rare=True, max_rare=5)
    chain = [one for one in found if one.rank == 4]
    assert [one.label for one in chain] == ["cow"]
    assert chain[0].reason == "image: 4 fox of 5; was deer; event: 6 cow of 11; was fox"


def test_the_one_deer_among_cows_stays_without_flip_rare() -> None:
    given = table("cow", "cow", "cow", "cow", "deer")
    assert flips(given) == []
    (one,) = said(given, flip_rare=True)
    assert (one.label, one.reason) == ("cow", "event: 4 cow of 5; was deer")


@pytest.mark.parametrize("coarse", ["deer", "cervidae"])
def test_a_rare_kind_of_the_dominant_taxon_is_not_flipped(coarse: str) -> None:
    given = table(coarse, coarse, coarse, coarse, "roe", "fox")
    assert flips(given, lineage=LINEAGE, flip_rare=True) == [(5, 0, coarse)]
    assert flips(given, flip_rare=True) == [(4, 0, coarse), (5, 0, coarse)]


def test_a_rare_coarser_label_is_flipped() -> None:
    given = table("roe", "roe", "roe", "roe", "deer")
    assert flips(given, lineage=LINEAGE, flip_rare=True) == [(4, 0, "roe")]


def test_a_score_at_the_minimum_counts_and_below_it_does_not() -> None:
    low = table("deer", "deer", "animal", score=0.5)
    assert flips(low) == [(2, 0, "deer")]
    assert flips(low, min_score=0.51) == []


@pytest.mark.parametrize("name", ["Person", "vehicle", "not identifiable"])
def test_ignored_labels_are_neither_counted_nor_changed(name: str) -> None:
    given = table("deer", "deer", "animal")
    named = [row | {"rank": rank, "label": name} for row in given for rank in (1, 2)]
    assert flips([*given, *named]) == [(2, 0, "deer")]
    assert "2 deer of 3;" in said([*given, *named])[0].reason


@pytest.mark.parametrize("wrong", [{"min_score": 1.5}, {"max_rare": 0}, {"taxonomy": True}])
def test_an_invalid_config_is_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        SmoothingConfig(**wrong)


@st.composite
def detections(draw: st.DrawFn) -> list[dict[str, Any]]:
    event_of = draw(st.lists(st.sampled_from([None, "e", "e", "f"]), min_size=5, max_size=5))
    labels = st.sampled_from(["deer", "deer", "roe", "fox", "animal", "unknown", "person"])
    scores = st.sampled_from([0.4, 0.5, 0.9])
    keys = st.tuples(st.integers(0, 4), st.integers(0, 6))
    found = draw(st.dictionaries(keys, st.tuples(labels, scores), max_size=24))
    return [
        detection(
            media_sha256=image(number),
            path=f"north/{number:04}.jpg",
            event_id=event_of[number],
            rank=rank,
            label=label,
            score=score,
        )
        for (number, rank), (label, score) in found.items()
    ]


def counted(given: list[dict[str, Any]], rare: bool) -> dict[tuple[int, int], tuple[str, str]]:
    """Return the final label and reasons of each row that changes."""
    rows_ = [row for row in given if row["score"] >= 0.5 and row["label"] != "person"]
    label = {id(row): row["label"] for row in rows_}
    why = defaultdict(list)
    other = ("animal", "unknown")
    for level, key in (("image", "media_sha256"), ("event", "event_id")):
        for value in {row[key] for row in rows_} - {None}:
            group = [row for row in rows_ if row[key] == value]
            for step in ("others", "rare") if rare else ("others",):
                count = Counter(label[id(row)] for row in group)
                top = max(count.values())
                leaders = [name for name, n in count.items() if n == top and name not in other]
                if len(leaders) != 1 or top < (2 if step == "others" else 4):
                    continue
                (winner,) = leaders
                for row in group:
                    name = label[id(row)]
                    rarely = name not in (*other, winner) and count[name] <= 1
                    if step == "rare" and (winner, name) == ("deer", "roe"):
                        continue
                    if name in other if step == "others" else rarely:
                        why[id(row)].append(f"{level}: {top} {winner} of {len(group)}; was {name}")
                        label[id(row)] = winner
    return {
        (int(row["media_sha256"], 16), row["rank"]): (label[id(row)], "; ".join(why[id(row)]))
        for row in rows_
        if label[id(row)] != row["label"]
    }


@settings(deadline=None, max_examples=60)
@given(detections(), st.booleans())
def test_it_matches_counts_in_dictionaries(given: list[dict[str, Any]], rare: bool) -> None:
    found = said(given, lineage=LINEAGE, flip_rare=rare)
    assert {(int(one.media_sha256, 16), one.rank): (one.label, one.reason) for one in found} == counted(given, rare)
    assert said(given[::-1], lineage=LINEAGE, flip_rare=rare) == found
