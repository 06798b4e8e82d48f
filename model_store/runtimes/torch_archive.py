"""What is taken from a `.pt2` file of torch.export: weights and a graph, never code.

`torch.export.load` unpickles sample inputs (and weights, where the file says so), executes the text of
guards, and evaluates the text of shape expressions, each of which could be anything. So the archive is
written anew without pickles and guards, and expressions and operators outside the lists below refuse it.
`ImageInput` checks the shapes that the guards would have.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from model_store.errors import ModelRefused

OPERATOR = re.compile(r"torch\.ops\.\w+\.\w+(\.\w+)?|_operator\.\w+|math\.\w+")
SYMBOL = re.compile(r"[a-z]+\d*")
DROPPED = ("data/sample_inputs/",)
REFUSED = {
    "data/aotinductor/": "compiled code",
    "data/executorch/": "compiled code",
    "data/constants/custom_obj": "a pickled object",
    "data/constants/opaque_obj": "a pickled object",
}
METADATA = ("extra/metadata.json", "extra/config.txt")
"""JSON objects of labels and more, written with `torch.export.save(…, extra_files={…})`."""


@dataclass(frozen=True)
class Archive:
    """`data` is what torch may read; `metadata` are strings, as in an ONNX file."""

    data: bytes
    metadata: dict[str, str]


def clean_archive(weights: bytes) -> Archive:
    """Raises ModelRefused for anything that is not a torch.export archive of plain tensors."""
    records = _records(weights)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in records.items():
            archive.writestr(f"model/{name}", _cleaned(name, data))
    return Archive(buffer.getvalue(), _metadata(records))


def _records(weights: bytes) -> dict[str, bytes]:
    """By their names below the archive's one folder."""
    try:
        with zipfile.ZipFile(io.BytesIO(weights)) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                _refuse("it is compressed, as torch never writes it")
            records = {e.filename.partition("/")[2]: archive.read(e) for e in entries}
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        _refuse(f"it is damaged: {error}")
    if len(records) != len(entries):
        _refuse("it has two records of one name")
    if records.get("archive_format", b"").strip() != b"pt2":
        _refuse(
            "pickled modules and TorchScript run code when they are loaded; export the model with "
            "torch.export.save, or to ONNX"
        )
    for name in records:
        for prefix, what in REFUSED.items():
            if name.startswith(prefix):
                _refuse(f"{name} is {what}")
        if name.startswith(("data/weights/", "data/constants/")) and name.endswith(".pt"):
            _refuse(f"{name} is a pickle; save it with a newer PyTorch")
    return records


def _cleaned(name: str, data: bytes) -> bytes:
    if name.startswith(DROPPED):
        return b""
    if name.startswith("models/"):
        graph = _json(name, data)
        graph["guards_code"] = []
        for key, value in _strings(graph):
            if key == "expr_str":
                _require_expression(value)
            elif key == "target" and not OPERATOR.fullmatch(value):
                _refuse(f"it calls {value[:100]}")
        return json.dumps(graph).encode()
    if name.endswith("_config.json"):
        for payload in _json(name, data).get("config", {}).values():
            if payload.get("use_pickle") is not False:
                _refuse(f"{name} asks for a pickle")
    return data


def _require_expression(text: str) -> None:
    """Sizes such as Add(Symbol('s77', integer=True), Integer(1)): calls of sympy's classes only."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        nodes = []
    if not nodes or not all(map(_is_harmless, nodes)):
        _refuse(f"it holds the expression {text[:100]!r}")


def _is_harmless(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id[0].isupper()
    if isinstance(node, ast.Name):
        return node.id[0].isupper() or SYMBOL.fullmatch(node.id) is not None
    if isinstance(node, ast.Constant):
        value = node.value
        return isinstance(value, int | float) or (
            isinstance(value, str) and SYMBOL.fullmatch(value) is not None
        )
    return isinstance(
        node,
        ast.Expression
        | ast.keyword
        | ast.Load
        | ast.BinOp
        | ast.UnaryOp
        | ast.operator
        | ast.unaryop,
    )


def _strings(value: Any) -> Iterator[tuple[str, str]]:
    """Every string of a JSON value with the name of its field."""
    if isinstance(value, list):
        value = dict(enumerate(cast(list[Any], value)))
    for key, inner in cast(dict[Any, Any], value).items():
        if isinstance(inner, str):
            yield str(key), inner
        elif isinstance(inner, dict | list):
            yield from _strings(inner)


def _json(name: str, data: bytes) -> dict[str, Any]:
    try:
        value: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        _refuse(f"{name} is not JSON: {error}")
    if not isinstance(value, dict):
        _refuse(f"{name} is no JSON object")
    return value  # pyright: ignore[reportUnknownVariableType]


def _metadata(records: Mapping[str, bytes]) -> dict[str, str]:
    for name in METADATA:
        if name in records:
            return {key: str(value) for key, value in _json(name, records[name]).items()}
    return {}


def _refuse(why: str) -> NoReturn:
    raise ModelRefused(f"this is no torch.export file that can be trusted: {why}"[:500])
