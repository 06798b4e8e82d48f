"""Build ONNX graphs of a few nodes for `recognise` and the ONNX runtime.

`averaging` computes (n, 5, 20) from (n, 3, 10, 10): the mean of the channels, reshaped.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

SIDE_PX = 10
ROWS, ANCHORS = 5, 20  # 4 box rows and one class; 5 * 20 = 10 * 10

Dimensions = Sequence[int | str | None] | None


def averaging(batch: int | str = "n", metadata: Mapping[str, str] | None = None, written: int | None = None) -> bytes:
    """Return weights with an output for each image alone. `batch` is a number or a free name, and `written` the
    batch inside the graph, if different.
    """
    rows = written or (batch if isinstance(batch, int) else -1)
    shape = helper.make_tensor("shape", TensorProto.INT64, [3], [rows, ROWS, ANCHORS])
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["grey"], axes=[1], keepdims=0),
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("Reshape", ["grey", "shape"], ["output0"]),
    ]
    inputs = [_value("images", [batch, 3, SIDE_PX, SIDE_PX])]
    return _model(nodes, inputs, [_value("output0", [batch, ROWS, ANCHORS])], metadata)


def same_answer(shape: Sequence[int], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return zeros of this shape for any number of images."""
    value = numpy_helper.from_array(np.zeros(shape, np.float32), "value")
    nodes = [helper.make_node("Constant", [], ["output0"], value=value)]
    inputs = [_value("images", ["n", 3, SIDE_PX, SIDE_PX])]
    return _model(nodes, inputs, [_value("output0", shape)], metadata)


def random_scores(metadata: Mapping[str, str] | None = None) -> bytes:
    """Return random scores in each call."""
    nodes = [helper.make_node("RandomUniform", [], ["output0"], shape=[1, ROWS, ANCHORS])]
    inputs = [_value("images", [1, 3, SIDE_PX, SIDE_PX])]
    return _model(nodes, inputs, [_value("output0", [1, ROWS, ANCHORS])], metadata)


def two_inputs() -> bytes:
    """Add two images, which are two inputs."""
    shape = ["n", 3, SIDE_PX, SIDE_PX]
    nodes = [helper.make_node("Add", ["left", "right"], ["output0"])]
    inputs = [_value("left", shape), _value("right", shape)]
    return _model(nodes, inputs, [_value("output0", shape)], {"names": "['deer']"})


def passing_on(shape: Dimensions, metadata: Mapping[str, str] | None = None, kind: int = TensorProto.FLOAT) -> bytes:
    """Return the input, of any shape."""
    nodes = [helper.make_node("Identity", ["images"], ["output0"])]
    results = [_value("output0", shape, kind)]
    return _model(nodes, [_value("images", shape, kind)], results, metadata)


def of_one_size(metadata: Mapping[str, str] | None = None, side_px: int = SIDE_PX, numbers: int = 3) -> bytes:
    """Add numbers for one size to an image of any size, as networks with learned positions do."""
    positions = numpy_helper.from_array(np.zeros((1, 3, side_px, side_px), np.float32), "value")
    rows = numpy_helper.from_array(np.array([0, numbers, -1]), "value")
    nodes = [
        helper.make_node("Constant", [], ["positions"], value=positions),
        helper.make_node("Constant", [], ["rows"], value=rows),
        helper.make_node("Add", ["images", "positions"], ["moved"]),
        helper.make_node("Reshape", ["moved", "rows"], ["output0"]),
    ]
    shape = ["n", "channels", "height", "width"]
    return _model(nodes, [_value("images", shape)], [_value("output0", ["n", numbers, "rows"])], metadata)


def in_a_list() -> bytes:
    """Return a list of tensors as output."""
    nodes = [helper.make_node("SequenceConstruct", ["images"], ["output0"])]
    results = [helper.make_tensor_sequence_value_info("output0", TensorProto.FLOAT, None)]
    return _model(nodes, [_value("images", ["n", 3, SIDE_PX, SIDE_PX])], results, None)


def _value(name: str, shape: Dimensions, kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    metadata: Mapping[str, str] | None,
) -> bytes:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    return model.SerializeToString()
