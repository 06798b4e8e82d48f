"""All detections of one image, columnar: the one value every part of Resight shares.

boxes_xyxy (n, 4) float32  x1, y1, x2, y2; in network px below the waist, image px above it
scores     (n,)   float32  0..1
class_ids  (n,)   int32    index into the model's labels
saturated  bool            some were cut off at max_detections, so n is a floor and not a count
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Detections of one image. Raises ValueError when the columns differ in length or shape."""

    boxes_xyxy: FloatArray
    scores: FloatArray
    class_ids: IntArray
    saturated: bool = False

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.boxes_xyxy.shape != (n, 4) or self.class_ids.shape != (n,):
            raise ValueError(
                f"boxes_xyxy must be ({n}, 4) and class_ids ({n},) to go with {n} scores; "
                f"got {self.boxes_xyxy.shape} and {self.class_ids.shape}"
            )

    def __len__(self) -> int:
        return len(self.scores)

    @staticmethod
    def empty() -> Detections:
        """No detections: what a detector says most often."""
        return Detections(
            np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32)
        )

    def select(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Detections:
        """The rows at `index` (positions or mask), in that order."""
        return Detections(
            self.boxes_xyxy[index], self.scores[index], self.class_ids[index], self.saturated
        )

    def with_boxes(self, boxes_xyxy: FloatArray) -> Detections:
        """The same detections at other places."""
        return Detections(boxes_xyxy, self.scores, self.class_ids, self.saturated)

    def ranked(self) -> Detections:
        """Total order of a result: score descending, then class id, x1, y1, x2, y2."""
        x1, y1, x2, y2 = self.boxes_xyxy.T
        return self.select(np.lexsort((y2, x2, y1, x1, self.class_ids, -self.scores)))
