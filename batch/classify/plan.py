"""The pass of a classify run: the detections that a view shows, in a scope, anti-join `classifications`.

(tables, store, spec) --classify_pass--> ClassifyPass; its units are detections.
"""

from __future__ import annotations

from dataclasses import dataclass

from archive.annotations.classes import write_classes
from archive.delta.tables import Tables
from batch.classify.rows import classes_of, classification_table, classify_target
from batch.crops.model_pass import CropModelPass, view_of_crops
from batch.runs.spec import ClassifySpec
from model_store.store import ModelStore, ModelVersion


@dataclass(frozen=True)
class ClassifyPass(CropModelPass):
    """Classify the crop of each box: a row of `classifications` for each detection."""

    table, compacted, model_key = "classifications", ("classifications",), "classifier_key"
    table_of = staticmethod(classification_table)

    def prepare(self, tables: Tables) -> None:
        write_classes(tables.url, *classes_of(self.model))


def classify_pass(tables: Tables, store: ModelStore, spec: ClassifySpec, model: ModelVersion) -> ClassifyPass:
    """Return the pass of a spec, with the view as it is now. Raises BadRequest as `view_of_crops`."""
    view = view_of_crops(tables, store, spec)
    target = classify_target(view.inference_key, model, spec.margin_frac)
    return ClassifyPass(model, spec.megapixels * 1_000_000, spec, view, target)
