"""Read and write deployment settings: how a model is run, mutable and never part of the inference key.

<models>/<name>/deployment.json: {"*": {"pool": "gpu", "batch": {"max": 4, "wait_ms": 2}}, "3": {"batch": {"max": 16}}}

"*" applies to every version without an entry; all versions share one pool. Replicas read the file at each poll of
the store. `resight tune --apply` writes the entry of one version, people write the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from pydantic import Field, ValidationError

from model_store.config import Batch
from model_store.errors import Conflict, ModelRefused
from model_store.frozen import Frozen, wrong_fields
from model_store.names import NAME, VersionId
from model_store.store import ModelStore

DEPLOYMENT = "deployment.json"
EVERY = "*"
DEFAULT_POOL = "default"


class ModelDeployment(Frozen):
    """Settings of a version: `batch` replaces that of config.json and the one measured at load; `pool` is the pool
    of replicas that serves the model (`pools` in serve/app.yaml).
    """

    batch: Batch | None = None
    pool: str | None = Field(default=None, pattern=f"^{NAME.pattern}$")


def read_deployment(store: ModelStore, version: VersionId) -> ModelDeployment:
    """Return the settings of a version, empty without an entry. Raises ModelRefused with file and field."""
    where, entries = _entries(store, version.name)
    if _own(where, entries, version) is not None:
        return ModelDeployment.model_validate(entries[version.version])
    return _checked(where, entries.get(EVERY, {}))


def own_entry(store: ModelStore, version: VersionId) -> dict[str, Any] | None:
    """Return the version's own entry as written in the file, or None. Raises ModelRefused with file and field."""
    return _own(*_entries(store, version.name), version)


def write_entry(
    store: ModelStore, version: VersionId, entry: Mapping[str, Any] | None, *, expected: Mapping[str, Any] | None
) -> None:
    """Replace the version's own entry (None removes it) in one atomic write; all other entries are kept.

    Raises Conflict if its own entry is not `expected`. Raises ModelRefused for an
    invalid entry or file. Raises StorageUnreachable, StorageUnsafe.
    """
    where, written = f"{store.url}/{version.name}/{DEPLOYMENT}", b""

    def changed(data: bytes | None) -> bytes:
        nonlocal written
        if data is not None and data == written:
            return data  # the acknowledgement was lost
        entries = _parsed(where, data)
        now = _own(where, entries, version)
        if now != expected:
            raise Conflict(
                f"{where}: nothing was written: the settings of {version} have changed ({now or 'no own entry'} "
                f"instead of {expected or 'no own entry'}); check them, then try again"
            )
        after = {name: value for name, value in entries.items() if name != version.version}
        if entry is not None:
            after[version.version] = dict(entry)
            _own(where, after, version)
        written = json.dumps(after, indent=1).encode() if after else b""
        return written

    store.folder.update(f"{version.name}/{DEPLOYMENT}", changed)


def read_pool(store: ModelStore, name: str) -> str:
    """Return the pool of all versions of a model. Raises ModelRefused with file and field."""
    where, entries = _entries(store, name)
    return _checked(where, entries.get(EVERY, {})).pool or DEFAULT_POOL


def _entries(store: ModelStore, name: str) -> tuple[str, dict[str, Any]]:
    """Return the file's URL and its entries."""
    where = f"{store.url}/{name}/{DEPLOYMENT}"
    try:
        return where, _parsed(where, store.folder.read(f"{name}/{DEPLOYMENT}"))
    except FileNotFoundError:
        return where, {}


def _parsed(where: str, data: bytes | None) -> dict[str, Any]:
    try:
        entries: Any = json.loads(b"{}" if data is None else data)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{where} is not JSON: {error}") from error
    if not isinstance(entries, dict):
        raise ModelRefused(f'{where} must map "{EVERY}" or versions to settings')
    return cast(dict[str, Any], entries)


def _own(where: str, entries: Mapping[str, Any], version: VersionId) -> dict[str, Any] | None:
    """Return the checked entry of a version as written, or None."""
    if version.version not in entries:
        return None
    if _checked(where, entries[version.version]).pool:
        raise ModelRefused(f'{where}: {version.version}.pool: all versions share a pool: write it under "*"')
    return dict(entries[version.version])


def _checked(where: str, entry: object) -> ModelDeployment:
    try:
        return ModelDeployment.model_validate(entry)
    except ValidationError as error:
        raise ModelRefused(f"{where}: {wrong_fields(error, ModelDeployment, 'entry')}") from error
