"""The command `models add`: add a weights file as a model version and report what was recognised in it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.output import Format, FormatOption, note, print_facts
from model_store.errors import BadRequest
from model_store.lazy_imports import lazy_imports
from model_store.names import DEFAULT_ALIAS, name_of_file, version_id

with lazy_imports():
    from model_store import probe as golden
    from model_store.adding.add import add_next_version, add_version, already_there, recognised
    from model_store.adding.recognise import Recognised
    from model_store.inference_key import sha256_hex
    from model_store.names import VersionId, get_first_model
    from model_store.runtimes.weights_file import read_weights
    from model_store.storage import absolute
    from model_store.store import ModelInfo, ModelStore, ModelVersion, versions_at
    from serve.settings import Settings


def register(app: typer.Typer) -> None:
    app.command()(add)


def store() -> ModelStore:
    return ModelStore(Settings().models_url)


def identity_of(info: ModelInfo) -> dict[str, Any]:
    return {"model": str(info.id), "weights_sha256": info.weights_sha256, "inference_key": info.inference_key}


def add(
    weights: Annotated[Path | None, typer.Argument(help=".onnx or .pt2 file; not used with the runtime motion")] = None,
    name: Annotated[str | None, typer.Option(help="model name; default: the name of the file")] = None,
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
        raise BadRequest(_folder(weights))
    extra = {f"probe/{path.name}": _bytes(path) for path in probe or []}
    extra |= {"README.md": _bytes(readme)} if readme else {}
    extra |= {"LICENSE": _bytes(licence)} if licence else {}
    overrides = _json(config) if config else {}
    name = version_id(_name(name, weights), version or "1").name
    data = _weights(weights) if weights else None
    runtime = overrides.get("runtime")
    if data is None and not (isinstance(runtime, dict) and runtime.get("kind") == "motion"):
        raise BadRequest("a weights file is missing; only a config with the runtime motion needs none")
    models, recognition = store(), recognised(data, overrides)
    existing = already_there(models, name, recognition.config, data) if version is None else None
    if existing is not None:
        print_facts(_facts(existing.info, recognition, fmt), fmt)
        _note_existing(existing, extra)
        return
    if version is None:
        added = add_next_version(models, name, data, extra, recognition)
    else:
        added = add_version(models, version_id(name, version), data, overrides, extra, recognition)
    print_facts(_facts(added.info, recognition, fmt), fmt)
    if not probe:
        note("no --probe image was given: the golden probe uses a synthetic image; a photograph is better")
    outside = 0
    if recognition.config.kind == "detector":
        outside = golden.outside_picture({golden.EXPECTED: models.read_file(added, golden.EXPECTED)})
    if outside:
        note(
            f"{outside} detections of the probe lie outside the picture: its pixels are probably not prepared as in "
            "training; set preprocess (channel_order, divide_by, resize) in --config, add another version, "
            "and check it with 'resight detect --draw'"
        )
    note("added; " + how_to_serve(models, added.id))


def _facts(info: ModelInfo, recognition: Recognised, fmt: Format) -> dict[str, Any]:
    """Return the identity and what was recognised: as lines of a table, or as one object."""
    if fmt is Format.table:
        lines = {reason.what: f"{reason.found}  ({reason.why})" for reason in recognition.reasons}
        return identity_of(info) | lines
    reasons = {r.what: {"found": r.found, "why": r.why} for r in recognition.reasons}
    return identity_of(info) | {"recognised": reasons}


def _note_existing(existing: ModelVersion, extra: Mapping[str, bytes]) -> None:
    note(f"{existing.id} already has these weights and this config: nothing was added")
    new = [name for name, data in extra.items() if existing.digests.get(name) != sha256_hex(data)]
    if new:
        note(f"to add it again with {', '.join(new)}, use another --version")


def _name(given: str | None, weights: Path | None) -> str:
    if given is not None:
        return given
    if weights is None:
        raise BadRequest("a name is required without a weights file: give one with --name")
    return name_of_file(weights.stem)


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


def _folder(path: Path) -> str:
    """Return an error text for a folder in place of a weights file."""
    if versions_at(absolute(str(path)))[1]:
        return f"{path} is in a model store: copy the version with: resight models pull {shlex.quote(str(path))}"
    return f"{path} is a folder: use the .onnx or .pt2 file in it"


def _weights(path: Path) -> bytes:
    try:
        return read_weights(path)
    except OSError as error:
        raise BadRequest(f"cannot read {path}: {error.strerror}") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadRequest(f"cannot read {path}: {error.strerror}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_bytes(path))
    except ValueError as error:
        raise BadRequest(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadRequest(f"{path} must contain a JSON object")
    return value
