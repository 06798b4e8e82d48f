"""`resight plan`: what differs from what is published, what a run would do, and what the policy says to it.

(tables, store, policy, model, scope) -> PlanReport. Nothing is written, and no cluster is needed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from archive.tables import Tables
from archive.views import View
from batch.changes import Change, changes, dearest_first, overall, threshold_changes
from batch.decide import Decision, Facts, decide, shown_by
from batch.facts import gather, published_side, wanted_side
from batch.field_needs import Need
from batch.filters.layers import silent
from batch.if_needed import local_time
from batch.plan import Plan, make_plan
from batch.policy import Policy
from batch.scope import Scope
from model_store.store import ModelStore, ModelVersion

NEED_WORDS: dict[Need, str] = {
    "nothing": "no-op",
    "view": "view only",
    "postprocess": "post-process only",
    "inference": "full inference",
}


@dataclass(frozen=True)
class PlanReport:
    """`compared` says how the two sides were, and why not field by field."""

    facts: Facts
    compared: str
    changes: tuple[Change, ...]
    decision: Decision
    plan: Plan

    @property
    def needs(self) -> str:
        """What the difference needs, of all images; how many have results already `plan` says."""
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
            "scope": self.plan.scope.words(),
            "files": self.plan.files,
            "requested": self.plan.requested,
            "reused": self.plan.reused,
            "to_infer": self.plan.todo,
            "bytes": self.plan.todo_bytes,
            "decision": self.decision.action,
            "reasons": list(self.decision.reasons),
            "until": self.decision.until,
        }


def plan_report(
    tables: Tables, store: ModelStore, policy: Policy, version: ModelVersion, scope: Scope
) -> PlanReport:
    """The policy's decision is about all images, whatever the scope.

    Raises BadRequest when the scope has no image, StorageError.
    """
    now = datetime.now(UTC)
    facts = gather(tables, version, now)
    compared, found = compare(store, facts.published, version)
    found += layers_to_make(tables, facts.published, version)
    return PlanReport(
        facts=facts,
        compared=compared,
        changes=tuple(dearest_first(found)),
        decision=decide(facts, policy, local_time(now)),
        plan=make_plan(tables, version, scope, read_only=True),
    )


def layers_to_make(tables: Tables, view: View | None, model: ModelVersion) -> list[Change]:
    """The published layers stay when this model is published; which of them say nothing of it yet."""
    if view is None:
        return []
    fields = {"inference_key": model.info.inference_key, "run_id": None}
    why = "the layer was never made over what this model has seen: resight filters rerun, after its run"
    return [
        Change(f"layers.{one.kind}", "made", "not made", "postprocess", why)
        for one in silent(tables, view.model_copy(update=fields))
    ]


def compare(store: ModelStore, view: View | None, model: ModelVersion) -> tuple[str, list[Change]]:
    """How the published side and the wanted one were compared, and what differs."""
    key = model.info.inference_key
    if view is None:
        why = "nothing is published"
        return why, [Change("inference_key", None, key, "inference", why)]
    side = published_side(store, view)
    if side is not None:
        return "field by field", changes(side, wanted_side(model, view.layers))
    published = f"{view.model_name}@{view.model_version}"
    how = f"by inference key and thresholds: {store.url} has not {published} as it was published"
    config = model.detector_config
    found = list(threshold_changes(shown_by(view), config.thresholds, config.score_floor))
    if view.inference_key != key:
        why = "some field that decides the rows differs"
        found.insert(0, Change("inference_key", view.inference_key, key, "inference", why))
    return how, found
