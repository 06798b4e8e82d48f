"""Read evidence from a weights file: labels and metadata, and its outputs for one grey image.

session of the weights -> Evidence. `names` is a Python literal by convention; it is parsed, never evaluated. Shapes
come from running the graph, since many exports do not state them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from model_store.decoders.evidence import Evidence, SizeFrom, imgsz, literal, stride
from model_store.errors import ModelRefused, error_text
from model_store.runtimes import WeightsSession
from model_store.transform.letterbox import SizePx

DEFAULT_SIDE_PX, DEFAULT_P6_SIDE_PX = 640, 1280
P6_STRIDE_PX = 64
"""Stride of networks with a fourth level (YOLOv5's P6, MegaDetector v5), which are trained at twice the size."""


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
    written = imgsz(metadata)
    if written:
        return written, "imgsz"
    p6 = stride(metadata) == P6_STRIDE_PX
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
        batch = "one image" if images == 1 else f"a batch of {images} images, although its batch is free,"
        way_out = "" if images == 1 else "; export it again, with a batch fixed to 1"
        if images == 1 and None in session.input.size_px:
            way_out = '; for another size, add to the config file: {"preprocess": {"side_px": 224}}'
        raise ModelRefused(
            f"the graph does not run on {batch} of {across} x {down} px{way_out}: {error_text(error)}"
        ) from error


def labels_of(metadata: Mapping[str, str]) -> list[str]:
    """Return the labels in metadata `names`. Raises ModelRefused with the line to add if they are not usable."""
    try:
        names: Any = literal(metadata.get("names") or "None")
        if isinstance(names, dict):
            by_index = {int(str(index)): name for index, name in cast(dict[Any, Any], names).items()}  # JSON: "0"
            names = [by_index[index] for index in range(len(by_index))]
        listed = list(cast(Sequence[Any], names)) if isinstance(names, list | tuple) else []
        if not listed or not all(isinstance(name, str) for name in listed):
            raise ValueError("not a list of strings" if metadata.get("names") else "missing")
        return listed
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise ModelRefused(
            f"the weights contain no usable labels (metadata 'names': {error}), one for each class; "
            'add them to the config file: {"labels": ["deer", …]}; for a network that returns a vector: '
            '{"kind": "embedder"}'
        ) from error
