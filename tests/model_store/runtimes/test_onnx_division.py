"""Guarded integer divisions cannot end the process, and all other results equal those of ONNX Runtime.

Each graph converts `images` to integers and divides red by green.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_store.errors import ModelRefused
from model_store.runtimes.onnx import OnnxSession
from model_store.runtimes.onnx_division import guard_division
from tests.graphs import constant_graph, pooling

KINDS = {"int8": TensorProto.INT8, "int16": TensorProto.INT16, "int32": TensorProto.INT32, "int64": TensorProto.INT64}
LEAST = {name: np.iinfo(name).min for name in KINDS}


def graph_of(
    nodes: list[onnx.NodeProto],
    kind: int = TensorProto.INT64,
    opset: int = 17,
    constants: dict[str, np.ndarray] | None = None,
    functions: list[onnx.FunctionProto] | None = None,
    extra_opsets: tuple[str, ...] = (),
) -> bytes:
    """Return a graph in which `nodes` compute `quotient` from `red` and `green`, the values of a pixel."""
    channels = [
        helper.make_node("Split", ["images"], ["r", "g", "b"], axis=1),
        helper.make_node("Cast", ["r"], ["red"], to=kind),
        helper.make_node("Cast", ["g"], ["green"], to=kind),
    ]
    end = helper.make_node("Cast", ["quotient"], ["output0"], to=TensorProto.DOUBLE)
    weights = [numpy_helper.from_array(values, name) for name, values in (constants or {}).items()]
    graph = helper.make_graph(
        [*channels, *nodes, end],
        "division",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 1, 1])],
        [helper.make_tensor_value_info("output0", TensorProto.DOUBLE, ["n", 1, 1, 1])],
        weights,
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in extra_opsets)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions or [])
    return model.SerializeToString()


def division(operator: str, *names: str) -> onnx.NodeProto:
    return helper.make_node(operator, list(names[:2]), [names[2]], name="the_division")


def in_branches(node: onnx.NodeProto, kind: int = TensorProto.INT64) -> list[onnx.NodeProto]:
    """Return the division in both branches of an If, in a branch of an If."""
    result = helper.make_tensor_value_info(node.output[0], kind, None)
    body = helper.make_graph([node], "inner", [], [result])
    inner = helper.make_node("If", ["always"], ["inner_q"], then_branch=body, else_branch=body)
    result = helper.make_tensor_value_info("inner_q", kind, None)
    outer = helper.make_graph([inner], "outer", [], [result])
    true = numpy_helper.from_array(np.array(True))
    return [
        helper.make_node("Constant", [], ["always"], value=true),
        helper.make_node("If", ["always"], ["quotient"], then_branch=outer, else_branch=outer),
    ]


def in_loop(node: onnx.NodeProto, kind: int = TensorProto.INT64) -> list[onnx.NodeProto]:
    """Return the division in the body of a Loop, which runs once: it divides its state `x`, at first `red`."""
    info = helper.make_tensor_value_info
    inputs = [info("i", TensorProto.INT64, []), info("on", TensorProto.BOOL, []), info("x", kind, None)]
    same = helper.make_node("Identity", ["on"], ["still_on"])
    outputs = [info("still_on", TensorProto.BOOL, []), info(node.output[0], kind, None)]
    body = helper.make_graph([same, node], "body", inputs, outputs)
    once, true = (numpy_helper.from_array(np.array(value)) for value in (1, True))
    return [
        helper.make_node("Constant", [], ["once"], value=once),
        helper.make_node("Constant", [], ["always"], value=true),
        helper.make_node("Loop", ["once", "always", "red"], ["quotient"], body=body),
    ]


def in_function() -> bytes:
    opset = [helper.make_opsetid("", 17)]
    node = division("Div", "x", "y", "z")
    function = helper.make_function("mine", "Halve", ["x", "y"], ["z"], [node], opset)
    call = helper.make_node("Halve", ["red", "green"], ["quotient"], domain="mine")
    return graph_of([call], functions=[function], extra_opsets=("mine",))


GRAPHS = {
    **{
        f"{operator} {name}": (graph_of([division(operator, "red", "green", "quotient")], kind), name)
        for operator in ("Div", "Mod")
        for name, kind in KINDS.items()
    },
    "constant -1": (
        graph_of([division("Div", "red", "k", "quotient")], constants={"k": np.array([3, -1], np.int64)[1:]}),
        "int64",
    ),
    "branches": (graph_of(in_branches(division("Div", "red", "green", "q"))), "int64"),
    "loop": (graph_of(in_loop(division("Div", "x", "green", "q"))), "int64"),
    "function": (in_function(), "int64"),
}
RUN = """
import sys, json, numpy as np
from model_store.runtimes.onnx import OnnxSession
for line in sys.stdin:
    path, red, green = json.loads(line)
    tensor = np.array([red, green, 0], np.float32).reshape(1, 3, 1, 1)
    print(OnnxSession(open(path, "rb").read(), 1).run(tensor)["output0"].item(), flush=True)
