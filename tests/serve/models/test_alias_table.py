"""The alias table as a function: states, a reference, a sample and the loaded versions to a version."""

from __future__ import annotations

from typing import Any

import pytest

from model_store.names import VersionId, parse_ref
from serve.models.alias_table import AliasTable
from serve.rollout.state import AliasState, ModelState

ONE, TWO = VersionId("deer", "1"), VersionId("deer", "2")


def table(**aliases: dict[str, Any]) -> AliasTable:
    states = {alias: AliasState.model_validate(state) for alias, state in aliases.items()}
    return AliasTable().with_state("deer", ModelState(aliases=states, digests={"1": "abc"}))


@pytest.mark.parametrize(
    ("sample", "loaded", "version"),
    [(0.0, {ONE, TWO}, TWO), (0.0999, {ONE, TWO}, TWO), (0.1, {ONE, TWO}, ONE), (0.0, {ONE}, ONE)],
)
def test_a_canary_answers_its_share_if_it_is_loaded(sample: float, loaded: set[VersionId], version: VersionId) -> None:
    aliases = table(production={"active": "1", "canary": {"version": "2", "percent": 10}})
    assert aliases.resolve(parse_ref("deer"), sample, loaded) == (version, "production")


@pytest.mark.parametrize(
    ("ref", "resolved"), [("deer", (TWO, None)), ("deer:production", (TWO, None)), ("deer:staging", None)]
)
def test_the_only_version_answers_for_production_alone(ref: str, resolved: object) -> None:
    assert AliasTable({}, {"deer": TWO}).resolve(parse_ref(ref), 1.0, ()) == resolved


def test_the_only_version_does_not_answer_once_the_alias_is_set() -> None:
    states = table(production={"active": "1"}).states
    aliases = AliasTable(states, {"deer": TWO})
    assert aliases.only_version(parse_ref("deer")) is None
    assert aliases.resolve(parse_ref("deer"), 1.0, ()) == (ONE, "production")


def test_a_shadow_gets_its_share_of_its_alias() -> None:
    shadow = {"version": "2", "percent": 25}
    aliases = table(production={"active": "1", "shadow": shadow}, staging={"active": "1"})
    assert aliases.shadow("deer", "production", 0.2499) == TWO
    assert aliases.shadow("deer", "production", 0.25) is None
    assert aliases.shadow("deer", "staging", 0.0) is None
    assert aliases.shadow("deer", None, 0.0) is None
    assert aliases.needed() == {ONE, TWO}


def test_a_table_is_changed_by_making_another() -> None:
    before = table(production={"active": "1"})
    after = before.with_state("deer", ModelState(aliases={"b": AliasState(active="2")}))
    assert (before.aliases_of(ONE), after.aliases_of(ONE)) == (["production"], [])
    assert (before.digest(ONE), after.digest(ONE)) == ("abc", None)
    assert after.needs(TWO)
    assert not after.without("deer").needs(TWO)
