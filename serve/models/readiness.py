"""Readiness: loaded versions and failures of one replica, or of one replica of each pool."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from model_store.errors import SOON_S, ModelNotReady
from model_store.names import VersionId, get_first_model, parse_version

POOL = "pool "
"""Prefix of the key in `failures` for a pool that does not answer."""
NO_MODEL, PENDING = "no model is loaded", "it is being proved or loaded"
"""Parts of failures by which 'resight status' distinguishes what is not an error."""


def retry_after_s(reason: str) -> float | None:
    """Return when a version with this reason in `failures` may serve, or None if a person must do something first."""
    return SOON_S if reason.endswith(PENDING) else None


@dataclass(frozen=True, slots=True)
class Serving:
    """Loaded versions, and by model or alias why it does not serve (`AliasPoller.failures`)."""

    loaded: tuple[str, ...] = ()
    failures: dict[str, str] = field(default_factory=dict[str, str])

    def plus(self, other: Serving) -> Serving:
        return Serving(self.loaded + other.loaded, self.failures | other.failures)

    def require_ready(self, store: str) -> None:
        """Raise ModelNotReady, with the failures, if nothing is loaded or a pool does not answer.

        A model or alias that fails does not make the others unready.
        """
        reasons = [
            f"{label}: {why}" for label, why in self.failures.items() if not self.loaded or label.startswith(POOL)
        ]
        if reasons:
            raise ModelNotReady("; ".join(reasons))
        if not self.loaded:
            raise ModelNotReady(
                f"{NO_MODEL}: serve one of {store} with 'resight models promote NAME@VERSION', or add a first one "
                f"with '{get_first_model()}'"
            )

    @property
    def versions(self) -> frozenset[VersionId]:
        return frozenset(map(parse_version, self.loaded))


class OtherPools(Protocol):
    """The other pools of the application."""

    async def serving(self) -> Serving:
        """Return the loaded versions and failures of one replica of each pool."""
        ...


async def serving_everywhere(own: Serving, pools: OtherPools | None) -> Serving:
    """Return what this replica serves (`own`), and one replica of each other pool."""
    return own.plus(await pools.serving()) if pools else own
