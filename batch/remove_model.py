"""Check that a model version is not needed by aliases, canaries, shadows, published views or running runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from archive.delta.tables import Tables
from archive.views.views import Views
from batch.schedule.archive_state import running_runs
from model_store.errors import Conflict
from model_store.names import DEFAULT_ALIAS, VersionId
from model_store.store import ModelStore
from serve.rollout.state import read_state


def require_unneeded(store: ModelStore, tables: Tables, version: VersionId) -> None:
    """Raise Conflict with each use of a version and how to end it. Also raises ModelRefused, StorageUnreachable."""
    needs = [*_aliases(store, version), *_views(tables, version), *_runs(tables, version)]
    if needs:
        raise Conflict(f"{version} is still needed, so nothing was removed: {'; '.join(needs)}")


def _aliases(store: ModelStore, version: VersionId) -> Iterator[str]:
    name, wanted = version.name, store.aliases(version.name)
    for alias, state in read_state(store, name).aliases.items():
        option = "" if alias == DEFAULT_ALIAS else f" --alias {alias}"
        if version.version in (state.active, wanted.get(alias)):
            yield (
                f"the alias {name}:{alias} refers to it (resight models promote {name}@OTHER{option}, or remove the "
                f"alias from {store.url}/{name}/aliases.json)"
            )
        for kind, share in (("canary", state.canary), ("shadow", state.shadow)):
            if share and share.version == version.version:
                yield f"it is the {kind} of {name}:{alias} (resight models {kind} {version} 0{option})"


def _views(tables: Tables, version: VersionId) -> Iterator[str]:
    views = Views(tables.url)
    for name in views.names():
        view = views.current(name)
        if view and (view.model_name, view.model_version) == (version.name, version.version):
            yield f"view {name} shows its results (resight runs publish RUN --view {name})"


def _runs(tables: Tables, version: VersionId) -> Iterator[str]:
    same = {"model_name": version.name, "model_version": version.version}
    for run, _ in running_runs(tables, datetime.now(UTC), **same):
        yield f"run {run} uses it (wait for it, or resight runs cancel {run})"
