"""How far the product's boxes are from the oracle's, decoder by decoder: `python -m tests.oracles.report`.

Graphs that emit known tensors, for 1, 3 and 12 classes and with fp32 and fp16 inputs; then the real weights
that are at hand, on photographs. A match is the box of the same rank and class.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from model_store.decoders import DECODERS
from model_store.decoders.layout import DecodeSpec
from model_store.detections import Detections
from model_store.images.decode import decode
from model_store.runtimes.onnx import OnnxSession
from model_store.transform.preprocess import prepare, to_tensor
from tests.model_store.adding.recognised import recognised
from tests.oracles.anchor_decoders import Box
from tests.oracles.decoders import ORACLES
from tests.oracles.tensors import example, export
from tests.shared_data import MODELS, PHOTOS, SHARED

SIDE_PX, FLOOR = 64, 0.05
Pair = tuple[Detections, list[Box]]


def synthetic(decoder: str) -> Iterator[Pair]:
    for classes in (1, 3, 12):
        outputs = example(decoder, np.random.default_rng(classes), 3, classes, SIDE_PX)
        for fp16 in (False, True):
            graph = export(decoder, outputs, SIDE_PX, fp16=fp16)
            images = np.zeros((3, 3, SIDE_PX, SIDE_PX), np.float32)
            images[:, 0, 0, 0] = np.arange(3) / 255
            raw = OnnxSession(graph, threads=1).run(images)
            found = DECODERS[decoder](raw, DecodeSpec((SIDE_PX, SIDE_PX), classes, FLOOR))
            yield from zip(found, ORACLES[decoder].decode(outputs, SIDE_PX, classes, FLOOR), strict=True)


def real(weights: bytes) -> tuple[str, list[Pair]]:
    config = recognised(weights, {})
    side, classes = config.preprocess.side_px, len(config.labels)
    session = OnnxSession(weights, threads=2)
    pairs: list[Pair] = []
    for path in PHOTOS:
        pixels = prepare(decode(path.read_bytes()).pixels, config.preprocess).pixels
        raw = session.run(to_tensor(pixels, config.preprocess))
        (found,) = DECODERS[config.decoder](raw, DecodeSpec((side, side), classes, FLOOR))
        (wanted,) = ORACLES[config.decoder].decode(dict(raw), side, classes, FLOOR)
        pairs.append((found, wanted))
    return config.decoder, pairs


def line(name: str, pairs: list[Pair]) -> str:
    """Both sides ranked by score, then class and corners: equal sets are then equal row by row."""
    boxes = missing = 0
    off_px = off_score = 0.0
    for found, wanted in pairs:
        ranked = found.ranked()
        have = np.column_stack([ranked.boxes_xyxy, ranked.scores, ranked.class_ids])
        want = np.array(sorted(wanted, key=lambda b: (-b.score, b.class_id, *b[:4])), np.float64)
        want = want.reshape(-1, 6)
        boxes += len(want)
        if have.shape != want.shape or (have[:, 5] != want[:, 5]).any():
            missing += max(len(have), len(want))
            continue
        if len(want):
            off_px = max(off_px, float(np.abs(have[:, :4] - want[:, :4]).max()))
            off_score = max(off_score, float(np.abs(have[:, 4] - want[:, 4]).max()))
    return f"{name:48} {len(pairs):6} {boxes:7} {missing:9} {off_px:10.1e} {off_score:10.1e}"


def main() -> None:
    print(f"{'decoder':48} {'images':>6} {'boxes':>7} {'unmatched':>9} {'off, px':>10} {'score':>10}")
    for decoder in ORACLES:
        print(line(decoder, list(synthetic(decoder))))
    files = [MODELS / "ssdlite-coco" / "1" / "model.onnx"]
    files += sorted(f for f in (SHARED / "models").glob("*.onnx") if "classifier" not in f.name)
    for file in files:
        decoder, pairs = real(file.read_bytes())
        name = file.parents[1].name if file.name == "model.onnx" else file.name.split(".")[0]
        print(line(f"{decoder}: {name}", pairs))


if __name__ == "__main__":
    main()
