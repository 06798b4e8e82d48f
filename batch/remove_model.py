"""Why a model version is still needed: aliases, canaries, shadows, published views and running runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from archive.recent import recent_rows
from archive.tables import Tables
from archive.views import Views
from batch.facts import SILENT
from model_store.errors import Conflict
from model_store.names import DEFAULT_ALIAS, VersionId
from model_store.store import ModelStore
from serve.rollout.state import read_state


def require_unneeded(store: ModelStore, tables: Tables, version: VersionId) -> None:
    """Raise Conflict with each reason to keep a version and the way out. Raises ModelRefused, StorageUnreachable."""
    needs = [
        *_aliases(store, version),
        *_views(tables, version),
        *_runs(tables, version),
    ]
    if needs:
        raise Conflict(f"{version} is needed, and nothing was removed: {'; '.join(needs)}")


def _aliases(store: ModelStore, version: VersionId) -> Iterator[str]:
    name, wanted = version.name, store.aliases(version.name)
    for alias, state in read_state(store, name).aliases.items():
        option = "" if alias == DEFAULT_ALIAS else f" --alias {alias}"
        if version.version in (state.active, wanted.get(alias)):
            yield (
                f"the alias {name}:{alias} means it (resight models promote {name}@OTHER{option}, or take the alias "
                f"out of {store.url}/{name}/aliases.json)"
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
    columns, since = ("run_id", "event", "state"), datetime.now(UTC) - SILENT
    same = {"model_name": version.name, "model_version": version.version}
    events = recent_rows(tables.existing("runs"), "event_at", since, columns, **same)
    events.sort(key=lambda row: row["event"])
    for run, state in sorted({row["run_id"]: row["state"] for row in events}.items()):
        if state == "running":
            yield f"run {run} uses it (wait for it, or resight runs cancel {run})"
