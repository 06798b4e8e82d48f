"""Make integer division in an ONNX graph safe for every image.

On a CPU, the lowest int32 or int64 divided by -1 raises a processor trap that ends the process. ONNX Runtime's Div and
Mod do not avoid it. It may happen for a single image, long after the probe.

bytes of a graph --guard_division--> the same bytes, or a graph with guarded integer Div and Mod

A guarded a / b computes (a * s) / (b * s), with s = -1 where b is -1, else 1: the result of two's complement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import helper, inliner, numpy_helper, shape_inference

from model_store.errors import ModelRefused, error_text
from model_store.runtimes.weights_file import no_onnx

OPERATORS = ("Div", "Mod")
TRAPPING = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
"""Types with the trap. Narrower integers are divided as int32, without a trap; unsigned ones have no -1."""


def guard_division(weights: bytes) -> bytes:
    """Return the graph to run. Raises ModelRefused for a division by a tensor of unknown type."""
    if not any(name.encode() in weights for name in OPERATORS):
        return weights  # parsing takes time, and few graphs divide
    try:
        model = onnx.load_model_from_string(weights)
        if not any(list(_computed(graph)) for graph in _graphs([*model.functions, model.graph])):
            return weights
        model = shape_inference.infer_shapes(inliner.inline_local_functions(model))
        return model.SerializeToString() if _guard(model.graph, {}) else weights
    except ModelRefused:
        raise
    except DecodeError as error:
        raise ModelRefused(no_onnx(weights)) from error
    except Exception as error:  # onnx raises its checker's and protobuf's own kinds
        raise ModelRefused(f"the graph's divisions cannot be checked: {error_text(error)}") from error


def _guard(graph: onnx.GraphProto, outer: Mapping[str, int]) -> bool:
    """Add guards before the integer divisions of a graph and its inner graphs; return True if there are any."""
    made = {name for node in graph.node for name in node.output}
    types = {name: kind for name, kind in outer.items() if name not in made} | _types(graph)
    computed = {node.output[0] for node in _computed(graph)}
    guarded = False
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if _is_division(node) and node.output[0] in computed:
            kind = _type_of(node, types)
            if kind in TRAPPING:
                nodes += _sign_nodes(node, kind)
                guarded = True
        for inner in _inside(node):
            guarded |= _guard(inner, types)
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return guarded


def _sign_nodes(node: onnx.NodeProto, kind: int) -> list[onnx.NodeProto]:
    """Return nodes that multiply dividend and divisor by s, and connect them to `node`. All exist in opset 7."""
    (dividend, divisor), to = node.input, node.output[0]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    numbers = {"minus_one": -1, "minus_two": -2, "one": 1}
    constants = [
        helper.make_node("Constant", [], [f"{to}/{name}"], value=numpy_helper.from_array(np.array(value, dtype)))
        for name, value in numbers.items()
    ]
    node.input[:] = [f"{to}/dividend", f"{to}/divisor"]
    return [
        *constants,
        helper.make_node("Equal", [divisor, f"{to}/minus_one"], [f"{to}/is_minus_one"]),
        helper.make_node("Cast", [f"{to}/is_minus_one"], [f"{to}/as_number"], to=kind),
        helper.make_node("Mul", [f"{to}/as_number", f"{to}/minus_two"], [f"{to}/twice"]),
        helper.make_node("Add", [f"{to}/twice", f"{to}/one"], [f"{to}/sign"]),
        helper.make_node("Mul", [dividend, f"{to}/sign"], [f"{to}/dividend"]),
        helper.make_node("Mul", [divisor, f"{to}/sign"], [f"{to}/divisor"]),
    ]


def _computed(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """Yield the divisions of one graph by a divisor that may be -1: all except those by its constants without -1."""
    divisions = [node for node in graph.node if _is_division(node)]
    constants = dict(_constants(graph, {node.input[1] for node in divisions}))
    for node in divisions:
        divisor = constants.get(node.input[1])
        if divisor is None or divisor.dtype.kind not in "iuf" or (divisor == -1).any():
            yield node


def _is_division(node: onnx.NodeProto) -> bool:
    is_operator = node.op_type in OPERATORS and node.domain in ("", "ai.onnx")
    return is_operator and len(node.input) == 2


def _constants(graph: onnx.GraphProto | onnx.FunctionProto, divisors: set[str]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the constants of one graph among the divisors."""
    tensors = {} if isinstance(graph, onnx.FunctionProto) else {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.HasField("t"):
                tensors[node.output[0]] = attribute.t
    for name in divisors & tensors.keys():
        yield name, numpy_helper.to_array(tensors[name])


def _types(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the element types of the tensors that a graph names."""
    values = (value for value in (*graph.input, *graph.output, *graph.value_info) if value.type.HasField("tensor_type"))
    initializers = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {value.name: value.type.tensor_type.elem_type for value in values} | initializers


def _type_of(node: onnx.NodeProto, types: Mapping[str, int]) -> int:
    """Return the element type, which dividend, divisor and result share. Raises ModelRefused if it is unknown."""
    kinds = (types.get(name, 0) for name in (*node.input, *node.output))
    kind = next((kind for kind in kinds if kind), 0)
    if not kind:
        raise ModelRefused(
            f"the graph's {node.op_type} {node.name or node.output[0]!r} divides by a tensor of unknown type, and an "
            "integer division by -1 could end the process: divide by a constant, or put a Cast before it"
        )
    return kind


def _graphs(graphs: Iterable[onnx.GraphProto | onnx.FunctionProto]) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """Yield graphs and all graphs inside their nodes: branches of If, bodies of Loop and Scan."""
    for graph in graphs:
        yield graph
        yield from _graphs(inner for node in graph.node for inner in _inside(node))


def _inside(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
