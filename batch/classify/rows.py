"""Classifications of some crops as an Arrow table: one row a detection, always.

(Crop ..., LogitsAnswer of those that have an input) -> pa.Table: columns of `classifications`, and EXTRA
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from archive.schemas import CLASSIFICATIONS
from batch.classify.crops import Crop
from batch.classify.target import Target, detection_id
from batch.read import MAX_DETAIL
from model_store.classifier import softmax
from model_store.store import ModelInfo
from serve.chunks import LogitsAnswer

EXTRA = pa.schema(
    [("replaces", pa.bool_())]
    + [
        (name, pa.float32())
        for name in (
            "read_ms",
            "decode_ms",
            "waited_ms",
            "queue_ms",
            "inference_ms",
            "postprocess_ms",
        )
    ]
    + [("node", pa.string())]
)
"""What the stage tells the driver with each row, and the table does not keep (`batch/stages.py`)."""
MOST_16 = float(np.finfo(np.float16).max)
_CORNERS = ("crop_x1_px", "crop_y1_px", "crop_x2_px", "crop_y2_px")


def rounded_16(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """To numbers of 16 bits, which is what is kept; beyond their range, the last of them."""
    return np.clip(logits, -MOST_16, MOST_16).astype(np.float16).astype(np.float32)


def classification_table(
    run_id: str,
    model: ModelInfo,
    target: Target,
    crops: Sequence[Crop],
    answer: LogitsAnswer | None,
    waited_ms: float = 0.0,
    node: str = "",
) -> pa.Table:
    """`answer` covers exactly the crops that have an `input`, in order; None when none has. Label and score are
    of the logits as they came; `waited_ms` is for the whole answer.
    """
    asked = [i for i, crop in enumerate(crops) if crop.input is not None]
    errors: list[str | None] = [
        f"{c.error_code}: {c.error_detail}" if c.input is None else None for c in crops
    ]
    times_ms = np.zeros((2, len(crops)), np.float32)
    logits = np.zeros((0, len(model.labels)), np.float32)
    if answer is not None:
        times_ms[0, asked], times_ms[1, asked] = answer.queue_ms, answer.inference_ms
        for i, error in zip(asked, answer.errors, strict=True):
            errors[i] = error
        logits = answer.logits[[error is None for error in answer.errors]]
    ok = np.array([error is None for error in errors], np.bool_)
    columns: dict[str, Any] = {
        "media_sha256": [crop.media_sha256 for crop in crops],
        "rank": [crop.rank for crop in crops],
        "detection_id": [detection_id(crop.media_sha256, crop.rank) for crop in crops],
        "status": np.where(ok, "ok", "failed").tolist(),
        "error_code": [error and error.partition(": ")[0] for error in errors],
        "error_detail": [error and error.partition(": ")[2][:MAX_DETAIL] for error in errors],
        "logits": _lists(ok, rounded_16(logits)),
        "replaces": [crop.replaces for crop in crops],
        "read_ms": [crop.read_ms for crop in crops],
        "decode_ms": [crop.decode_ms for crop in crops],
        "queue_ms": times_ms[0],
        "inference_ms": times_ms[1],
        "waited_ms": _shared(waited_ms, len(crops), asked),
    }
    columns |= _best(ok, logits, model.labels)
    for place, name in enumerate(_CORNERS):
        columns[name] = [crop.corners[place] if crop.corners else None for crop in crops]
    same = target.key | {
        "margin_frac": target.margin_frac,
        "labels_digest": target.labels_digest,
        "run_id": run_id,
        "model_name": model.name,
        "model_version": model.version,
        "weights_sha256": model.weights_sha256,
        "finished_at": datetime.now(UTC),
        "postprocess_ms": 0.0,
        "node": node,
    }
    schema = pa.schema([*CLASSIFICATIONS, *EXTRA])
    columns |= {name: [value] * len(crops) for name, value in same.items()}
    return pa.Table.from_pydict({name: columns[name] for name in schema.names}, schema=schema)


def _best(
    ok: NDArray[np.bool_], logits: NDArray[np.float32], labels: Sequence[str]
) -> dict[str, list[Any]]:
    """Label and score of each row, None of failed ones; of equals the first class."""
    best = logits.argmax(axis=1) if len(logits) else np.zeros(0, np.intp)
    scores = softmax(logits)[np.arange(len(best)), best] if len(logits) else np.zeros(0)
    found = iter(zip(best.tolist(), scores.tolist(), strict=True))
    pairs = [next(found) if one else None for one in ok.tolist()]
    return {
        "label": [pair and labels[pair[0]] for pair in pairs],
        "score": [pair and pair[1] for pair in pairs],
    }


def _lists(ok: NDArray[np.bool_], logits: NDArray[np.float32]) -> pa.ListArray:
    """A list for each row that is ok, null for the others; no Python number is made."""
    lengths = np.where(ok, logits.shape[1], 0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(logits.reshape(-1)), mask=pa.array(~ok)
    )


def _shared(waited_ms: float, rows: int, asked: Sequence[int]) -> NDArray[np.float32]:
    shares = np.zeros(rows, np.float32)
    if asked:
        shares[list(asked)] = waited_ms / len(asked)
    return shares
