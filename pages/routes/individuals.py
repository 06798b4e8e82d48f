"""/ui/v1/individuals: profiles, statements about individuals and their undo, suggestions and reports, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field

from archive.annotations.individuals import (
    MAX_STATEMENTS,
    Batch,
    IndividualStatement,
    Recorded,
    record,
    statements_of,
    undo,
)
from archive.defaults import GAP_MIN, PRODUCTION
from archive.views.publications import view_named
from archive.views.query import query
from archive.views.sightings import Readiness, readiness, sightings, together
from archive.views.suggestions import SuggestionPage, SuggestionSearch, set_threshold
from archive.views.views import View
from model_store.errors import ModelNotFound
from model_store.frozen import Frozen
from pages.context import Context
from pages.routes.statements import BatchRoute, OfBatch, Sent

WITHIN_S = 30.0
GapMin = Annotated[float, Query(ge=0, le=525_600, description="minutes until an individual is sighted again")]


class Individual(Frozen):
    """A profile, with its crops in the view; `examples` are up to three of them, the newest statements first."""

    individual_id: str
    name: str | None
    species: str | None
    sex: str | None
    notes: str | None
    retired: bool
    merged_into: str | None
    crops: int
    cameras: int
    first_seen_local: datetime | None
    last_seen_local: datetime | None
    examples: list[str] | None


class IndividualBatch(Sent):
    """Statements about individuals, recorded together; their detections are those of `view`."""

    statements: tuple[IndividualStatement, ...] = Field(min_length=1, max_length=MAX_STATEMENTS)
    view: str = PRODUCTION


class SuggestionThreshold(Frozen):
    threshold: float = Field(ge=-1, le=1, description="minimum similarity of suggestions")
    view: str = PRODUCTION
    reason: str = Field(default="", max_length=2000, description="stored with the publication")


def router(context: Context) -> APIRouter:
    routes, tables = APIRouter(prefix="/v1/individuals", route_class=BatchRoute), context.tables

    @routes.get("")
    def individuals(view: str = PRODUCTION) -> list[Individual]:
        """Return all individuals, retired and merged ones included, by name."""
        rows = query(tables, "from individuals order by name nulls last, individual_id", view_named(tables, view))
        return [Individual.model_validate(row) for row in rows.to_pylist()]

    @routes.post("")
    def state(request: Request, body: IndividualBatch) -> Recorded:
        """Record statements of the sender. A batch that is sent again adds nothing."""
        batch = Batch(batch_id=body.batch_id, actor=body.actor(request), statements=body.statements, view=body.view)
        return record(tables, batch)

    @routes.post("/undo")
    def withdraw(request: Request, body: OfBatch) -> Recorded:
        """Withdraw a batch, or restore it if the batch is an undo itself."""
        return undo(tables, body.batch_id, body.actor(request), body.of)

    @routes.get("/suggestions")
    def suggestions(wanted: Annotated[SuggestionSearch, Query()]) -> SuggestionPage:
        """Suggest individuals for one detection, or for the newest without an individual."""
        return wanted.answer(tables, WITHIN_S)

    @routes.put("/threshold")
    def threshold(body: SuggestionThreshold) -> View:
        """Publish the view with another threshold of suggestions; no result changes."""
        return set_threshold(tables, body.view, body.threshold, body.reason)

    @routes.get("/readiness")
    def naming(view: str = PRODUCTION, embedder: str = "") -> Readiness:
        """Return how far naming has come."""
        return readiness(tables, view, embedder)

    @routes.get("/reports/{what}")
    def report(
        what: Literal["sightings", "together"], view: str = PRODUCTION, gap_min: GapMin = GAP_MIN
    ) -> list[dict[str, Any]]:
        """Return sightings by individual, camera and week, or pairs of individuals on common occasions."""
        return (sightings if what == "sightings" else together)(tables, view, gap_min).to_pylist()

    @routes.get("/{individual}/statements")
    def statements(individual: str) -> list[dict[str, Any]]:
        """Return every statement about an individual, oldest first."""
        if found := statements_of(tables, individual):
            return found
        raise ModelNotFound(f"unknown individual '{individual[:64]}': it was never recorded")

    return routes
