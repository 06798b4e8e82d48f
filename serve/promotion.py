"""Move an alias to another version so that no request is ever without a model.

load and probe here -> every replica loads it beside the old one -> alias file -> every replica switches
What fails before the alias file leaves everything as it was; what fails after it puts the alias back.
"""

from __future__ import annotations

from typing import Any, Protocol

from model_store.detector import load_detector
from model_store.errors import ModelNotReady
from model_store.names import VersionId
from model_store.store import ModelStore


class Replicas(Protocol):
    """All replicas of a running cluster."""

    def ensure(self, model: str) -> None:
        """Load `name@version` in each. Raises what a replica says when it cannot."""
        ...

    def reload(self) -> list[dict[str, Any]]:
        """Have each follow the alias files now; what each holds: `loaded`, `failures`."""
        ...


def promote(store: ModelStore, version: VersionId, alias: str, replicas: Replicas | None) -> None:
    """Without replicas (no cluster runs), load and probe here, then write the alias.

    Raises ModelError, also when a replica cannot load the version: all then go on with the old one.
    """
    load_detector(store, version)
    previous = store.aliases(version.name).get(alias)
    if replicas is not None:
        replicas.ensure(str(version))
    store.set_alias(version.name, alias, version.version)
    if replicas is None:
        return
    try:
        _require_all(replicas.reload(), version, alias)
    except BaseException:
        if store.aliases(version.name).get(alias) == version.version:  # nobody promoted meanwhile
            store.set_alias(version.name, alias, previous)
            replicas.reload()
        raise


def _require_all(answers: list[dict[str, Any]], version: VersionId, alias: str) -> None:
    for answer in answers:
        if alias not in answer["loaded"].get(str(version), []):
            why = answer["failures"].get(f"{version.name}:{alias}", "it did not say why")
            raise ModelNotReady(f"a replica could not switch, so {alias} was put back: {why}")
