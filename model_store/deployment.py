"""How a model is run, apart from what it is: mutable, and never part of the inference key.

<models>/<name>/deployment.json: {"*": {"pool": "gpu", "batch": {"max": 4, "wait_ms": 2}}, "3": {"batch": {"max": 16}}}

"*" is for every version, a version's own entry wins; the pool is one for all of them. Replicas read it again
at each look at the store. `resight tune --apply` writes the entry of one version, people write the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from pydantic import Field, ValidationError

from model_store.config import Batch, Frozen
from model_store.errors import ModelRefused
from model_store.names import NAME, VersionId
from model_store.store import ModelStore

DEPLOYMENT = "deployment.json"
EVERY = "*"
DEFAULT_POOL = "default"


class Deployment(Frozen):
    """`batch` replaces that of config.json and what was measured at load; `pool` names the replicas that
    answer for the model (`pools` in serve/app.yaml).
    """

    batch: Batch | None = None
    pool: str | None = Field(default=None, pattern=f"^{NAME.pattern}$")


def read_deployment(store: ModelStore, version: VersionId) -> Deployment:
    """Empty where nothing is written. Raises ModelRefused that names file and field."""
    where, entries = _entries(store, version.name)
    if version.version in entries:
        return _checked_own(where, version, entries[version.version])
    return _checked(where, entries.get(EVERY, {}))


def own_entry(store: ModelStore, version: VersionId) -> dict[str, Any] | None:
    """What stands in the file for this version alone, as it stands there. Raises ModelRefused that names file
    and field.
    """
    where, entries = _entries(store, version.name)
    if version.version not in entries:
        return None
    _checked_own(where, version, entries[version.version])
    return dict(entries[version.version])


def write_entry(
    store: ModelStore, version: VersionId, entry: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Put this in place of the version's own entry (None: it has none), in one atomic write; all other entries
    stay as they are. What stood there before.

    Raises ModelRefused for an entry that would not be read, and for a file that cannot be.
    """
    before = own_entry(store, version)
    where, entries = _entries(store, version.name)
    after = {name: value for name, value in entries.items() if name != version.version}
    if entry is not None:
        _checked_own(where, version, dict(entry))
        after[version.version] = dict(entry)
    path = f"{version.name}/{DEPLOYMENT}"
    if after:
        store.folder.write(path, json.dumps(after, indent=1).encode())
    else:
        store.folder.remove(path)
    return before


def read_pool(store: ModelStore, name: str) -> str:
    """The pool that all versions of a model live in. Raises ModelRefused that names file and field."""
    where, entries = _entries(store, name)
    return _checked(where, entries.get(EVERY, {})).pool or DEFAULT_POOL


def _entries(store: ModelStore, name: str) -> tuple[str, dict[str, Any]]:
    """Where the file is, and what it says."""
    where = f"{store.url}/{name}/{DEPLOYMENT}"
    try:
        found: Any = json.loads(store.folder.read(f"{name}/{DEPLOYMENT}"))
    except FileNotFoundError:
        return where, {}
    except ValueError as error:
        raise ModelRefused(f"{where} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelRefused(f'{where} must map "{EVERY}" or versions to settings')
    return where, cast(dict[str, Any], found)


def _checked_own(where: str, version: VersionId, entry: object) -> Deployment:
    found = _checked(where, entry)
    if found.pool:
        raise ModelRefused(
            f'{where}: {version.version}.pool: all versions share a pool: write it under "*"'
        )
    return found


def _checked(where: str, entry: object) -> Deployment:
    try:
        return Deployment.model_validate(entry)
    except ValidationError as error:
        wrong = error.errors()[0]
        field = ".".join(str(part) for part in wrong["loc"])
        raise ModelRefused(f"{where}: {field}: {wrong['msg']}") from error
