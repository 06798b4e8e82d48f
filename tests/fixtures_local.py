"""What several test folders share: the shipped models and photographs, small archives, rows."""

from __future__ import annotations

import functools
import io
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from PIL.ExifTags import IFD

from archive.delta.tables import Tables
from archive.schemas import RESULTS, TABLES
from model_store.adding.add import add_version
from model_store.names import VersionId, version_id
from model_store.store import ModelInfo, ModelStore, ModelVersion
from tests.graphs import endless

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "examples" / "models"
PHOTOS = ROOT / "examples" / "photos"
MOTION = {"runtime": {"kind": "motion"}, "decoder": "blobs", "labels": ["blob"]}
SMALL = {"runtime": {"kind": "motion", "background_sigma_px": 6}, "preprocess": {"resize": "stretch", "side_px": 64}}
"""A hundredth of the work of the defaults per image."""


def photo(name: str) -> bytes:
    return (PHOTOS / f"{name}.jpg").read_bytes()


def copy_of_models(place: Path) -> Path:
    return Path(shutil.copytree(MODELS, place / "models"))


def motion_store(place: Path, *versions: str, alias: str | None = "1") -> ModelStore:
    """A store with versions of a model `blobs` that needs no weights and loads in milliseconds."""
    store = ModelStore(str(place))
    for version in versions:
        publish_blobs(store, version, **SMALL)
    if alias in versions:
        store.set_alias("blobs", "production", alias)
    return store


def add_hanging(store: ModelStore) -> VersionId:
    """Add a version of the shipped model with a graph that never ends."""
    shipped = ModelStore(str(MODELS))
    about = shipped.describe(version_id("ssdlite-coco", "1"))
    files = {name: shipped.read_file(about, name) for name in about.digests}
    store.publish(version_id("hanging", "1"), files | {"model.onnx": endless()})
    return version_id("hanging", "1")


def publish_blobs(store: ModelStore, version: str, **config: Any) -> ModelVersion:
    return store.publish(version_id("blobs", version), added_files(None, {**MOTION, **config}))


def added_files(weights: bytes | None, config: Mapping[str, Any]) -> dict[str, bytes]:
    """Files of a version with these weights, with a small probe; equal ones are added once in a process."""
    return _added_files(weights, json.dumps(config))


@functools.cache
def _added_files(weights: bytes | None, config: str) -> dict[str, bytes]:
    scene = np.full((48, 64, 3), 90, np.uint8)
    scene[16:32, 20:44] = 200, 60, 30
    with tempfile.TemporaryDirectory() as place:
        store, probe = ModelStore(place), {"probe/scene.png": encoded(scene, "PNG")}
        added = add_version(store, version_id("m", "1"), weights, json.loads(config), probe)
        return store.read_files(added)


def jpeg(
    root: Mapping[int, Any] | None = None,
    detail: Mapping[int, Any] | None = None,
    gps: Mapping[int, Any] | None = None,
    shade: int = 90,
) -> bytes:
    """A small JPEG with these EXIF tags, by IFD."""
    exif = Image.Exif()
    exif.update(root or {})
    exif.get_ifd(IFD.Exif).update(detail or {})
    exif.get_ifd(IFD.GPSInfo).update(gps or {})
    return encoded(np.full((32, 48, 3), shade, np.uint8), "JPEG", exif=exif.tobytes())


def encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def write_files(root: Path, files: Mapping[str, bytes]) -> Path:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def rows_of(tables: Tables, name: str) -> list[dict[str, Any]]:
    """All rows of a table, read without DuckDB."""
    return list(tables.snapshot(name).to_pyarrow_dataset().to_table().to_pylist())


def result_rows(shas: Sequence[str], key: str = "k", status: str = "ok", run_id: str = "r", **more: Any) -> pa.Table:
    """Rows of `results` for these images."""
    common = {
        "inference_key": key,
        "status": status,
        "run_id": run_id,
        "n_detections": 0,
        "detections": [],
        "finished_at": datetime.now(UTC),
    }
    return pa.Table.from_pylist([{**common, "media_sha256": sha, **more} for sha in shas], schema=RESULTS)


def put_rows(tables: Tables, name: str, *rows: dict[str, Any]) -> None:
    """Add rows to a table; columns that they lack are null."""
    tables.append(name, pa.Table.from_pylist(list(rows), schema=TABLES[name]), "test", lambda _, wanted: wanted)


def put_results(tables: Tables, rows: pa.Table) -> None:
    tables.append("results", rows, "test", lambda _, wanted: wanted)


def model_info(name: str = "blobs", version: str = "1", key: str = "k") -> ModelInfo:
    return ModelInfo(name, version, "w" * 64, key, ("cat", "dog"))


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path
