"""`resight reprocess --if-needed`: what is to be done now, decided by the policy, kept, and safe in cron.

(tables, store, policy, model, --publish) -> Needed(decision, scope and id of a run to start, what to publish)
Of several at once, one starts the run: the others are told of it and do nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from archive.tables import Tables
from archive.views import View, Views, was_rolled_back
from batch.decide import Decision, Facts, decide
from batch.decisions import keep_decision
from batch.facts import gather, wanted_version
from batch.policy import Policy
from batch.scope import Scope
from batch.spec import new_run_id
from model_store.store import ModelStore, ModelVersion


@dataclass(frozen=True)
class Needed:
    """`scope` and `run_id` of the run to start, or neither. `publish` is what to publish, in the words of
    `resight runs publish`: that run after its end, or a name@version now; None: nothing is.
    """

    model: ModelVersion
    facts: Facts
    decision: Decision
    decision_id: str
    scope: Scope | None = None
    run_id: str | None = None
    publish: str | None = None


def if_needed(
    tables: Tables,
    store: ModelStore,
    policy: Policy,
    model: str = "",
    publish: bool = False,
    now: datetime | None = None,
) -> Needed:
    """Decide and keep the decision. `model`: default the published one's name; `now` with its time zone.

    Raises BadRequest when nothing is published and no model named; ModelError, StorageError.
    """
    now = now or datetime.now(UTC)
    version = wanted_version(store, Views(tables.url).current(), model)
    facts = gather(tables, version, now)
    decision = decide(facts, policy, local_time(now))
    if decision.scope is not None:
        run_id = new_run_id()
        kept = keep_decision(tables, facts, decision, now, acted=True, run_id=run_id)
        if kept.claimed_by is None:
            shown = run_id if publish and decision.publish else None
            return Needed(version, facts, decision, kept.decision_id, decision.scope, run_id, shown)
        facts = facts.model_copy(update={"running": kept.claimed_by})
        decision = decide(facts, policy, local_time(now))
    publishes = publish and decision.action == "view"
    if decision.action == "view" and not publish:
        decision = replace(
            decision, reasons=(*decision.reasons, "not done: --publish is not given")
        )
    kept = keep_decision(tables, facts, decision, now, acted=publishes)
    shown = str(version.id) if publishes else None
    return Needed(version, facts, decision, kept.decision_id, publish=shown)


def rolled_back_since(tables: Tables, new: View) -> list[str]:
    """Return the words that close a schedule's publication: people rolled `new` back after it was decided.

    Raises StorageUnreachable.
    """
    history = Views(tables.url).history(new.name)
    if not was_rolled_back(history, new.inference_key, new.threshold, new.label_thresholds):
        return []
    return ["it was rolled back after the decision to publish it"]


def local_time(now: datetime) -> datetime:
    """By the clock of this machine, without a zone."""
    return now.astimezone().replace(tzinfo=None)
