"""Replace labels that do not occur at a place with the nearest taxon that does, by rules of countries or lists.

label, deployment --rules of its country, list of its place--> allowed, else family, order, class or the fallback

The rules and the roll-up are those of SpeciesNet's geofence (google/cameratrapai, speciesnet/geofence_utils.py):
scores of the best classes are summed by family, then order, then class. The first rank counts with an allowed taxon
that has at least the score of the best class. Without logits, the label is the only class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Literal, Self, TypeVar

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from batch.filters.contract import NO_RANK, ClassFilterConfig, Filter, FilterAction, Needs, Rows
from batch.filters.support.lineages import Taxon, has_rank, labels_of_taxa, taxon_of
from batch.filters.support.logits import IGNORED, classified, softmax
from batch.filters.support.names import Names, by_key, labelled
from model_store.errors import BadRequest

T = TypeVar("T")
RANKS = {3: "family", 2: "order", 1: "class"}
MAX_RANKS = 5
LESS = 1e-10
"""A sum must be more than the best score less this."""
Country = Annotated[str, Field(pattern=r"^[A-Z]{3}(/[A-Z0-9]{1,3})?$")]
Rule = dict[Literal["allow", "block"], dict[str, Names]]
"""Regions by country, empty for all of it; SpeciesNet's format."""


class SpeciesListConfig(ClassFilterConfig):
    kind: Literal["species-list"] = "species-list"
    countries: Annotated[dict[str, Country], AfterValidator(by_key)] = Field(
        {},
        description="country (ISO 3166-1, three letters) with an optional region, such as USA/CA, by deployment, "
        "location or camera; '' for all others",
    )
    geofence: Annotated[dict[str, Rule], AfterValidator(by_key)] = Field(
        {},
        description="rules by lineage, as in SpeciesNet's geofence file: regions to allow and to block by country; "
        "rules of other countries are left out",
    )
    lists: Annotated[dict[str, Names], AfterValidator(by_key)] = Field(
        {},
        description="allowed labels by deployment, location or camera; '' for all others. Taxa above an allowed class "
        "are allowed too",
    )
    fallback: str = "animal"
    """label if no taxon above is allowed; empty: the detection is hidden"""
    top_classes: int = Field(5, ge=1)
    """number of the best classes that are summed; SpeciesNet keeps 5"""
    ignored_labels: Names = IGNORED
    """labels, before this filter, of the detections that stay unchanged"""

    @property
    def needs(self) -> Needs:
        return "logits" if self.geofence else "lineages" if self.lists else None

    @model_validator(mode="after")
    def _only_countries_in_use(self) -> Self:
        if self.geofence and not self.countries:
            raise ValueError("geofence needs countries: name the country of each place, or one for all")
        used = {country[:3] for country in self.countries.values()}
        rules = {taxon: _within(rule, used) for taxon, rule in self.geofence.items()}
        object.__setattr__(self, "geofence", {taxon: rule for taxon, rule in rules.items() if rule})
        return self


def _within(rule: Rule, used: set[str]) -> Rule:
    """Return the same rule for these countries alone: a release for all countries would fill the layer's config."""
    kept: Rule = {kind: {c: regions for c, regions in of.items() if c in used} for kind, of in rule.items()}
    if rule.get("allow") and not kept["allow"]:
        kept = {"block": dict.fromkeys(sorted(used), ())}
    return {kind: of for kind, of in kept.items() if of}


def is_blocked(rule: Rule, country: str) -> bool:
    """Return whether SpeciesNet's rules block a taxon in "USA" or "USA/CA".

    `allow` blocks other countries, and other regions of a country with regions; without a region, all are allowed.
    `block` blocks a country without regions, or these regions. Without either, a taxon is allowed.
    """
    code, _, region = country.partition("/")
    allow, block = rule.get("allow") or {}, rule.get("block") or {}
    if allow and (code not in allow or (region and allow[code] and region not in allow[code])):
        return True
    return code in block and (not block[code] or region in block[code])


def require(config: SpeciesListConfig, classes: tuple[str, ...], lineage: tuple[str, ...]) -> None:
    """Raise BadRequest if the classifier has no lineages, which rules need, or longer ones than class to species."""
    if config.geofence and not any(lineage):
        raise BadRequest("the classifier has no lineages of its classes, which the geofence of species-list needs")
    for name, text in zip(classes, lineage, strict=True):
        if len(taxon_of(text)) > MAX_RANKS:
            raise BadRequest(f"lineage of class '{name}' is '{text}': use class, order, family, genus and species")


