"""Code in files must never run, and damaged files must be rejected with a clear error."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from model_store.errors import ModelRefused  # noqa: E402
from model_store.runtimes.torch.session import TorchSession  # noqa: E402
from tests.model_store.runtimes.torch.torch_files import (  # noqa: E402
    CELLS,
    Change,
    TinyDetector,
    changed,
    exported,
    in_json,
    pictures,
    tiny,
    with_record,
)


class Evil:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def in_program(edit: Callable[[dict[str, Any]], None]) -> bytes:
    return changed(tiny(), in_json("models/", edit))


def sizes(expression: str) -> bytes:
    def edit(program: dict[str, Any]) -> None:
        for tensor in program["graph_module"]["graph"]["tensor_values"].values():
            for size in tensor["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = expression

    return in_program(edit)


def called(program: dict[str, Any]) -> dict[str, Any]:
    return program["graph_module"]["module_call_graph"][0]["signature"]


def first_step(target: str, **arguments: dict[str, Any]) -> bytes:
    """Return the file with a step before all others; unnamed arguments are `_0`, `_1`, …"""

    def edit(program: dict[str, Any]) -> None:
        program["verifiers"] = []
        graph = program["graph_module"]["graph"]
        graph["tensor_values"]["more"] = graph["tensor_values"]["p_cell_bias"]
        inputs = [
            {"name": "" if name.startswith("_") else name, "arg": argument, "kind": 1}
            for name, argument in arguments.items()
        ]
        output = [{"as_tensor": {"name": "more"}}]
        step = {"target": target, "inputs": inputs, "outputs": output, "metadata": {}}
        graph["nodes"].insert(0, step | {"name": "more", "is_hop_single_tensor_return": True})

    return in_program(edit)


LEAF = {"type": None, "context": None, "children_spec": []}


def evil(mark: Path) -> bytes:
    return pickle.dumps(Evil(mark))


def code(mark: Path) -> str:
    return f"__import__('os').mkdir({str(mark)!r})"


def pickled_weights(mark: Path) -> bytes:
    def change(name: str, data: bytes) -> bytes:
        if name.endswith("weights_config.json"):
            return data.replace(b'"use_pickle": false', b'"use_pickle": true')
        return evil(mark) if name.startswith("data/weights/weight_") else data

    return changed(tiny(), change)


def imported(mark: Path) -> bytes:
    context = json.dumps({"__enum__": True, "fqn": "evil_when_imported:A", "name": "B"})
    spec = {"type": "builtins.list", "context": context, "children_spec": [LEAF]}
    return in_program(lambda p: called(p).update(out_spec=json.dumps([1, spec])))


def as_record(part: str, data: bytes) -> Change:
    return lambda name, old: data if part in name else old


def file_mapped(mark: Path) -> bytes:
    return first_step(
        "torch.ops.aten.from_file.default",
        filename={"as_string": str(mark)},
        shared={"as_bool": True},
        size={"as_int": 100},
    )


def os_called(target: str, mark: Path) -> bytes:
    return first_step(target, _0={"as_operator": "torch.os.mkdir"}, _1={"as_string": str(mark)})


CARRIERS: dict[str, Callable[[Path], bytes]] = {
    "unpickle sample inputs": lambda mark: changed(tiny(), as_record("sample_inputs", evil(mark))),
    "unpickle weights": pickled_weights,
    "execute guards": lambda mark: in_program(lambda p: p.update(guards_code=[code(mark)])),
    "evaluate sizes": lambda mark: sizes(code(mark)),
    "compile the name of a result": lambda mark: changed(
        tiny(),
        lambda name, data: (
            data.replace(b'"conv2d"', json.dumps(f"a = {code(mark)}; x").encode()) if "models/" in name else data
        ),
    ),
    "compile the name of an argument": lambda mark: first_step(
        "torch.ops.aten.relu.default",
        self={"as_tensor": {"name": "p_cell_bias"}},
        **{f"out={code(mark)}, a": {"as_bool": True}},
    ),
    "compile what is no number": lambda mark: first_step(
        "torch.ops.aten.relu.default", self={"as_int": {code(mark): 1}}
    ),
    "import what a tree is made of": imported,
    "call what an argument names": lambda mark: os_called("_operator.call", mark),
    "create a file": file_mapped,
}
"""Return files by the action that torch.export.load or the graph would take."""


@pytest.mark.parametrize("temptation", list(CARRIERS))
def test_a_file_never_executes_anything(temptation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "executed"
    (tmp_path / "evil_when_imported.py").write_text(f"import os; os.mkdir({str(mark)!r})")
    monkeypatch.syspath_prepend(tmp_path)
    with contextlib.suppress(ModelRefused):
        TorchSession(CARRIERS[temptation](mark), threads=1).run(pictures(1))
    assert not mark.exists()


@pytest.mark.parametrize("left_out", ["sample_inputs", "guards_code"])
def test_what_only_torch_would_execute_is_left_out(left_out: str) -> None:
    def change(name: str, data: bytes) -> bytes:
        if "models/" in name:
            return data.replace(b'"guards_code": []', b'"guards_code": ["exit()"]')
        return b"anything" if left_out in name else data

    (found,) = TorchSession(changed(tiny(), change), threads=1).run(pictures(1)).values()
    assert found.shape == (1, 6, CELLS)


def in_weights(**meta: Any) -> Change:
    """Change size, stride, … of the first weight, (2, 3, 8, 8) float32."""

    def edit(config: dict[str, Any]) -> None:
        config["config"]["cell.weight"]["tensor_meta"] |= meta

    return in_json("weights_config", edit)


def each(*numbers: int) -> list[dict[str, int]]:
    return [{"as_int": number} for number in numbers]


LARGER = "cell.weight is larger than its record"
SURROGATE = json.dumps([1, {"type": "builtins.dict", "context": '["\\ud800"]', "children_spec": [LEAF]}])
DEEP = b'{"config": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (as_record("models/", b"{"), "is not JSON"),
        (as_record("models/", b'{"schema_version": "\\ud800"}'), "is not JSON"),
        (as_record("models/", DEEP), "is not JSON"),
        (as_record("models/", b"{}"), "KeyError"),
        (as_record("models/", b"[]"), "not a JSON object"),
        (in_json("models/", lambda p: p["schema_version"].update(major=9)), "its format is"),
        (in_json("models/", lambda p: p["graph_module"].update(graph=1)), "TypeError"),
        (in_json("models/", lambda p: called(p).update(out_spec=SURROGATE)), "surrogates"),
        (as_record("weights_config", b'{"config": {"a": 1}}'), "missing or damaged"),
        (as_record("constants_config", DEEP), "is not JSON"),
        (as_record("extra/metadata", b'{"names": "\\udcff"}'), "is not JSON"),
        (lambda name, data: None if "weights_config" in name else data, "missing or damaged"),
        (lambda name, data: None if "weight_0" in name else data, "missing or damaged"),
        (lambda name, data: None if "models/" in name else data, "it holds 0 programs"),
        (lambda name, data: None if name == "archive_format" else data, "run code when"),
        (lambda name, data: data[:-1] if "weight_0" in name else data, "multiple"),
        (in_weights(sizes=each(1 << 40, 1 << 40, 1, 1)), LARGER),
        (in_weights(sizes=each(1 << 40, 3, 8, 8), strides=each(0, 0, 0, 0)), LARGER),
        (in_weights(dtype=99), "KeyError"),
        (in_weights(strides=each(-192, 64, 8, 1)), "cell.weight has sizes"),
        (in_weights(strides=each(192, 64, 8)), "cell.weight has sizes"),
        (in_weights(strides=each(1 << 62, 1 << 62, 1 << 62, 1 << 62)), "cell.weight has sizes"),
        (in_weights(storage_offset={"as_int": 1}), LARGER),
        (in_weights(storage_offset={"as_int": -1}), "cell.weight has sizes"),
        (in_weights(storage_offset={"as_int": True}), "cell.weight has sizes"),
    ],
)
def test_a_damaged_file_is_refused(change: Change, said: str) -> None:
    with pytest.raises(ModelRefused, match=said):
        TorchSession(changed(tiny(), change), threads=1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("data/aotinductor/model/code.so", "is compiled code"),
        ("data/constants/custom_obj_0", "is a pickled object"),
        ("data/weights/model.pt", "is a pickle"),
        ("Data/constants/opaque_obj_0", "not a record of torch.export"),
        ("data/sample_inputs/../model.pt", "not a record of torch.export"),
        ("models/another.json", "it holds 2 programs"),
        ("Models/model.json", "two records with the same name"),
    ],
)
def test_a_record_too_many_refuses_the_file(name: str, said: str) -> None:
    with pytest.raises(ModelRefused, match=said):
        TorchSession(with_record(tiny(), name, b"anything"), threads=1)


def flagged_encrypted(weights: bytes) -> bytes:
    """Set the flag in the records' headers and in the archive's directory."""
    for header, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        parts = weights.split(header)
        at = flags - len(header)
        weights = header.join([parts[0], *(p[:at] + bytes([p[at] | 1]) + p[at + 1 :] for p in parts[1:])])
    return weights


def deflated(weights: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(weights)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda weights: b"PK\x03\x04 and then nothing", "it is damaged"),
        (lambda weights: weights[: len(weights) // 2], "it is damaged"),
        (flagged_encrypted, "it is damaged.*encrypted"),
        (deflated, "it is compressed"),
    ],
)
def test_a_damaged_archive_is_refused(damage: Callable[[bytes], bytes], said: str) -> None:
    with pytest.raises(ModelRefused, match=said):
        TorchSession(damage(tiny()), threads=1)


def test_a_pickled_module_is_refused_with_the_way_out() -> None:
    buffer = io.BytesIO()
    torch.save(TinyDetector().state_dict(), buffer)
    with pytest.raises(ModelRefused, match=r"export the model with torch\.export\.save, or to ONNX"):
        TorchSession(buffer.getvalue(), threads=1)


def test_bytes_that_are_no_truth_become_one() -> None:
    """A C++ bool is 0 or 1, and kernels rely on it."""

    class Chosen(TinyDetector):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("chosen", torch.tensor([True, True, False, False, True, True]))

        def forward(self, images: Any) -> Any:
            return super().forward(images)[:, self.chosen]

    weights = changed(
        exported(Chosen(), batch=1),
        lambda name, data: data.replace(b"\x01\x01\x00\x00\x01\x01", b"\xff\x02\x00\x00\x80\x01"),
    )
    (found,) = TorchSession(weights, threads=1).run(pictures(1)).values()
    assert found.shape == (1, 4, CELLS)
