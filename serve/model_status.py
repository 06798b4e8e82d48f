"""What exists in the store and what a replica has loaded, for GET /v1/models and the command line."""

from __future__ import annotations

from model_store.errors import ModelError
from model_store.names import VersionId
from model_store.store import ModelStore
from serve.contract import WireModelStatus, WireVersion
from serve.residents import Residents


def model_statuses(store: ModelStore, residents: Residents | None) -> list[WireModelStatus]:
    """One entry a model. A version whose files are damaged is listed among the failures."""
    return [_status(store, name, residents) for name in store.names() if store.versions(name)]


def _status(store: ModelStore, name: str, residents: Residents | None) -> WireModelStatus:
    failures = dict(residents.failures) if residents else {}
    mine = {k: why for k, why in failures.items() if k.partition(":")[0] == name}
    aliases: dict[str, str] = {}
    try:
        aliases = store.aliases(name)
    except ModelError as error:
        mine[name] = str(error)
    versions: list[WireVersion] = []
    for version in store.versions(name):
        try:
            versions.append(_version(store, version, aliases, residents))
        except ModelError as error:
            mine[str(version)] = str(error)
    return WireModelStatus(name=name, versions=versions, failures=mine)


def _version(
    store: ModelStore, version: VersionId, aliases: dict[str, str], residents: Residents | None
) -> WireVersion:
    info = store.describe(version).info
    return WireVersion(
        version=version.version,
        aliases=sorted(alias for alias, target in aliases.items() if target == version.version),
        resident=residents is not None and version in residents.loaded,
        weights_sha256=info.weights_sha256,
        inference_key=info.inference_key,
    )
