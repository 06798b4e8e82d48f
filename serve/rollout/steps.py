"""The steps of a rollout, in the one order that never leaves a request without its model.

prove in a throw-away process -> load, warm up and probe in every replica -> write the alias and the state
-> every replica switches and acknowledges -> done. What fails before the alias is written has changed nothing;
what fails after it is put back. Operations may run at the same time, also in other processes: what is written is
computed from the files at that moment, and refused if they contradict the operation. Knows no Ray: `Replicas` and
`prove` are given.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from model_store.errors import BadRequest, Conflict, ModelError, ModelNotReady
from model_store.names import VersionId, version_id
from model_store.store import ModelStore
from serve.rollout.operations import Operation
from serve.rollout.state import (
    MAX_PREVIOUS,
    AliasState,
    Frozen,
    ModelState,
    Share,
    read_state,
    update_state,
)

MOVES = ("promote", "rollback", "follow")
"""Operations that write aliases.json."""


class Replicas(Protocol):
    """All replicas of a running cluster. Each call raises ResightError unless all acknowledge."""

    def holds(self, version: VersionId, digest: str) -> bool:
        """Return True if each has it loaded, from files of this digest."""
        ...

    def ensure(self, version: VersionId, digest: str) -> None:
        """Load, warm up and probe a version in each, from files of this digest, unless it is there."""
        ...

    def activate(self, name: str, state: ModelState) -> None:
        """Have each answer by this state from now on. Raises Conflict if one knows a newer state."""
        ...

    def release(self, version: VersionId) -> None:
        """Let it go in each. Raises Conflict where an alias means it or a run holds it."""
        ...


class Begun(Frozen):
    """An operation, and the alias when it was requested: as it served, and its version in aliases.json."""

    operation: Operation
    before: AliasState | None = None
    wanted: str | None = None


@dataclass
class Rollout:
    """Call it from any thread; the switches of one model take turns."""

    store: ModelStore
    replicas: Replicas
    prove: Callable[[VersionId], object]
    _turns: defaultdict[str, threading.Lock] = field(
        default_factory=lambda: defaultdict(threading.Lock)
    )

    def begin(self, operation: Operation) -> Begun:
        """Return the operation in a form that can be repeated: a rollback names its version.

        Raises ModelRefused for damaged files, StorageUnreachable.
        """
        if operation.kind == "release":
            return Begun(operation=operation)
        before = read_state(self.store, operation.name).aliases.get(operation.alias)
        if operation.kind == "rollback" and operation.version is None and before:
            operation = operation.model_copy(update={"version": self._target(operation, before)})
        wanted = self.store.aliases(operation.name).get(operation.alias)
        return Begun(operation=operation, before=before, wanted=wanted)

    def _target(self, operation: Operation, now: AliasState) -> str | None:
        """Return the newest of the versions before this one that is in the store; None if there is none."""
        there = {version.version for version in self.store.versions(operation.name)}
        return next((v for v in reversed(now.previous) if v in there and v != now.active), None)

    def apply(self, begun: Begun) -> str:
        """Return what was done, in words. Raises ResightError when nothing was done: nothing has changed then, unless
        the message reports that it could not be put back.
        """
        operation, name = begun.operation, begun.operation.name
        if operation.kind == "release":
            version = version_id(name, operation.version or "")
            self.replicas.release(version)
            return f"{version} is released"
        at = datetime.now(UTC)
        now = read_state(self.store, name)
        self._next(begun, now, at)  # refuses before anything is proved
        digests = self._bring(operation, now)

        def decided(now: ModelState) -> ModelState:
            for version, digest in digests.items():
                now.require_unchanged(version_id(name, version), digest)
            known, next_ = now.aliases.get(operation.alias), self._next(begun, now, at)
            same = next_ == known and digests.items() <= now.digests.items()
            return now if same else now.with_alias(operation.alias, next_, digests)

        with self._turns[name]:
            return self._switch(begun, decided)

    def _next(self, begun: Begun, state: ModelState, at: datetime) -> AliasState:
        """The alias as the operation wants it. Raises BadRequest, Conflict."""
        operation, now = begun.operation, state.aliases.get(begun.operation.alias)
        if now == AliasState(active=str(operation.version)):
            now = (
                begun.before
            )  # it was never rolled out, and aliases.json names the new version already
        kind, place = operation.kind, f"{operation.name}:{operation.alias}"
        if kind == "rollback" and now is not None and operation.version is None:
            raise BadRequest(
                f"{place} has no version before {now.active} to go back to: what was rolled back does not count; "
                f"see: resight models history {operation.name}"
            )
        if kind in ("promote", "follow"):
            _require_not_moved(begun, now, place)
            return _promoted(place, now, str(operation.version), at)
        if now is None:
            raise BadRequest(self._no_version(operation, place))
        _require_not_moved(begun, now, place)
        if kind == "rollback":
            return _rolled_back(place, now, str(operation.version), at)
        if kind in ("pin", "unpin"):
            return now.model_copy(update={"pinned": kind == "pin"})
        _require_unpinned(now, place)
        share = None
        if operation.percent:
            share = Share(version=str(operation.version), percent=operation.percent)
            if share.version == now.active:
                raise Conflict(f"{share.version} answers for {place} already")
            if kind == "shadow":
                self._require_detector(version_id(operation.name, share.version))
        return now.model_copy(update={kind: share})

    def _no_version(self, operation: Operation, place: str) -> str:
        """Return why nothing can be done to an alias that names no version, and what may have been meant."""
        if operation.kind not in ("canary", "shadow") or operation.version is None:
            return f"{place} names no version yet; promote one first"
        name, version = operation.name, version_id(operation.name, operation.version)
        others: list[str] = []
        for other in self.store.names():
            with contextlib.suppress(ModelError):
                others += [other] if operation.alias in self.store.aliases(other) else []
        return (
            f"{place} names no version, so {version} has no requests to share: a {operation.kind} is another version "
            f"of the model that answers. Promote a version of {name} first; or, if {version} is meant as a new version "
            f"of another model, add its file under that name: resight models add FILE --name {(*others, 'NAME')[0]}"
        )

    def _require_detector(self, version: VersionId) -> None:
        """Raises BadRequest: what a shadow is judged by are boxes (serve/agreement.py)."""
        if self.store.describe(version).config.kind != "detector":
            raise BadRequest(
                f"{version} is a classifier, and shadows are compared by their boxes: use a canary instead"
            )

    def _bring(self, operation: Operation, now: ModelState) -> dict[str, str]:
        """Prove and load the version that the operation names, unless replicas hold it; version to digest.

        Raises ModelError.
        """
        if operation.version is None or not _needs_version(operation):
            return {}
        wanted = self.store.describe(version_id(operation.name, operation.version))
        now.require_unchanged(wanted.id, wanted.digest)
        if not self.replicas.holds(wanted.id, wanted.digest):
            self.prove(wanted.id)
            self.replicas.ensure(wanted.id, wanted.digest)
        return {wanted.id.version: wanted.digest}

    def _switch(self, begun: Begun, decided: Callable[[ModelState], ModelState]) -> str:
        operation, name, alias = begun.operation, begun.operation.name, begun.operation.alias
        before, wanted = read_state(self.store, name), self.store.aliases(name).get(alias)
        new = decided(before)  # refuses before anything is written
        if operation.kind in MOVES:
            among = {operation.version}
            if operation.kind != "follow":
                among.add(begun.wanted)
            self.store.set_alias(name, alias, operation.version, among=among)
        try:
            new = update_state(self.store, name, decided)
            if operation.version and _needs_version(operation):  # it may have been removed since
                self.store.digests(version_id(name, operation.version))
            self._activate(name, new)
        except BaseException as error:
            self._put_back(begun, wanted, before, new, error)
            raise
        if new.aliases[alias] == before.aliases.get(alias):
            return f"{name}:{alias} is so already"
        return _words(operation, new.aliases[alias])

    def _activate(self, name: str, state: ModelState) -> None:
        """Activate a state in all replicas, or a newer one that was derived from it and that a replica has already."""
        while True:
            try:
                self.replicas.activate(name, state)
                return
            except Conflict:
                newest = read_state(self.store, name)
                if newest.generation <= state.generation:
                    raise
                state = newest

    def _put_back(
        self,
        begun: Begun,
        wanted: str | None,
        before: ModelState,
        mine: ModelState,
        error: BaseException,
    ) -> None:
        """Restore the alias, unless another writer has moved it since. Raises ModelNotReady if the files cannot be
        written. aliases.json is first, because the state follows it once the store can be written.
        """
        operation, name, alias = begun.operation, begun.operation.name, begun.operation.alias

        def undone(now: ModelState) -> ModelState:
            found, was = now.aliases.get(alias), before.aliases.get(alias)
            if found not in (None, mine.aliases[alias]):
                return now
            return now.with_alias(alias, was if found else None, before.digests)

        try:
            if operation.kind in MOVES:
                with contextlib.suppress(Conflict):
                    self.store.set_alias(name, alias, wanted, among={operation.version})
            back = update_state(self.store, name, undone)
        except Exception as also:
            raise ModelNotReady(
                f"{error}; and it could not be put back ({also}): replicas follow aliases.json and the state of "
                f"{name} as soon as they can read them; see 'resight models history {name}' then"
            ) from error
        with contextlib.suppress(ModelNotReady, Conflict):  # replicas that miss it read the file
            self.replicas.activate(name, back)


def _needs_version(operation: Operation) -> bool:
    return operation.kind in MOVES or operation.percent > 0


def _promoted(place: str, now: AliasState | None, version: str, at: datetime) -> AliasState:
    if now is None:
        return AliasState(active=version, since=at)
    if now.active == version:
        return now if now.since else now.model_copy(update={"since": at})
    _require_unpinned(now, place)
    previous = (*now.previous, now.active)[-MAX_PREVIOUS:]
    return AliasState(active=version, previous=previous, since=at)


def _rolled_back(place: str, now: AliasState, version: str, at: datetime) -> AliasState:
    """Go back to a version of `previous`; neither what answers now nor what came after that version is left."""
    if now.active == version:
        return now
    _require_unpinned(now, place)
    steps = list(reversed(now.previous))
    left = steps[steps.index(version) + 1 :] if version in steps else []
    return AliasState(active=version, previous=tuple(reversed(left)), since=at)


def _require_not_moved(begun: Begun, now: AliasState | None, place: str) -> None:
    """Raises Conflict if the alias was moved after the operation was requested, unless to the version of the operation.
    `follow` is exempt: it depends on aliases.json alone.
    """
    if begun.operation.kind == "follow":
        return
    active, before = now and now.active, begun.before and begun.before.active
    if active != before and active != begun.operation.version:
        raise Conflict(
            f"{place} was moved from {before or 'no version'} to {active or 'no version'} after this was asked "
            "for; look at it, then ask again"
        )


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
