"""The graph alone on a device: each batch that it takes, in both runtimes; and how a measured model is named."""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from benchmarks import device_loop, gpu
from benchmarks.bare_loop import BareLoop
from benchmarks.subject import SHIPPED, Subject, add_options

SIDE_PX = 8
PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


def graph(place: Path, batch: int | str) -> Path:
    shape: list[int | str] = [batch, 3, SIDE_PX, SIDE_PX]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)
    node = helper.make_node("Relu", ["image"], ["out"])
    model = helper.make_model(
        helper.make_graph([node], "g", [image], [out]), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    onnx.save(model, place / "model.onnx")
    return place / "model.onnx"


def test_each_batch_of_a_graph_has_a_rate(tmp_path: Path) -> None:
    _, found = device_loop.rates(graph(tmp_path, "n"), SIDE_PX, (1, 4), 0.05)
    assert set(found) == {1, 4}
    assert all(rate > 0 for rate in found.values())


def test_a_graph_of_another_batch_than_those_asked_for_has_that_one(tmp_path: Path) -> None:
    _, found = device_loop.rates(graph(tmp_path, 3), SIDE_PX, (1, 2), 0.05)
    assert set(found) == {3}


def test_cores_that_only_decode_need_no_graph() -> None:
    loop = BareLoop("", 640, 1, infers=False)
    assert loop.run([PHOTOS / "cat.jpg"] * 3) > 0


def asked(store: Path, model: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(["--store", str(store), "--model", model])


def test_the_shipped_model_is_a_subject() -> None:
    subject = Subject.of(asked(SHIPPED, "ssdlite-coco"))
    assert subject.graph == SHIPPED / "ssdlite-coco" / "1" / "model.onnx"
    assert subject.side_px == 300


def test_replicas_have_gpus_where_they_are_asked_for(tmp_path: Path) -> None:
    text = gpu.application(tmp_path, 1.0).read_text()
    assert "num_gpus: 1.0" in text
    assert "workers: 2" in text
    assert "num_gpus: 0" in gpu.application(tmp_path, 0.0).read_text()
