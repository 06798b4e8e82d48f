"""models add: a weights file becomes a version, with what was recognised of it and why."""

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
    from model_store.add import add_next_version, add_version, already_there, recognised
    from model_store.inference_key import sha256_hex
    from model_store.names import VersionId
    from model_store.recognise import Recognised
    from model_store.storage import absolute
    from model_store.store import ModelInfo, ModelStore, ModelVersion, versions_at
    from model_store.weights_file import read_weights
    from serve.settings import Settings


def register(app: typer.Typer) -> None:
    app.command()(add)


def store() -> ModelStore:
    return ModelStore(Settings().models_url)


def identity_of(info: ModelInfo) -> dict[str, Any]:
    return {
        "model": str(info.id),
        "weights_sha256": info.weights_sha256,
        "inference_key": info.inference_key,
    }


def add(
    weights: Annotated[
        Path | None, typer.Argument(help="an .onnx or .pt2 file; none for runtime motion")
    ] = None,
    name: Annotated[str | None, typer.Option(help="model name; default: the file's")] = None,
    version: Annotated[
        str | None,
        typer.Option(help="its version, never changed once added; default: the next whole number"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="JSON with what the weights do not say")
    ] = None,
    probe: Annotated[list[Path] | None, typer.Option(help="golden image(s); repeatable")] = None,
    readme: Annotated[Path | None, typer.Option(help="README.md of the version")] = None,
    licence: Annotated[Path | None, typer.Option(help="licence text")] = None,
    fmt: FormatOption = Format.table,
) -> None:
    """Add a version: recognise the weights, run the probe, write it with READY last.

    It prints what was recognised, and why. The same weights with the same config are added once only, unless
    another --version is named.

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
        raise BadRequest("name a weights file (only a config with runtime motion goes without)")
    models, known = store(), recognised(data, overrides)
    there = already_there(models, name, known.config, data) if version is None else None
    if there is not None:
        print_facts(_added(there.info, known, fmt), fmt)
        _note_there(there, extra)
        return
    if version is None:
        added = add_next_version(models, name, data, extra, known)
    else:
        added = add_version(models, version_id(name, version), data, overrides, extra, known)
    print_facts(_added(added.info, known, fmt), fmt)
    if not probe:
        note(
            "no --probe image was given: a synthetic one guards this version, a photograph is better"
        )
    outside = 0
    if known.config.kind == "detector":
        outside = golden.outside_picture(
            {golden.EXPECTED: models.read_file(added, golden.EXPECTED)}
        )
    if outside:
        note(
            f"{outside} detections of the probe lie beside the picture: its pixels are probably not what "
            "the network was trained on; set preprocess (channel_order, divide_by, resize) in --config, "
            "add another version, and look at 'resight detect --draw'"
        )
    note("added; " + how_to_serve(models, added.id))


def _added(info: ModelInfo, known: Recognised, fmt: Format) -> dict[str, Any]:
    """Who it is, and what was recognised: a line each for people, one object for programs."""
    if fmt is Format.table:
        lines = {reason.what: f"{reason.found}  ({reason.why})" for reason in known.reasons}
        return identity_of(info) | lines
    reasons = {one.what: {"found": one.found, "why": one.why} for one in known.reasons}
    return identity_of(info) | {"recognised": reasons}


def _note_there(there: ModelVersion, extra: Mapping[str, bytes]) -> None:
    note(f"{there.id} is there already, with these weights and this config: nothing was added")
    others = [name for name, data in extra.items() if there.digests.get(name) != sha256_hex(data)]
    if others:
        note(f"to add it once more, with {', '.join(others)}, name another --version")


def _name(given: str | None, weights: Path | None) -> str:
    if given is not None:
        return given
    if weights is None:
        raise BadRequest("without a weights file a model has no name: give one with --name")
    return name_of_file(weights.stem)


def how_to_serve(models: ModelStore, version: VersionId) -> str:
    """Return how a new version comes to answer, and that the bare name of its model means none, if that is so."""
    words, versions = (
        f"serve it with: resight models promote {version}",
        models.versions(version.name),
    )
    if len(versions) == 1 or DEFAULT_ALIAS in models.aliases(version.name):
        return words
    there = ", ".join(map(str, versions))
    return f"{words}; until one is promoted, '{version.name}' means none of {there}"


def _folder(path: Path) -> str:
    """Return why a folder is not added, and what to do instead."""
    if versions_at(absolute(str(path)))[1]:
        return f"{path} is in a model store: copy its version with: resight models pull {shlex.quote(str(path))}"
    return f"{path} is a folder: name the .onnx or .pt2 file in it"


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
        raise BadRequest(f"{path} must hold a JSON object")
    return value