def actions(config: SpeciesListConfig, rows: Rows) -> Iterator[FilterAction]:
    """Yield `relabel` for each label that is not allowed, or `suppress` without a fallback. Raises as `require`.

    Reason: "puma concolor not allowed in DEU; family felidae of 5 classes".
    """
    if not (config.geofence or config.lists):
        return
    require(config, rows.classes, rows.class_lineage)
    taxa = {name: taxon_of(text) for name, text in zip(rows.classes, rows.class_lineage, strict=True)}
    names = labels_of_taxa(rows)
    above = {taxon[:n] for taxon in taxa.values() for n in range(1, len(taxon) + 1) if has_rank(taxon, n)}
    taxon_by_label = {names.get(taxon, taxon[-1]): taxon for taxon in sorted(above)} | taxa
    rules = {taxon_of(text): rule for text, rule in config.geofence.items()}
    listed = {
        place: {taxa[name][:n] for name in of if name in taxa for n in range(1, len(taxa[name]) + 1)}
        for place, of in config.lists.items()
    }

    @cache
    def blocked_at(country: str | None, place: str | None, label: str, taxon: Taxon) -> str:
        """Return where the label is not allowed, or an empty text."""
        if country and taxon in rules and is_blocked(rules[taxon], country):
            return country
        if place is not None and label not in config.lists[place] and taxon not in listed[place]:
            return place or "the list"
        return ""

    is_classified = classified(rows)
    ignored = (*config.ignored_labels, config.fallback)
    for row in np.flatnonzero((rows.rank != NO_RANK) & labelled(rows, (), ignored)).tolist():
        keys = (rows.deployment_id[row], rows.location[row], rows.camera_id[row], "")
        country = _first(config.countries, keys)
        place = next((key for key in keys if key in config.lists), None)
        label = rows.label[row]
        where = blocked_at(country, place, label, taxon_by_label.get(label, ()))
        if not where:
            continue
        best = _best(config, rows, row, taxa) if is_classified[row] else []
        if not best or best[0][0] != taxa.get(label):
            best = [(taxon_by_label.get(label, ()), float(rows.score[row]))]

        def is_allowed(taxon: Taxon, country: str | None = country, place: str | None = place) -> bool:
            return not blocked_at(country, place, names.get(taxon, taxon[-1]), taxon)

        taxon, score = roll_up(best, is_allowed)
        target, new = rows.target(row), names.get(taxon, taxon[-1]) if taxon else config.fallback
        reason = f"{label} not allowed in {where}"
        if not new:
            yield FilterAction(*target, "suppress", reason)
            continue
        rank = f"{RANKS[len(taxon)]} {new}" if taxon else new
        reason += f"; {rank} of {len(best)} class{'es' if len(best) > 1 else ''}"
        yield FilterAction(*target, "relabel", reason, label=new, score=score, score_semantics="summed")


def roll_up(best: Sequence[tuple[Taxon, float]], is_allowed: Callable[[Taxon], bool]) -> tuple[Taxon, float]:
    """Return the taxon of the first rank, family or above, that reaches the best score; () for none, with all scores.

    `best` has the lineages and scores of classes, the best first; of equal sums the first counts.
    """
    for depth in RANKS:
        sums: dict[Taxon, float] = {}
        for taxon, score in best:
            if has_rank(taxon, depth):
                sums[taxon[:depth]] = sums.get(taxon[:depth], 0.0) + score
        allowed = {taxon: total for taxon, total in sums.items() if is_allowed(taxon)}
        first = max(allowed, key=allowed.__getitem__, default=())
        if first and allowed[first] > best[0][1] - LESS:
            return first, allowed[first]
    return (), sum(score for taxon, score in best if taxon) or best[0][1]


def _best(config: SpeciesListConfig, rows: Rows, row: int, taxa: Mapping[str, Taxon]) -> list[tuple[Taxon, float]]:
    """Return lineages and scores of the best classes, of equal ones the first."""
    assert rows.logits is not None
    scores = softmax(rows.logits[row : row + 1].astype(np.float64))[0]
    order = np.argsort(-scores, kind="stable")[: config.top_classes]
    return [(taxa[rows.classes[i]], float(scores[i])) for i in order]


def _first(values: Mapping[str, T], keys: Sequence[str | None]) -> T | None:
    return next((values[key] for key in keys if key is not None and key in values), None)


FILTER = Filter(config=SpeciesListConfig, apply=actions, context="image", order=65, require=require)
