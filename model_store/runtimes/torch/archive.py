"""Read a `.pt2` file of torch.export as plain data: its graph, tensors and labels.

bytes -> Archive(program, tensors by name, metadata)

`torch.export.load` is never called. It would unpickle sample inputs (and weights, if the file requests it), execute
guards and evaluate shape expressions. It would also import the names in tree specs, and compile code that contains
names of the file. Here Python's zipfile and json read the archive, and `graph.py` runs the graph.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from model_store.errors import ModelRefused, error_text

RECORD = re.compile(
    r"models/[\w-]+\.json|data/(weights|constants)/([\w-]+_config\.json|(weight|tensor)_\d+)"
    r"|data/sample_inputs/[\w-]+\.pt|extra/.+|archive_(format|version)|byteorder"
    r"|\.data/(version|serialization_id)",
    re.ASCII,
)
REFUSED = {
    "data/aotinductor/": "compiled code",
    "data/executorch/": "compiled code",
    "data/constants/custom_obj": "a pickled object",
    "data/constants/opaque_obj": "a pickled object",
    "data/weights/": "a pickle; save it with a newer PyTorch",
    "data/constants/": "a pickle; save it with a newer PyTorch",
}
METADATA = ("extra/metadata.json", "extra/config.txt")
"""JSON objects with labels and other metadata, written by `torch.export.save(…, extra_files={…})`."""


@dataclass(frozen=True)
class Stored:
    """A tensor in the file: raw bytes, and their description (`graph.py`)."""

    data: bytes
    meta: dict[str, Any]


@dataclass(frozen=True)
class Archive:
    """Contents of a `.pt2` file; `metadata` are strings, as in an ONNX file."""

    program: dict[str, Any]
    tensors: dict[str, Stored]
    metadata: dict[str, str]


def read_archive(weights: bytes) -> Archive:
    """Read an archive. Raises ModelRefused for anything except a torch.export archive of plain tensors."""
    records = _records(weights)
    models = [name for name in records if name.startswith("models/")]
    if len(models) != 1:
        refuse(f"it holds {len(models)} programs; one is needed")
    tensors: dict[str, Stored] = {}
    for folder in ("weights", "constants"):
        config = f"data/{folder}/{models[0][7:-5]}_{folder}_config.json"
        for name, stored in _tensors(config, f"data/{folder}/", records):
            if name in tensors:
                refuse(f"it has two tensors with the name {name}")
            tensors[name] = stored
    return Archive(read_json(models[0], records[models[0]]), tensors, _metadata(records))


def _records(weights: bytes) -> dict[str, bytes]:
    """Return the records by their names below the only folder of the archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(weights)) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                refuse("it is compressed, which torch never does")
            if sum(entry.file_size for entry in entries) > len(weights):
                refuse("its records are longer than the file")
            named = [(e.filename.partition("/")[2], archive.read(e)) for e in entries]
    except ModelRefused:
        raise
    except Exception as error:  # zipfile raises a dozen kinds, one of them for encryption
        refuse(f"it is damaged: {error_text(error)}")
    records = dict(named)
    if len({name.casefold() for name in records}) != len(named):
        refuse("it has two records with the same name")
    if records.get("archive_format", b"").strip() != b"pt2":
        refuse(
            "pickled modules and TorchScript run code when they are loaded; export the model with "
            "torch.export.save, or to ONNX"
        )
    for name in records:
        if not RECORD.fullmatch(name):
            reasons = (reason for prefix, reason in REFUSED.items() if name.startswith(prefix))
            refuse(f"{name} is {next(reasons, 'not a record of torch.export')}")
    return records


def _tensors(config: str, folder: str, records: Mapping[str, bytes]) -> Iterator[tuple[str, Stored]]:
    try:
        for name, payload in read_json(config, records[config])["config"].items():
            if payload["use_pickle"] is not False:
                refuse(f"{config} refers to a pickle")
            yield name, Stored(records[folder + payload["path_name"]], dict(payload["tensor_meta"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        refuse(f"{config} is missing or damaged: {type(error).__name__}: {error_text(error)}")


def read_json(name: str, data: bytes) -> dict[str, Any]:
    try:
        value: Any = json.loads(data)
        json.dumps(value, ensure_ascii=False).encode()  # raises for a lone surrogate
    except (ValueError, RecursionError) as error:
        refuse(f"{name} is not JSON: {error}")
    if not isinstance(value, dict):
        refuse(f"{name} is not a JSON object")
    return value  # pyright: ignore[reportUnknownVariableType]


def _metadata(records: Mapping[str, bytes]) -> dict[str, str]:
    for name in METADATA:
        if name in records:
            return {key: str(value) for key, value in read_json(name, records[name]).items()}
    return {}


def refuse(why: str) -> NoReturn:
    """Raise ModelRefused for a `.pt2` file."""
    raise ModelRefused(f"this is not a torch.export file that can be trusted: {why}"[:500])
