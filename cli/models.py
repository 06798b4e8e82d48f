"""The commands `models pull, list, show, verify, remove`: the model store. Need no cluster."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from cli import model_add, rollout
from cli.model_add import how_to_serve, identity_of, store
from cli.output import Format, FormatOption, note, print_facts, print_rows
from model_store.errors import BadRequest, ModelNotFound
from model_store.lazy_imports import lazy_imports
from model_store.names import parse_ref, version_id

with lazy_imports():
    from archive.delta.tables import Tables
    from batch.remove_model import require_unneeded
    from model_store.load import load_model
    from model_store.names import VersionId, parse_version
    from model_store.repair import repair
    from model_store.storage import absolute
    from model_store.store import ModelStore, versions_at
    from serve.api.models import model_statuses, rollout_words
    from serve.models.readiness import Serving
    from serve.settings import Settings

app = typer.Typer(help="Immutable model versions and the aliases that point to them.", no_args_is_help=True)

COLUMNS = ("model", "kind", "aliases", "rollout", "weights_sha256", "inference_key")
MODEL = "name, name@version or name:alias; default: the published model, or the only one"

model_add.register(app)
rollout.register(app)


@app.command()
def pull(
    source: Annotated[
        str, typer.Argument(help="folder or s3:// URL of another model store, or of a model or version in it")
    ],
    model: Annotated[
        str, typer.Argument(metavar="[NAME[@VERSION]]", help="version to copy; optional if there is only one")
    ] = "",
    fmt: FormatOption = Format.table,
) -> None:
    """Copy a version from another store and verify every file. Of a version that is here, damaged files are replaced.

    Example: resight models pull examples/models/ssdlite-coco
    """
    other, wanted = _version_in(source, model)
    files, ours = other.read_files(other.describe(wanted)), store()
    if wanted in ours.versions(wanted.name):
        repaired = ", ".join(repair(ours, wanted, files))
        note(f"{wanted} is already in {ours.url}{repaired and f'; repaired: {repaired}'}")
    else:
        ours.publish(wanted, files)
        note(f"{wanted} copied to {ours.url}; {how_to_serve(ours, wanted)}")
    print_facts(_identity(wanted.name, wanted.version), fmt)


def _version_in(source: str, model: str) -> tuple[ModelStore, VersionId]:
    """Return the selected version and its store. Raises BadRequest, with their names, if there are several."""
    other, versions = versions_at(absolute(source))
    if model:
        other, ref = ModelStore(absolute(source)), parse_ref(model)
        if ref.version:
            return other, VersionId(ref.name, ref.version)
        versions = other.require_model(ref.name)
    if not versions:
        raise ModelNotFound(f"no model version in {source}")
    if len(versions) > 1:
        raise BadRequest(
            f"{source} has several versions: {', '.join(map(str, versions))}; choose one: resight models pull "
            f"{shlex.quote(other.url)} {versions[0]}"
        )
    return other, versions[0]


@app.command("list")
def list_models(fmt: FormatOption = Format.table) -> None:
    """List every READY version with its aliases, and canaries, shadows and pins.

    Example: resight models list --format json
    """
    models = store()
    statuses = model_statuses(models, Serving())
    words = rollout_words(models, models.names())
    rows = [
        {
            "model": f"{status.name}@{version.version}",
            "kind": version.kind,
            "aliases": ", ".join(version.aliases),
            "rollout": words.get(f"{status.name}@{version.version}", ""),
            "weights_sha256": version.weights_sha256[:12],
            "inference_key": version.inference_key[:12],
        }
        for status in statuses
        for version in status.versions
    ]
    print_rows(rows, fmt, COLUMNS)
    for status in statuses:
        for what, why in status.failures.items():
            note(f"unusable: {what}: {why}")
    for version in (v for name in models.names() for v in models.unfinished(name)):
        note(
            f"unfinished: {version} is being added, or its addition was interrupted: then repeat 'models add' with "
            f"--version {version.version}, or run 'resight models remove {version} --yes'"
        )


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="name, name@version or name:alias")], fmt: FormatOption = Format.table
) -> None:
    """Show a version: identity, aliases, canary, shadow and pin, config and files.

    Example: resight models show ssdlite-coco
    """
    models = store()
    described = models.describe(models.resolve(parse_ref(model)))
    name, version = described.id.name, described.id.version
    aliases = [a for a, target in sorted(models.aliases(name).items()) if target == version]
    facts = _identity(name, version) | {"aliases": ", ".join(aliases)}
    facts["rollout"] = rollout_words(models, [name]).get(str(described.id), "")
    config = described.config.model_dump(mode="json")
    print_facts(facts | config | {"files": dict(described.digests)}, fmt)


@app.command()
def verify(
    model: Annotated[str, typer.Argument(help="name, name@version or name:alias")], fmt: FormatOption = Format.table
) -> None:
    """Hash every file, load the weights and run the golden probe. Exit code 6 if one of these fails.

    Example: resight models verify ssdlite-coco@1
    """
    models = store()
    version = models.resolve(parse_ref(model))
    load_model(models, version)
    note(f"{version} is valid: every digest matches and the probe is reproduced")
    print_facts(_identity(version.name, version.version), fmt)


@app.command()
def remove(
    version: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="exact version to remove")],
    yes: Annotated[bool, typer.Option("--yes", help="remove the files; without it, they are only listed")] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Remove the weights and all other files of a version from the store.

    Refused, with a way out, while an alias, canary, shadow, published view or running run needs it. Table rows and
    the version names in them are kept; 'resight runs prune' removes rows. The version number is not reused for other
    weights: add or pull the same files to restore it.

    Example: resight models remove deer@2 --yes
    """
    unwanted, models, settings = parse_version(version), store(), Settings()
    tables = Tables(settings.mounted_tables_url)

    def require() -> None:
        require_unneeded(models, tables, unwanted)

    files = models.files(unwanted)
    require()
    if yes:
        rollout.release_in_replicas(unwanted)
        models.remove(unwanted, require)
    print_facts({"model": str(unwanted), "files": ", ".join(files), "removed": yes}, fmt)
    if not yes:
        note("nothing was removed: add --yes")


def _identity(name: str, version: str) -> dict[str, Any]:
    return identity_of(store().describe(version_id(name, version)).info)
