"""ONNX models without weights: fixed tensors come out, and the image says which row.

images (batch, 3, side, side)  -->  each output (batch, ...): image i gets row
round(images[i, 0, 0, 0] * scale + offset) mod rows of the output's tensor.

So the answer follows the image, wherever in a batch it stands. The default pixel=(255, 0) takes the
red value of the top left pixel of an image that was divided by 255; (1, 0) is for 0..255 and
(255 * std, 255 * mean) undoes a normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8  # the version of opset 17: every onnxruntime in use loads it


def constant_graph(
    outputs: Mapping[str, np.ndarray],
    side_px: int,
    metadata: Mapping[str, str] | None = None,
    fp16_input: bool = False,
    extra_inputs: Sequence[str] = (),
    *,
    batchless: bool = False,
    pixel: tuple[float, float] = (255.0, 0.0),
) -> bytes:
    """The bytes of a model that emits rows of `outputs` (rows, ...), in their own dtypes.

    `extra_inputs` are names of int64 inputs (batch, 2), such as `orig_target_sizes`: they are asked
    for and change nothing. `batchless` fixes the batch to 1 and drops that dimension of every
    output, as torchvision's exports do.
    """
    batch = 1 if batchless else "batch"
    number = TensorProto.FLOAT16 if fp16_input else TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("images", number, [batch, 3, side_px, side_px])]
    nodes, constants = _pixel_index(pixel)
    constants |= {"axis_0": np.array([0])} if batchless else {}
    constants |= {"axis_1": np.array([1])} if extra_inputs else {}
    index = "index"
    for name in extra_inputs:
        inputs.append(helper.make_tensor_value_info(name, TensorProto.INT64, [batch, 2]))
        nodes += [
            helper.make_node("Mul", [name, "zero"], [f"{name}_times_zero"]),
            helper.make_node(
                "ReduceSum", [f"{name}_times_zero", "axis_1"], [f"{name}_sum"], keepdims=0
            ),
            helper.make_node("Add", [index, f"{name}_sum"], [f"{name}_index"]),
        ]
        index = f"{name}_index"

    results = []
    for name, rows in outputs.items():
        rows = np.ascontiguousarray(rows)
        constants[f"{name}_rows"] = rows
        constants[f"{name}_count"] = np.array(rows.shape[0], np.int64)
        gathered = f"{name}_batch" if batchless else name
        nodes += [
            helper.make_node("Mod", [index, f"{name}_count"], [f"{name}_row"]),
            helper.make_node("Gather", [f"{name}_rows", f"{name}_row"], [gathered], axis=0),
        ]
        if batchless:
            nodes.append(helper.make_node("Squeeze", [gathered, "axis_0"], [name]))
        shape = [*rows.shape[1:]] if batchless else [batch, *rows.shape[1:]]
        kind = helper.np_dtype_to_tensor_dtype(rows.dtype)
        results.append(helper.make_tensor_value_info(name, kind, shape))

    weights = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "constants", inputs, results, weights)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model)
    return model.SerializeToString()


def pooling(
    rows: int, metadata: Mapping[str, str] | None = None, size: tuple[int, int] | None = None
) -> bytes:
    """A graph for pictures of any size, or of (height, width): (batch, rows, cells), where cells are
    8 x 8 px and every row is the mean of its cell, times 0 for rows 4 and on.
    """
    height, width = size or ("height", "width")
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, height, width])
    ]
    results = [
        helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", rows, "cells"])
    ]
    kernel = np.zeros((rows, 3, 8, 8), np.float32)
    kernel[:4] = 1 / (3 * 64)
    constants = {"kernel": kernel, "shape": np.array([0, rows, -1], np.int64)}
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["cells_of"], strides=[8, 8]),
        helper.make_node("Reshape", ["cells_of", "shape"], ["output0"]),
    ]
    weights = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "pooling", inputs, results, weights)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    helper.set_model_props(model, dict(metadata or {}))
    return model.SerializeToString()


def _pixel_index(
    pixel: tuple[float, float],
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Nodes from `images` to `index` (batch,) int64, and the constants they read."""
    scale, offset = pixel
    constants = {
        "zero": np.array(0, np.int64),
        "scale": np.array(scale, np.float32),
        "offset": np.array(offset, np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["images", "zero"], ["channel"], axis=1),
        helper.make_node("Gather", ["channel", "zero"], ["line"], axis=1),
        helper.make_node("Gather", ["line", "zero"], ["value"], axis=1),
        helper.make_node("Cast", ["value"], ["value_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["value_float", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["moved"]),
        helper.make_node("Round", ["moved"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["index"], to=TensorProto.INT64),
    ]
    return nodes, constants


def endless(side_px: int = 300, rows: int = 84) -> bytes:
    """A graph that never ends on any picture: a loop of 2^62 turns. It takes `images` and gives `output0`."""
    shape = ["batch", 3, side_px, side_px]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)]
    results = [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", rows, 1])]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Add", ["sum_in", "one"], ["sum_out"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_in", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_out", TensorProto.FLOAT, []),
        ],
    )
    constants = {
        "one": np.array(1.0, np.float32),
        "turns": np.array(2**62, np.int64),
        "go": np.array(True),
        "rows": np.zeros((1, rows, 1), np.float32),
        "axes": np.array([1, 2, 3], np.int64),
    }
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node("Loop", ["turns", "go", "mean"], ["sum"], body=body),
        helper.make_node("Add", ["rows", "sum"], ["output0"]),
    ]
    weights = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "endless", inputs, results, weights)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    return model.SerializeToString()


def mean_colours(
    weight: np.ndarray,
    side_px: int | str,
    metadata: Mapping[str, str] | None = None,
    *,
    softmax: bool = False,
    batch: int | str = "batch",
    shape: Sequence[int] | None = None,
) -> bytes:
    """A classifier: the mean of each channel times `weight` (3, classes), also through a softmax; reshaped to
    `shape` where one is given.
    """
    classes = weight.shape[1]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, side_px, side_px])
    ]
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["means", "weight"], ["plain"]),
        helper.make_node("Softmax" if softmax else "Identity", ["plain"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["output0"]),
    ]
    constants = {
        "weight": weight.astype(np.float32),
        "shape": np.array(shape or [-1, classes], np.int64),
    }
    results = [helper.make_tensor_value_info("output0", TensorProto.FLOAT, None)]
    weights = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "mean_colours", inputs, results, weights)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    helper.set_model_props(model, dict(metadata or {}))
    return model.SerializeToString()
