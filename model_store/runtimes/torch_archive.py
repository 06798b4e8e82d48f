"""A `.pt2` file of torch.export taken apart: its graph, its tensors and its labels, as plain data.

bytes -> Archive(program, tensors by name, metadata)

`torch.export.load` would unpickle sample inputs (and weights, where the file says so), execute guards, evaluate
shape expressions, import what tree specs name and paste names into code it compiles. It is never called: the
archive is read here, by Python's zipfile and json, and the graph is run by `torch_graph.py`.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from model_store.errors import ModelRefused
from model_store.said import said

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
"""JSON objects of labels and more, written with `torch.export.save(…, extra_files={…})`."""


@dataclass(frozen=True)
class Stored:
    """A tensor as the file has it: raw bytes, and what it says they mean (`torch_tensors.py`)."""

    data: bytes
    meta: dict[str, Any]


@dataclass(frozen=True)
class Archive:
    """`metadata` are strings, as in an ONNX file."""

    program: dict[str, Any]
    tensors: dict[str, Stored]
    metadata: dict[str, str]


def read_archive(weights: bytes) -> Archive:
    """Raises ModelRefused for anything that is not a torch.export archive of plain tensors."""
    records = _records(weights)
    models = [name for name in records if name.startswith("models/")]
    if len(models) != 1:
        refuse(f"it holds {len(models)} programs; one is needed")
    tensors: dict[str, Stored] = {}
    for folder in ("weights", "constants"):
        config = f"data/{folder}/{models[0][7:-5]}_{folder}_config.json"
        for name, stored in _tensors(config, f"data/{folder}/", records):
            if name in tensors:
                refuse(f"it has two tensors called {name}")
            tensors[name] = stored
    return Archive(read_json(models[0], records[models[0]]), tensors, _metadata(records))


def _records(weights: bytes) -> dict[str, bytes]:
    """By their names below the archive's one folder."""
    try:
        with zipfile.ZipFile(io.BytesIO(weights)) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                refuse("it is compressed, as torch never writes it")
            if sum(entry.file_size for entry in entries) > len(weights):
                refuse("its records are longer than the file")
            named = [(e.filename.partition("/")[2], archive.read(e)) for e in entries]
    except ModelRefused:
        raise
    except Exception as error:  # zipfile raises a dozen kinds, one of them where it is encrypted
        refuse(f"it is damaged: {said(error)}")
    records = dict(named)
    if len({name.casefold() for name in records}) != len(named):
        refuse("it has two records of one name")
    if records.get("archive_format", b"").strip() != b"pt2":
        refuse(
            "pickled modules and TorchScript run code when they are loaded; export the model with "
            "torch.export.save, or to ONNX"
        )
    for name in records:
        if not RECORD.fullmatch(name):
            known = (what for prefix, what in REFUSED.items() if name.startswith(prefix))
            refuse(f"{name} is {next(known, 'no record of torch.export')}")
    return records


def _tensors(
    config: str, folder: str, records: Mapping[str, bytes]
) -> Iterator[tuple[str, Stored]]:
    try:
        for name, payload in read_json(config, records[config])["config"].items():
            if payload["use_pickle"] is not False:
                refuse(f"{config} asks for a pickle")
            yield name, Stored(records[folder + payload["path_name"]], dict(payload["tensor_meta"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        refuse(f"{config} is missing or damaged: {type(error).__name__}: {said(error)}")


def read_json(name: str, data: bytes) -> dict[str, Any]:
    try:
        value: Any = json.loads(data)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        refuse(f"{name} is not JSON: {error}")
    if not isinstance(value, dict):
        refuse(f"{name} is no JSON object")
    return value  # pyright: ignore[reportUnknownVariableType]


def _metadata(records: Mapping[str, bytes]) -> dict[str, str]:
    for name in METADATA:
        if name in records:
            return {key: str(value) for key, value in read_json(name, records[name]).items()}
    return {}


def refuse(why: str) -> NoReturn:
    raise ModelRefused(f"this is no torch.export file that can be trusted: {why}"[:500])
