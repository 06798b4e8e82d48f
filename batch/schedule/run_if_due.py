"""`resight reprocess --if-needed`: decide by the policy what to do now, and record it; safe to run from cron.

(tables, store, policy, model, --publish) -> Needed(decision, scope and id of a run to start, what to publish).
If several processes decide at once, one starts the run; the others return its id and do nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Generator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from archive.delta.tables import Tables
from archive.views.views import View, Views, was_rolled_back
from batch.runs.scope import Scope
from batch.runs.spec import new_run_id
from batch.schedule.archive_state import gather, wanted_version
from batch.schedule.decide import Decision, DecisionFacts, decide
from batch.schedule.decision_log import keep_decision, new_decision_id
from batch.schedule.policy import Policy
from model_store.errors import ResightError
from model_store.store import ModelStore, ModelVersion


@dataclass(frozen=True)
class Needed:
    """A decision and what to do. `scope` and `run_id` are those of the run to start, or None. `publish` is the argument
    for `resight runs publish`: that run after its end, or a name@version now; None: publish nothing.
    """

    model: ModelVersion
    facts: DecisionFacts
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
    ended: Collection[str] = (),
) -> Needed:
    """Decide, and record the decision, except one to publish: see `recorded_publication`.

    `model` defaults to the name of the published one; `now` has a time zone; `ended` as in `gather`.
    Raises BadRequest if no model is given, none is published, and there are several. Raises ModelError or StorageError.
    """
    now = now or datetime.now(UTC)
    version = wanted_version(store, Views(tables.url).current(), model)
    facts = gather(tables, version, now, ended)
    decision, decision_id = decide(facts, policy, local_time(now)), new_decision_id(now)
    if decision.scope is not None:
        run_id = new_run_id()
        claimed_by = keep_decision(tables, facts, decision, now, True, run_id, decision_id, ended)
        if claimed_by is None:
            shown = run_id if publish and decision.publish else None
            return Needed(version, facts, decision, decision_id, decision.scope, run_id, shown)
        facts = facts.model_copy(update={"running": claimed_by})
        decision = decide(facts, policy, local_time(now))
    if decision.action == "view" and publish:  # `recorded_publication` keeps the decision
        return Needed(version, facts, decision, decision_id, publish=str(version.id))
    if decision.action == "view":
        decision = replace(decision, reasons=(*decision.reasons, "not done: --publish is not given"))
    keep_decision(tables, facts, decision, now, False, decision_id=decision_id)
    return Needed(version, facts, decision, decision_id)


@contextlib.contextmanager
def recorded_publication(tables: Tables, due: Needed) -> Generator[None]:
    """Record a decision to publish existing results after the publication, or with the reason why it failed.

    The decision to start a run is already recorded, as the claim of that run.
    """
    if due.run_id is not None:
        yield
        return
    now = datetime.now(UTC)
    try:
        yield
    except ResightError as error:
        failed = replace(due.decision, reasons=(*due.decision.reasons, f"not done: {error}"))
        keep_decision(tables, due.facts, failed, now, False, decision_id=due.decision_id)
        raise
    keep_decision(tables, due.facts, due.decision, now, True, decision_id=due.decision_id)


def rolled_back_since(tables: Tables, new: View) -> list[str]:
    """Return the reason not to publish `new` if it was rolled back after the decision. Raises StorageUnreachable."""
    history = Views(tables.url).history(new.name)
    if not was_rolled_back(history, new.inference_key, new.threshold, new.label_thresholds):
        return []
    return ["it was rolled back after the decision to publish it"]


def local_time(now: datetime) -> datetime:
    """Return the local time of this machine, without a zone."""
    return now.astimezone().replace(tzinfo=None)
