"""Convert classified crops to an Arrow table, with exactly one row for each detection, and the keys of these rows.

(view's inference key, classifier, margin, classes) --target_of--> Target, with the classifier key
(Crop ..., LogitsAnswer for the crops with an input) -> pa.Table: columns of `classifications`, and EXTRA
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from archive.annotations.classes import classes_digest
from archive.schemas import CLASSIFICATIONS
from batch.pipeline.read_image import MAX_DETAIL
from model_store.classifier import softmax
from model_store.images.crops import Corners
from model_store.inference_key import canonical_json, sha256_hex
from model_store.store import ModelInfo, ModelVersion
from serve.inference.chunks import LogitsAnswer

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
    """Keys of a classify run. `inference_key` is the detector's; equal classifier keys give equal rows."""

    inference_key: str
    classifier_key: str
    margin_frac: float
    names: tuple[str, ...]
    lineage: tuple[str, ...]

    @property
    def labels_digest(self) -> str:
        return classes_digest(self.names, self.lineage)

    @property
    def key(self) -> dict[str, str]:
        """Return the key columns that all rows of a run share."""
        return {"inference_key": self.inference_key, "classifier_key": self.classifier_key}


def target_of(inference_key: str, model: ModelVersion, margin_frac: float) -> Target:
    """Return the target of a run.

    The classifier key is a digest of the model's inference key, the margin, and the classes with their lineages, so
    that each logit has one meaning for a key.
    """
    names = model.info.labels
    lineage = model.classifier_config.lineage or ("",) * len(names)
    parts = {
        "inference_key": model.info.inference_key,
        "margin_frac": float(margin_frac),
        "cropping": CROPPING,
        "labels": classes_digest(names, lineage),
    }
    key = sha256_hex(canonical_json(parts))
    return Target(inference_key, key, float(margin_frac), names, lineage)


def detection_id(media_sha256: str, rank: int) -> str:
    """Return the id of a detection within an inference key, as in the names of snips."""
    return f"{media_sha256}-{rank}"


def rounded_16(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to float16, as stored; values beyond its range become its limits."""
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
    """Return the rows of these crops. `answer` covers the crops with an `input`, in order; None if there are none.

    Label and score are computed from the logits before rounding; `waited_ms` is the time for the whole answer.
    """
    sent = [i for i, crop in enumerate(crops) if crop.input is not None]
    errors: list[str | None] = [f"{c.error_code}: {c.error_detail}" if c.input is None else None for c in crops]
    times_ms = np.zeros((2, len(crops)), np.float32)
    logits = np.zeros((0, len(model.labels)), np.float32)
    if answer is not None:
        times_ms[0, sent], times_ms[1, sent] = answer.queue_ms, answer.inference_ms
        for i, error in zip(sent, answer.errors, strict=True):
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
        "waited_ms": _shared(waited_ms, len(crops), sent),
    }
    columns |= _best(ok, logits, model.labels)
    for i, name in enumerate(_CORNERS):
        columns[name] = [crop.corners[i] if crop.corners else None for crop in crops]
    constant = target.key | {
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
    columns |= {name: [value] * len(crops) for name, value in constant.items()}
    return pa.Table.from_pydict({name: columns[name] for name in schema.names}, schema=schema)


def _best(ok: NDArray[np.bool_], logits: NDArray[np.float32], labels: Sequence[str]) -> dict[str, list[Any]]:
    """Return the label and score of each row, None if it failed; of equal scores, the first class wins."""
    best = logits.argmax(axis=1) if len(logits) else np.zeros(0, np.intp)
    scores = softmax(logits)[np.arange(len(best)), best] if len(logits) else np.zeros(0)
    results = iter(zip(best.tolist(), scores.tolist(), strict=True))
    pairs = [next(results) if row_ok else None for row_ok in ok.tolist()]
    return {"label": [pair and labels[pair[0]] for pair in pairs], "score": [pair and pair[1] for pair in pairs]}


def _lists(ok: NDArray[np.bool_], logits: NDArray[np.float32]) -> pa.ListArray:
    """Return a list for each row that is ok, null for the others, without creating Python numbers."""
    lengths = np.where(ok, logits.shape[1], 0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(logits.reshape(-1)), mask=pa.array(~ok))


def _shared(waited_ms: float, rows: int, sent: Sequence[int]) -> NDArray[np.float32]:
    """Split the time evenly over the rows that were sent."""
    shares = np.zeros(rows, np.float32)
    if sent:
        shares[list(sent)] = waited_ms / len(sent)
    return shares
