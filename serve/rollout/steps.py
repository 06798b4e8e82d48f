"""Steps of a rollout, in the order that never leaves a request without its model.

prove in a throw-away process -> load, warm up and probe in every replica -> write the alias and the state
-> every replica switches and acknowledges -> done

An error before the alias is written changes nothing; if a later step fails, the alias is restored. Operations may run
concurrently, also in other processes: each write is computed from the current files, and refused if they conflict with
the operation. Does not import Ray: `Replicas` and `prove` are passed in.
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
from model_store.names import DEFAULT_ALIAS, VersionId, version_id
from model_store.store import ModelStore
from serve.rollout.operations import Operation, PreparedOperation
from serve.rollout.state import MAX_PREVIOUS, AliasState, ModelState, Share, read_state, update_state

MOVES = ("promote", "rollback", "follow")
"""Operations that write aliases.json."""


class Replicas(Protocol):
    """All replicas of a running cluster. Each method raises ResightError unless all acknowledge."""

    def holds(self, version: VersionId, digest: str) -> bool:
        """Return True if every replica has loaded the version from files of this digest."""
        ...

    def ensure(self, version: VersionId, digest: str) -> None:
        """Load, warm up and probe a version from files of this digest in every replica that has not loaded it."""
        ...

    def activate(self, name: str, state: ModelState, version: str | None = None) -> None:
        """Load `version` in every replica and switch it to this state. Raises Conflict if one has a newer state."""
        ...

    def release(self, version: VersionId) -> None:
        """Unload a version in every replica. Raises Conflict if an alias refers to it or a run holds it."""
        ...


@dataclass
class Rollout:
    """Applies operations, from any thread; only one at a time switches a model."""

    store: ModelStore
    replicas: Replicas
    prove: Callable[[VersionId], object]
    _turns: defaultdict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    def prepare(self, operation: Operation) -> PreparedOperation:
        """Return the operation in a form that can be repeated: a rollback names the newest previous version, if any.

        Raises ModelRefused for damaged files, StorageUnreachable.
        """
        if operation.kind == "release":
            return PreparedOperation(operation=operation)
        before = read_state(self.store, operation.name).aliases.get(operation.alias)
        if operation.kind == "rollback" and operation.version is None and before:
            target = rollback_target(self.store, operation.name, before)
            operation = operation.model_copy(update={"version": target})
        wanted = self.store.aliases(operation.name).get(operation.alias)
        return PreparedOperation(operation=operation, before=before, wanted=wanted)

    def apply(self, prepared: PreparedOperation) -> str:
        """Apply an operation; return a text of what was done.

        Raises ResightError if it failed: nothing has changed then, unless the message reports a failed restore.
        """
        operation, name = prepared.operation, prepared.operation.name
        if operation.kind == "release":
            version = version_id(name, operation.version or "")
            self.replicas.release(version)
            return f"{version} is released"
        at = datetime.now(UTC)
        now = read_state(self.store, name)
        self._next(prepared, now, at)  # raises before anything is proved
        digests = self._bring(operation, now)

        def decide(now: ModelState) -> ModelState:
            for version, digest in digests.items():
                now.require_unchanged(version_id(name, version), digest)
            current, next_ = now.aliases.get(operation.alias), self._next(prepared, now, at)
            same = next_ == current and digests.items() <= now.digests.items()
            return now if same else now.with_alias(operation.alias, next_, digests)

        with self._turns[name]:
            return self._switch(prepared, decide)

    def _next(self, prepared: PreparedOperation, state: ModelState, at: datetime) -> AliasState:
        """Return the alias after the operation. Raises BadRequest, Conflict."""
        operation, now = prepared.operation, state.aliases.get(prepared.operation.alias)
        if now == AliasState(active=str(operation.version)):
            # it was never rolled out, and aliases.json already names the new version
            now = prepared.before
        kind, place = operation.kind, f"{operation.name}:{operation.alias}"
        if kind == "rollback" and now is not None and operation.version is None:
            raise BadRequest(_nothing_before(operation, now, place))
        if now is None and kind not in ("promote", "follow"):
            raise BadRequest(self._no_version(operation, place))
        _require_not_moved(prepared, now, place)
        if now is None or kind in ("promote", "follow"):
            again = kind == "promote" and prepared.before is not None and prepared.before.active == operation.version
            return _promoted(place, now, str(operation.version), at, again)
        if kind == "rollback":
            target = rollback_target(self.store, operation.name, now)
            if operation.version not in (now.active, target):
                raise Conflict(
                    f"{place} would go back from {now.active} to {target or 'no version'} now, and not to "
                    f"{operation.version}: nothing was changed. Look again at what a roll-back would change"
                )
            return _rolled_back(place, now, str(operation.version), at)
        if kind in ("pin", "unpin"):
            return now.model_copy(update={"pinned": kind == "pin"})
        _require_unpinned(now, place)
        share = None
        if operation.percent:
            share = Share(version=str(operation.version), percent=operation.percent)
            version = version_id(operation.name, share.version)
            if kind == "shadow" and self.store.describe(version).config.kind != "detector":
                raise BadRequest(
                    f"{version} is a classifier, and shadows are compared by their boxes: use a canary instead"
                )
            if share.version == now.active:
                raise Conflict(f"{version} already answers for {place}")
        return now.model_copy(update={kind: share})

    def _no_version(self, operation: Operation, place: str) -> str:
        """Return the error for an operation on an alias without a version, with the likely way out."""
        if operation.kind not in ("canary", "shadow") or operation.version is None:
            return f"{place} has no version yet; promote one first"
        name, version = operation.name, version_id(operation.name, operation.version)
        others: list[str] = []
        for other in self.store.names():
            with contextlib.suppress(ModelError):
                others += [other] if operation.alias in self.store.aliases(other) else []
        return (
            f"{place} has no version, so {version} has no requests to share: a {operation.kind} is another version "
            f"of the model that answers. Promote a version of {name} first; or, if {version} is meant as a new version "
            f"of another model, add its file under that name: resight models add FILE --name {(*others, 'NAME')[0]}"
        )

    def _bring(self, operation: Operation, now: ModelState) -> dict[str, str]:
        """Prove and load the version of the operation, unless replicas hold it; return version to digest.

        The files of a held version are hashed, since the next start loads them; except for a rollback, which must not
        depend on the disk. Raises ModelError.
        """
        if operation.version is None or not _needs_version(operation):
            return {}
        wanted = self.store.describe(version_id(operation.name, operation.version))
        now.require_unchanged(wanted.id, wanted.digest)
        if not self.replicas.holds(wanted.id, wanted.digest):
            self.prove(wanted.id)
            self.replicas.ensure(wanted.id, wanted.digest)
        elif operation.kind != "rollback":
            self.store.verify(wanted.id)
        return {wanted.id.version: wanted.digest}

    def _switch(self, prepared: PreparedOperation, decide: Callable[[ModelState], ModelState]) -> str:
        operation, name, alias = prepared.operation, prepared.operation.name, prepared.operation.alias
        before, wanted = read_state(self.store, name), self.store.aliases(name).get(alias)
        new = decide(before)  # raises before anything is written
        if operation.kind in MOVES:
            among = {operation.version} | (set() if operation.kind == "follow" else {prepared.wanted})
            self.store.set_alias(name, alias, operation.version, among=among)
        try:
            new = update_state(self.store, name, decide)
            # raises if the version was removed in between
            if operation.version and _needs_version(operation):
                self.store.digests(version_id(name, operation.version))
            self._activate(name, new, operation.version if _needs_version(operation) else None)
        except BaseException as error:
            self._restore(prepared, wanted, before, new, error)
            raise
        was, now = before.aliases.get(alias), new.aliases[alias]
        same = was and now == was.model_copy(update={"since": now.since})
        return f"{name}:{alias} is unchanged" if same else _words(operation, was, now)

    def _activate(self, name: str, state: ModelState, version: str | None) -> None:
        """Activate a state in all replicas, or a newer state derived from it that a replica already has."""
        while True:
            try:
                self.replicas.activate(name, state, version)
                return
            except Conflict:
                newest = read_state(self.store, name)
                if newest.generation <= state.generation:
                    raise
                state = newest

    def _restore(
        self,
        prepared: PreparedOperation,
        wanted: str | None,
        before: ModelState,
        mine: ModelState,
        error: BaseException,
    ) -> None:
        """Restore the alias, unless another writer has moved it. Raises ModelNotReady if the files cannot be written.

        aliases.json comes first, because the state follows it as soon as the store is writable.
        """
        operation, name, alias = prepared.operation, prepared.operation.name, prepared.operation.alias

        def restored(now: ModelState) -> ModelState:
            current, previous = now.aliases.get(alias), before.aliases.get(alias)
            if current not in (None, mine.aliases[alias]):
                return now
            return now.with_alias(alias, previous if current else None, before.digests)

        try:
            if operation.kind in MOVES:
                with contextlib.suppress(Conflict):
                    self.store.set_alias(name, alias, wanted, among={operation.version})
            back = update_state(self.store, name, restored)
        except Exception as second:
            raise ModelNotReady(
                f"{error}; and the alias could not be restored ({second}): replicas follow aliases.json and the state "
                f"of {name} as soon as they can read them; see 'resight models history {name}' then"
            ) from error
        with contextlib.suppress(ModelNotReady, Conflict):  # replicas that miss it read the file
            self.replicas.activate(name, back)


def rollback_target(store: ModelStore, name: str, now: AliasState) -> str | None:
    """Return the newest previous version of an alias that is still stored, if any. Raises StorageUnreachable."""
    stored = {version.version for version in store.versions(name)}
    return next((v for v in reversed(now.previous) if v in stored and v != now.active), None)


def _nothing_before(operation: Operation, now: AliasState, place: str) -> str:
    """Return the error for a roll-back without a version to go back to."""
    text = (
        f"{place} has no version before {now.active} to go back to: rolled-back versions do not count; "
        f"see: resight models history {operation.name}"
    )
    if not now.canary:
        return text
    option = "" if operation.alias == DEFAULT_ALIAS else f" --alias {operation.alias}"
    canary = f"{operation.name}@{now.canary.version}"
    return (
        f"{text}; its canary still answers {now.canary.percent:g} %; end it: resight models canary {canary} 0{option}"
    )


def _needs_version(operation: Operation) -> bool:
    return operation.kind in MOVES or operation.percent > 0


def _promoted(place: str, now: AliasState | None, version: str, at: datetime, again: bool) -> AliasState:
    """Promote a version; `again`: it was active when this was requested, so operations from before are outdated."""
    if now is None:
        return AliasState(active=version, since=at)
    if now.active == version:
        return now.model_copy(update={"since": at}) if again or not now.since else now
    _require_unpinned(now, place)
    return AliasState(active=version, previous=(*now.previous, now.active)[-MAX_PREVIOUS:], since=at)


def _rolled_back(place: str, now: AliasState, version: str, at: datetime) -> AliasState:
    """Go back to a version of `previous`; drop the active version and those after that version."""
    if now.active == version:
        return now
    _require_unpinned(now, place)
    steps = list(reversed(now.previous))
    left = steps[steps.index(version) + 1 :] if version in steps else []
    return AliasState(active=version, previous=tuple(reversed(left)), since=at)


def _require_not_moved(prepared: PreparedOperation, now: AliasState | None, place: str) -> None:
    """Raise Conflict if the alias was moved after the request; `follow` depends on aliases.json alone."""
    active, before = now and now.active, prepared.before and prepared.before.active
    if prepared.operation.kind == "follow" or active == prepared.operation.version:
        return
    if active != before:
        raise Conflict(
            f"{place} was moved from {before or 'no version'} to {active or 'no version'} after this was "
            "requested; check the alias, then try again"
        )
    # `since` of an alias that was never rolled out is set without a move
    if now and prepared.before and prepared.before.since not in (None, now.since):
        raise Conflict(
            f"{place} was moved from {before} and back, or promoted to it again, after this was requested; check the "
            "alias, then try again"
        )


def _require_unpinned(state: AliasState, place: str) -> None:
    if state.pinned:
        name, _, alias = place.partition(":")
        raise Conflict(
            f"{place} is pinned to {state.active}; unpin it first: resight models unpin {name} --alias {alias}"
        )


def _words(operation: Operation, was: AliasState | None, now: AliasState) -> str:
    place = f"{operation.name}:{operation.alias}"
    share = {"canary": now.canary, "shadow": now.shadow}.get(operation.kind)
    if share is not None:
        always = "; one image always gets the same version" if operation.kind == "canary" else ""
        which = f"{operation.name}@{share.version} is its {operation.kind}"
        return f"{place}: {which} for {share.percent:g} % of the images{always}"
    if operation.kind in ("canary", "shadow"):
        return f"{place} no longer has a {operation.kind}"
    shares = {"canary": was.canary, "shadow": was.shadow} if was and was.active != now.active else {}
    ended = [f"; its {kind} {operation.name}@{share.version} ended" for kind, share in shares.items() if share]
    return f"{place} is now {operation.name}@{now.active}{' (pinned)' if now.pinned else ''}{''.join(ended)}"
