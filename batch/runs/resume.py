"""Resume a run by its id: the tables that it began with, and a check that it is still the same run.

The last event of the run in `runs` is compared with the new spec: another model, scope, limit or kind of snips would
mix two runs under one id. The pace (chunks, actors, threads, commits) may differ.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from archive.delta.snapshot import open_tables
from archive.delta.tables import Tables
from archive.views.past import PastTables, moment_of
from archive.views.publications import last_event
from archive.views.run_kinds import in_words
from batch.runs.spec import PassSpec
from batch.schedule.config_impact import ConfiguredModel, changes, numerics_of
from model_store.errors import Conflict, ResightError
from model_store.names import VersionId, version_id
from model_store.store import ModelStore, ModelVersion

_BEGAN_ON = """
    select metrics from runs where run_id = $run
        and (select arg_max(state, event) from runs where run_id = $run) <> 'sealed'
        and (metrics->'began_on') is not null
    order by event desc limit 1
"""
MAX_CHARS = 40
"""Characters of a value in an error: enough to distinguish digests and lists of labels."""


def beginning(tables: Tables, run_id: str) -> dict[str, Any]:
    """Return the metrics with which an unsealed run began; none for a new or a sealed run.

    Also none for a run of an older release, which did not record them.
    """
    with open_tables(tables, "runs") as sql:
        rows = sql.execute(_BEGAN_ON, {"run": run_id}).fetchall()
    return json.loads(rows[0][0]) if rows else {}


def tables_of_unsealed(tables: Tables, run_id: str) -> PastTables | None:
    """Return the tables as they were when an unsealed run began; None without a `beginning`."""
    began = beginning(tables, run_id)
    return PastTables(tables.url, began["began_on"]) if began else None


def tables_of_run(tables: Tables, run_id: str) -> PastTables:
    """Return the tables that a run covers: as they were when it began, which is now for a new run.

    Record its `moment` as `began_on` in the metrics of the run's next event.
    """
    return tables_of_unsealed(tables, run_id) or PastTables(tables.url, moment_of(tables))


def require_same_run(tables: Tables, spec: PassSpec, model: ModelVersion, store: ModelStore) -> None:
    """Compare a spec with the record of its run, if there is one. Raises Conflict that names each field that differs.

    `store`: may have the version that the run began with, to list the fields in which the model differs.
    """
    run = last_event(tables, spec.run_id)
    if run is None:
        return
    if run["kind"] != spec.run_kind:
        raise Conflict(
            f"run {spec.run_id} is {in_words(run['kind'])} and cannot be resumed as {in_words(spec.run_kind)}: "
            "leave out --run-id"
        )
    differs = list(_differences(json.loads(run["spec"]), json.loads(spec.model_dump_json()), spec.same))
    key = run["inference_key"]
    if key != model.info.inference_key:
        was = version_id(run["model_name"], run["model_version"])
        now = f"{model.id} ({model.info.inference_key[:12]}…)"
        fields = "; ".join(_config_differences(store, was, key, model))
        differs.insert(0, f"model was {was} ({key[:12]}…), now {now}{fields and f' [{fields}]'}")
    if differs:
        raise Conflict(
            f"run {spec.run_id} cannot be resumed as another run: {'; '.join(differs)}. Use the same options, "
            "or leave out --run-id for a new run: finished images are not repeated"
        )


def _differences(was: Mapping[str, Any], now: Mapping[str, Any], same: Sequence[str]) -> list[str]:
    differences: list[str] = []
    for field in same:
        old, new = was.get(field), now.get(field)
        if isinstance(new, Mapping):
            old = old or {}
            differences += [
                f"{field}.{name} was {old.get(name)!r}, now {new.get(name)!r}"
                for name in sorted(set(old) | set(new))
                if old.get(name) != new.get(name)
            ]
        elif old != new:
            differences.append(f"{field} was {old!r}, now {new!r}")
    return differences


def _config_differences(store: ModelStore, began_with: VersionId, key: str, model: ModelVersion) -> Iterator[str]:
    """Yield fields of detectors that differ; none if the store no longer has that version as it was."""
    with contextlib.suppress(ResightError):
        was = store.describe(began_with)
        config, weights, now = was.detector_config, was.info.weights_sha256, model.detector_config
        if numerics := numerics_of(config, weights, key):
            old = ConfiguredModel(config, weights, config.thresholds, numerics)
            for change in changes(old, ConfiguredModel(now, model.info.weights_sha256, now.thresholds)):
                if change.needs == "inference":
                    yield f"{change.field} was {change.old!r:.{MAX_CHARS}}, now {change.new!r:.{MAX_CHARS}}"
