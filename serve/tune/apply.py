"""Write the best batch and wait of a sweep into the version's own entry of deployment.json, and undo it.

A report has the entry from before and the settings to write, so nothing else is recorded.
"""

from __future__ import annotations

from typing import Any

from model_store.deployment import own_entry, write_entry
from model_store.errors import BadRequest, Conflict, ObjectiveMissed
from model_store.names import parse_version
from model_store.store import ModelStore
from serve.settings import DetectArgs
from serve.tune.report import verdict
from serve.tune.results import Hardware, TuningResult

MAX_UNSTEADY = 0.3  # of the current settings: beyond it the best point may be chance

Entry = dict[str, Any]
"""A version's own entry in deployment.json."""


def apply_best(store: ModelStore, result: TuningResult, pool: DetectArgs) -> Entry | None:
    """Write the best applicable settings; return the new entry, or None if the current ones are the best.

    `pool` is the model's. Raises ObjectiveMissed if no batch meets the objective with the pool as it is, BadRequest if
    the version is not the measured one, Conflict if the machine was unsteady, or pool or entry have changed.
    """
    version = parse_version(result.model)
    if result.applies is None:
        raise ObjectiveMissed(f"nothing was written: no batch is fast enough in this pool; {verdict(result)}")
    if store.describe(version).info.inference_key != result.inference_key:
        raise BadRequest(f"{version} of {store.url} is not the measured version: tune again")
    was = {"pool": result.pool, **result.current.hardware._asdict(), "own entry": result.entry}
    entry = own_entry(store, version)
    now = {"pool": pool.pool, **Hardware.of(pool)._asdict(), "own entry": entry}
    changes = [f"{name} was {was[name]}, now {now[name]}" for name in was if was[name] != now[name]]
    if changes and entry == _applied(result) != result.entry:
        raise Conflict(f"{version} has these settings already: undo them first, or tune again")
    if changes:
        raise Conflict(
            f"nothing was written: {version} was measured with other settings ({'; '.join(changes)}): tune again"
        )
    if result.applies == result.current:
        return None
    if result.unsteady > MAX_UNSTEADY:
        varied = f"throughput of the current settings varied by {result.unsteady:.0%}"
        raise Conflict(f"nothing was written: {varied}, so the best may be chance: use a quiet machine")
    write_entry(store, version, _applied(result), expected=result.entry)
    return _applied(result)


def undo(store: ModelStore, result: TuningResult) -> None:
    """Restore the entry from before --apply.

    Raises BadRequest if the version has that entry, Conflict if it has another than --apply wrote.
    """
    version = parse_version(result.model)
    entry = own_entry(store, version)
    if entry == result.entry:
        raise BadRequest(f"{version} has the settings it was measured with: there is nothing to undo")
    if result.applies is None or entry != _applied(result):
        raise Conflict(
            f"{version} has other settings now ({entry}): edit its deployment.json by hand; it had {result.entry}"
        )
    write_entry(store, version, result.entry, expected=entry)


def _applied(result: TuningResult) -> Entry:
    """Return the entry that --apply writes."""
    best = result.applies or result.current
    return (result.entry or {}) | {"batch": {"max": best.batch, "wait_ms": best.wait_ms}}
