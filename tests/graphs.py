"""ONNX models without weights: fixed tensors come out, and the image says which row.

images (batch, 3, side, side)  -->  each output (batch, ...): image i gets row
round(images[i, 0, 0, 0] * scale + offset) mod rows of the output's tensor.

So the answer follows the image, wherever in a batch it stands. The default pixel=(255, 0) takes the
red value of the top left pixel of an image that was divided by 255; (1, 0) is for 0..255 and
(255 * std, 255 * mean) undoes a normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
            helper.make_node("ReduceSum", [f"{name}_times_zero", "axis_1"], [f"{name}_sum"], keepdims=0),
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

    model = _serialised("constants", nodes, inputs, results, constants, metadata)
    onnx.checker.check_model(model)
    return model


def pooling(rows: int, metadata: Mapping[str, str] | None = None, size: tuple[int, int] | None = None) -> bytes:
    """A graph for pictures of any size, or of (height, width): (batch, rows, cells), where cells are
    8 x 8 px and every row is the mean of its cell, times 0 for rows 4 and on.
    """
    height, width = size or ("height", "width")
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, height, width])]
    results = [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", rows, "cells"])]
    kernel = np.zeros((rows, 3, 8, 8), np.float32)
    kernel[:4] = 1 / (3 * 64)
    constants = {"kernel": kernel, "shape": np.array([0, rows, -1], np.int64)}
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["cells_of"], strides=[8, 8]),
        helper.make_node("Reshape", ["cells_of", "shape"], ["output0"]),
    ]
    return _serialised("pooling", nodes, inputs, results, constants, metadata)


def _serialised(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    results: Sequence[onnx.ValueInfoProto],
    constants: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """The bytes of a model of these nodes."""
    weights = [numpy_helper.from_array(values, key) for key, values in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, results, weights)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    helper.set_model_props(model, dict(metadata or {}))
    return model.SerializeToString()


def _pixel_index(pixel: tuple[float, float]) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
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
        [helper.make_node("Identity", ["go_in"], ["go_out"]), helper.make_node("Add", ["sum_in", "one"], ["sum_out"])],
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
    return _serialised("endless", nodes, inputs, results, constants)


def mean_colours(
    weight: np.ndarray,
    side_px: int | str,
    metadata: Mapping[str, str] | None = None,
    *,
    softmax: bool = False,
    batch: int | str = "batch",
    shape: Sequence[int] | None = None,
    output: str = "output0",
) -> bytes:
    """A classifier: the mean of each channel times `weight` (3, classes), also through a softmax; reshaped to
    `shape` where one is given.
    """
    classes = weight.shape[1]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, side_px, side_px])]
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["means", "weight"], ["plain"]),
        helper.make_node("Softmax" if softmax else "Identity", ["plain"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], [output]),
    ]
    constants = {"weight": weight.astype(np.float32), "shape": np.array(shape or [-1, classes], np.int64)}
    results = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    return _serialised("mean_colours", nodes, inputs, results, constants, metadata)


def colour_head(
    decoder: str,
    scores: np.ndarray,
    side_px: int = 64,
    metadata: Mapping[str, str] | None = None,
    *,
    cells: float = 1,
    takes_bytes: bool = False,
) -> bytes:
    """A detector for the decoder yolov8, ssd or yolox_raw whose boxes and scores follow the picture.

    Each cell of strides 8, 16 and 32 has a row, made of its mean colour (a, b, c), 0 to 1 in the order of the channels.
    The centre of the box is that of the cell, moved right by a / 4 and down by b / 4 of the stride; the box is
    `cells` strides wide and high, times exp(-b / 2) and exp(-c / 2). The score of a class is the sigmoid of
    (a, b, c, 1) times its row of `scores` (classes, 4). The first product shows if the graph takes 0 to 1 or bytes.
    """
    where = [(s, x, y) for s in (8, 16, 32) for y in range(side_px // s) for x in range(side_px // s)]
    stride, column, row = np.array(where, np.float32).T
    objectness = [[0, 0, 0, 4]] if decoder == "yolox_raw" else []
    chances = np.array([*objectness, *scores], np.float32)
    box = np.array([[1, 0, 0, 2], [0, 1, 0, 2], [0, -2, 0, 0], [0, 0, -2, 0]], np.float32) / 4
    box[2:, 3] = np.log(cells)
    constants = {
        "scale": np.array(2 / 255 if takes_bytes else 2, np.float32),
        "flat": np.array([0, 3, -1]),
        "box": box[:, :3] / 2,
        "box_at_0": box[:, 3:],
        "class": chances[:, :3] / 2,
        "class_at_0": chances[:, 3:],
        "grid": np.stack([column, row]),
        "stride": stride,
        "half": np.array(0.5, np.float32),
        "y_first": np.array([1, 0, 3, 2]),
        "side": np.array(side_px, np.float32),
    }
    node, levels = helper.make_node, ["of_8", "of_16", "of_32"]
    nodes = [node("Mul", ["images", "scale"], ["scaled"])]
    for level, px in zip(levels, (8, 16, 32), strict=True):
        pool: dict[str, Any] = {"kernel_shape": [px, px], "strides": [px, px]}
        nodes.append(node("AveragePool", ["scaled"], [f"{level}_2d"], **pool))
        nodes.append(node("Reshape", [f"{level}_2d", "flat"], [level]))
    nodes.append(node("Concat", levels, ["colours"], axis=2))
    for name in ("box", "class"):
        nodes.append(node("MatMul", [name, "colours"], [f"{name}_product"]))
        nodes.append(node("Add", [f"{name}_product", f"{name}_at_0"], [f"{name}_raw"]))
    nodes.append(node("Sigmoid", ["class_raw"], ["chances"]))
    decoded = [
        node("Split", ["box_raw"], ["xy_raw", "wh_raw"], axis=1),
        node("Add", ["xy_raw", "grid"], ["xy_cells"]),
        node("Mul", ["xy_cells", "stride"], ["xy"]),
        node("Exp", ["wh_raw"], ["wh_cells"]),
        node("Mul", ["wh_cells", "stride"], ["wh"]),
    ]
    if decoder == "yolov8":
        nodes += [*decoded, node("Concat", ["xy", "wh", "chances"], ["output0"], axis=1)]
    elif decoder == "yolox_raw":
        nodes.append(node("Concat", ["box_raw", "chances"], ["rows"], axis=1))
        nodes.append(node("Transpose", ["rows"], ["output0"], perm=[0, 2, 1]))
    else:
        nodes += [
            *decoded,
            node("Mul", ["wh", "half"], ["reach"]),
            node("Sub", ["xy", "reach"], ["low"]),
            node("Add", ["xy", "reach"], ["high"]),
            node("Concat", ["low", "high"], ["corners"], axis=1),
            node("Gather", ["corners", "y_first"], ["turned"], axis=1),
            node("Div", ["turned", "side"], ["fractions"]),
            node("Transpose", ["fractions"], ["boxes"], perm=[0, 2, 1]),
            node("Transpose", ["chances"], ["scores"], perm=[0, 2, 1]),
        ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, side_px, side_px])
    outputs = ["boxes", "scores"] if decoder == "ssd" else ["output0"]
    shape = ["batch", None, None]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs]
    read = {name for each in nodes for name in each.input}
    constants = {name: values for name, values in constants.items() if name in read}
    model = _serialised("colour_head", nodes, [images], results, constants, metadata)
    onnx.checker.check_model(model)
    return model


def random_head(decoder: str, classes: int = 3, seed: int = 4, **more: Any) -> bytes:
    """A `colour_head` whose scores on photographs lie on both sides of 0.05, and whose boxes overlap."""
    rng = np.random.default_rng(seed)
    hues = rng.normal(0, 30, (classes, 3))
    hues -= hues.mean(axis=1, keepdims=True)  # grey tells nothing
    scores = np.column_stack([hues, rng.normal(-5, 1, classes)])
    names = {"names": str(dict(enumerate("abcdefgh"[:classes]))), "task": "detect"}
    return colour_head(decoder, scores, metadata=names, cells=8, **more)
