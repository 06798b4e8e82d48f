"""The commands `models add, pull, list, show, verify, remove`: the model store. Need no cluster."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import rollout
from cli.output import Format, FormatOption, note, print_facts, print_rows
from model_store.errors import BadRequest, ImageError, ModelError, ModelNotFound, ResightError, StorageError
from model_store.lazy_imports import lazy_imports
from model_store.names import DEFAULT_ALIAS, VERSION, name_of_file, parse_ref, version_id

with lazy_imports():
    from archive.delta.tables import Tables
    from batch.planning.scaled_decoding import frequent_jpegs, measure
    from batch.remove_model import require_unneeded
    from model_store import probe as golden
    from model_store.adding.add import add_next_version, add_version, already_there, recognised
    from model_store.adding.recognise import Recognised
    from model_store.detector import LoadedDetector
    from model_store.images.decode import decode
    from model_store.inference_key import sha256_hex
    from model_store.load import load_model, opened, require
    from model_store.names import VersionId, get_first_model, parse_version
    from model_store.repair import repair, repair_weights
    from model_store.runtimes.weights_file import read_weights
    from model_store.storage import absolute
    from model_store.store import ModelInfo, ModelStore, ModelVersion
    from serve.api.models import model_statuses, rollout_words
    from serve.models.pools import Serving
    from serve.rollout.state import read_state
    from serve.settings import Settings
    from serve.tune.plan import useful_shrink

app = typer.Typer(help="Immutable model versions and the aliases that point to them.", no_args_is_help=True)

MIN_SPEEDUP = 1.1
"""Gain of scaled decoding below which it is not mentioned."""
COLUMNS = ("model", "kind", "aliases", "rollout", "weights_sha256", "inference_key")
MODEL = "name, name@version or name:alias; default: the published model, or the only one"
StoredModel = Annotated[str, typer.Argument(help="name, name@version or name:alias")]


@app.command()
def add(
    weights: Annotated[Path | None, typer.Argument(help=".onnx or .pt2 file; not used with the runtime motion")] = None,
    name: Annotated[
        str | None, typer.Option(help="model name; default: the name of the file without suffixes such as .fp16")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="version, immutable once added; default: the next whole number")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="JSON file with settings that the weights file lacks")] = None,
    probe: Annotated[list[Path] | None, typer.Option(help="image for the golden probe; repeatable")] = None,
    readme: Annotated[Path | None, typer.Option(help="file to store as README.md of the version")] = None,
    licence: Annotated[Path | None, typer.Option(help="file to store as LICENSE of the version")] = None,
    fmt: FormatOption = Format.table,
) -> None:
    """Add a version: recognise the weights, run the probe, write the files with READY last.

    Prints what was recognised, and why. The same weights with the same config are added only once, unless
    --version gives another version.

    Example: resight models add deer.onnx --probe buck.jpg
    """
    if weights is not None and weights.is_dir():
        if _versions_at(absolute(str(weights)))[1]:
            pull = f"resight models pull {shlex.quote(str(weights))}"
            raise BadRequest(f"{weights} is in a model store: copy the version with: {pull}")
        raise BadRequest(f"{weights} is a folder: use the .onnx or .pt2 file in it")
    extra = {f"probe/{path.name}": _probe(path) for path in probe or []}
    if len(extra) < len(probe or []):
        raise BadRequest("two --probe images have the same file name, and one would replace the other: rename one")
    extra |= {"README.md": _bytes(readme)} if readme else {}
    extra |= {"LICENSE": _bytes(licence)} if licence else {}
    overrides = _json(config) if config else {}
    runtime = overrides.get("runtime")
    if weights is None and not (isinstance(runtime, dict) and runtime.get("kind") == "motion"):
        raise BadRequest(
            "a weights file is missing: give the .onnx or .pt2 file (only a config with the runtime motion needs none)"
        )
    if name is None and weights is None:
        raise BadRequest("a name is required without a weights file: give one with --name")
    name = version_id(name or name_of_file(weights.stem if weights else ""), version or "1").name
    data = _bytes(weights, read_weights) if weights else None
    models, recognition = _store(), recognised(data, overrides)
    existing = already_there(models, name, recognition.config, data) if version is None else None
    if existing is not None:
        if data is not None and (repaired := repair_weights(models, existing, data)):
            note(f"repaired: {repaired}")
        models.verify(existing.id)
        print_facts(_facts(existing.info, recognition, fmt), fmt)
        note(f"{existing.id} already has these weights and this config: nothing was added")
        new = [file for file, content in extra.items() if existing.digests.get(file) != sha256_hex(content)]
        if new:
            note(f"to add it again with {', '.join(new)}, use another --version")
        return
    if version is None:
        added = add_next_version(models, name, data, extra, recognition)
    else:
        added = add_version(models, version_id(name, version), data, overrides, extra, recognition)
    print_facts(_facts(added.info, recognition, fmt), fmt)
    if not probe:
        note("no --probe image was given: the golden probe uses a synthetic image; a photograph is better")
    outside, found = 0, recognition.config
    if found.kind == "detector":
        outside = golden.outside_picture(found, models.read_file(added, golden.EXPECTED))
    if outside:
        note(
            f"{outside} detections of the probe, at the model's thresholds, lie outside the picture: its pixels are "
            "probably not prepared as in training, or the decoder is another one; set preprocess (channel_order, "
            "divide_by, resize) or decoder in --config, add another version, and check it with 'resight detect --draw'"
        )
    if found.kind == "detector" and found.runtime.kind != "motion":
        _note_scaled_decoding(models, added)
    note("added; " + how_to_serve(models, added.id))


def _note_scaled_decoding(models: ModelStore, added: ModelVersion) -> None:
    """Note what scaled decoding would gain on the pictures of the catalogue, if that is worth another version."""
    spec = added.detector_config.preprocess
    try:
        jpegs = frequent_jpegs(Tables(Settings().mounted_tables_url))
        if factor := useful_shrink(spec, jpegs):
            model = require(LoadedDetector, opened(added.info, added.config, models.read_files(added)))
            gain = measure(model, jpegs, factor)
            if gain.speedup < MIN_SPEEDUP:
                return
            note(
                f"{gain}. It makes another version: set preprocess.jpeg_shrink in --config; 'resight tune "
                f"{added.id.name}' measures it under load"
            )
    except ResightError as error:  # the version is added, and this is advice
        note(f"what scaled decoding (jpeg_shrink) would gain was not measured: {error}")


@app.command()
def pull(
    source: Annotated[
        str, typer.Argument(help="folder or s3:// URL of another model store, or of a model or version in it")
    ],
    model: Annotated[
        str, typer.Argument(metavar="[NAME[@VERSION|:ALIAS]]", help="version to copy; optional if there is only one")
    ] = "",
    fmt: FormatOption = Format.table,
) -> None:
    """Copy a version from another store and verify every file. Of a version that is here, damaged files are replaced.

    Example: resight models pull examples/models/ssdlite-coco
    """
    other, wanted = _version_in(source, model)
    files, ours = other.read_files(other.describe(wanted)), _store()
    if wanted in ours.versions(wanted.name):
        repaired = ", ".join(repair(ours, wanted, files))
        note(f"{wanted} is already in {ours.url}{repaired and f'; repaired: {repaired}'}")
    else:
        ours.publish(wanted, files)
        note(f"{wanted} copied to {ours.url}; {how_to_serve(ours, wanted)}")
    print_facts(_identity(ours.describe(wanted).info), fmt)


def _version_in(source: str, model: str) -> tuple[ModelStore, VersionId]:
    """Return the selected version and its store. Raises BadRequest, with their names, if there are several."""
    other, versions = _versions_at(absolute(source))
    if model:
        other, ref = ModelStore(absolute(source)), parse_ref(model)
        if ref.version or ":" in model:
            return other, other.resolve(ref)
        versions = other.require_model(ref.name)
    if not versions:
        raise ModelNotFound(
            f"no model version in {source}; to add a weights file, such as .onnx: resight models add FILE"
        )
    if len(versions) > 1:
        raise BadRequest(
            f"{source} has several versions: {', '.join(map(str, versions))}; choose one: resight models pull "
            f"{shlex.quote(other.url)} {versions[0]}"
        )
    return other, versions[0]


def _versions_at(url: str) -> tuple[ModelStore, list[VersionId]]:
    """Return the store at `url` and its READY versions; `url` may also be that of a model or a version."""
    for depth in range(3):
        place, *names = url.rsplit("/", depth)
        if not place or not all(map(VERSION.fullmatch, names)):
            continue
        store = ModelStore(place)
        of_models = [v for name in names[:1] or store.names() for v in store.versions(name)]
        versions = [v for v in of_models if names[1:] in ([], [v.version])]
        if versions:
            return store, versions
    return ModelStore(url), []


@app.command("list")
def list_models(fmt: FormatOption = Format.table) -> None:
    """List every READY version with its aliases, and canaries, shadows and pins.

    Example: resight models list --format json
    """
    models = _store()
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
            note(f"unusable: {what}: {why.removeprefix(f'{what}: ')}")
    for name in models.names():
        with contextlib.suppress(StorageError):  # which is among the failures
            for version in models.unfinished(name):
                note(
                    f"unfinished: {version} is being added, or its addition was interrupted: then repeat 'models add' "
                    f"with --version {version.version}, or run 'resight models remove {version} --yes'"
                )


@app.command()
def show(model: StoredModel, fmt: FormatOption = Format.table) -> None:
    """Show a version: identity, aliases, canary, shadow and pin, config and files.

    Example: resight models show ssdlite-coco
    """
    models = _store()
    described = models.describe(models.resolve(parse_ref(model)))
    name, version = described.id.name, described.id.version
    aliases = [a for a, target in sorted(models.aliases(name).items()) if target == version]
    facts = _identity(described.info) | {"aliases": ", ".join(aliases)}
    facts["rollout"] = rollout_words(models, [name]).get(str(described.id), "")
    config = described.config.model_dump(mode="json")
    print_facts(facts | config | {"files": dict(described.digests)}, fmt)


@app.command()
def verify(model: StoredModel, fmt: FormatOption = Format.table) -> None:
    """Hash every file, load the weights and run the golden probe. Exit code 6 if one of these fails.

    A name alone verifies every version that its aliases, canaries and shadows refer to, and those to roll back to.

    Example: resight models verify ssdlite-coco
    """
    models, ref = _store(), parse_ref(model)
    versions = _named_versions(models, ref.name) if model == ref.name else []
    versions, wrong = versions or [models.resolve(ref)], list[ModelError]()
    for version in versions:
        try:
            load_model(models, version)
            note(f"{version} is valid: every digest matches and the probe is reproduced")
        except ModelError as error:
            wrong.append(error)
    for error in wrong[1:]:
        note(str(error))
    if wrong:
        raise wrong[0]
    rows = [_identity(models.describe(version).info) for version in versions]
    if model == ref.name:
        print_rows(rows, fmt)
    else:
        print_facts(rows[0], fmt)


def _named_versions(models: ModelStore, name: str) -> list[VersionId]:
    """Return the versions that the aliases of a model refer to, and the stored ones of their history."""
    states = read_state(models, name).aliases.values()
    named = {v for state in states for v in state.versions()} | set(models.aliases(name).values())
    past = {v for state in states for v in state.previous} & {v.version for v in models.versions(name)}
    return [version_id(name, version) for version in sorted(named | past)]


@app.command()
def remove(
    version: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="exact version to remove")],
    yes: Annotated[bool, typer.Option("--yes", help="remove the files; without it, they are only listed")] = False,
    fmt: FormatOption = Format.table,
) -> None:
    """Remove the weights and all other files of a version from the store.

    Refused, with a way out, while an alias, canary, shadow, published view or running run needs it. Table rows and
    the version names in them are kept; 'resight runs prune' removes rows. The version number is not reused for other
    weights: pull the version again to restore it, or add the same files with --version.

    Example: resight models remove deer@2 --yes
    """
    models, settings = _store(), Settings()
    unwanted = parse_version(version, models.versions)
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


def _store() -> ModelStore:
    return ModelStore(Settings().models_url)


def _identity(info: ModelInfo) -> dict[str, Any]:
    return {"model": str(info.id), "weights_sha256": info.weights_sha256, "inference_key": info.inference_key}


def _facts(info: ModelInfo, recognition: Recognised, fmt: Format) -> dict[str, Any]:
    """Return the identity and what was recognised: as lines of a table, or as one object."""
    if fmt is Format.table:
        lines = {reason.what: f"{reason.found}  ({reason.why})" for reason in recognition.reasons}
        return _identity(info) | lines
    reasons = {r.what: {"found": r.found, "why": r.why} for r in recognition.reasons}
    return _identity(info) | {"recognised": reasons}


def how_to_serve(models: ModelStore, version: VersionId) -> str:
    """Return the command that serves a new version; note if the bare name of its model is ambiguous."""
    words, versions = (f"serve it with: resight models promote {version}", models.versions(version.name))
    if len(versions) == 1 or DEFAULT_ALIAS in models.aliases(version.name):
        return words
    choices = ", ".join(map(str, versions))
    return f"{words}; until one is promoted, '{version.name}' refers to none of {choices}"


def next_step(models: ModelStore) -> str:
    """Return the command after which a first model is served: add one, or promote one of the store."""
    versions = [version for name in models.names() for version in models.versions(name)]
    return f"resight models promote {versions[0]}" if versions else get_first_model()


def _bytes(path: Path, read: Callable[[Path], bytes] = Path.read_bytes) -> bytes:
    try:
        return read(path)
    except OSError as error:
        reason = "it is a URL: download the file first" if ":/" in str(path) else error.strerror
        raise BadRequest(f"cannot read {path}: {reason}") from error


def _probe(path: Path) -> bytes:
    data = _bytes(path)
    try:
        decode(data)
    except ImageError as error:
        raise BadRequest(f"probe {path}: {error}") from error
    return data


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_bytes(path))
    except ValueError as error:
        raise BadRequest(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadRequest(f"{path} must contain a JSON object")
    return value


app.add_typer(rollout.app)
