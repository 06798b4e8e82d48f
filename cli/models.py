"""models add, pull, list, show, verify, promote: the store, whether or not a cluster runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import rollout
from cli.output import Format, FormatOption, note, print_facts, print_rows
from model_store.add import add_version
from model_store.detector import load_detector
from model_store.errors import BadRequest, ModelError
from model_store.names import parse_ref, parse_version, version_id
from model_store.probe import EXPECTED, outside_picture
from model_store.storage import absolute
from model_store.store import ModelStore
from model_store.weights_file import read_weights
from serve.model_status import model_statuses
from serve.serving import Serving
from serve.settings import Settings

app = typer.Typer(
    help="Immutable model versions and the aliases that point at them.", no_args_is_help=True
)

Version = Annotated[str, typer.Argument(metavar="NAME@VERSION")]


rollout.register(app)


def store() -> ModelStore:
    return ModelStore(Settings().models_url)


@app.command()
def add(
    name: Annotated[str, typer.Option(help="model name")],
    version: Annotated[str, typer.Option(help="its version; never changes once added")],
    weights: Annotated[
        Path | None, typer.Argument(help="an .onnx or .pt2 file; none for runtime motion")
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

    Example: resight models add deer.onnx --name deer --version 3 --probe buck.jpg
    """
    extra = {f"probe/{path.name}": _bytes(path) for path in probe or []}
    extra |= {"README.md": _bytes(readme)} if readme else {}
    extra |= {"LICENSE": _bytes(licence)} if licence else {}
    overrides = _json(config) if config else {}
    data = _weights(weights) if weights else None
    runtime = overrides.get("runtime")
    if data is None and not (isinstance(runtime, dict) and runtime.get("kind") == "motion"):
        raise BadRequest("name a weights file (only a config with runtime motion goes without)")
    added = add_version(store(), version_id(name, version), data, overrides, extra)
    if not probe:
        note(
            "no --probe image was given: a synthetic one guards this version, a photograph is better"
        )
    outside = outside_picture({EXPECTED: store().read_file(added, EXPECTED)})
    if outside:
        note(
            f"{outside} detections of the probe lie beside the picture: its pixels are probably not what "
            "the network was trained on; set preprocess (channel_order, divide_by, resize) in --config, "
            "add another version, and look at 'resight detect --draw'"
        )
    if added.config.decoder == "mmdet" and "preprocess" not in overrides:
        note("MMDetection's files do not say how pixels are prepared: give preprocess in --config")
    note(f"added; serve it with: resight models promote {added.id}")
    print_facts(_identity(added.id.name, added.id.version), fmt)


@app.command()
def pull(
    source: Annotated[str, typer.Argument(help="another model store: folder or s3:// URL")],
    version: Version,
    fmt: FormatOption = Format.table,
) -> None:
    """Copy a version from another store, every file verified; identical ones are left alone.

    Example: resight models pull examples/models ssdlite-coco@1
    """
    wanted, ours = parse_version(version), store()
    other = ModelStore(absolute(source))
    found = other.verify(wanted)
    if wanted in ours.versions(wanted.name):
        if ours.describe(wanted).digests != found.digests:
            raise ModelError(f"{wanted} is already in {ours.url}, with other files")
        note(f"{wanted} is already in {ours.url}")
    else:
        ours.publish(wanted, {name: other.read_file(found, name) for name in found.digests})
        note(f"{wanted} copied to {ours.url}")
    print_facts(_identity(wanted.name, wanted.version), fmt)


@app.command("list")
def list_models(fmt: FormatOption = Format.table) -> None:
    """Every READY version with its aliases.

    Example: resight models list --format json
    """
    statuses = model_statuses(store(), Serving())
    rows = [
        {
            "model": f"{status.name}@{version.version}",
            "aliases": ", ".join(version.aliases),
            "weights_sha256": version.weights_sha256[:12],
            "inference_key": version.inference_key[:12],
        }
        for status in statuses
        for version in status.versions
    ]
    print_rows(rows, fmt, ("model", "aliases", "weights_sha256", "inference_key"))
    for status in statuses:
        for what, why in status.failures.items():
            note(f"damaged: {what}: {why}")


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="name, name@version or name:alias")],
    fmt: FormatOption = Format.table,
) -> None:
    """One version: identity, config and files.

    Example: resight models show ssdlite-coco
    """
    models = store()
    described = models.describe(models.resolve(parse_ref(model)))
    facts = _identity(described.id.name, described.id.version)
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
    load_detector(models, version)
    note(f"{version} is sound: every digest matches, and the probe is reproduced")
    print_facts(_identity(version.name, version.version), fmt)


def _identity(name: str, version: str) -> dict[str, Any]:
    info = store().describe(version_id(name, version)).info
    return {
        "model": str(info.id),
        "weights_sha256": info.weights_sha256,
        "inference_key": info.inference_key,
    }


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
