"""The pass of a model over crops: the detections that a view shows, in a scope, anti-join the rows of that model.

Its units are detections. ClassifyPass (`batch/classify/plan.py`) and EmbedPass (`batch/embed/plan.py`) define it.
Detections are selected by the view's thresholds on the model's own labels and scores. Layers are ignored, because they
can be switched off again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import pyarrow as pa

from archive.delta.tables import Tables
from archive.views.views import View, Views
from batch.crops.model_rows import Target
from batch.planning.passes import BoxPass
from batch.planning.plan import Plan
from batch.runs.accounting import Counts
from batch.runs.resume import beginning
from batch.runs.spec import CropsSpec
from model_store.errors import BadRequest, ModelError
from model_store.names import VersionId, parse_ref
from model_store.store import ModelStore

CHUNK = 16
"""Images of a task: a few seconds of one thread at 12 megapixels, so that rows arrive as often as commits run."""
MAX_NAMED = 50
"""Labels of a model that an error lists."""


@dataclass(frozen=True)
class CropModelPass(BoxPass):
    """Run a model on the crop of each box: a row of `table` for each detection.

    model_key  column of `table` with the key of the model
    table_of   makes the rows of a chunk of crops, as `classification_table`
    """

    units, row, ids = "detections", "detection_id", "id, rank"
    line = "requested {requested} {sign} ok {ok} + failed {failed} + reused {reused} detections"
    by_node = "crops_by_node"
    model_key: ClassVar[str]
    table_of: ClassVar[Callable[..., pa.Table]]

    spec: CropsSpec
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

    def stage(self, spec: CropsSpec) -> tuple[type, tuple[Any, ...], int]:
        from batch.crops.model_stage import CropModelStage

        return CropModelStage, (spec, self.model, self.target, self.table_of), CHUNK

    def facts(self, plan: Plan) -> dict[str, Any]:
        return {"scope": plan.scope.words(), **self.metrics(plan)}

    def metrics(self, plan: Plan) -> dict[str, Any]:
        return {
            **self.reported(plan),
            "inference_key": self.key["inference_key"],
            **self.target.constants,
            "requested": plan.requested,
            "reused": plan.reused,
            "to_infer": plan.todo,
            "images": plan.images,
            "bytes": plan.todo_bytes,
        }

    def inputs(self) -> dict[str, Any]:
        return {"crops_of": self.view.model_dump(mode="json")}

    def reported(self, plan: Plan) -> dict[str, Any]:
        return {"view": self.view_words, self.model_key: self.key[self.model_key]}

    @property
    def view_words(self) -> str:
        view = self.view
        return f"{view.name} {view.serial}" if view.serial else f"{view.model_name}@{view.model_version}"

    def counts(self, counts: Counts, plan: Plan | None = None) -> dict[str, int]:
        if plan is None:
            return asdict(counts)
        names = ("requested", "ok", "failed", "reused")
        found = {name: getattr(counts, name) for name in names}
        return found | {"images": plan.images, "bytes": plan.todo_bytes}


def view_of_crops(tables: Tables, store: ModelStore, spec: CropsSpec) -> View:
    """Return the view with the detections of a spec; for an unsealed run, the one with which it began.

    Raises BadRequest if it is not published, or its model lacks one of the labels. Raises ModelNotFound for an unknown
    detector.
    """
    if began := beginning(tables, spec.run_id).get("crops_of"):
        return View.model_validate(began)
    view = view_of_model(store, spec.view) if "@" in spec.view else Views(tables.url).current(spec.view)
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


def view_of_model(store: ModelStore, ref: str) -> View:
    """Return an unpublished view of all results of a detector, at its own thresholds. Raises ModelError, BadRequest."""
    described = store.describe(store.resolve(parse_ref(ref)))
    info, thresholds = described.info, described.detector_config.thresholds
    return View(
        inference_key=info.inference_key,
        model_name=info.name,
        model_version=info.version,
        weights_sha256=info.weights_sha256,
        threshold=thresholds.default,
        label_thresholds=dict(thresholds.per_label),
    )
