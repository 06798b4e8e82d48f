"""Operations of a rollout and their outcomes: frozen, and the same over HTTP."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field, model_validator

from model_store.errors import BadRequest, Conflict, ModelNotFound
from model_store.frozen import Frozen
from model_store.names import DEFAULT_ALIAS

Kind = Literal["promote", "rollback", "canary", "shadow", "pin", "unpin", "release", "follow"]
NEEDS_VERSION = {"promote", "release", "follow"}


class Operation(Frozen):
    """An operation on one alias of one model.

    promote   `version` answers for the alias
    rollback  the previous version answers again; repeated, the one before that
    canary    `version` answers `percent` of the alias's requests; 0 ends it
    shadow    `version` runs on `percent` of the alias's images and never answers; 0 ends it
    pin       the alias cannot be moved until `unpin`
    release   replicas unload `version`, if no alias refers to it and no run holds it
    follow    like promote, because aliases.json was changed outside the rollout
    """

    kind: Kind
    name: str
    alias: str = DEFAULT_ALIAS
    version: str | None = None
    percent: float = Field(default=0, ge=0, le=100)

    @model_validator(mode="after")
    def _complete(self) -> Operation:
        needs = self.kind in NEEDS_VERSION or (self.kind in ("canary", "shadow") and self.percent > 0)
        if needs and self.version is None:
            raise ValueError(f"{self.kind} needs a version")
        return self


class Outcome(Frozen):
    """State of an operation; `detail` is what was done, or why it was refused. A refused operation changed nothing."""

    id: str
    operation: Operation
    state: Literal["waiting", "running", "done", "refused"] = "waiting"
    detail: str = ""
    error: str | None = Field(default=None, description="class of the error, if refused")
    asked_at: datetime
    seconds: float = Field(default=0, description="duration of the operation")

    def raise_if_refused(self) -> None:
        """Raise BadRequest, ModelNotFound or Conflict with the reason, if the operation was refused."""
        if self.state != "refused":
            return
        kind = {"BadRequest": BadRequest, "ModelNotFound": ModelNotFound}.get(self.error or "")
        raise (kind or Conflict)(self.detail)


def new_outcome(operation: Operation) -> Outcome:
    """Return a new outcome. Its id contains the model's name, which leads to its file in the store."""
    return Outcome(id=f"{operation.name}-{secrets.token_hex(6)}", operation=operation, asked_at=datetime.now(UTC))
