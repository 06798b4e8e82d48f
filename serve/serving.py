"""What is loaded and what fails, of one replica or of a replica of each pool: for lists and for /readyz."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from model_store.errors import ModelNotReady
from model_store.names import VersionId, parse_version
from model_store.store import get_first_model
from serve.residents import Residents

POOL = "pool "
"""Before the name of a pool that does not answer, among failures."""
NO_MODEL = "no model is loaded"


@dataclass(frozen=True, slots=True)
class Serving:
    """What replicas have loaded, and what they fail to serve, as in Residents."""

    loaded: tuple[str, ...] = ()
    failures: dict[str, str] = field(default_factory=dict[str, str])

    def plus(self, other: Serving) -> Serving:
        return Serving(self.loaded + other.loaded, self.failures | other.failures)

    def require_ready(self, store: str) -> None:
        """Raise ModelNotReady if nothing is loaded, or a pool does not answer; it names what fails.

        A model or alias that fails makes only itself unready: the others answer.
        """
        counts = [
            f"{label}: {why}"
            for label, why in self.failures.items()
            if not self.loaded or label.startswith(POOL)
        ]
        if counts:
            raise ModelNotReady("; ".join(counts))
        if not self.loaded:
            raise ModelNotReady(
                f"{NO_MODEL}: serve one of {store} with 'resight models promote NAME@VERSION'; to begin with: "
                f"{get_first_model()}"
            )

    @property
    def versions(self) -> frozenset[VersionId]:
        return frozenset(map(parse_version, self.loaded))


def serving_of(residents: Residents) -> Serving:
    return Serving(tuple(map(str, residents.loaded)), dict(residents.failures))


class Everywhere(Protocol):
    """The other pools of the application."""

    async def serving(self) -> Serving: ...


async def serving_everywhere(residents: Residents, pools: Everywhere | None) -> Serving:
    """In this replica, and in one of each other pool."""
    here = serving_of(residents)
    return here.plus(await pools.serving()) if pools else here
