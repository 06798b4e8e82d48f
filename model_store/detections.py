"""Columnar detections of one image: the value that every part of Resight shares.

boxes_xyxy (n, 4) float32  x1, y1, x2, y2; in network px inside a detector, in image px outside it
scores     (n,)   float32  0..1
class_ids  (n,)   int32    index into the model's labels
saturated  bool            n is a minimum instead of a count (docs/reference/decoders.md)
masks      None            without masks in the model; else one per detection, see `Masks`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
Index = NDArray[np.intp] | NDArray[np.bool_]


class Masks(Protocol):
    """A column of masks: prototypes and coefficients inside a detector, run lengths outside it."""

    def __len__(self) -> int: ...

    def select(self, index: Index) -> Masks: ...


@dataclass(frozen=True, slots=True, eq=False)
class RunLengths:
    """Masks in image px: COCO's compressed run lengths, and the number of pixels of each."""

    counts: tuple[str, ...]
    area_px: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.counts)

    def select(self, index: Index) -> RunLengths:
        chosen: list[int] = np.arange(len(self))[index].tolist()
        return RunLengths(tuple(self.counts[i] for i in chosen), self.area_px[index])


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Detections of one image. Raises ValueError if the columns differ in length or shape."""

    boxes_xyxy: FloatArray
    scores: FloatArray
    class_ids: IntArray
    saturated: bool = False
    masks: Masks | None = None

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.boxes_xyxy.shape != (n, 4) or self.class_ids.shape != (n,):
            raise ValueError(
                f"boxes_xyxy must be ({n}, 4) and class_ids ({n},) for {n} scores; "
                f"got {self.boxes_xyxy.shape} and {self.class_ids.shape}"
            )
        if self.masks is not None and len(self.masks) != n:
            raise ValueError(f"{len(self.masks)} masks do not match {n} scores")

    def __len__(self) -> int:
        return len(self.scores)

    @staticmethod
    def empty() -> Detections:
        """Return no detections."""
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))

    @staticmethod
    def join(parts: Sequence[Detections]) -> Detections:
        """Concatenate detections. Any masks must be run lengths."""
        if not parts:
            return Detections.empty()
        masks = [p.masks for p in parts if isinstance(p.masks, RunLengths)]
        counts = tuple(counts for part in masks for counts in part.counts)
        return Detections(
            np.concatenate([p.boxes_xyxy for p in parts]),
            np.concatenate([p.scores for p in parts]),
            np.concatenate([p.class_ids for p in parts]),
            any(p.saturated for p in parts),
            RunLengths(counts, np.concatenate([part.area_px for part in masks])) if masks else None,
        )

    def select(self, index: Index) -> Detections:
        """Return the rows at `index` (positions or mask), in that order."""
        return Detections(
            self.boxes_xyxy[index],
            self.scores[index],
            self.class_ids[index],
            self.saturated,
            None if self.masks is None else self.masks.select(index),
        )

    def ranked(self) -> Detections:
        """Sort by descending score, then class id, x1, y1, x2, y2: the total order of a result."""
        x1, y1, x2, y2 = self.boxes_xyxy.T
        return self.select(np.lexsort((y2, x2, y1, x1, self.class_ids, -self.scores)))
