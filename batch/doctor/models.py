"""Check that aliases, canaries and shadows refer to complete versions, with the files that were rolled out."""

from __future__ import annotations

from collections.abc import Iterator

from batch.doctor.finding import Finding
from model_store.deployment import read_deployment, read_pool
from model_store.errors import ModelError
from model_store.names import VersionId
from model_store.store import ModelStore
from serve.rollout.state import read_state

_PULL = "resight models pull STORE {} from a store that has it, such as a backup"


def check_models(store: ModelStore, digests: bool = False) -> Iterator[Finding]:
    """Check every model; with `digests`, read and hash every file."""
    if not (names := store.names()):
        yield Finding("models", store.url, "no model is there; is it mounted?", "mount its disk, or add a model")
    for name in names:
        for version in store.unfinished(name):
            action = f"wait for it, add it again with --version, or resight models remove {version} --yes"
            yield Finding("models", str(version), "it is being added, or that was interrupted", action)
        versions = store.versions(name)
        for version in versions:
            yield from _version(store, version, digests)
        try:
            state = read_state(store, name)
            read_pool(store, name)
        except ModelError as error:
            yield Finding("models", name, str(error), "correct the file, or restore it from the backup")
            continue
        for alias, of_alias in state.aliases.items():
            for version in sorted(VersionId(name, v) for v in of_alias.versions()):
                if version not in versions:
                    action = f"{_PULL.format(version)}, or promote another version"
                    yield Finding("models", f"{name}:{alias}", f"{version} does not exist", action)


def _version(store: ModelStore, version: VersionId, digests: bool) -> Iterator[Finding]:
    try:
        described = store.verify(version) if digests else store.describe(version)
        place = f"{version.name}/{version.version}"
        lost = [file for file in described.digests if not store.folder.exists(f"{place}/{file}")]
        if lost:
            yield Finding("models", str(version), f"{', '.join(lost)} is missing", _PULL.format(version))
        read_deployment(store, version)
        read_state(store, version.name).require_unchanged(version, described.digest)
    except ModelError as error:
        yield Finding("models", str(version), str(error), _PULL.format(version))
