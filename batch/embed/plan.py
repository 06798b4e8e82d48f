"""The pass of an embed run: the detections that a view shows, in a scope, anti-join `embeddings`; and its rows.

(tables, store, spec) --embed_pass--> EmbedPass; its units are detections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from archive.delta.tables import Tables
from archive.schemas import EMBEDDINGS
from batch.crops.model_pass import CropModelPass, view_of_crops
from batch.crops.model_rows import Crop, Target, crop_table, lists, rounded_16, spread, target_of
from batch.runs.spec import EmbedSpec
from model_store.embedder import unit
from model_store.store import ModelInfo, ModelStore, ModelVersion
from serve.inference.chunks import CropsAnswer


def embedding_table(
    run_id: str,
    model: ModelInfo,
    target: Target,
    crops: Sequence[Crop],
    answer: CropsAnswer | None,
    waited_ms: float = 0.0,
    node: str = "",
) -> pa.Table:
    """Return the rows of these crops, as `crop_table` does."""
    return crop_table(EMBEDDINGS, run_id, model, target, crops, answer, _columns, waited_ms, node)


def _columns(ok: NDArray[np.bool_], vectors: NDArray[np.float32]) -> Mapping[str, Any]:
    """Return the vectors at length 1, and their own lengths."""
    units, norms = unit(vectors)
    return {"vector": lists(ok, rounded_16(units)), "norm": spread(ok, norms.tolist())}


@dataclass(frozen=True)
class EmbedPass(CropModelPass):
    """Embed the crop of each box: a row of `embeddings` for each detection."""

    table, compacted, model_key = "embeddings", ("embeddings",), "embedder_key"
    table_of = staticmethod(embedding_table)


def embed_pass(tables: Tables, store: ModelStore, spec: EmbedSpec, model: ModelVersion) -> EmbedPass:
    """Return the pass of a spec, with the view as it is now. Raises BadRequest as `view_of_crops`."""
    view = view_of_crops(tables, store, spec)
    target = target_of("embedder_key", view.inference_key, model.info, spec.margin_frac)
    return EmbedPass(model, spec.megapixels * 1_000_000, spec, view, target)
