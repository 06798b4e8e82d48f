"""Evidence for the format of a graph's outputs, and what the rules of the decoders (`fits`) compare it with.

Shapes are compared with the number of anchors, and metadata with those of exporters.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from model_store.transform.letterbox import SizePx

if TYPE_CHECKING:
    from model_store.runtimes.inputs import ImageInput

MAX_NAMES_CHARS = 1_000_000
MAX_SIDE_PX = 8192
STRIDES_PX = (8, 16, 32, 64)
PYRAMID_PX = (4, 8, 16, 32, 64)
"""Strides of the levels of heads without anchor boxes: consecutive ones are used, with one row per cell."""
SizeFrom = Literal["graph", "config", "imgsz", "guess"]


@dataclass(frozen=True)
class Evidence:
    """Properties of a weights file; `outputs` are those of one grey image of `network_px`."""

    metadata: Mapping[str, str]
    network_px: SizePx
    input: ImageInput
    outputs: Mapping[str, NDArray[Any]]
    size_from: SizeFrom = "graph"

    @property
    def shapes(self) -> str:
        return ", ".join(f"{name} {list(out.shape)}" for name, out in self.outputs.items())

    @property
    def rows(self) -> NDArray[Any]:
        """Return the output of rank 3, for formats that are recognised by shape."""
        return next(out for out in self.outputs.values() if out.ndim == 3)

    @property
    def prototypes(self) -> int:
        """Return the number of prototypes of masks, which are the output of rank 4; 0 without it."""
        return next((out.shape[1] for out in self.outputs.values() if out.ndim == 4), 0)

    @property
    def names_rtdetr(self) -> bool:
        """Return True if the metadata name RT-DETR."""
        return any("rtdetr" in word for word in self._words())

    @property
    def names_yolo(self) -> bool:
        """Return True for a head or description of Ultralytics' YOLOs ("Detect", "Ultralytics YOLO26n model")."""
        head, description = self._words()
        named = head.endswith("detect") or head.startswith("segment") or "yolo" in head + description
        return named and not self.names_rtdetr

    @property
    def declares_ranked(self) -> bool:
        """Return True if the metadata state that the graph ranks its detections, directly or in the export's `args`."""
        args = _literal_or_none(self.metadata.get("args", ""))
        exported: dict[str, Any] = args if isinstance(args, dict) else {}  # pyright: ignore[reportUnknownVariableType]
        return any(self._flag(key) in ("true", "1") or exported.get(key) is True for key in ("end2end", "nms"))

    @property
    def identifies_end2end(self) -> bool:
        """Return True if the metadata identify a list of six numbers per row as YOLO's."""
        return self.declares_ranked or (self.names_yolo and self._flag("end2end") not in ("false", "0"))

    def _flag(self, key: str) -> str:
        return self.metadata.get(key, "").strip().lower()

    def _words(self) -> tuple[str, str]:
        head, description = (self.metadata.get(key, "") for key in ("head", "description"))
        plain = str.maketrans("", "", "-_ ")
        return head.lower().translate(plain), description.lower().translate(plain)


def anchors(network_px: SizePx, levels: int, per_cell: int) -> int:
    """Return the number of anchors of a pyramid with strides 8, 16, 32 (levels 3) and 64 (levels 4)."""
    return per_cell * sum(_cells(network_px, STRIDES_PX[:levels]))


def pyramids(network_px: SizePx, least: int = 1) -> set[int]:
    """Return the possible numbers of rows of heads with one anchor per cell.

    A head uses at least `least` consecutive strides from 4 to 64, with or without the cells that the edge cuts.
    """
    ends = combinations(range(len(PYRAMID_PX) + 1), 2)
    runs = [PYRAMID_PX[start:end] for start, end in ends if end - start >= least]
    return {sum(_cells(network_px, run, cut)) for run in runs for cut in (False, True)}


def rows_of_yolov5(evidence: Evidence) -> set[int]:
    return {anchors(evidence.network_px, levels, 3) for levels in (3, 4)}


def has_anchor_rows(evidence: Evidence) -> bool:
    """Return True if the number of rows is that of a pyramid of anchors, so neither a ranked list nor queries."""
    anchored = rows_of_yolov5(evidence) | pyramids(evidence.network_px, least=3)
    return evidence.rows.shape[1] in anchored


def is_ranked(evidence: Evidence, _: int = 0) -> bool:
    """Return True for rows of six numbers, and the coefficients of their masks, that are not anchors."""
    columns = 6 + evidence.prototypes
    return evidence.rows.shape[2] == columns and not has_anchor_rows(evidence)


def literal(text: str) -> Any:
    """Parse a Python literal, without evaluating it. Raises ValueError and the parser's errors."""
    if len(text) > MAX_NAMES_CHARS:
        raise ValueError("too long")
    return ast.literal_eval(text)


def stride(metadata: Mapping[str, str]) -> int | None:
    """Return the stride that Ultralytics writes."""
    text = metadata.get("stride", "")
    return int(text) if text.isdecimal() and 0 < int(text) <= 512 else None


def imgsz(metadata: Mapping[str, str]) -> SizePx | None:
    """Return width, height from Ultralytics' `imgsz`, which has the height first or one number for both."""
    size = _literal_or_none(metadata.get("imgsz", ""))
    sides: list[Any] = list(size) if isinstance(size, list | tuple) else [size]  # pyright: ignore[reportUnknownArgumentType]
    if not all(type(side) is int and 0 < side <= MAX_SIDE_PX for side in sides):
        return None
    return (sides[-1], sides[0]) if len(sides) in (1, 2) else None


def _literal_or_none(text: str) -> object:
    """Return the parsed literal, or None if it is invalid."""
    try:
        return literal(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _cells(network_px: SizePx, strides: tuple[int, ...], cut: bool = False) -> list[int]:
    across, down = network_px
    more = 1 if cut else 0
    return [((across - more) // s + more) * ((down - more) // s + more) for s in strides]
