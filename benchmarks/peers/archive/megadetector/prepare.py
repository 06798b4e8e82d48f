"""The model of PEER_MODEL as a frozen TensorFlow graph, which MegaDetector loads: PEER_PREPARED/model.pb.

An ONNX graph of YOLOv8's layout (n, 4 + labels, candidates) becomes, operator by operator and with the same weights,
what the TensorFlow Object Detection API exported and MegaDetector v2 to v4 are: image_tensor (uint8, 1 x h x w x 3) to
detection_boxes (y1 x1 y2 x2 in 0..1), detection_scores and detection_classes (from 1), resizing and suppression inside.
"""

# pyright: reportMissingImports=false
# (runs in an environment of its own)

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import tensorflow.compat.v1 as tf
from onnx import helper, numpy_helper

CHANNELS_LAST = (0, 2, 3, 1)


def main(model: Path, out: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    with tf.Graph().as_default() as graph:
        picture = tf.placeholder(tf.uint8, (1, None, None, 3), "image_tensor")
        side = config["preprocess"]["side_px"]
        pixels = tf.image.resize_bilinear(tf.cast(picture, tf.float32), (side, side), half_pixel_centers=True)
        output = translated(onnx.load(model / config["runtime"]["weights"]).graph, pixels / 255.0)
        suppressed(output, side, config)
        (out / "model.pb").write_bytes(graph.as_graph_def().SerializeToString())
    classes = {str(i + 1): label for i, label in enumerate(config["labels"])}
    (out / "classes.json").write_text(json.dumps(classes))


def suppressed(output: tf.Tensor, side: int, config: dict) -> None:
    """Each candidate has one class, as in a greedy suppression of YOLOv8's heads; then as within each class."""
    centre, size, scores = tf.split(tf.transpose(output, (0, 2, 1)), [2, 2, len(config["labels"])], 2)
    corners = tf.concat([centre - size / 2, centre + size / 2], 2) / side
    best = scores >= tf.reduce_max(scores, 2, keepdims=True)
    most = config["nms"]["max_detections"]
    boxes, kept, classes, _ = tf.image.combined_non_max_suppression(
        tf.gather(corners, [1, 0, 3, 2], axis=2)[:, :, None],
        tf.where(best, scores, tf.zeros_like(scores)),
        most,
        most,
        config["nms"]["iou"],
        config["score_floor"],
    )
    tf.identity(boxes, "detection_boxes")
    tf.identity(kept, "detection_scores")
    tf.identity(classes + 1, "detection_classes")


def translated(graph: onnx.GraphProto, pixels: tf.Tensor) -> tf.Tensor:
    """Four dimensions are kept channels last, as TensorFlow computes on a CPU, up to the heads' own transposition."""
    known: dict = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    known[graph.input[0].name] = pixels
    for node in graph.node:
        given = [known[name] for name in node.input if name]
        facts = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        made = OPERATORS[node.op_type](given, facts)
        known.update(zip(node.output, made if isinstance(made, list) else [made], strict=True))
    return known[graph.output[0].name]


def convolution(given: list, facts: dict) -> tf.Tensor:
    tensor, weights, *bias = given
    if facts.get("auto_pad", b"NOTSET") == b"SAME_UPPER":
        padding: object = "SAME"
    else:
        top, left, bottom, right = facts.get("pads", [0, 0, 0, 0])
        padding = [[0, 0], [top, bottom], [left, right], [0, 0]]
    strides = [1, *facts.get("strides", [1, 1]), 1]
    if facts.get("group", 1) == 1:
        found = tf.nn.conv2d(tensor, weights.transpose(2, 3, 1, 0), strides, padding)
    else:  # one filter a channel
        found = tf.nn.depthwise_conv2d(tensor, weights.transpose(2, 3, 0, 1), strides, padding)
    return found + bias[0] if bias else found


def combined(operation: Callable) -> Callable:
    """Of tensors channels last and constants channels first."""

    def apply(given: list, facts: dict) -> tf.Tensor:
        total = laid(given[0])
        for one in given[1:]:
            total = operation(total, laid(one))
        return total

    return apply


def laid(one: object) -> object:
    if isinstance(one, np.ndarray) and one.ndim in (3, 4) and one.shape[-2:] == (1, 1):
        return one.reshape(-1)  # one number a channel
    return one


def reshaped(given: list, facts: dict) -> tf.Tensor:
    tensor, shape = given
    sides = tensor.shape.as_list()
    return tf.reshape(tensor, [sides[i] if side == 0 else side for i, side in enumerate(shape)])


def transposed(given: list, facts: dict) -> tf.Tensor:
    return given[0] if tuple(facts["perm"]) == CHANNELS_LAST else tf.transpose(*given, facts["perm"])


def cast(given: list, facts: dict) -> np.ndarray:
    return given[0].astype(helper.tensor_dtype_to_np_dtype(facts["to"]))  # of weights alone


def split(given: list, facts: dict) -> list:
    parts = given[1] if len(given) > 1 else 2
    return tf.split(given[0], parts, facts["axis"])


OPERATORS = {
    "Add": combined(tf.add),
    "Cast": cast,
    "Clip": lambda given, facts: tf.clip_by_value(*given),
    "Concat": lambda given, facts: tf.concat(given, facts["axis"]),
    "Conv": convolution,
    "Exp": lambda given, facts: tf.exp(*given),
    "Gather": lambda given, facts: tf.gather(*given, axis=facts["axis"]),
    "Mul": combined(tf.multiply),
    "Reshape": reshaped,
    "Sigmoid": lambda given, facts: tf.sigmoid(*given),
    "Split": split,
    "Sub": combined(tf.subtract),
    "Sum": combined(tf.add),
    "Transpose": transposed,
}

if __name__ == "__main__":
    main(Path(os.environ["PEER_MODEL"]), Path(os.environ["PEER_PREPARED"]))
