"""What a user of any of the peers has to write first: a file's bytes to detections, with the libraries alone.

Detector(folder of a version)(jpeg) -> [{"label": …, "score": …, "box_xyxy_px": […]}, …]
It shares no code with Resight and imports none: it runs in the environments of the peers. The same decoder
(libjpeg-turbo), the same session of ONNX Runtime on one thread, suppression by OpenCV.

With PEER_SCALED=1, libjpeg-turbo decodes JPEGs at the smallest scale (eighths) that leaves the pixels of the input.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
import simplejpeg


class Detector:
    """Of a graph with YOLOv8's layout, (n, 4 + labels, candidates), on pictures stretched to a square."""

    def __init__(self, folder: str | Path, threads: int = 1) -> None:
        cv2.setNumThreads(1)
        self.config: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text())
        self.side_px: int = self.config["preprocess"]["side_px"]
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        weights = str(Path(folder) / self.config["runtime"]["weights"])
        self._session = ort.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self.infer(np.zeros((1, 3, self.side_px, self.side_px), np.float32))

    def __call__(self, data: bytes) -> list[dict[str, Any]]:
        """Raises ValueError when the bytes are no picture."""
        tensor, size_px = self.prepare(data)
        return self.detections(self.infer(tensor[None])[0], size_px)

    def batch(self, files: list[bytes]) -> list[list[dict[str, Any]]]:
        """The same for several, in one call of the session. Raises ValueError when one of them is no picture."""
        tensors, sizes_px = zip(*map(self.prepare, files), strict=True)
        outputs = self.infer(np.stack(tensors))
        return [self.detections(*one) for one in zip(outputs, sizes_px, strict=True)]

    def prepare(self, data: bytes) -> tuple[np.ndarray, tuple[int, int]]:
        """float32 (3, side, side) in 0..1, RGB; width and height of the picture. Raises ValueError."""
        pixels, size_px = decode(data, self.side_px if os.environ.get("PEER_SCALED") == "1" else 0)
        small = cv2.resize(pixels, (self.side_px, self.side_px))
        tensor = np.ascontiguousarray(small.transpose(2, 0, 1), np.float32) / np.float32(255)
        return tensor, size_px

    def infer(self, tensors: np.ndarray) -> np.ndarray:
        """(n, 3, side, side) to (n, 4 + labels, candidates)."""
        return np.asarray(self._session.run(None, {self._input: tensors})[0])

    def detections(self, output: np.ndarray, size_px: tuple[int, int]) -> list[dict[str, Any]]:
        """Of one picture: at least the score floor, suppressed within each label, boxes in its pixels."""
        scores = output[4:].max(0)
        likely = np.flatnonzero(scores >= self.config["score_floor"])
        classes = output[4:, likely].argmax(0)
        centre, size = output[:2, likely].T, output[2:4, likely].T
        corners = np.hstack([centre - size / 2, size])
        iou, most = self.config["nms"]["iou"], self.config["nms"]["max_detections"]
        kept = cv2.dnn.NMSBoxesBatched(corners.tolist(), scores[likely].tolist(), classes.tolist(), 0.0, iou)
        scale = np.array([*size_px, *size_px], np.float32) / self.side_px
        found = []
        for i in list(kept)[:most]:
            left, top, width, height = corners[i]
            box = np.clip(np.array([left, top, left + width, top + height]) * scale, 0, [*size_px, *size_px])
            found.append(
                {
                    "label": self.config["labels"][int(classes[i])],
                    "score": float(scores[likely[i]]),
                    "box_xyxy_px": [round(float(v), 3) for v in box],
                }
            )
        return found


def decode(data: bytes, least_px: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The pixels, with sides of at least `least_px` (0: all pixels), and the picture's width and height in its file."""
    if data[:2] == b"\xff\xd8":
        height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
        pixels = simplejpeg.decode_jpeg(data, min_height=least_px, min_width=least_px, strict=False)
        return pixels, (int(width), int(height))
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    if pixels is None:
        raise ValueError("no picture")
    return pixels, (pixels.shape[1], pixels.shape[0])
