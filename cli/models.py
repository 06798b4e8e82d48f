"""models pull, list, show, verify, remove: the store, whether or not a cluster runs."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from cli import model_add, rollout
from cli.model_add import how_to_serve, identity_of, store
from cli.output import Format, FormatOption, note, print_facts, print_rows
from model_store.errors import BadRequest, ModelError, ModelNotFound
from model_store.lazy_imports import lazy_imports
from model_store.names import parse_ref, version_id

with lazy_imports():
    from archive.tables import Tables
    from batch.remove_model import require_unneeded
    from model_store.loaded import load_model
    from model_store.names import VersionId, parse_version
    from model_store.storage import absolute
    from model_store.store import ModelStore, versions_at
    from serve.model_status import model_statuses, rollout_words
    from serve.serving import Serving
    from serve.settings import Settings

app = typer.Typer(
    help="Immutable model versions and the aliases that point at them.", no_args_is_help=True
)

COLUMNS = ("model", "kind", "aliases", "rollout", "weights_sha256", "inference_key")
MODEL = "name, name@version or name:alias; default: the published model, or the only one"

model_add.register(app)
rollout.register(app)


@app.command()
def pull(
    source: Annotated[
        str,
        typer.Argument(
            help="another model store, or a model or version in it: folder or s3:// URL"
        ),
    ],
    model: Annotated[
        str,
        typer.Argument(
            metavar="[NAME[@VERSION]]", help="which; not needed where there is only one version"
        ),
    ] = "",
    fmt: FormatOption = Format.table,
) -> None:
    """Copy a version from another store, every file verified; identical ones are left alone.

    Example: resight models pull examples/models/ssdlite-coco
    """
    other, wanted = _version_in(source, model)
    found, ours = other.describe(wanted), store()
    if wanted in ours.versions(wanted.name):
        if ours.describe(wanted).digests != found.digests:
            raise ModelError(f"{wanted} is already in {ours.url}, with other files")
        note(f"{wanted} is already in {ours.url}")
    else:
        ours.publish(wanted, other.read_files(found))
        note(f"{wanted} copied to {ours.url}; {how_to_serve(ours, wanted)}")
    print_facts(_identity(wanted.name, wanted.version), fmt)


def _version_in(source: str, model: str) -> tuple[ModelStore, VersionId]:
    """Return the only version that is meant, and its store. Raises BadRequest that lists them if there are several."""
    other, found = versions_at(absolute(source))
    if model:
        other, ref = ModelStore(absolute(source)), parse_ref(model)
        if ref.version:
            return other, VersionId(ref.name, ref.version)
        found = other.require_model(ref.name)
    if not found:
        raise ModelNotFound(f"no version of a model is in {source}")
    if len(found) > 1:
        raise BadRequest(
            f"{source} has several versions: {', '.join(map(str, found))}; name one: resight models pull "
            f"{shlex.quote(other.url)} {found[0]}"
        )
    return other, found[0]


@app.command("list")
def list_models(fmt: FormatOption = Format.table) -> None:
    """Every READY version with its aliases, and which are canaries, shadows or pinned.

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
    for version in (one for name in models.names() for one in models.unfinished(name)):
        note(
            f"unfinished: {version}: it is being added, or that was cut off; then repeat 'models add' with "
            f"--version {version.version}, or 'resight models remove {version} --yes'"
        )


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="name, name@version or name:alias")],
    fmt: FormatOption = Format.table,
) -> None:
    """One version: identity, aliases, canary, shadow and pin, config and files.

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
    model: Annotated[str, typer.Argument(help="name, name@version or name:alias")],
    fmt: FormatOption = Format.table,
) -> None:
    """Hash every file, load the weights and run the golden probe. Exit code 6 when it fails.

    Example: resight models verify ssdlite-coco@1
    """
    models = store()
    version = models.resolve(parse_ref(model))
    load_model(models, version)
    note(f"{version} is sound: every digest matches, and the probe is reproduced")
    print_facts(_identity(version.name, version.version), fmt)


@app.command()
def remove(
    version: Annotated[str, typer.Argument(metavar="NAME@VERSION")],
    yes: Annotated[bool, typer.Option("--yes", help="remove; without it, only say what")] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Remove the weights and all other files of a version from the store.

    Refused, with the way out, while an alias, a canary, a shadow, a published view or a running run needs it. No row
    of any table is removed (that is 'resight runs prune'); rows keep the name of the version that made them. Its
    number is not given to other weights: to add or pull the same files again brings it back.

    Example: resight models remove deer@2 --yes
    """
    unwanted, models, settings = parse_version(version), store(), Settings()
    tables = Tables(settings.tables_url)

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
