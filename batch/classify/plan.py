"""The pass of a classify run: the detections that a view shows, in a scope, anti-join `classifications`.

(tables, store, spec) --classify_pass--> ClassifyPass; its units are detections.
Detections are selected by the view's thresholds on the model's own labels and scores. Layers are ignored, because they
can be switched off again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from archive.annotations.classes import write_classes
from archive.delta.tables import Tables
from archive.views.views import View, Views
from batch.classify.rows import Target, target_of
from batch.planning.passes import BoxPass
from batch.planning.plan import Plan
from batch.runs.accounting import Counts
from batch.runs.spec import ClassifySpec
from model_store.errors import BadRequest, ModelError
from model_store.names import VersionId
from model_store.store import ModelStore, ModelVersion

CHUNK = 16
"""Images of a task: a few seconds of one thread at 12 megapixels, so that rows arrive as often as commits run."""
MAX_NAMED = 50
"""Labels of a model that an error lists."""


@dataclass(frozen=True)
class ClassifyPass(BoxPass):
    """Classify the crop of each box: a row of `classifications` for each detection."""

    table, units, row, ids = "classifications", "detections", "detection_id", "id, rank"
    line = "requested {requested} {sign} ok {ok} + failed {failed} + reused {reused} detections"
    by_node = "crops_by_node"
    compacted = ("classifications",)

    spec: ClassifySpec
    view: View
    target: Target

    @property
    def key(self) -> Mapping[str, str]:
        return self.target.key

    @property
    def figures(self) -> Mapping[str, str]:
        ok = "status = 'ok'"
        return {"ok": ok, "failed": "status = 'failed'", "detections": ok}

    @property
    def limits(self) -> Mapping[str, object]:
        return {
            "labels": list(self.view.label_thresholds),
            "scores": list(self.view.label_thresholds.values()),
            "threshold": self.view.threshold,
            "least_score": self.spec.least_score,
            "only": list(self.spec.labels),
            "min_side_px": self.spec.min_side_px,
        }

    def prepare(self, tables: Tables) -> None:
        write_classes(tables.url, self.target.names, self.target.lineage)

    def stage(self, spec: ClassifySpec) -> tuple[type, tuple[Any, ...], int]:
        from batch.classify.stage import ClassifyStage

        return ClassifyStage, (spec, self.model, self.target), CHUNK

    def facts(self, plan: Plan) -> dict[str, Any]:
        return {"scope": plan.scope.words(), **self.metrics(plan)}

    def metrics(self, plan: Plan) -> dict[str, Any]:
        return {
            **self.reported(plan),
            "inference_key": self.target.inference_key,
            "labels_digest": self.target.labels_digest,
            "requested": plan.requested,
            "reused": plan.reused,
            "to_classify": plan.todo,
            "images": plan.images,
            "bytes": plan.todo_bytes,
        }

    def reported(self, plan: Plan) -> dict[str, Any]:
        return {"view": f"{self.view.name} {self.view.serial}", "classifier_key": self.target.classifier_key}

    def counts(self, counts: Counts, plan: Plan | None = None) -> dict[str, int]:
        if plan is None:
            return asdict(counts)
        names = ("requested", "ok", "failed", "reused")
        found = {name: getattr(counts, name) for name in names}
        return found | {"images": plan.images, "bytes": plan.todo_bytes}


def classify_pass(tables: Tables, store: ModelStore, spec: ClassifySpec, model: ModelVersion) -> ClassifyPass:
    """Return the pass of a spec, with the view as it is now. Raises as `view_to_classify`."""
    view = view_to_classify(tables, store, spec)
    target = target_of(view.inference_key, model, spec.margin_frac)
    return ClassifyPass(model, spec.megapixels * 1_000_000, spec, view, target)


def view_to_classify(tables: Tables, store: ModelStore, spec: ClassifySpec) -> View:
    """Return the view to classify. Raises BadRequest if it is not published, or its model lacks one of the labels."""
    view = Views(tables.url).current(spec.view)
    if view is None:
        raise BadRequest(
            f"nothing is published as {spec.view}: publish the results of a run with resight runs publish RUN"
        )
    try:
        labels = store.describe(VersionId(view.model_name, view.model_version)).info.labels
    except ModelError:  # the model was removed; its results still exist
        return view
    unknown = sorted(set(spec.labels) - set(labels))
    if unknown:
        more = f" and {len(labels) - MAX_NAMED} more" if len(labels) > MAX_NAMED else ""
        raise BadRequest(
            f"--labels: unknown label '{unknown[0]}'; labels of {view.model_name}@{view.model_version}: "
            f"{', '.join(labels[:MAX_NAMED])}{more}"
        )
    return view
