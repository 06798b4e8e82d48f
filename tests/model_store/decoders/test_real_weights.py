"""Compare boxes of real graphs of three decoders with the oracle's loops."""

from __future__ import annotations

import numpy as np
import pytest

from model_store.decoders import DECODERS
from model_store.decoders.layout import DecodeSpec
from model_store.images.decode import decode
from model_store.runtimes.onnx import OnnxSession
from model_store.transform.preprocess import prepare, to_tensor
from tests.model_store.adding.recognised import recognised
from tests.model_store.decoders.test_every_decoder import columns, wanted
from tests.oracles.decoders import ORACLES
from tests.shared_data import photo, shared

FLOOR = 0.1


@pytest.mark.parametrize("picture", ["cat", "moose", "person"])
@pytest.mark.parametrize(
    "file",
    [
        "ssdlite_coco_300.yolov8-layout",
        "ssdlite_coco_300.ssd-layout",
        "nanodet_coco_416.yolov8-layout",
        "trailcam_yolox_tiny_640.yolox-raw",
    ],
)
def test_real_outputs_decode_as_in_the_oracle(file: str, picture: str) -> None:
    weights = shared(f"models/{file}.fp16.onnx", "test_the_boxes_are_the_oracles").read_bytes()
    config = recognised(weights, {})
    side, classes = config.preprocess.side_px, len(config.labels)
    pixels = prepare(decode(photo(picture)).pixels, config.preprocess).pixels
    outputs = OnnxSession(weights, threads=2).run(to_tensor(pixels, config.preprocess))
    (found,) = DECODERS[config.decoder](outputs, DecodeSpec((side, side), classes, FLOOR))
    (oracle,) = ORACLES[config.decoder].decode(dict(outputs), side, classes, FLOOR)
    have, want = columns(found), wanted(oracle)
    assert have.shape == want.shape
    np.testing.assert_allclose(have[:, :4], want[:, :4], atol=1e-3, rtol=1e-5)
    np.testing.assert_allclose(have[:, 4], want[:, 4], atol=1e-5)
    assert (have[:, 5] == want[:, 5]).all()
