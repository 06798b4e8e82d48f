"""Whether a run that is resumed by its id is still the same run.

The last event of the run in `runs` against what is asked now: another model, scope, limit or kind of snips would
mix two runs under one name. Its pace (chunks, actors, threads, commits) may differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from archive.dataset import dataset
from archive.past import PastTables, moment_of
from archive.run_kinds import RunKind, in_words
from archive.schemas import RUNS
from archive.scratch import scratch
from archive.tables import Tables
from batch.changes import Side, changes, numerics_of
from batch.run_log import RecordedSpec
from model_store.errors import Conflict, ResightError
from model_store.names import VersionId, version_id
from model_store.store import ModelStore, ModelVersion

_LAST = """
    select model_name, model_version, inference_key, spec, coalesce(kind, 'detect') from runs
    where run_id = $run order by event desc limit 1
"""
_BEGAN_ON = """
    select metrics from runs where run_id = $run
        and (select arg_max(state, event) from runs where run_id = $run) <> 'sealed'
        and (metrics->'began_on') is not null
    order by event desc limit 1
"""
SAME = ("scope", "megapixels", "snips")
MOST_SAID = 40
"""Characters of a value: digests and lists of labels are told apart by fewer."""


def began_on(tables: Tables, run_id: str) -> PastTables | None:
    """Return the tables as they were when a run began that has not been sealed since; None for a new one.

    Also None for a run of an older release, which did not record it.
    """
    known = tables.existing("runs")
    if known is None:
        return None
    with scratch("runs") as sql:
        sql.register("runs", dataset(known, RUNS))
        found = sql.execute(_BEGAN_ON, {"run": run_id}).fetchall()
    return PastTables(tables.url, json.loads(found[0][0])["began_on"]) if found else None


def begin_on(tables: Tables, run_id: str) -> PastTables:
    """Return the tables that a run is about: as they were when it began, which is now for a new run.

    Its `moment` is to be recorded as `began_on` in the metrics of the run's next event.
    """
    return began_on(tables, run_id) or PastTables(tables.url, moment_of(tables))


def require_same_run(
    tables: Tables,
    spec: RecordedSpec,
    model: ModelVersion,
    kind: RunKind = "detect",
    same: Sequence[str] = SAME,
    store: ModelStore | None = None,
) -> None:
    """Nothing for a new id. `same`: fields of the spec that make it the run it is. `store`: where the version that the
    run began with may still be read, to say what is otherwise in the model.

    Raises Conflict that names each field that differs, old and new.
    """
    known = tables.existing("runs")
    if known is None:
        return
    with scratch("runs") as sql:
        sql.register("runs", dataset(known, RUNS))
        found = sql.execute(_LAST, {"run": spec.run_id}).fetchall()
    if not found:
        return
    name, version, key, text, was = found[0]
    if was != kind:
        raise Conflict(
            f"run {spec.run_id} is {in_words(was)} and cannot be resumed as {in_words(kind)}: leave out --run-id"
        )
    differs = list(_differences(json.loads(text), json.loads(spec.model_dump_json()), same))
    if key != model.info.inference_key:
        words = f"model was {name}@{version} ({key[:12]}…), now {_named(model)}"
        fields = _config_differences(store, version_id(name, version), key, model) if store else ""
        differs.insert(0, f"{words}{fields}")
    if differs:
        raise Conflict(
            f"run {spec.run_id} cannot be resumed as another run: {'; '.join(differs)}. Ask for the same, "
            "or leave out --run-id for a new run: what is done is not done again"
        )


def _differences(was: Mapping[str, Any], now: Mapping[str, Any], same: Sequence[str]) -> list[str]:
    found: list[str] = []
    for field in same:
        old, new = was.get(field), now.get(field)
        if isinstance(new, Mapping):
            old = old or {}
            found += [
                f"{field}.{name} was {old.get(name)!r}, now {new.get(name)!r}"
                for name in sorted(set(old) | set(new))
                if old.get(name) != new.get(name)
            ]
        elif old != new:
            found.append(f"{field} was {old!r}, now {new!r}")
    return found


def _config_differences(
    store: ModelStore, began_with: VersionId, key: str, model: ModelVersion
) -> str:
    """Fields of the config, in brackets; nothing where the store has that version no more, or not as it was."""
    try:
        was, now = store.describe(began_with), model.detector_config
        config, weights = was.detector_config, was.info.weights_sha256
    except ResightError:
        return ""
    numerics = numerics_of(config, weights, key)
    if numerics is None:
        return ""
    old = Side(config, weights, config.thresholds, numerics)
    new = Side(now, model.info.weights_sha256, now.thresholds)
    found = [one for one in changes(old, new) if one.needs == "inference"]
    said = "; ".join(f"{one.field} was {_short(one.old)}, now {_short(one.new)}" for one in found)
    return f" [{said}]" if said else ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MOST_SAID else f"{text[:MOST_SAID]}…"


def _named(model: ModelVersion) -> str:
    return f"{model.id} ({model.info.inference_key[:12]}…)"
