"""Convert crops and the answer of a model of crops to an Arrow table, with exactly one row for each detection.

(view's inference key, model, margin) --target_of--> Target, with the key of the model's rows
(schema, Crop ..., CropsAnswer for the crops with an input, value columns) --crop_table--> pa.Table: schema, EXTRA
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.pipeline.read_image import MAX_DETAIL
from model_store.images.crops import Corners
from model_store.inference_key import canonical_json, sha256_hex
from model_store.store import ModelInfo
from serve.inference.chunks import CropsAnswer

EXTRA = pa.schema(
    [("replaces", pa.bool_())]
    + [
        (name, pa.float32())
        for name in ("read_ms", "decode_ms", "waited_ms", "queue_ms", "inference_ms", "postprocess_ms")
    ]
    + [("node", pa.string())]
)
"""Columns that the stage sends to the driver and that are not stored (`batch/runs/progress.py`)."""
MOST_16 = float(np.finfo(np.float16).max)
_CORNERS = ("crop_x1_px", "crop_y1_px", "crop_x2_px", "crop_y2_px")

CROPPING = 1
"""Version of cropping; raise it if the same box and margin give other pixels."""
ValueColumns = Callable[[NDArray[np.bool_], NDArray[np.float32]], Mapping[str, Any]]
"""(rows that are ok, their values in order) -> columns with a value for each row, null where it is not ok."""


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """Crop of one detection, with `input` (h, w, 3) and `corners` (left, top, right, bottom px), or with `error_code`.

    The first crop of an image has the times of the whole image, the others 0.
    """

    media_sha256: str
    rank: int
    replaces: bool
    input: NDArray[np.uint8] | None = None
    corners: Corners | None = None
    error_code: str | None = None
    error_detail: str | None = None
    read_ms: float = 0.0
    decode_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """Key columns of a run of a model over crops, and the other columns with one value in all of its rows.

    `key` has the detector's inference key and the key of the model; rows of equal keys are equal.
    """

    key: Mapping[str, str]
    constants: Mapping[str, Any]


def target_of(
    column: str, inference_key: str, model: ModelInfo, margin_frac: float, labels_digest: str | None = None
) -> Target:
    """Return the target of a run. `column` holds the model's key: a digest of its inference key, the margin, and the
    classes with their lineages if it has any, so that each logit has one meaning for a key.
    """
    parts: dict[str, Any] = {
        "inference_key": model.inference_key,
        "margin_frac": float(margin_frac),
        "cropping": CROPPING,
    }
    constants: dict[str, Any] = {"margin_frac": float(margin_frac)}
    if labels_digest is not None:
        parts["labels"] = constants["labels_digest"] = labels_digest
    return Target({"inference_key": inference_key, column: sha256_hex(canonical_json(parts))}, constants)


def detection_id(media_sha256: str, rank: int) -> str:
    """Return the id of a detection within an inference key, as in the names of snips."""
    return f"{media_sha256}-{rank}"


def rounded_16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to float16, as stored; values beyond its range become its limits."""
    return np.clip(values, -MOST_16, MOST_16).astype(np.float16).astype(np.float32)


def lists(ok: NDArray[np.bool_], values: NDArray[np.float32]) -> pa.ListArray:
    """Return a list for each row that is ok, null for the others, without creating Python numbers."""
    lengths = np.where(ok, values.shape[1], 0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values.reshape(-1)), mask=pa.array(~ok))


def spread(ok: NDArray[np.bool_], values: Sequence[Any]) -> list[Any]:
    """Return the values in order at the rows that are ok, and None at the others."""
    left = iter(values)
    return [next(left) if row_ok else None for row_ok in ok.tolist()]


def crop_table(
    schema: pa.Schema,
    run_id: str,
    model: ModelInfo,
    target: Target,
    crops: Sequence[Crop],
    answer: CropsAnswer | None,
    columns_of: ValueColumns,
    waited_ms: float = 0.0,
    node: str = "",
) -> pa.Table:
    """Return the rows of these crops. `answer` covers the crops with an `input`, in order; None if there are none.

    `waited_ms` is the time for the whole answer.
    """
    sent = [i for i, crop in enumerate(crops) if crop.input is not None]
    errors: list[str | None] = [f"{c.error_code}: {c.error_detail}" if c.input is None else None for c in crops]
    times_ms = np.zeros((2, len(crops)), np.float32)
    values = np.zeros((0, 1), np.float32)
    if answer is not None:
        times_ms[0, sent], times_ms[1, sent] = answer.queue_ms, answer.inference_ms
        for i, error in zip(sent, answer.errors, strict=True):
            errors[i] = error
        values = answer.values[[error is None for error in answer.errors]]
    ok = np.array([error is None for error in errors], np.bool_)
    columns: dict[str, Any] = {
        "media_sha256": [crop.media_sha256 for crop in crops],
        "rank": [crop.rank for crop in crops],
        "detection_id": [detection_id(crop.media_sha256, crop.rank) for crop in crops],
        "status": np.where(ok, "ok", "failed").tolist(),
        "error_code": [error and error.partition(": ")[0] for error in errors],
        "error_detail": [error and error.partition(": ")[2][:MAX_DETAIL] for error in errors],
        "replaces": [crop.replaces for crop in crops],
        "read_ms": [crop.read_ms for crop in crops],
        "decode_ms": [crop.decode_ms for crop in crops],
        "queue_ms": times_ms[0],
        "inference_ms": times_ms[1],
        "waited_ms": _shared(waited_ms, len(crops), sent),
        **columns_of(ok, values),
    }
    for i, name in enumerate(_CORNERS):
        columns[name] = [crop.corners[i] if crop.corners else None for crop in crops]
    constant = {
        **target.key,
        **target.constants,
        "run_id": run_id,
        "model_name": model.name,
        "model_version": model.version,
        "weights_sha256": model.weights_sha256,
        "finished_at": datetime.now(UTC),
        "postprocess_ms": 0.0,
        "node": node,
    }
    columns |= {name: [value] * len(crops) for name, value in constant.items()}
    whole = pa.schema([*schema, *EXTRA])
    return pa.Table.from_pydict({name: columns[name] for name in whole.names}, schema=whole)


def _shared(waited_ms: float, rows: int, sent: Sequence[int]) -> NDArray[np.float32]:
    """Split the time evenly over the rows that were sent."""
    shares = np.zeros(rows, np.float32)
    if sent:
        shares[list(sent)] = waited_ms / len(sent)
    return shares
