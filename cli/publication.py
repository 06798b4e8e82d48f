"""The commands `runs diff, publish, rollback, prune`: compare results, publish them, remove unused ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from archive.defaults import KEEP_DAYS, PRODUCTION
from cli.layers import layer_words, note_never_run
from cli.output import Format, FormatOption, ViewName, note, print_facts, print_rows
from model_store.errors import GateClosed, StorageUnreachable
from model_store.lazy_imports import lazy_imports
from model_store.names import version_id

with lazy_imports():
    from archive.delta.tables import Tables
    from archive.retention import KeyUse, other_stores, plan_prune, prune
    from archive.views.views import View, Views
    from batch.crops.write import folders_of
    from batch.publishing import publish as publishing
    from batch.publishing.impact.measure import Impact
    from batch.publishing.impact.report import as_json, judged, write_report
    from batch.publishing.impact.verdict import Verdict, failed, model_of
    from batch.schedule.archive_state import schedule_words
    from model_store.storage import absolute
    from model_store.store import ModelStore
    from serve.report_folder import require_empty
    from serve.rollout.state import read_state
    from serve.settings import Settings

app = typer.Typer()
Reason = Annotated[str, typer.Option(help="reason that is recorded with the publication")]
COLUMNS = ("inference_key", "model", "rows", "snips", "classifications", "embeddings", "files", "bytes")
COLUMNS += ("last_run_at", "kept")


@app.command()
def diff(
    old: Annotated[str, typer.Argument(help="run id, name@version, or a view such as published")],
    new: Annotated[str, typer.Argument(help="run id, name@version or view that would replace OLD")],
    out: Annotated[str | None, typer.Option(help="new folder for a report with pictures")] = None,
    samples: Annotated[int, typer.Option(min=0, max=200, help="number of pictures for each kind of change")] = 6,
    gate: Annotated[bool, typer.Option("--gate", help="exit with code 5 if a gate of the policy fails")] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Show what would change if NEW were published in place of OLD. Writes only the report.

    Example: resight runs diff published 20260514T031500-9f2c1a --out impact/
    """
    settings = Settings()
    tables, models = Tables(settings.mounted_tables_url), ModelStore(settings.models_url)
    if out is not None:
        require_empty(out)
    with judged(settings, tables, models, old, new) as (comparison, found):
        shown = write_report(comparison, found, out, samples) if out is not None else []
        _print_impact(comparison.impact, found, fmt)
        if out is not None:
            note(f"report, with {len(shown)} images to look at: {absolute(out)}/index.html")
        if found.command.startswith("resight runs publish") and (
            words := schedule_words(models, comparison.impact.new)
        ):
            note(words)
    if gate and not found.passed:
        raise GateClosed("; ".join(failed(found.gates)))


@app.command()
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
    print_facts(_facts(tables, current, fmt), fmt)
    note_never_run(tables, current)
    if view == PRODUCTION and (words := schedule_words(store, current)):
        note(words)


@app.command()
def rollback(view: ViewName = PRODUCTION, reason: Reason = "", fmt: FormatOption = Format.table) -> None:
    """Undo the newest change of a view: a publication, or a layer switched on or off. Repeat it to undo more.

    Gates of the policy are not checked.

    Example: resight runs rollback
    """
    tables = Tables(Settings().mounted_tables_url)
    current = publishing.rollback(tables, view, reason)
    for text in publishing.rollback_words(tables, current):
        note(text)
    print_facts(_facts(tables, current, fmt), fmt)
    note_never_run(tables, current)


@app.command("prune")
def prune_command(
    yes: Annotated[bool, typer.Option("--yes", help="remove the results; without it, they are only listed")] = False,
    keep_days: Annotated[
        float, typer.Option(min=0, max=100_000, help="keep results that a view showed within this number of days")
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
    aliased: list[tuple[str, str]] = []
    for url in [own, *(other_stores(tables.url, own) if store is None else store)]:
        aliased += _aliased(ModelStore(url), "" if url == own else f" of {url}")
    if yes:
        removed = prune(tables, aliased, keep_days)
        print_rows([_use(use, fmt) for use in removed], fmt, COLUMNS)
        note(f"removed {len(removed)} inference keys; their files are deleted from disk after a week")
        for use in filter(lambda use: use.snips, removed):
            note(f"the JPEGs of its snips stay: remove {settings.snips_url}/{folders_of(use.inference_key)}")
        return
    uses = plan_prune(tables, aliased, keep_days)
    print_rows([_use(use, fmt) for use in uses], fmt, COLUMNS)
    free = [use for use in uses if not use.kept]
    mib = sum(use.bytes for use in free) / 2**20
    note(f"{len(free)} of {len(uses)} inference keys ({mib:.1f} MiB) are not needed")
    if free:
        note("nothing was removed: add --yes")


def _aliased(store: ModelStore, origin: str) -> list[tuple[str, str]]:
    """Return each inference key that an alias refers to, also as canary or shadow, with a description of the alias.

    Raises ModelError. Raises StorageUnreachable if the store has no model, because its aliases are unknown then.
    """
    if not any(store.versions(name) for name in store.names()):
        raise StorageUnreachable(f"no model in {store.url}; is it mounted?")
    aliased: list[tuple[str, str]] = []
    for name in store.names():
        for alias, state in read_state(store, name).aliases.items():
            for version in sorted(state.versions()):
                described = store.describe(version_id(name, version))
                words = f"alias {name}:{alias}{origin} has version {version}"
                aliased.append((described.info.inference_key, words))
    return aliased


def _facts(tables: Tables, view: View, fmt: Format) -> dict[str, Any]:
    return {
        "view": view.name,
        "number": view.serial,
        "model": f"{view.model_name}@{view.model_version}",
        "run_id": view.run_id,
        "inference_key": view.inference_key,
        "threshold": view.threshold,
        "label_thresholds": view.label_thresholds,
        "layers": layer_words(tables, view) if fmt is Format.table else list(view.layers),
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


def _print_impact(impact: Impact, found: Verdict, fmt: Format) -> None:
    if fmt is Format.json:
        print_facts(as_json(impact, found), fmt)
        return
    print_facts(_impact_facts(impact, found), fmt)
    if fmt is Format.table:
        rows: list[dict[str, Any]] = [
            {
                "label": label.label,
                **label.model_dump(exclude={"label", "shift"}),
                "mean_shift": None if label.shift is None else label.shift.mean,
            }
            for label in impact.labels
        ]
        if rows:
            print_rows(rows, fmt)


def _impact_facts(impact: Impact, found: Verdict) -> dict[str, Any]:
    images, verified = impact.images, impact.verified
    return {
        "verdict": found.headline,
        "compared": found.compared,
        "change": found.changes,
        **({"estimate": found.estimate} if found.estimate else {}),
        **{gate.name: f"{'pass' if gate.passed else 'FAIL'}: {gate.words}" for gate in found.gates},
        "next": f"{found.next} {found.command}".strip(),
        "old": f"{model_of(impact.old)} {impact.old.inference_key[:12]}",
        "new": f"{model_of(impact.new)} {impact.new.inference_key[:12]}",
        **{f"images_{name}": value for name, value in images.model_dump().items()},
        **{f"boxes_{name}": value for name, value in impact.boxes.model_dump().items()},
        **{f"verified_{name}": value for name, value in verified.model_dump().items()},
    }
