"""What exists in the store and what a replica has loaded, for GET /v1/models and the command line."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from pydantic import Field

from model_store.errors import ModelError
from model_store.names import VersionId, parse_ref
from model_store.store import ModelStore
from serve.contract import Wire, WireModelStatus, WireVersion
from serve.engine import Engine
from serve.rollout.operations import Outcome
from serve.rollout.state import AliasState, read_state
from serve.serving import Serving, serving_of


class ModelDetail(Wire):
    """GET /v1/models/{name}."""

    name: str
    versions: list[WireVersion]
    aliases: dict[str, AliasState] = Field(description="what serves for each, as last rolled out")
    wanted: dict[str, str] = Field(description="aliases.json")
    under_way: list[Outcome]
    held_by: dict[str, list[str]] = Field(description="version to the runs that hold it")
    failures: dict[str, str] = Field(description="alias or version to why it does not serve")


def model_detail(engine: Engine, name: str, about: dict[str, Any]) -> ModelDetail:
    """`about` is what the rollout says of it. Raises ModelNotFound that lists what exists."""
    store, residents = engine.store, engine.residents
    store.require_model(parse_ref(name).name)
    status = _status(store, name, serving_of(residents))
    failures = dict(status.failures)
    failures |= {f"{name}:{alias}": why for alias, why in about.get("failures", {}).items()}
    held = {v.version: residents.versions.holders(v) for v in residents.loaded if v.name == name}
    return ModelDetail(
        name=name,
        versions=status.versions,
        aliases=read_state(store, name).aliases,
        wanted=store.aliases(name),
        under_way=about.get("under_way", []),
        held_by={version: holders for version, holders in held.items() if holders},
        failures=failures,
    )


def model_statuses(store: ModelStore, serving: Serving) -> list[WireModelStatus]:
    """One entry a model. A version whose files are damaged is listed among the failures."""
    return [_status(store, name, serving) for name in store.names() if store.versions(name)]


def rollout_words(store: ModelStore, names: Iterable[str]) -> dict[str, str]:
    """Map versions to their roles in words: canary, shadow, pinned. Models whose files are damaged are left out.

    Raises StorageUnreachable.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        with contextlib.suppress(ModelError):
            for alias, state in read_state(store, name).aliases.items():
                if state.pinned:
                    found[f"{name}@{state.active}"].append(f"pinned as {alias}")
                for kind, share in (("canary", state.canary), ("shadow", state.shadow)):
                    if share:
                        words = f"{kind} of {alias} ({share.percent:g} %)"
                        found[f"{name}@{share.version}"].append(words)
    return {version: ", ".join(words) for version, words in sorted(found.items())}


def _status(store: ModelStore, name: str, serving: Serving) -> WireModelStatus:
    mine = {k: why for k, why in serving.failures.items() if k.partition(":")[0] == name}
    aliases: dict[str, str] = {}
    try:
        aliases = store.aliases(name)
    except ModelError as error:
        mine[name] = str(error)
    versions: list[WireVersion] = []
    for version in store.versions(name):
        try:
            versions.append(_version(store, version, aliases, serving))
        except ModelError as error:
            mine[str(version)] = str(error)
    return WireModelStatus(name=name, versions=versions, failures=mine)


def _version(
    store: ModelStore, version: VersionId, aliases: dict[str, str], serving: Serving
) -> WireVersion:
    described = store.describe(version)
    info = described.info
    return WireVersion(
        version=version.version,
        kind=described.config.kind,
        aliases=sorted(alias for alias, target in aliases.items() if target == version.version),
        resident=version in serving.versions,
        weights_sha256=info.weights_sha256,
        inference_key=info.inference_key,
    )
