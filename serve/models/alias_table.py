"""Resolve a reference to a version: a pure function of the states of all models and the versions in memory.

(ModelRef, sample, loaded versions) --AliasTable.resolve--> (version, alias), or None if no state has the alias
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace

from model_store.names import DEFAULT_ALIAS, ModelRef, VersionId
from serve.rollout.state import AliasState, ModelState

INITIAL = ModelState()


@dataclass(frozen=True, slots=True)
class AliasTable:
    """The state of each model in this replica, and the only version of each model without the alias `production`."""

    states: Mapping[str, ModelState] = field(default_factory=dict[str, ModelState])
    only_versions: Mapping[str, VersionId] = field(default_factory=dict[str, VersionId])

    def resolve(
        self, ref: ModelRef, sample: float, loaded: Container[VersionId]
    ) -> tuple[VersionId, str | None] | None:
        """Return the version that answers and its alias, which is None for the only version of a model.

        `sample`, 0 to 1, decides whether a canary answers; it must be loaded.
        """
        state = self.aliases(ref.name).get(ref.alias or "")
        if state is None:
            only = self.only_version(ref)
            return (only, None) if only else None
        if state.canary and sample * 100 < state.canary.percent:
            canary = VersionId(ref.name, state.canary.version)
            if canary in loaded:
                return canary, ref.alias
        return VersionId(ref.name, state.active), ref.alias

    def shadow(self, name: str, alias: str | None, sample: float) -> VersionId | None:
        """Return the version that also gets this image, or None; `sample`, 0 to 1, is compared with its share."""
        state = self.aliases(name).get(alias or "")
        if state is None or state.shadow is None or sample * 100 >= state.shadow.percent:
            return None
        return VersionId(name, state.shadow.version)

    def only_version(self, ref: ModelRef) -> VersionId | None:
        """Return the only version of a model without the alias `production`, for a reference by its bare name."""
        unset = DEFAULT_ALIAS not in self.aliases(ref.name)
        return self.only_versions.get(ref.name) if unset and ref.alias == DEFAULT_ALIAS else None

    def aliases(self, name: str) -> Mapping[str, AliasState]:
        """Return the aliases of a model, each with its state."""
        return self.state(name).aliases

    def aliases_of(self, version: VersionId) -> list[str]:
        """Return the aliases for which a version is active, sorted."""
        aliases = self.aliases(version.name)
        return sorted(a for a, state in aliases.items() if state.active == version.version)

    def state(self, name: str) -> ModelState:
        """Return the state of a model; the initial one if it has none here."""
        return self.states.get(name, INITIAL)

    def digest(self, version: VersionId) -> str | None:
        """Return the digest with which a version was rolled out, or None."""
        return self.state(version.name).digests.get(version.version)

    def needs(self, version: VersionId) -> bool:
        """Return whether an alias requires a version in memory."""
        return version in self.state(version.name).versions(version.name)

    def needed(self) -> set[VersionId]:
        """Return the versions that an alias requires in memory."""
        return {v for name, state in self.states.items() for v in state.versions(name)}

    def with_state(self, name: str, state: ModelState) -> AliasTable:
        """Return the table with another state of a model."""
        return replace(self, states={**self.states, name: state})

    def without(self, name: str) -> AliasTable:
        """Return the table without the state of a model."""
        return replace(self, states={n: s for n, s in self.states.items() if n != name})
