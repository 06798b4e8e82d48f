"""The steps of a rollout, in the one order that never leaves a request without its model.

prove in a throw-away process -> load, warm up and probe in every replica -> write the alias and the state
-> every replica switches and says so -> done. What fails before the alias is written has changed nothing;
what fails after it is put back. Knows no Ray: `Replicas` and `prove` are given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from model_store.errors import BadRequest, Conflict, ModelNotReady
from model_store.names import VersionId, version_id
from model_store.store import ModelStore
from serve.rollout.operations import Operation
from serve.rollout.prove import Proof
from serve.rollout.state import AliasState, ModelState, Share, read_state, write_state


class Replicas(Protocol):
    """All replicas of a running cluster. Each call raises ResightError unless all acknowledge."""

    def holds(self, version: VersionId) -> bool:
        """Whether each has it loaded."""
        ...

    def ensure(self, version: VersionId, needs_bytes: int) -> None:
        """Load, warm up and probe a version in each, unless it is there."""
        ...

    def activate(self, name: str, state: ModelState) -> None:
        """Have each answer by this state from now on."""
        ...

    def release(self, version: VersionId) -> None:
        """Let it go in each. Raises Conflict where an alias means it or a run holds it."""
        ...


@dataclass
class Rollout:
    """One operation at a time: the caller sees to that."""

    store: ModelStore
    replicas: Replicas
    prove: Callable[[VersionId], Proof]

    def apply(self, operation: Operation) -> str:
        """What was done, in words. Raises ResightError when nothing was; then nothing has changed."""
        name, alias = operation.name, operation.alias
        if operation.kind == "release":
            version = version_id(name, operation.version or "")
            self.replicas.release(version)
            return f"{version} is released"
        state = read_state(self.store, name)
        wanted = self._next(operation, state.aliases.get(alias))
        if wanted == state.aliases.get(alias) and self._is_written(name, alias, wanted):
            return f"{name}:{alias} is so already"
        new = state.with_alias(alias, wanted)
        self._bring(name, wanted.versions())
        self._switch(name, alias, state, new)
        return _words(operation, wanted)

    def _next(self, operation: Operation, now: AliasState | None) -> AliasState:
        """The alias as the operation wants it. Raises BadRequest, Conflict."""
        kind, place = operation.kind, f"{operation.name}:{operation.alias}"
        if kind in ("promote", "follow"):
            return self._promoted(operation, now, str(operation.version))
        if now is None:
            raise BadRequest(f"{place} names no version yet; promote one first")
        if kind in ("pin", "unpin"):
            return now.model_copy(update={"pinned": kind == "pin"})
        if kind == "rollback":
            if now.previous is None:
                raise Conflict(f"{place} has no version before {now.active} to go back to")
            return self._promoted(operation, now, now.previous)
        _require_unpinned(now, place)
        share = None
        if operation.percent:
            share = Share(version=str(operation.version), percent=operation.percent)
            if share.version == now.active:
                raise Conflict(f"{share.version} answers for {place} already")
            if kind == "shadow":
                self._require_detector(version_id(operation.name, share.version))
        return now.model_copy(update={kind: share})

    def _require_detector(self, version: VersionId) -> None:
        """Raises BadRequest: what a shadow is judged by are boxes (serve/agreement.py)."""
        if self.store.describe(version).config.kind != "detector":
            raise BadRequest(
                f"{version} is a classifier, and shadows are compared by their boxes: use a canary instead"
            )

    def _promoted(self, operation: Operation, now: AliasState | None, version: str) -> AliasState:
        if now is None:
            return AliasState(active=version, since=datetime.now(UTC))
        if now.active == version:
            return now if now.since else now.model_copy(update={"since": datetime.now(UTC)})
        _require_unpinned(now, f"{operation.name}:{operation.alias}")
        return AliasState(
            active=version, previous=now.active, since=datetime.now(UTC), pinned=now.pinned
        )

    def _bring(self, name: str, versions: set[str]) -> None:
        """Prove and load what replicas do not hold yet. Raises ModelError."""
        for version in sorted(versions):
            wanted = self.store.describe(version_id(name, version)).id
            if not self.replicas.holds(wanted):
                self.replicas.ensure(wanted, self.prove(wanted).rss_bytes)

    def _switch(self, name: str, alias: str, old: ModelState, new: ModelState) -> None:
        before = self.store.aliases(name).get(alias)
        self.store.set_alias(name, alias, new.aliases[alias].active)
        try:
            write_state(self.store, name, new)
            self.replicas.activate(name, new)
        except BaseException:
            back = ModelState(generation=new.next_generation(), aliases=old.aliases)
            self.store.set_alias(name, alias, before)
            write_state(self.store, name, back)
            with contextlib.suppress(ModelNotReady):  # who does not hear it now reads it soon
                self.replicas.activate(name, back)
            raise

    def _is_written(self, name: str, alias: str, wanted: AliasState) -> bool:
        return wanted.since is not None and self.store.aliases(name).get(alias) == wanted.active


def _require_unpinned(state: AliasState, place: str) -> None:
    if state.pinned:
        raise Conflict(f"{place} is pinned to {state.active}; unpin it first")


def _words(operation: Operation, now: AliasState) -> str:
    place = f"{operation.name}:{operation.alias}"
    share = {"canary": now.canary, "shadow": now.shadow}.get(operation.kind)
    if share is not None:
        return f"{place}: {share.version} is its {operation.kind} for {share.percent:g} %"
    if operation.kind in ("canary", "shadow"):
        return f"{place} has no {operation.kind} any more"
    return f"{place} is now {operation.name}@{now.active}" + (" (pinned)" if now.pinned else "")
