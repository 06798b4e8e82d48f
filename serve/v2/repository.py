"""Versions in the store and in this replica: index, load, unload, readiness, in v2's terms.

Load and unload concern the replica that answers, and move no alias: that is what promote is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_store.errors import BadRequest, Conflict, ModelNotReady
from model_store.names import ModelRef, VersionId, parse_ref, version_id
from model_store.store import ModelStore
from serve.engine import Engine
from serve.residents import Residents
from serve.serving import Serving
from serve.v2.contract import IndexEntry

_NOT_LOADED = "not loaded; asking for it by version loads it, with a token of the scope admin"


async def index(engine: Engine, serving: Serving, ready_only: bool) -> list[IndexEntry]:
    """Return every version in the store or in memory, by name. Raises StorageUnreachable, Overloaded."""
    stored = await engine.lookups.run(_in_store, engine.store)
    loaded = serving.versions
    entries: list[IndexEntry] = []
    for version in sorted(stored | loaded):
        why = _why(serving.failures, version) or _NOT_LOADED
        if version in loaded:
            entries.append(
                IndexEntry(name=version.name, version=version.version, state="READY", reason="")
            )
        elif not ready_only:
            entries.append(
                IndexEntry(
                    name=version.name, version=version.version, state="UNAVAILABLE", reason=why
                )
            )
    return entries


async def loaded_version(engine: Engine, ref: str) -> VersionId:
    """Return the loaded version that a reference means; load nothing.

    Raises BadRequest, ModelNotFound, and ModelNotReady with the reason, also where the files that say which version
    an alias means are damaged.
    """
    asked = parse_ref(ref)
    residents = engine.residents
    damaged = residents.failures.get(asked.name)
    if asked.alias is not None and damaged is not None:
        raise ModelNotReady(f"{asked.name}: {damaged}")
    for version in _loaded(residents, asked.name):
        named = version.version == asked.version or version == residents.only(asked)
        if named or asked.alias in residents.aliases_of(version):
            return version
    version = await engine.lookups.run(engine.store.resolve, asked)
    why = _why(residents.failures, version) or "load it first"
    raise ModelNotReady(f"{version} is not loaded in this replica: {why}")


async def loaded_versions(engine: Engine, ref: str) -> list[VersionId]:
    """All loaded versions of a bare name, else the one that is meant. Raises as above."""
    return _loaded(engine.residents, ref) or [await loaded_version(engine, ref)]


async def load(engine: Engine, ref: str, parameters: dict[str, Any]) -> None:
    """Load the version named, or those that the aliases of a bare name mean.

    Raises BadRequest, ModelError.
    """
    asked = _named(ref, parameters)
    versions = await engine.lookups.run(_to_load, engine.store, ref, asked)
    for version in versions:
        await engine.residents.get(str(version))


async def unload(engine: Engine, ref: str, parameters: dict[str, Any]) -> None:
    """Release the version named, or all of a bare name: all of them or none.

    Raises Conflict when an alias means one or a run holds it, ModelNotFound, BadRequest.
    """
    residents = engine.residents
    asked = _named(ref, parameters)
    versions = [
        version
        for version in _loaded(residents, parse_ref(ref).name)
        if asked is None or version == VersionId(asked.name, asked.version or "")
    ]
    if not versions:
        versions = [await engine.lookups.run(engine.store.resolve, asked or parse_ref(ref))]
    for version in versions:
        _require_free(residents, version)
    for version in versions:
        await residents.release(version)


def _require_free(residents: Residents, version: VersionId) -> None:
    """Raises Conflict."""
    aliases = residents.aliases_of(version)
    if aliases:
        raise Conflict(
            f"{version} answers as {', '.join(aliases)}: move the alias first, with 'resight "
            f"models promote {version.name}@OTHER --alias {aliases[0]}', or name another version"
        )
    holders = residents.versions.holders(version)
    if holders:
        raise Conflict(f"{version} is held by {', '.join(holders)}; cancel or await them first")


def _named(ref: str, parameters: dict[str, Any]) -> ModelRef | None:
    """What a request about one version means, None for one about a bare name. Raises BadRequest."""
    wrong = sorted(set(parameters) - {"version", "unload_dependents"})
    if wrong:
        raise BadRequest(
            f"parameter '{wrong[0][:64]}' is unknown here: `version` is the only one. Versions are "
            "written once and not overridden; add another with 'resight models add'"
        )
    asked = parse_ref(ref)
    version = parameters.get("version")
    if version is None:
        return None if ref == asked.name else asked
    if ref != asked.name:
        raise BadRequest(f"'{ref}' names a version or an alias already; leave the parameter out")
    exact = version_id(ref, str(version))
    return ModelRef(exact.name, exact.version, None)


def _to_load(store: ModelStore, ref: str, asked: ModelRef | None) -> list[VersionId]:
    if asked is not None:
        return [store.resolve(asked)]
    found = {store.resolve(ModelRef(ref, None, alias)) for alias in store.aliases(ref)}
    return sorted(found) or [store.resolve(parse_ref(ref))]


def _in_store(store: ModelStore) -> set[VersionId]:
    return {version for name in store.names() for version in store.versions(name)}


def _loaded(residents: Residents, name: str) -> list[VersionId]:
    return [version for version in residents.loaded if version.name == name]


def _why(failures: Mapping[str, str], version: VersionId) -> str:
    """Why it could not be loaded, as far as it was tried."""
    return next((why for why in failures.values() if why.startswith(f"{version}:")), "")
