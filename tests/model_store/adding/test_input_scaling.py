"""Compare the inferred first steps of a graph with the result of running them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_store.adding.input_scaling import Scaling, first_steps
from model_store.runtimes.onnx import OnnxSession
from tests.graphs import pooling
from tests.model_store.adding.first_layers import GATHERED, PADDED, SLICED, Step, add, begun, div, mul, sub, taken_apart
from tests.model_store.tiny_graphs import passing_on

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
IN_BYTES = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
PLAIN = passing_on(["n", 3, 4, 4])


@pytest.mark.parametrize(
    ("steps", "fed"),
    [
        ([], None),
        ([mul(255)], "fractions"),
        ([mul(2), sub(1)], "fractions"),
        ([sub(*IMAGENET[0]), div(*IMAGENET[1])], "fractions"),
        ([sub(0.5)], "fractions"),
        ([div(255)], "bytes"),
        ([sub(*IN_BYTES[0]), div(*IN_BYTES[1])], "bytes"),
        ([add(-128)], "bytes"),
        ([mul(0.5)], None),
        ([mul(1000)], None),
        ([PADDED, mul(255)], "fractions"),
        ([Step("Cast", (), (("to", TensorProto.FLOAT),)), div(255)], "bytes"),
        ([Step("Relu"), mul(255)], None),
        ([Step("Mul", (np.ones((1, 1, 4, 4), np.float32),)), mul(255)], None),
        ([Step("Sub", (np.array([1.0], np.float32),), first=True), mul(255)], None),
        ([Step("Div", (np.array([1.0], np.float32),), first=True)], None),
    ],
)
def test_a_graph_is_fed_what_its_first_steps_expect(steps: list[Step], fed: str | None) -> None:
    assert first_steps(begun(PLAIN, *steps), "images").fed == fed


@pytest.mark.parametrize(
    "steps",
    [
        [sub(*IMAGENET[0]), div(*IMAGENET[1])],
        [mul(1, 2, 3), SLICED, add(4, 5, 6)],
        [mul(1, 2, 3), GATHERED, add(4, 5, 6), GATHERED, mul(7, 8, 9)],
        [Step("Mul", (np.array([3.0], np.float32),), first=True), Step("Add", (np.array([1.0], np.float32),))],
    ],
)
def test_what_is_read_of_the_steps_is_what_they_do(steps: list[Step]) -> None:
    weights = begun(PLAIN, *steps)
    pixels = np.random.default_rng(0).random((1, 3, 4, 4), np.float32)
    (done,) = OnnxSession(weights, threads=1).run(pixels).values()
    read = first_steps(weights, "images")
    turned = pixels[:, ::-1] if read.turned else pixels
    scale, offset = (np.array(v).reshape(1, 3, 1, 1) for v in (read.scale, read.offset))
    np.testing.assert_allclose(turned * scale + offset, done, rtol=1e-5, atol=1e-6)
    assert len(read.steps) == sum(step.op in ("Mul", "Div", "Sub", "Add") for step in steps)


@pytest.mark.parametrize("how", ["Split", "Slice", "Gather"])
@pytest.mark.parametrize(("order", "turned"), [((2, 1, 0), True), ((0, 1, 2), False), ((1, 0, 2), None)])
def test_channels_taken_apart_are_turned_or_not(how: str, order: tuple[int, int, int], turned: bool | None) -> None:
    """Steps after any other order of channels are ignored."""
    read = first_steps(taken_apart(begun(PLAIN, mul(255)), how, order), "images")
    assert read.turned is bool(turned)
    assert read.fed == (None if turned is None else "fractions")


def test_pixels_that_two_layers_read_are_followed_no_further() -> None:
    model = onnx.load_model_from_string(begun(PLAIN, mul(255), mul(3)))
    model.graph.node.append(helper.make_node("Relu", ["step_0"], ["beside"]))
    assert first_steps(model.SerializeToString(), "images").steps == ("Mul 255",)
    model.graph.node[-1].op_type = "Shape"  # a size is not a pixel value
    assert first_steps(model.SerializeToString(), "images").steps == ("Mul 255", "Mul 3")


@pytest.mark.parametrize("kind", ["constant", "cast"])
def test_constants_may_be_nodes_and_stored_as_float16(kind: str) -> None:
    model = onnx.load_model_from_string(begun(PLAIN, mul(255)))
    del model.graph.initializer[:]
    half = numpy_helper.from_array(np.array(255, np.float16))
    whole = numpy_helper.from_array(np.array(255, np.float32))
    if kind == "constant":
        nodes = [helper.make_node("Constant", [], ["constant_0_0"], value=whole)]
    else:
        nodes = [
            helper.make_node("Constant", [], ["half"], value=half),
            helper.make_node("Cast", ["half"], ["constant_0_0"], to=TensorProto.FLOAT),
        ]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    assert first_steps(model.SerializeToString(), "images").fed == "fractions"


def test_a_layer_that_learned_its_numbers_is_no_scaling() -> None:
    assert first_steps(pooling(5), "images") == Scaling()


@pytest.mark.parametrize("weights", [b"", b"PK\x03\x04", b"no onnx"])
def test_of_what_is_no_graph_nothing_is_read(weights: bytes) -> None:
    assert first_steps(weights, "images") == Scaling()
