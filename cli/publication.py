"""runs publish, rollback, prune: which results people see, and which nobody needs any more. No cluster needed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from archive.defaults import KEEP_DAYS, PRODUCTION
from cli.layers import tell_silent
from cli.output import Format, FormatOption, note, print_facts, print_rows
from model_store.errors import StorageUnreachable
from model_store.lazy_imports import lazy_imports
from model_store.names import version_id

with lazy_imports():
    from archive.prune import KeyUse, plan_prune, prune
    from archive.stores import other_stores
    from archive.tables import Tables
    from archive.views import View, Views
    from batch import publish as publishing
    from batch.impact.gates import failed_gates
    from batch.policy import read_policy
    from model_store.store import ModelStore
    from serve.rollout.state import read_state
    from serve.settings import Settings

Name = Annotated[str, typer.Option("--view", help="name of the view")]
Reason = Annotated[str, typer.Option(help="kept with the publication")]
COLUMNS = ("inference_key", "model", "rows", "snips", "classifications", "files", "bytes")
COLUMNS += ("last_run_at", "kept")


def register(app: typer.Typer) -> None:
    app.command("publish")(publish)
    app.command("rollback")(rollback)
    app.command("prune")(prune_command)


def publish(
    what: Annotated[str, typer.Argument(metavar="RUN", help="a sealed run, or name@version")],
    view: Name = PRODUCTION,
    override: Annotated[
        str | None, typer.Option(help="why gates that fail do not count this time")
    ] = None,
    reason: Reason = "",
    fmt: FormatOption = Format.table,
) -> None:
    """Show the results of a run to whoever names none. Exit code 5 when a gate of the policy fails.

    Example: resight runs publish 20260514T031500-9f2c1a --reason "new moths"
    """
    settings = Settings()
    tables, store = Tables(settings.tables_url), ModelStore(settings.models_url)
    gates = read_policy(settings.policy_path, required=bool(settings.policy)).gates
    before = Views(tables.url).current(view)
    now = publishing.publish(
        tables,
        store,
        what,
        view,
        reason=reason,
        override=override,
        check=lambda old, new: failed_gates(tables, old, new, gates),
    )
    note("published" if now != before else "that is published already")
    print_facts(_facts(now), fmt)
    tell_silent(tables, now)


def rollback(
    view: Name = PRODUCTION, reason: Reason = "", fmt: FormatOption = Format.table
) -> None:
    """Undo the newest change of a view: a publication, or a layer that was switched. Twice undoes two.

    Gates of the policy are not checked.

    Example: resight runs rollback
    """
    tables = Tables(Settings().tables_url)
    now = publishing.rollback(tables, view, reason)
    for words in publishing.rollback_words(tables, now):
        note(words)
    print_facts(_facts(now), fmt)
    tell_silent(tables, now)


def prune_command(
    yes: Annotated[bool, typer.Option("--yes", help="remove; without it, only say what")] = False,
    keep_days: Annotated[
        float, typer.Option(min=0, help="what was shown in so many days can be shown again")
    ] = KEEP_DAYS,
    store: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="another model store whose aliases keep results (repeat it); without it, all that have results here",
        ),
    ] = None,
    fmt: FormatOption = Format.table,
) -> None:
    """Say which results are kept and why, and with --yes remove those that nothing needs.

    Example: resight runs prune --keep-days 30
    """
    settings = Settings()
    tables, own = Tables(settings.tables_url), settings.models_url
    aliased: dict[str, str] = {}
    for url in [own, *(other_stores(tables.url, own) if store is None else store)]:
        aliased |= _aliased(ModelStore(url), "" if url == own else f" of {url}")
    if yes:
        removed = prune(tables, aliased, keep_days)
        print_rows([_use(use, fmt) for use in removed], fmt, COLUMNS)
        note(f"removed {len(removed)} inference keys; their files leave the disk after a week")
        return
    uses = plan_prune(tables, aliased, keep_days)
    print_rows([_use(use, fmt) for use in uses], fmt, COLUMNS)
    free = [use for use in uses if not use.kept]
    mib = sum(use.bytes for use in free) / 2**20
    note(f"{len(free)} of {len(uses)} inference keys ({mib:.1f} MiB) are not needed")
    if free:
        note("nothing was removed: add --yes")


def _aliased(store: ModelStore, whose: str) -> dict[str, str]:
    """Map each inference key to words about the alias that refers to it or tries it (canary, shadow).

    Raises ModelError; StorageUnreachable where no model is at all, for then no alias can be seen.
    """
    if not any(store.versions(name) for name in store.names()):
        raise StorageUnreachable(f"no model is in {store.url}; is it mounted?")
    found: dict[str, str] = {}
    for name in store.names():
        for alias, state in read_state(store, name).aliases.items():
            for version in sorted(state.versions()):
                described = store.describe(version_id(name, version))
                words = f"alias {name}:{alias}{whose} has version {version}"
                found[described.info.inference_key] = words
    return found


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
