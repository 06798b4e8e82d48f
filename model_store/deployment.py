"""How a model is run, apart from what it is: mutable, and never part of the inference key.

<models>/<name>/deployment.json: {"*": {"pool": "gpu", "batch": {"max": 4, "wait_ms": 2}}, "3": {"batch": {"max": 16}}}

"*" is for every version, a version's own entry wins; the pool is one for all of them. Replicas read it again
at each look at the store. `resight tune --apply` writes the entry of one version, people write the rest.
Programs write one at a time: .deployment.json.lock stands beside it meanwhile. People's editors know of no lock.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import tenacity
from pydantic import Field, ValidationError

from model_store.config import Batch, Frozen
from model_store.errors import Conflict, ModelRefused, StorageUnreachable
from model_store.names import NAME, VersionId
from model_store.said import wrong_fields
from model_store.storage import require_create
from model_store.store import ModelStore

DEPLOYMENT = "deployment.json"
LOCK = f".{DEPLOYMENT}.lock"
LOCK_WAIT_S = 10.0
"""For another writer, who needs two requests of the store."""
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
    return _own(where, entries, version)


def write_entry(
    store: ModelStore,
    version: VersionId,
    entry: Mapping[str, Any] | None,
    *,
    expected: Mapping[str, Any] | None,
) -> None:
    """Put this in place of the version's own entry (None: it has none), in one atomic write; all other entries
    stay as they are.

    Raises Conflict where its own entry is not the one expected, or another hand is at it; ModelRefused for an
    entry that would not be read, and for a file that cannot be; StorageUnreachable; StorageUnsafe.
    """
    with _alone(store, version.name):
        where, entries = _entries(store, version.name)
        now = _own(where, entries, version)
        if now != expected:
            raise Conflict(
                f"{where}: nothing was written: {version} has other settings by now ({now or 'none of its own'}, "
                f"and not {expected or 'none of its own'}); look at them, then ask again"
            )
        after = {name: value for name, value in entries.items() if name != version.version}
        if entry is not None:
            _checked_own(where, version, dict(entry))
            after[version.version] = dict(entry)
        _write(store, version.name, after)


def read_pool(store: ModelStore, name: str) -> str:
    """The pool that all versions of a model live in. Raises ModelRefused that names file and field."""
    where, entries = _entries(store, name)
    return _checked(where, entries.get(EVERY, {})).pool or DEFAULT_POOL


def _write(store: ModelStore, name: str, entries: Mapping[str, Any]) -> None:
    path = f"{name}/{DEPLOYMENT}"
    try:
        if entries:
            store.folder.write(path, json.dumps(entries, indent=1).encode())
        else:
            store.folder.remove(path)
    except Exception as error:
        raise StorageUnreachable(f"cannot write {store.url}/{path}: {error}") from error


@contextlib.contextmanager
def _alone(store: ModelStore, name: str) -> Generator[None]:
    """One writer of a model at a time, on any machine. A lock that its writer could not remove any more stays:
    who comes next is told of it.
    """
    require_create(store.url)
    path, at = f"{name}/{LOCK}", datetime.now(UTC).isoformat(timespec="seconds")
    mine = f"{at} {secrets.token_hex(8)}".encode()
    asked = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(FileExistsError),
        stop=tenacity.stop_after_delay(LOCK_WAIT_S),
        wait=tenacity.wait_random(0.05, 0.2),
        reraise=True,
    )
    try:
        asked(_create, store, path, mine)
    except FileExistsError as error:
        raise Conflict(
            f"{store.url}/{name}/{DEPLOYMENT} is another hand's, so nothing was written; if nobody is at it (see "
            f"the time in it), remove {store.url}/{path}"
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(Exception):
            store.folder.remove(path)


def _create(store: ModelStore, path: str, data: bytes) -> None:
    """Raises FileExistsError where it is another's."""
    try:
        store.folder.create(path, data)
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):  # given back meanwhile: ask again
            if store.folder.read(path) == data:
                return  # ours, whose acknowledgement was lost
        raise


def _own(where: str, entries: Mapping[str, Any], version: VersionId) -> dict[str, Any] | None:
    if version.version not in entries:
        return None
    _checked_own(where, version, entries[version.version])
    return dict(entries[version.version])


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
        raise ModelRefused(f"{where}: {wrong_fields(error, Deployment, 'entry')}") from error
