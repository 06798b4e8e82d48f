"""What a rollout can be asked to do, and what became of it: frozen, and the same over HTTP."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field, model_validator

from model_store.errors import BadRequest, Conflict, ModelNotFound
from model_store.names import DEFAULT_ALIAS
from serve.rollout.state import Frozen

Kind = Literal["promote", "rollback", "canary", "shadow", "pin", "unpin", "release", "follow"]
NEEDS_VERSION = {"promote", "release", "follow"}


class Operation(Frozen):
    """One step, on one alias of one model.

    promote   `version` answers for the alias
    rollback  the version before it does, again; repeated, the one before that
    canary    `version` answers `percent` of its requests; 0 ends it
    shadow    `version` sees `percent` of its images and never answers; 0 ends it
    pin       nothing moves the alias until `unpin`
    release   replicas let `version` go, if no alias means it and no run holds it
    follow    as promote, because aliases.json was changed by another hand
    """

    kind: Kind
    name: str
    alias: str = DEFAULT_ALIAS
    version: str | None = None
    percent: float = Field(default=0, ge=0, le=100)

    @model_validator(mode="after")
    def _complete(self) -> Operation:
        needs = self.kind in NEEDS_VERSION or (
            self.kind in ("canary", "shadow") and self.percent > 0
        )
        if needs and self.version is None:
            raise ValueError(f"{self.kind} needs a version")
        return self


class Outcome(Frozen):
    """How an operation stands. `refused` has changed nothing; `detail` says why, or what was done."""

    id: str
    operation: Operation
    state: Literal["waiting", "running", "done", "refused"] = "waiting"
    detail: str = ""
    error: str | None = Field(default=None, description="class of the error, where refused")
    asked_at: datetime
    seconds: float = Field(default=0, description="from when it was asked")

    def raise_if_refused(self) -> None:
        """Raises BadRequest, ModelNotFound or Conflict with why nothing was changed."""
        if self.state != "refused":
            return
        kind = {"BadRequest": BadRequest, "ModelNotFound": ModelNotFound}.get(self.error or "")
        raise (kind or Conflict)(self.detail)


def asked(operation: Operation) -> Outcome:
    """Return a new outcome. Its id contains the model's name, so that it is found in the store."""
    number = f"{operation.name}-{secrets.token_hex(6)}"
    return Outcome(id=number, operation=operation, asked_at=datetime.now(UTC))
