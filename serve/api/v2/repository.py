"""Index, load, unload and readiness of versions in the store and in this replica, in v2's terms.

Load and unload affect only the replica that answers, and move no alias; promote does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from model_store.errors import BadRequest, Conflict, ModelNotReady, ResightError
from model_store.names import ModelRef, VersionId, parse_ref, version_id
from model_store.store import ModelStore
from serve.api.v2.schemas import IndexEntry
from serve.inference.engine import Engine
from serve.models.pools import Serving

_Reason = TypeVar("_Reason", str, ResightError)
_NOT_LOADED = "not loaded; a request for this version loads it, with a token of the scope admin"


async def index(engine: Engine, serving: Serving, ready_only: bool) -> list[IndexEntry]:
    """Return every version in the store or in memory, by name. Raises StorageUnreachable, Overloaded."""
    stored = set(await engine.lookups.run(engine.store.readable_versions))
    entries: list[IndexEntry] = []
    for version in sorted(stored | serving.versions):
        state, reason = "READY", ""
        if version not in serving.versions:
            state, reason = "UNAVAILABLE", _about(version, serving.failures.values()) or _NOT_LOADED
        if state == "READY" or not ready_only:
            entries.append(IndexEntry(name=version.name, version=version.version, state=state, reason=reason))
    return entries


async def loaded_version(engine: Engine, ref: str) -> VersionId:
    """Return the loaded version of a reference; load nothing. Raises BadRequest, ModelNotFound, ModelNotReady."""
    wanted = parse_ref(ref)
    errors, table = engine.aliases.errors, engine.aliases.table
    damaged = errors.get(wanted.name)
    if wanted.alias is not None and damaged is not None:
        raise ModelNotReady(f"{wanted.name}: {damaged}")
    for version in _loaded(engine, wanted.name):
        named = version.version == wanted.version or version == table.only_version(wanted)
        if named or wanted.alias in table.aliases_of(version):
            return version
    version = await engine.lookups.run(engine.store.resolve, wanted)
    error = _about(version, errors.values())
    soon = error and error.retry_after_s
    raise ModelNotReady(f"{version} is not loaded in this replica: {error or 'load it first'}", soon)


async def loaded_versions(engine: Engine, ref: str) -> list[VersionId]:
    """Return all loaded versions of a bare name, else the selected one. Raises the errors of `loaded_version`."""
    return _loaded(engine, ref) or [await loaded_version(engine, ref)]


async def load(engine: Engine, ref: str, parameters: dict[str, Any]) -> None:
    """Load the named version, or those of all aliases of a bare name. Raises BadRequest, ModelError."""
    versions = await engine.lookups.run(_to_load, engine.store, ref, _named(ref, parameters))
    for version in versions:
        await engine.resolver.get(str(version))


async def unload(engine: Engine, ref: str, parameters: dict[str, Any]) -> None:
    """Release the named version, or all of a bare name: all of them or none.

    Raises Conflict if an alias refers to one or a run holds it, ModelNotFound, BadRequest.
    """
    wanted, versions = _named(ref, parameters), _loaded(engine, parse_ref(ref).name)
    if wanted is not None:
        versions = [version for version in versions if version.version == wanted.version]
    versions = versions or [await engine.lookups.run(engine.store.resolve, wanted or parse_ref(ref))]
    for version in versions:
        if aliases := engine.aliases.table.aliases_of(version):
            raise Conflict(
                f"{version} answers as {', '.join(aliases)}: move the alias first, with 'resight "
                f"models promote {version.name}@OTHER --alias {aliases[0]}', or name another version"
            )
        if holders := engine.models.holders(version):
            raise Conflict(f"{version} is held by {', '.join(holders)}; cancel or await them first")
    for version in versions:
        await engine.aliases.release(version)


def _named(ref: str, parameters: dict[str, Any]) -> ModelRef | None:
    """Return the version that a request names, or None for a bare name. Raises BadRequest."""
    unknown = sorted(set(parameters) - {"version", "unload_dependents"})
    if unknown:
        raise BadRequest(
            f"unknown parameter '{unknown[0][:64]}': `version` is the only one. Versions are immutable; add "
            "another one with 'resight models add'"
        )
    wanted = parse_ref(ref)
    version = parameters.get("version")
    if version is None:
        return None if ref == wanted.name else wanted
    if ref != wanted.name:
        raise BadRequest(f"'{ref}' already names a version or an alias; omit the parameter")
    exact = version_id(ref, str(version))
    return ModelRef(exact.name, exact.version, None)


def _to_load(store: ModelStore, ref: str, wanted: ModelRef | None) -> list[VersionId]:
    if wanted is not None:
        return [store.resolve(wanted)]
    versions = {store.resolve(ModelRef(ref, None, alias)) for alias in store.aliases(ref)}
    return sorted(versions) or [store.resolve(parse_ref(ref))]


def _loaded(engine: Engine, name: str) -> list[VersionId]:
    return [version for version in engine.models.names if version.name == name]


def _about(version: VersionId, reasons: Iterable[_Reason]) -> _Reason | None:
    """Return why a version could not be loaded; None if no attempt failed."""
    return next((reason for reason in reasons if str(reason).startswith(f"{version}:")), None)
