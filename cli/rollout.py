"""The commands `models promote, rollback, canary, shadow, pin, unpin, release, reload, history`.

With a cluster or 'resight serve' they use its HTTP API and end when every replica has acknowledged the change. Without
either, they validate the version on this machine and write to the store.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.output import Format, FormatOption, note, print_facts, print_rows
from model_store.errors import ClusterError
from model_store.lazy_imports import lazy_imports
from model_store.names import DEFAULT_ALIAS, parse_ref, parse_version

with lazy_imports():
    from model_store.names import VersionId
    from model_store.store import ModelStore
    from serve.client import Client
    from serve.cluster.head import read_state
    from serve.embedded.home_lock import served_at
    from serve.rollout.client import apply_offline
    from serve.rollout.operations import Operation, events
    from serve.settings import Settings

app = typer.Typer()
Version = Annotated[str, typer.Argument(metavar="NAME@VERSION", help="exact version of a model")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="name of a model in the store")]
Alias = Annotated[str, typer.Option(help="the alias to move")]
Percent = Annotated[float, typer.Argument(min=0, max=100, help="percentage of the images; 0 ends it")]


@app.command()
def promote(version: Version, alias: Alias = DEFAULT_ALIAS, fmt: FormatOption = Format.table) -> None:
    """Point an alias to a version after every replica has loaded and probed it.

    Example: resight models promote ssdlite-coco@2
    """
    _apply(fmt, "promote", version, alias=alias)


@app.command()
def rollback(name: Name, alias: Alias = DEFAULT_ALIAS, fmt: FormatOption = Format.table) -> None:
    """Point an alias back to its previous version at once. Each call goes back one more version.

    Example: resight models rollback ssdlite-coco
    """
    _apply(fmt, "rollback", name, alias=alias)


@app.command()
def canary(version: Version, percent: Percent, alias: Alias = DEFAULT_ALIAS, fmt: FormatOption = Format.table) -> None:
    """Let a version answer a percentage of the images of an alias; one image always gets the same version.

    Example: resight models canary ssdlite-coco@2 10
    """
    _apply(fmt, "canary", version, percent=percent, alias=alias)


@app.command()
def shadow(version: Version, percent: Percent, alias: Alias = DEFAULT_ALIAS, fmt: FormatOption = Format.table) -> None:
    """Run a version on a percentage of the images of an alias and compare; it never answers.

    Example: resight models shadow ssdlite-coco@2 25
    """
    _apply(fmt, "shadow", version, percent=percent, alias=alias)


@app.command()
def pin(name: Name, alias: Alias = DEFAULT_ALIAS, fmt: FormatOption = Format.table) -> None:
    """Pin an alias: nothing can move it until it is unpinned.

    Example: resight models pin ssdlite-coco
    """
    _apply(fmt, "pin", name, alias=alias)


@app.command()
def unpin(name: Name, alias: Alias = DEFAULT_ALIAS, fmt: FormatOption = Format.table) -> None:
    """Unpin an alias, so that it can be moved again.

    Example: resight models unpin ssdlite-coco
    """
    _apply(fmt, "unpin", name, alias=alias)


@app.command()
def release(version: Version, fmt: FormatOption = Format.table) -> None:
    """Free the memory of a version that no alias refers to and no run uses.

    Example: resight models release ssdlite-coco@1
    """
    _apply(fmt, "release", version)


@app.command()
def reload() -> None:
    """Make every replica read the alias files now instead of at its next check.

    Example: resight models reload
    """
    client = running_client(Settings())
    if client is None:
        raise ClusterError("neither a cluster nor 'resight serve' is running; alias files are read when one starts")
    with client:
        client.reload()
    note("every replica has reloaded the alias files")


@app.command()
def history(
    name: Name,
    most: Annotated[int, typer.Option(min=1, help="maximum number of events, newest first")] = 20,
    fmt: FormatOption = Format.table,
) -> None:
    """List every promotion, roll-back and refusal of a model, newest first.

    Example: resight models history ssdlite-coco
    """
    columns = ("at", "what", "state", "before", "after", "s", "detail")
    rows = []
    store, name = ModelStore(Settings().models_url), parse_ref(name).name
    if not (found := events(store, name, most)):
        store.require_model(name)
    for event in found:
        outcome = event.outcome
        values = (
            f"{event.at:%Y-%m-%dT%H:%M:%SZ}",
            f"{outcome.operation.kind} {outcome.operation.alias}",
            outcome.state,
            event.before.active if event.before else None,
            event.after.active if event.after else None,
            outcome.seconds,
            outcome.detail,
        )
        rows.append(dict(zip(columns, values, strict=True)))
    print_rows(rows, fmt, columns)


def release_in_replicas(version: VersionId) -> None:
    """Free the memory of a version if replicas are running. Raises Conflict if an alias or a run uses the version."""
    client = running_client(Settings())
    if client is not None:
        with client:
            client.apply(Operation(kind="release", name=version.name, version=version.version))


def _apply(fmt: Format, kind: str, model: str, **fields: Any) -> None:
    if kind in ("rollback", "pin", "unpin"):
        fields["name"] = parse_ref(model).name
    else:
        store = ModelStore(Settings().models_url)
        only = store.only_version(model) if model == parse_ref(model).name else None
        wanted = only or parse_version(model, store.versions)
        fields |= {"name": wanted.name, "version": wanted.version}
    operation, settings = Operation.model_validate({"kind": kind, **fields}), Settings()
    if (client := running_client(settings)) is None:
        outcome = apply_offline(ModelStore(settings.models_url), operation)
    else:
        with client:
            outcome = client.apply(operation)
    note(outcome.detail)
    facts = {"model": operation.name, "alias": operation.alias, "operation": operation.kind}
    print_facts(facts | {"detail": outcome.detail, "seconds": outcome.seconds}, fmt)


def running_client(settings: Settings) -> Client | None:
    """Return a client of the cluster or process that serves this home, else of RESIGHT_ENDPOINT; None without any."""
    state = read_state(settings)
    url = state.reachable_url if state else served_at(settings) or settings.endpoint
    return Client(url, settings.token) if url else None
