"""Infer the range of pixels that an ONNX graph expects from its steps before the first layer.

weights, name of the image input --first_steps--> Scaling: x * scale + offset per channel, and reversed channels

A graph that multiplies its input by 255 takes fractions, one that subtracts 123.7 takes bytes. Steps are followed while
they treat all pixels alike: casts, padding, sums and products with constants, reordered channels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

Fed = Literal["fractions", "bytes"]
MOST_STEPS = 32
FRACTIONS = (1.5, 300.0)
"""Range of factors of graphs that take 0 to 1: 2 (to -1..1), 1 / std of ImageNet (4.4), 255 (to bytes)."""
BYTES = 0.1
"""Upper bound of factors of graphs that take 0 to 255: 1 / 255, 2 / 255, 1 / std of ImageNet in bytes (0.018)."""
SHIFT = 2.0
"""Largest offset, without a factor, of a graph that takes fractions; graphs with a larger one take bytes."""
_PASSING = {"Identity", "Cast", "Pad", "Transpose"}
_SILENT = {"Shape", "Size"}
_ARITHMETIC = {"Add", "Sub", "Mul", "Div"}


@dataclass(frozen=True)
class Scaling:
    """Scale and offset per channel; `turned` for reversed channels; `steps` are the sums and products, in words."""

    scale: tuple[float, ...] = (1.0, 1.0, 1.0)
    offset: tuple[float, ...] = (0.0, 0.0, 0.0)
    turned: bool = False
    steps: tuple[str, ...] = ()

    @property
    def fed(self) -> Fed | None:
        """Return the range that the graph takes, or None if its steps do not determine it."""
        factor, shift = max(map(abs, self.scale)), max(map(abs, self.offset))
        if FRACTIONS[0] <= factor <= FRACTIONS[1]:
            return "fractions"
        if factor <= BYTES:
            return "bytes"
        if 0.9 <= factor <= 1.1 and shift:
            return "bytes" if shift > SHIFT else "fractions"
        return None

    @property
    def words(self) -> str:
        return ", ".join(self.steps)


def first_steps(weights: bytes, name: str) -> Scaling:
    """Return the first steps on the graph's input `name`, none for a file that is not ONNX."""
    try:
        graph = onnx.load_model_from_string(weights).graph
    except (DecodeError, ValueError):
        return Scaling()
    reader = _Reader(graph)
    at, scaling = name, Scaling()
    for _ in range(MOST_STEPS):
        step = reader.after(at, scaling)
        if step is None:
            break
        at, scaling = step
    return scaling


class _Reader:
    """Index of the nodes by their inputs, and of the constants."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._readers: dict[str, list[NodeProto]] = defaultdict(list)
        self._makers = {output: node for node in graph.node for output in node.output}
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            for name in set(node.input) if node.op_type not in _SILENT else ():
                self._readers[name].append(node)

    def after(self, at: str, scaling: Scaling) -> tuple[str, Scaling] | None:
        """Return the next tensor and its scaling of the pixels, or None if the first layer begins."""
        nodes = self._readers.get(at, [])
        if len(nodes) > 1 or (nodes and nodes[0].op_type == "Split"):
            return self._after_split_and_join(nodes, scaling)
        if len(nodes) != 1:
            return None
        (node,) = nodes
        if node.op_type in _PASSING:
            return node.output[0], scaling
        if node.op_type in _ARITHMETIC:
            changed = self._after_arithmetic(node, at, scaling)
            return (node.output[0], changed) if changed else None
        if node.op_type in ("Gather", "Slice") and self._picked_channels(node) == (2, 1, 0):
            return node.output[0], _reversed(scaling)
        return None

    def _after_arithmetic(self, node: NodeProto, at: str, scaling: Scaling) -> Scaling | None:
        """Return the scaling after a sum or product with a constant, or None for any other operand."""
        other = node.input[1] if node.input[0] == at else node.input[0]
        constant = self._constant(other)
        backwards = node.op_type in ("Sub", "Div") and node.input[0] != at
        if constant is None or constant.size not in (1, 3) or backwards:
            return None
        value = np.broadcast_to(constant.astype(np.float64).ravel(), 3)
        scale, offset = np.array(scaling.scale), np.array(scaling.offset)
        if node.op_type in ("Mul", "Div"):
            factor = value if node.op_type == "Mul" else 1 / np.where(value == 0, np.inf, value)
            scale, offset = scale * factor, offset * factor
        else:
            offset = offset + (value if node.op_type == "Add" else -value)
        shown = f"{value[0]:.4g}" if constant.size == 1 else str(np.round(value, 4).tolist())
        step = f"{node.op_type} {shown}"
        steps = (*scaling.steps, step)
        return Scaling(tuple(scale.tolist()), tuple(offset.tolist()), scaling.turned, steps)

    def _after_split_and_join(self, nodes: Sequence[NodeProto], scaling: Scaling) -> tuple[str, Scaling] | None:
        """Return the tensor and scaling after channels are split and joined, in their order or reversed."""
        if len(nodes) == 1:
            outputs = list(nodes[0].output)
            places = {output: i for i, output in enumerate(outputs)}
        else:
            picked = [self._picked_channels(node) for node in nodes]
            places = {n.output[0]: p[0] for n, p in zip(nodes, picked, strict=True) if p and len(p) == 1}
            outputs = list(places)
        joins = {id(join): join for output in outputs for join in self._readers.get(output, [])}
        if len(places) != 3 or len(joins) != 1:
            return None
        (join,) = joins.values()
        order = tuple(places.get(name, -1) for name in join.input)
        if join.op_type != "Concat" or order not in ((0, 1, 2), (2, 1, 0)):
            return None
        return join.output[0], scaling if order == (0, 1, 2) else _reversed(scaling)

    def _picked_channels(self, node: NodeProto) -> tuple[int, ...] | None:
        """Return the channels that a Gather or Slice takes, in its order; None for another axis or node."""
        if node.op_type == "Gather":
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            indices = self._constant(node.input[1])
            if axis not in (1, 3, -1, -3) or indices is None:
                return None
            return tuple(int(i) % 3 for i in indices.ravel())
        if node.op_type != "Slice" or len(node.input) < 4:
            return None
        parts = [self._constant(name) for name in node.input[1:]]
        if any(part is None or part.size != 1 for part in parts):
            return None
        start, end, axis, *step = (int(part.ravel()[0]) for part in parts if part is not None)
        if axis not in (1, 3, -1, -3):
            return None
        return tuple(range(3)[start : end : step[0] if step else 1])

    def _constant(self, name: str) -> NDArray[Any] | None:
        """Return an initializer or constant, also behind a cast (weights may be stored as float16)."""
        if name in self._initializers:
            return numpy_helper.to_array(self._initializers[name])
        maker = self._makers.get(name)
        if maker is None:
            return None
        if maker.op_type in ("Cast", "Identity"):
            return self._constant(maker.input[0])
        value = next((a.t for a in maker.attribute if a.name == "value"), None)
        if maker.op_type != "Constant" or value is None:
            return None
        return numpy_helper.to_array(value)


def _reversed(scaling: Scaling) -> Scaling:
    return replace(scaling, scale=scaling.scale[::-1], offset=scaling.offset[::-1], turned=not scaling.turned)
