"""Convert classified crops to rows of `classifications`, and the target of these rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from archive.annotations.classes import classes_digest
from archive.schemas import CLASSIFICATIONS
from batch.crops.model_rows import Crop, Target, crop_table, lists, rounded_16, spread, target_of
from model_store.classifier import softmax
from model_store.store import ModelInfo, ModelVersion
from serve.inference.chunks import CropsAnswer


def classes_of(model: ModelVersion) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the classes and their lineages, "" where unknown. Raises BadRequest for a detector."""
    names = model.info.labels
    return names, model.classifier_config.lineage or ("",) * len(names)


def classify_target(inference_key: str, model: ModelVersion, margin_frac: float) -> Target:
    """Return the target of a classify run. Raises BadRequest for a detector."""
    return target_of("classifier_key", inference_key, model.info, margin_frac, classes_digest(*classes_of(model)))


def classification_table(
    run_id: str,
    model: ModelInfo,
    target: Target,
    crops: Sequence[Crop],
    answer: CropsAnswer | None,
    waited_ms: float = 0.0,
    node: str = "",
) -> pa.Table:
    """Return the rows of these crops, as `crop_table` does."""
    columns_of = partial(_columns, model.labels)
    return crop_table(CLASSIFICATIONS, run_id, model, target, crops, answer, columns_of, waited_ms, node)


def _columns(labels: Sequence[str], ok: NDArray[np.bool_], logits: NDArray[np.float32]) -> Mapping[str, Any]:
    """Return label and score, computed before the logits are rounded; of equal scores, the first class wins."""
    best = logits.argmax(axis=1) if len(logits) else np.zeros(0, np.intp)
    scores = softmax(logits)[np.arange(len(best)), best] if len(logits) else np.zeros(0)
    return {
        "logits": lists(ok, rounded_16(logits)),
        "label": spread(ok, [labels[i] for i in best.tolist()]),
        "score": spread(ok, scores.tolist()),
    }
