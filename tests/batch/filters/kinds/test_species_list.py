"""Compare species lists with a plain transcription of SpeciesNet's rules, and lists with and without lineages."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from batch.filters.kinds.species_list import FILTER, SpeciesListConfig, is_blocked
from batch.filters.registry import config_of
from model_store.errors import BadRequest
from tests.batch.filters.make import NOTHING, detection, image, rows

LINEAGES = {
    "puma": "mammalia;carnivora;felidae;puma;concolor",
    "lynx": "mammalia;carnivora;felidae;lynx;lynx",
    "fox": "mammalia;carnivora;canidae;vulpes;vulpes",
    "red deer": "mammalia;artiodactyla;cervidae;cervus;elaphus",
    "roe deer": "mammalia;artiodactyla;cervidae;capreolus;capreolus",
    "jay": "aves;passeriformes;corvidae;garrulus;glandarius",
    "felidae": "mammalia;carnivora;felidae",
    "blank": "",
}
CLASSES = tuple(LINEAGES)
COUNTRIES = ("DEU", "USA", "USA/CA", "USA/NY")


def slow_blocked(rules: dict[str, Any], lineage: str, country: str) -> bool:
    code, region = country[:3], country[4:]
    rule = rules.get(lineage)
    if rule is None:
        return False
    if rule.get("allow"):
        if code not in rule["allow"]:
            return True
        if region and rule["allow"][code] and region not in rule["allow"][code]:
            return True
    if code in rule.get("block", {}):
        return not rule["block"][code] or region in rule["block"][code]
    return False


def slow(rules: dict[str, Any], logits: list[float], country: str) -> tuple[str, float] | None:
    powers = [math.exp(value) for value in logits]
    ranked = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:5]
    best = [(CLASSES[i], powers[i] / sum(powers)) for i in ranked]
    top, top_score = best[0]
    if not slow_blocked(rules, LINEAGES[top], country):
        return None
    for depth in (3, 2, 1):
        sums: dict[str, float] = {}
        for name, score in best:
            parts = LINEAGES[name].split(";")
            if len(parts) >= depth and parts[0]:
                ancestor = ";".join(parts[:depth])
                sums[ancestor] = sums.get(ancestor, 0) + score
        winner, winning = "", 0.0
        for ancestor, score in sums.items():
            if score > winning and not slow_blocked(rules, ancestor, country):
                winner, winning = ancestor, score
        if winner and winning > top_score - 1e-10:
            return winner.split(";")[-1], winning
    return "animal", sum(score for name, score in best if LINEAGES[name])


def test_rules_and_roll_up_are_those_of_speciesnet() -> None:
    lot = random.Random(5)
    taxa = sorted({";".join(text.split(";")[:n]) for text in LINEAGES.values() if text for n in range(1, 6)})
    changed = 0
    for _ in range(400):
        regions = lambda: lot.choice(([], [], ["CA"], ["NY"]))  # noqa: E731
        rules = {
            taxon: {
                kind: {code: regions() for code in lot.sample(["DEU", "USA", "CAN"], lot.randint(1, 2))}
                for kind in ("allow", "block")
                if lot.random() < 0.5
            }
            for taxon in taxa
            if lot.random() < 0.6
        }
        country = lot.choice(COUNTRIES)
        logits = [lot.uniform(-2, 2) for _ in CLASSES[:-1]] + [-2.5]
        label = CLASSES[max(range(len(logits)), key=logits.__getitem__)]
        config = SpeciesListConfig.model_validate({"countries": {"": country}, "geofence": rules})
        assert SpeciesListConfig.model_validate(config.model_dump(mode="json")) == config
        row = detection(media_sha256=image(1), label=label, logits=logits)
        found = list(FILTER.apply(config, rows(row, classes=CLASSES, lineage=tuple(LINEAGES.values()))))
        expected = slow(rules, [float(f"{v}") for v in logits], country)
        changed += expected is not None
        assert [one.label for one in found] == ([] if expected is None else [expected[0]])
        if expected:
            assert found[0].score == pytest.approx(expected[1], abs=1e-6)
    assert changed > 50


@pytest.mark.parametrize(
    ("rule", "blocked"),
    [
        ({}, ()),
        ({"allow": {"USA": []}}, ("DEU",)),
        ({"allow": {"USA": ["CA"]}}, ("DEU", "USA/NY")),
        ({"block": {"USA": []}}, ("USA", "USA/CA", "USA/NY")),
        ({"block": {"USA": ["NY"]}}, ("USA/NY",)),
        ({"allow": {"USA": []}, "block": {"USA": ["CA"]}}, ("DEU", "USA/CA")),
    ],
)
def test_each_rule(rule: Any, blocked: tuple[str, ...]) -> None:
    assert tuple(country for country in COUNTRIES if is_blocked(rule, country)) == blocked


def said(config: dict[str, Any], *listed: dict[str, Any], **more: Any) -> list[tuple[Any, ...]]:
    found = FILTER.apply(SpeciesListConfig.model_validate(config), rows(*listed, **more))
    return [(one.action, one.label, one.reason) for one in found]


def test_a_list_of_labels_applies_to_its_place_and_needs_no_classifier() -> None:
    lists = {"Mill": ["roe deer"], "dep1": ["lynx"], "": ["fox"]}
    places = [{"location": "Mill"}, {"location": "Mill", "deployment_id": "dep1"}, {"camera_id": None}]
    listed = [detection(media_sha256=image(n), label="lynx", **place) for n, place in enumerate(places)]
    human = detection(media_sha256=image(7), label="person", location="Mill")
    empty = detection(**NOTHING, media_sha256=image(8), location="Mill")
    found = said({"lists": lists}, *listed, human, empty)
    assert found == [
        ("relabel", "animal", "lynx not allowed in Mill; animal of 1 class"),
        ("relabel", "animal", "lynx not allowed in the list; animal of 1 class"),
    ]
    assert [one[0] for one in said({"lists": lists, "fallback": ""}, *listed)] == ["suppress"] * 2
    assert said({}, *listed) == []


def test_a_list_with_lineages_rolls_up_to_a_taxon_of_a_listed_class() -> None:
    lineage = {"classes": CLASSES, "lineage": tuple(LINEAGES.values())}
    labels = ("puma", "felidae", "fox", "jay", "kangaroo", "blank")
    listed = [detection(media_sha256=image(n), label=name) for n, name in enumerate(labels)]
    found = said({"lists": {"": ["lynx", "roe deer", "blank"]}}, *listed, **lineage)
    assert [one[1] for one in found] == ["felidae", "carnivora", "animal", "animal"]


def test_a_label_of_two_taxa_is_that_of_the_last_one() -> None:
    """Without order, each of these labels has one of its two taxa by chance."""
    lineage = [f"mammalia;rodentia;{family};{family}{n};v{n}" for n in range(8) for family in ("fam1", "fam2")] * 2
    listed = [detection(media_sha256=image(n), label=f"v{n}") for n in range(8)]
    classes = tuple(map(str, range(32)))
    found = said({"lists": {"": ["fam1", "fam2"]}}, *listed, classes=classes, lineage=tuple(lineage))
    assert [one[1] for one in found] == ["fam2"] * 8


def test_wrong_configs_are_refused() -> None:
    with pytest.raises(BadRequest, match="geofence needs countries"):
        config_of("species-list", {"geofence": {"mammalia": {"allow": {"USA": []}}}})
    with pytest.raises(BadRequest, match="countries"):
        config_of("species-list", {"countries": {"": "Germany"}})
    config = SpeciesListConfig.model_validate({"countries": {"": "DEU"}, "geofence": {"aves": {"allow": {"USA": []}}}})
    assert FILTER.require is not None
    with pytest.raises(BadRequest, match="no lineages"):
        FILTER.require(config, ("a",), ("",))
    with pytest.raises(BadRequest, match="class, order, family"):
        FILTER.require(config, ("a",), ("animalia;a;b;c;d;e",))
