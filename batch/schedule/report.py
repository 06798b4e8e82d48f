"""`resight plan`: report what differs from the published view, what a run would do, and what the policy decides.

(tables, store, policy, model, scope) -> PlanReport. Nothing is written, and no cluster is needed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from archive.delta.tables import Tables
from archive.views.views import View
from batch.filters.layers import never_run
from batch.planning.passes import DetectPass
from batch.planning.plan import Plan, plan_pass
from batch.runs.scope import Scope
from batch.schedule.archive_state import gather, published_side
from batch.schedule.config_impact import (
    NEEDS,
    ConfigChange,
    ConfiguredModel,
    Need,
    changes,
    dearest_first,
    overall,
    threshold_changes,
)
from batch.schedule.decide import Decision, DecisionFacts, decide, shown_by
from batch.schedule.policy import Policy
from batch.schedule.run_if_due import local_time
from model_store.store import ModelStore, ModelVersion

NEED_WORDS: dict[Need, str] = dict(
    zip(NEEDS, ("no-op", "view only", "post-process only", "full inference"), strict=True)
)


@dataclass(frozen=True)
class PlanReport:
    """The plan, the changes and the decision. `compared`: how the two sides were compared."""

    facts: DecisionFacts
    compared: str
    changes: tuple[ConfigChange, ...]
    decision: Decision
    plan: Plan

    @property
    def needs(self) -> str:
        """Return what the changes need for all images, even if some have results already."""
        return NEED_WORDS[overall(self.changes)]

    def as_dict(self) -> dict[str, Any]:
        wanted, view = self.facts.wanted, self.facts.published
        return {
            "model": str(wanted),
            "inference_key": wanted.inference_key,
            "published": f"{view.model_name}@{view.model_version}" if view else None,
            "published_key": view.inference_key if view else None,
            "compared": self.compared,
            "needs": self.needs,
            "changes": [asdict(change) for change in self.changes],
            **self.plan.work.facts(self.plan),
            "decision": self.decision.action,
            "reasons": list(self.decision.reasons),
            "until": self.decision.until,
        }


def plan_report(
    tables: Tables, store: ModelStore, policy: Policy, version: ModelVersion, scope: Scope, ended: Collection[str] = ()
) -> PlanReport:
    """Return the report. The policy's decision covers all images, not only the scope; `ended` as in `gather`.

    Raises BadRequest if the scope has no image. Raises StorageError.
    """
    now = datetime.now(UTC)
    facts = gather(tables, version, now, ended)
    compared, changed = compare(store, facts.published, version)
    changed += layers_to_make(tables, facts.published, version)
    return PlanReport(
        facts=facts,
        compared=compared,
        changes=tuple(dearest_first(changed)),
        decision=decide(facts, policy, local_time(now)),
        plan=plan_pass(tables, DetectPass(version), scope, read_only=True),
    )


def layers_to_make(tables: Tables, view: View | None, model: ModelVersion) -> list[ConfigChange]:
    """Return the published layers that have no rows for this model yet: they stay published with it."""
    if view is None:
        return []
    fields = {"inference_key": model.info.inference_key, "run_id": None}
    why = "the layer was not computed for this model's results yet: resight filters rerun, after its run"
    return [
        ConfigChange(f"layers.{layer.kind}", "made", "not made", "postprocess", why)
        for layer in never_run(tables, view.model_copy(update=fields))
    ]


def compare(store: ModelStore, view: View | None, model: ModelVersion) -> tuple[str, list[ConfigChange]]:
    """Return how the published model and the wanted one were compared, and the changes."""
    key, config = model.info.inference_key, model.detector_config
    if view is None:
        why = "nothing is published"
        return why, [ConfigChange("inference_key", None, key, "inference", why)]
    side = published_side(store, view)
    if side is not None:
        wanted = ConfiguredModel(config, model.info.weights_sha256, config.thresholds, layers=view.layers)
        return "field by field", changes(side, wanted)
    published = f"{view.model_name}@{view.model_version}"
    how = f"by inference key and thresholds: {store.url} does not have {published} as it was published"
    changed = list(threshold_changes(shown_by(view), config.thresholds, config.score_floor))
    if view.inference_key != key:
        why = "a field that decides the rows differs"
        changed.insert(0, ConfigChange("inference_key", view.inference_key, key, "inference", why))
    return how, changed
