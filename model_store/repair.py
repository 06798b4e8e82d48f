"""Repair a damaged version from its own files: bytes are replaced only by those that its READY or CLAIM lists."""

from __future__ import annotations

from collections.abc import Mapping

from model_store.errors import ModelExists, StorageUnsafe
from model_store.inference_key import sha256_hex
from model_store.names import VersionId
from model_store.ready import CLAIM, MAX_READY_BYTES, READY, format_ready
from model_store.store import MAX_VERSION_BYTES, ModelStore, ModelVersion


def repair(store: ModelStore, version: VersionId, files: Mapping[str, bytes]) -> list[str]:
    """Replace the damaged and missing files of a READY version by `files`, all of its files; return their names.

    Raises ModelExists, and writes nothing, if the version consists of other files.
    """
    ready = format_ready({name: sha256_hex(data) for name, data in files.items()}, str(version))
    if ready not in (_found(store, version, READY), _found(store, version, CLAIM)):
        raise ModelExists(f"{version} is already in {store.url}, with other files")
    return _restore(store, version, {**files, READY: ready})


def repair_weights(store: ModelStore, version: ModelVersion, weights: bytes) -> str:
    """Write the weights of a version again if their file is damaged or missing; return its name, or ""."""
    digest = sha256_hex(weights)
    name = next((name for name, wanted in version.digests.items() if wanted == digest), "")
    return name if name and _restore(store, version.id, {name: weights}) else ""


def _restore(store: ModelStore, version: VersionId, files: Mapping[str, bytes]) -> list[str]:
    """Write each file unless the same bytes are stored; return the names of those written."""
    damaged = [name for name, data in files.items() if _found(store, version, name) != data]
    for name in damaged:
        store.folder.write(f"{version.name}/{version.version}/{name}", files[name])
    return damaged


def _found(store: ModelStore, version: VersionId, name: str) -> bytes | None:
    """Return the bytes of a file of a version; None if it is missing, too large or not a regular file."""
    limit = MAX_READY_BYTES if name in (READY, CLAIM) else MAX_VERSION_BYTES
    try:
        return store.folder.read_inside(f"{version.name}/{version.version}", name, limit)
    except (FileNotFoundError, StorageUnsafe):
        return None
