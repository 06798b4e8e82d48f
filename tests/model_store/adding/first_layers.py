"""Insert steps before the first layer of a graph, as exporters do to include the scaling of pixels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Step(NamedTuple):
    """Return a node that reads the previous tensor, then these constants; with `first`, a constant comes first."""

    op: str
    constants: tuple[np.ndarray, ...] = ()
    attributes: tuple[tuple[str, Any], ...] = ()
    first: bool = False


def mul(*values: float) -> Step:
    return Step("Mul", (per_channel(values),))


def div(*values: float) -> Step:
    return Step("Div", (per_channel(values),))


def sub(*values: float) -> Step:
    return Step("Sub", (per_channel(values),))


def add(*values: float) -> Step:
    return Step("Add", (per_channel(values),))


GATHERED = Step("Gather", (np.array([2, 1, 0]),), (("axis", 1),))
SLICED = Step("Slice", tuple(np.array([n]) for n in (-1, -(2**63), 1, -1)))
PADDED = Step("Pad", (np.array([0, 0, 1, 1, 0, 0, 1, 1]),))


def per_channel(values: tuple[float, ...]) -> np.ndarray:
    shape = (1, 3, 1, 1) if len(values) == 3 else ()
    return np.array(values, np.float32).reshape(shape)


def begun(weights: bytes, *steps: Step) -> bytes:
    """Insert these steps before all nodes that read `images`."""
    model = onnx.load_model_from_string(weights)
    nodes, at = [], "images"
    for i, step in enumerate(steps):
        names = [f"constant_{i}_{j}" for j in range(len(step.constants))]
        for name, value in zip(names, step.constants, strict=True):
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        inputs = [*names, at] if step.first else [at, *names]
        nodes.append(helper.make_node(step.op, inputs, [f"step_{i}"], **dict(step.attributes)))
        at = f"step_{i}"
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = at if name == "images" else name
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    return model.SerializeToString()


def taken_apart(weights: bytes, how: str, order: tuple[int, int, int] = (2, 1, 0)) -> bytes:
    """Split the channels of a graph (by Split, Slice or Gather) and join them in an order."""
    model = onnx.load_model_from_string(weights)
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = "joined" if name == "images" else name
    parts = ["one", "two", "three"]
    constants = {"axis": np.array([1]), "sizes": np.ones(3, np.int64)}
    constants |= {f"at_{i}": np.array([i]) for i in range(4)}
    made = {
        "Split": [helper.make_node("Split", ["images", "sizes"], parts, axis=1)],
        "Slice": [
            helper.make_node("Slice", ["images", f"at_{i}", f"at_{i + 1}", "axis"], [part])
            for i, part in enumerate(parts)
        ],
        "Gather": [helper.make_node("Gather", ["images", f"at_{i}"], [part], axis=1) for i, part in enumerate(parts)],
    }[how]
    made.append(helper.make_node("Concat", [parts[i] for i in order], ["joined"], axis=1))
    for node in reversed(made):
        model.graph.node.insert(0, node)
    weights_of = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    model.graph.initializer.extend(weights_of)
    return model.SerializeToString()
