"""Collect evidence from a weights file: labels and metadata, and its outputs for one grey image.

session of the weights -> Evidence. `names` is a Python literal by convention; it is parsed, never evaluated. Shapes
come from running the graph, since many exports do not state them.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from model_store.errors import ModelRefused, said
from model_store.runtimes import WeightsSession
from model_store.runtimes.inputs import ImageInput
from model_store.transform.letterbox import SizePx

MAX_NAMES_CHARS = 1_000_000
DEFAULT_SIDE_PX, DEFAULT_P6_SIDE_PX, MAX_SIDE_PX = 640, 1280, 8192
P6_STRIDE_PX = 64
"""Stride of networks with a fourth level (YOLOv5's P6, MegaDetector v5), which are trained at twice the size."""
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

    def says(self, key: str) -> bool:
        """Return True if the metadata contain this flag as true, directly or in the export's `args`."""
        if self.metadata.get(key, "").strip().lower() in ("true", "1"):
            return True
        return self._args().get(key) is True

    def denies(self, key: str) -> bool:
        """Return True if the metadata contain this flag as false."""
        return self.metadata.get(key, "").strip().lower() in ("false", "0")

    @property
    def imgsz(self) -> SizePx | None:
        return _imgsz(self.metadata)

    @property
    def any_size(self) -> bool:
        """Return True if the graph accepts any width and height."""
        return self.input.size_px == (None, None)

    @property
    def stride_px(self) -> int | None:
        """Return the stride that Ultralytics writes; sides of the input must be multiples of it."""
        return _stride(self.metadata)

    def _args(self) -> dict[str, Any]:
        """Return the export arguments that Ultralytics writes."""
        args = _literal_or_none(self.metadata.get("args", ""))
        return args if isinstance(args, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def read_evidence(session: WeightsSession, given_px: SizePx | None) -> Evidence:
    """Run the graph and return its evidence; `given_px` is the size for graphs of any size.

    Raises ModelRefused if it does not run on one image or, with a free batch, on two.
    """
    across, down = session.input.size_px
    (wide, high), size_from = _default_size(session.metadata, given_px)
    size_from = "graph" if across and down else size_from
    across, down = across or wide, down or high
    outputs = _run(session, 1, (across, down))
    if session.input.fixed_batch is None and session.input.most != 1:
        _run(session, 2, (across, down))
    return Evidence(session.metadata, (across, down), session.input, outputs, size_from)


def _default_size(metadata: Mapping[str, str], given_px: SizePx | None) -> tuple[SizePx, SizeFrom]:
    """Return the size for a graph of any size, and where it comes from."""
    if given_px:
        return given_px, "config"
    imgsz = _imgsz(metadata)
    if imgsz:
        return imgsz, "imgsz"
    p6 = _stride(metadata) == P6_STRIDE_PX
    side = DEFAULT_P6_SIDE_PX if p6 else DEFAULT_SIDE_PX
    return (side, side), "guess"


def _run(session: WeightsSession, images: int, size_px: SizePx) -> Mapping[str, NDArray[Any]]:
    """Return the outputs of `images` grey images."""
    across, down = size_px
    grey = 114 if session.input.dtype == np.uint8 else 114 / 255
    try:
        return session.run(np.full((images, 3, down, across), grey, np.float32))
    except ModelRefused:
        raise
    except Exception as error:  # each runtime has its own kinds
        batch = (
            "one image"
            if images == 1
            else f"a batch of {images} images, although its batch is free,"
        )
        way_out = "" if images == 1 else "; export it again, with a batch fixed to 1"
        raise ModelRefused(
            f"the graph does not run on {batch} of {across} x {down} px{way_out}: {said(error)}"
        ) from error


def labels_of(metadata: Mapping[str, str]) -> list[str]:
    """Return the labels in metadata `names`. Raises ModelRefused with the line to add if they are not usable."""
    text = metadata.get("names", "")
    if not text:
        raise ModelRefused(
            "the weights contain no labels (metadata 'names'), one for each class; add them to the config file: "
            '{"labels": ["deer", …]}'
        )
    try:
        names: Any = literal(text)
        if isinstance(names, dict):
            by_index = cast(dict[int, Any], names)
            names = [by_index[index] for index in range(len(by_index))]
        if not isinstance(names, list | tuple):
            raise ValueError("not a list of strings")
        listed = list(cast(Sequence[Any], names))
        if not listed or not all(isinstance(name, str) for name in listed):
            raise ValueError("not a list of strings" if listed else "empty")
        return listed
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise ModelRefused(
            f"the weights contain no usable labels (metadata 'names': {error}); "
            'add them to the config file: {"labels": ["deer", …]}'
        ) from error


def literal(text: str) -> Any:
    """Parse a Python literal, without evaluating it. Raises ValueError and the parser's errors."""
    if len(text) > MAX_NAMES_CHARS:
        raise ValueError("too long")
    return ast.literal_eval(text)


def _stride(metadata: Mapping[str, str]) -> int | None:
    text = metadata.get("stride", "")
    return int(text) if text.isdecimal() and 0 < int(text) <= 512 else None


def _imgsz(metadata: Mapping[str, str]) -> SizePx | None:
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
