"""Measure the time saved by decoding JPEGs at 1/2 and 1/4 of their size, and the effect on boxes.

python benchmarks/jpeg_shrink.py --images 60
Inputs are the five photographs at 2,560 px with sensor noise, JPEG quality 88. Times are medians of alternating calls
on one core. The reference are the boxes of the shipped model at full size, at its display threshold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from batch.planning.scaled_decoding import compare  # noqa: E402
from model_store.detections import Detections  # noqa: E402
from model_store.load import load_detector  # noqa: E402
from model_store.names import parse_ref  # noqa: E402
from model_store.store import ModelStore  # noqa: E402
from model_store.transform.preprocess import read_image  # noqa: E402

FACTORS = (1, 2, 4)
PHOTOS = sorted((ROOT / "examples" / "photos").glob("*.jpg"))


def pictures(count: int) -> list[bytes]:
    random = np.random.default_rng(0)
    made: list[bytes] = []
    for i in range(count):
        photo = cv2.imread(str(PHOTOS[i % len(PHOTOS)]))
        assert photo is not None
        scale = 2560 / max(photo.shape[:2])
        large = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        turn = cv2.getRotationMatrix2D((1280, 900), float(random.uniform(-8, 8)), 1.0)
        large = cv2.warpAffine(large, turn, large.shape[1::-1], borderMode=cv2.BORDER_REFLECT)
        noisy = large + random.normal(0, 5, large.shape)
        quality = [cv2.IMWRITE_JPEG_QUALITY, 88]
        made.append(cv2.imencode(".jpg", noisy.clip(0, 255).astype(np.uint8), quality)[1].tobytes())
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60)
    images = pictures(parser.parse_args().images)
    cv2.setNumThreads(1)
    store = ModelStore(str(ROOT / "examples" / "models"))
    detector = load_detector(store, store.resolve(parse_ref("ssdlite-coco")))
    times: dict[int, list[float]] = {factor: [] for factor in FACTORS}
    seen: dict[int, list[Detections]] = {factor: [] for factor in FACTORS}
    for data in images:
        for factor in FACTORS:
            spec = detector.config.preprocess.model_copy(update={"jpeg_shrink": factor})
            started = time.perf_counter()
            _, prepared = read_image(data, spec)
            times[factor].append((time.perf_counter() - started) * 1e3)
            seen[factor] += detector.infer([prepared]).detections
    result: dict[str, Any] = {"benchmark": "jpeg_shrink", "images": len(images)}
    print(f"{'shrink':8}{'read ms':>9}{'faster':>8}{'matched':>9}{'IoU':>8}{'score':>8}")
    for factor in FACTORS:
        ms = statistics.median(times[factor])
        effect = compare(detector.config.thresholds.default, seen[1], seen[factor])
        matched = effect.matched / max(1, effect.boxes)
        result[f"1/{factor}"] = {"read_ms": ms, **asdict(effect), "matched": matched}
        print(
            f"1/{factor:<6}{ms:>9.1f}{statistics.median(times[1]) / ms:>8.2f}"
            f"{matched:>9.3f}{effect.median_iou:>8.3f}{effect.mean_score_shift:>8.3f}"
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
