"""The commands `runs publish, rollback, prune`: publish results and remove unused ones. Need no cluster."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from archive.defaults import KEEP_DAYS, PRODUCTION
from cli.layers import tell_silent
from cli.output import Format, FormatOption, ViewName, note, print_facts, print_rows
from model_store.errors import StorageUnreachable
from model_store.lazy_imports import lazy_imports
from model_store.names import version_id

with lazy_imports():
    from archive.delta.tables import Tables
    from archive.retention import KeyUse, other_stores, plan_prune, prune
    from archive.views.views import View, Views
    from batch.publishing import publish as publishing
    from model_store.store import ModelStore
    from serve.rollout.state import read_state
    from serve.settings import Settings

Reason = Annotated[str, typer.Option(help="reason that is recorded with the publication")]
COLUMNS = ("inference_key", "model", "rows", "snips", "classifications", "files", "bytes")
COLUMNS += ("last_run_at", "kept")


def register(app: typer.Typer) -> None:
    app.command("publish")(publish)
    app.command("rollback")(rollback)
    app.command("prune")(prune_command)


def publish(
    what: Annotated[str, typer.Argument(metavar="RUN", help="id of a sealed run, or name@version")],
    view: ViewName = PRODUCTION,
    override: Annotated[str | None, typer.Option(help="publish although gates fail, for this reason")] = None,
    reason: Reason = "",
    fmt: FormatOption = Format.table,
) -> None:
    """Make the results of a run the default for queries. Exit code 5 if a gate of the policy fails.

    Example: resight runs publish 20260514T031500-9f2c1a --reason "new moths"
    """
    settings = Settings()
    tables, store = Tables(settings.mounted_tables_url), ModelStore(settings.models_url)
    before = Views(tables.url).current(view)
    current = publishing.publish_by_policy(settings, tables, store, what, view, reason, override)
    note("published" if current != before else "already published")
    print_facts(_facts(current), fmt)
    tell_silent(tables, current)


def rollback(view: ViewName = PRODUCTION, reason: Reason = "", fmt: FormatOption = Format.table) -> None:
    """Undo the newest change of a view: a publication, or a layer switched on or off. Repeat it to undo more.

    Gates of the policy are not checked.

    Example: resight runs rollback
    """
    tables = Tables(Settings().mounted_tables_url)
    current = publishing.rollback(tables, view, reason)
    for text in publishing.rollback_words(tables, current):
        note(text)
    print_facts(_facts(current), fmt)
    tell_silent(tables, current)


def prune_command(
    yes: Annotated[bool, typer.Option("--yes", help="remove the results; without it, they are only listed")] = False,
    keep_days: Annotated[
        float, typer.Option(min=0, help="keep results that a view showed within this number of days")
    ] = KEEP_DAYS,
    store: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="other model store with aliases that keep results (repeatable); default: all stores with results here",
        ),
    ] = None,
    fmt: FormatOption = Format.table,
) -> None:
    """List which results are kept and why; with --yes, remove results that nothing needs.

    Example: resight runs prune --keep-days 30
    """
    settings = Settings()
    tables, own = Tables(settings.mounted_tables_url), settings.models_url
    aliased: dict[str, str] = {}
    for url in [own, *(other_stores(tables.url, own) if store is None else store)]:
        aliased |= _aliased(ModelStore(url), "" if url == own else f" of {url}")
    if yes:
        removed = prune(tables, aliased, keep_days)
        print_rows([_use(use, fmt) for use in removed], fmt, COLUMNS)
        note(f"removed {len(removed)} inference keys; their files are deleted from disk after a week")
        return
    uses = plan_prune(tables, aliased, keep_days)
    print_rows([_use(use, fmt) for use in uses], fmt, COLUMNS)
    free = [use for use in uses if not use.kept]
    mib = sum(use.bytes for use in free) / 2**20
    note(f"{len(free)} of {len(uses)} inference keys ({mib:.1f} MiB) are not needed")
    if free:
        note("nothing was removed: add --yes")


def _aliased(store: ModelStore, origin: str) -> dict[str, str]:
    """Map each inference key to a description of the alias that refers to it, also as canary or shadow.

    Raises ModelError. Raises StorageUnreachable if the store has no model, because its aliases are unknown then.
    """
    if not any(store.versions(name) for name in store.names()):
        raise StorageUnreachable(f"no model in {store.url}; is it mounted?")
    aliased: dict[str, str] = {}
    for name in store.names():
        for alias, state in read_state(store, name).aliases.items():
            for version in sorted(state.versions()):
                described = store.describe(version_id(name, version))
                words = f"alias {name}:{alias}{origin} has version {version}"
                aliased[described.info.inference_key] = words
    return aliased


def _facts(view: View) -> dict[str, Any]:
    return {
        "view": view.name,
        "number": view.serial,
        "model": f"{view.model_name}@{view.model_version}",
        "run_id": view.run_id,
        "inference_key": view.inference_key,
        "threshold": view.threshold,
        "label_thresholds": view.label_thresholds,
        "layers": list(view.layers),
        "published_at": f"{view.published_at:%Y-%m-%dT%H:%M:%SZ}" if view.published_at else None,
        "reason": view.reason,
        "rolled_back_to": view.rolled_back_to,
    }


def _use(use: KeyUse, fmt: Format) -> dict[str, Any]:
    row = asdict(use)
    if use.last_run_at:
        row["last_run_at"] = f"{use.last_run_at:%Y-%m-%dT%H:%M:%SZ}"
    if fmt is Format.table:
        row |= {"inference_key": use.inference_key[:12], "kept": "; ".join(use.kept) or "-"}
    return {column: row[column] for column in COLUMNS}