"""


def test_the_least_integer_by_minus_1_ends_no_process(tmp_path: Path) -> None:
    """Run in a separate process, which the trap would end at the faulty graph."""
    lines: list[str] = []
    for i, (weights, name) in enumerate(GRAPHS.values()):
        (tmp_path / f"{i}.onnx").write_bytes(weights)
        lines.append(json.dumps([str(tmp_path / f"{i}.onnx"), LEAST[name], -1]))
    done = subprocess.run(
        [sys.executable, "-c", RUN], input="\n".join(lines), capture_output=True, text=True, timeout=300
    )
    answers = dict(zip(GRAPHS, map(float, done.stdout.split()), strict=False))
    assert done.returncode == 0, f"ended after {list(answers)[-1:]}: {done.stderr[-500:]}"
    wrapped = {what: 0.0 if "Mod" in what else float(LEAST[name]) for what, (_, name) in GRAPHS.items()}
    assert answers == wrapped


@pytest.mark.parametrize("kind", ["int32", "int64"])
@pytest.mark.parametrize(("operator", "opset"), [("Div", 8), ("Div", 17), ("Mod", 17)])
def test_all_other_quotients_are_those_of_onnx_runtime(operator: str, kind: str, opset: int) -> None:
    shape = ["n"]
    info = helper.make_tensor_value_info
    nodes = [helper.make_node(operator, ["a", "b"], ["c"])]
    graph = helper.make_graph(nodes, "g", [info(x, KINDS[kind], shape) for x in "ab"], [info("c", KINDS[kind], shape)])
    opsets = [helper.make_opsetid("", opset)]
    weights = helper.make_model(graph, opset_imports=opsets, ir_version=7).SerializeToString()
    guarded = guard_division(weights)
    assert guarded != weights
    numbers = np.array([LEAST[kind], LEAST[kind] + 1, -8, -7, -2, -1, 0, 1, 2, 7, 2**31 - 1], kind)
    a, b = (grid.ravel() for grid in np.meshgrid(numbers, numbers[numbers != 0]))
    sound = ~((a == LEAST[kind]) & (b == -1))
    results = [
        ort.InferenceSession(bytes_of, providers=["CPUExecutionProvider"]).run(None, {"a": a[sound], "b": b[sound]})[0]
        for bytes_of in (weights, guarded)
    ]
    assert np.array_equal(*results)


def test_a_graph_without_such_a_division_is_run_as_it_is() -> None:
    floats = graph_of([division("Div", "red", "green", "quotient")], TensorProto.FLOAT)
    by_two = graph_of([division("Div", "red", "k", "quotient")], constants={"k": np.array(2)})
    tables = constant_graph({"output0": np.ones((3, 84, 5), np.float32)}, 32)  # Mod by a constant
    for weights in (floats, by_two, tables, pooling(5)):
        assert guard_division(weights) is weights


def test_a_division_of_unknown_type_is_refused_by_its_name() -> None:
    """Types are not inferred behind an operator of another domain, even if ONNX Runtime supports it."""
    nodes = [
        helper.make_node("ExpandDims", ["red", "axis"], ["r5"], domain="com.microsoft"),
        helper.make_node("ExpandDims", ["green", "axis"], ["g5"], domain="com.microsoft"),
        division("Div", "r5", "g5", "q5"),
        helper.make_node("Squeeze", ["q5", "axes"], ["quotient"]),
    ]
    constants = {"axis": np.array(0, np.int32), "axes": np.array([0], np.int64)}
    weights = graph_of(nodes, constants=constants, extra_opsets=("com.microsoft",))
    with pytest.raises(ModelRefused, match="Div 'the_division' divides by a tensor of unknown type"):
        OnnxSession(weights, 1)
    cast = helper.make_node("Cast", ["g5"], ["typed"], to=TensorProto.INT64)
    nodes[2:3] = [cast, division("Div", "r5", "typed", "q5")]
    weights = graph_of(nodes, constants=constants, extra_opsets=("com.microsoft",))
    tensor = np.array([9, -1, 0], np.float32).reshape(1, 3, 1, 1)
    assert OnnxSession(weights, 1).run(tensor)["output0"].item() == -9


@pytest.mark.parametrize("weights", [b"Div", b"ORTM" * 9 + b"Mod", b"\x08\x08Div" + bytes(99)])
def test_bytes_that_are_no_graph_are_refused(weights: bytes) -> None:
    with pytest.raises(ModelRefused):
        OnnxSession(weights, 1)
