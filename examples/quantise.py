"""Make version 2 of the shipped model: the same network in 8-bit integers, for CPUs.

weights of ssdlite-coco@1 -> fp32, batch norms folded -> ranges of activations over pictures -> OUT.onnx (int8, QDQ)
                                                                     its config.json -> OUT.json

    python -m examples.quantise --out ssdlite-int8.onnx [--compare]
    resight models add ssdlite-int8.onnx --config ssdlite-int8.json --name ssdlite-coco --version 2 \\
        --probe examples/photos/cat.jpg --probe examples/photos/panda.jpg

Pictures are the shipped photographs and scenes of the sample archive, preprocessed as in Resight. --compare times both
versions on one core and reports how far they agree on scenes of another seed.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from examples.archive_plan import plan
from examples.odd_files import encode
from examples.scenes import PHOTOS, render
from model_store.detections import Detections
from model_store.detector import LoadedDetector
from model_store.load import load_detector
from model_store.names import version_id
from model_store.runtimes import open_weights
from model_store.store import ModelStore
from model_store.transform.preprocess import to_tensor
from model_store.transform.thresholds import least_scores, shown
from serve.models.shadow import Agreement, compare

MODEL = version_id("ssdlite-coco", "1")
STORE = ModelStore(str(Path(__file__).parent / "models"))
WEIGHTS = "model.onnx"
DESCRIPTION = "ssdlite-coco@1 in int8 (examples/quantise.py): for CPUs; scores differ a little"
QUANTISED = ("Conv", "Add", "Clip")
"""Operators to quantise. Clip is ReLU6 here, part of the range of its convolution; boxes and scores stay in float."""
FLOAT_CONVS = 2
"""The first convolution and the depthwise one after it stay in float: few weights, different ranges per channel
(measured: IoU of boxes with version 1 is 0.965 instead of 0.946, in the same time).
"""
CALIBRATION_SEED, COMPARISON_SEED = 1, 0
IMAGES = 60
Tensor = NDArray[np.float32]  # (1, 3, 300, 300)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument("--images", type=int, default=IMAGES, help="size of the sample archive to calibrate with")
    parser.add_argument("--compare", action="store_true", help="compare speed and boxes with version 1")
    options = parser.parse_args(arguments)
    before = load_detector(STORE, MODEL)
    settings = before.config.model_copy(update={"description": DESCRIPTION})
    weights = STORE.read_file(STORE.describe(MODEL), WEIGHTS)
    pictures = [*photographs(), *scenes(options.images, CALIBRATION_SEED)]
    quantised = quantise(weights, (tensor_of(before, data) for data in pictures))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(quantised)
    options.out.with_suffix(".json").write_text(settings.model_dump_json(indent=1))
    print(f"{options.out}: {len(quantised)} bytes; {len(weights)} before")
    if options.compare:
        after = replace(before, session=open_weights("onnx", quantised, threads=1))
        print_comparison(before, after, [*photographs(), *scenes(IMAGES, COMPARISON_SEED)])


def quantise(weights: bytes, images: Iterable[Tensor]) -> bytes:
    """Return an ONNX file with the same inputs, outputs and metadata, and int8 convolutions.

    Weights have 7 bits: processors without VNNI add pairs of products in 16 bits, which overflow with 8-bit weights
    (measured there: 24 of 41 boxes matched instead of 39).
    """
    metadata = {entry.key: entry.value for entry in onnx.load_from_string(weights).metadata_props}
    with tempfile.TemporaryDirectory(prefix="resight-quantise-") as name:
        folder = Path(name)
        (folder / "given.onnx").write_bytes(weights)
        quant_pre_process(folder / "given.onnx", folder / "folded.onnx", skip_symbolic_shape=True)
        graph = onnx.load(folder / "folded.onnx")
        onnx.save(with_adds(graph), folder / "named.onnx")
        quantize_static(
            folder / "named.onnx",
            folder / "int8.onnx",
            _Calibration(graph.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=first_convs(graph, FLOAT_CONVS),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
        quantised = onnx.load(folder / "int8.onnx")
    used = {node.domain for node in quantised.graph.node}
    operators = [one for one in quantised.opset_import if one.domain in used]
    del quantised.opset_import[:], quantised.metadata_props[:]
    quantised.opset_import.extend(operators)
    onnx.helper.set_model_props(quantised, metadata | {"description": DESCRIPTION})
    return quantised.SerializeToString()


def with_adds(model: onnx.ModelProto) -> onnx.ModelProto:
    """Name every node, and replace sums of two inputs by additions, which have an 8-bit kernel."""
    for place, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{place}"
        if node.op_type == "Sum" and len(node.input) == 2:
            node.op_type = "Add"
    return model


def first_convs(model: onnx.ModelProto, count: int) -> list[str]:
    """Return the names of the first convolutions on the path of the image tensor."""
    reached, found = {model.graph.input[0].name}, list[str]()
    waiting = list(model.graph.node)
    while waiting and len(found) < count:
        node = next(node for node in waiting if reached & set(node.input))
        waiting.remove(node)
        reached |= set(node.output)
        found += [node.name] if node.op_type == "Conv" else []
    return found


class _Calibration(CalibrationDataReader):
    def __init__(self, name: str, images: Iterable[Tensor]) -> None:
        self._feeds = ({name: image} for image in images)

    def get_next(self) -> dict[str, Tensor] | None:  # type: ignore[override]
        return next(self._feeds, None)


def photographs() -> list[bytes]:
    return [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))]


def scenes(images: int, seed: int) -> Iterator[bytes]:
    """Return the undamaged JPEGs of a sample archive of `images` files."""
    for shot in plan(images, seed):
        if shot.kind == "jpeg":
            yield encode(render(shot, seed), shot)


def tensor_of(detector: LoadedDetector, data: bytes) -> Tensor:
    return to_tensor(detector.read(data)[1].pixels, detector.config.preprocess)


def print_comparison(before: LoadedDetector, after: LoadedDetector, pictures: list[bytes]) -> None:
    """Time both versions in alternation, so that other load affects both equally, and print the comparison."""
    took_ms: tuple[list[float], list[float]] = ([], [])
    agreed = Agreement()
    for data in pictures:
        seen: list[Detections] = []
        _, prepared = before.read(data)
        for detector, times in zip((before, after), took_ms, strict=True):
            calls = [detector.infer([prepared]) for _ in range(3)]
            times.append(statistics.median(call.inference_ms for call in calls))
            seen.append(shown(calls[0].detections[0], least_scores(detector.config)))
        labels = before.info.labels
        agreed = agreed.plus(compare(seen[0], seen[1], labels, labels))
    one_ms, two_ms = map(statistics.median, took_ms)
    print(f"median inference on one core: {one_ms:.1f} ms, int8 {two_ms:.1f} ms: {one_ms / two_ms:.2f}")
    names = ("pictures", "boxes matched", "with another label", "only before", "only int8")
    print(", ".join(f"{name} {count}" for name, count in zip(names, astuple(agreed), strict=False)))
    mean = (agreed.score_shift / max(1, agreed.matched), agreed.score_shift_abs / max(1, agreed.matched))
    print(f"scores of matched boxes: {mean[0]:+.3f} mean difference, {mean[1]:.3f} mean absolute difference")


if __name__ == "__main__":
    main()
