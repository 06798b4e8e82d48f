"""Whether a run that is resumed by its id is still the same run.

The last event of the run in `runs` against what is asked now: another model, scope, limit or kind of snips would
mix two runs under one name. Its pace (chunks, actors, threads, commits) may differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from archive.dataset import dataset
from archive.run_kinds import RunKind, in_words
from archive.schemas import RUNS
from archive.scratch import scratch
from archive.tables import Tables
from batch.run_log import RecordedSpec
from model_store.errors import Conflict
from model_store.store import ModelVersion

_LAST = """
    select model_name, model_version, inference_key, spec, coalesce(kind, 'detect') from runs
    where run_id = $run order by event desc limit 1
"""
SAME = ("scope", "megapixels", "snips")


def require_same_run(
    tables: Tables,
    spec: RecordedSpec,
    model: ModelVersion,
    kind: RunKind = "detect",
    same: Sequence[str] = SAME,
) -> None:
    """Nothing for a new id. `same`: fields of the spec that make it the run it is.

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
        differs.insert(0, f"model was {name}@{version} ({key[:12]}…), now {_named(model)}")
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


def _named(model: ModelVersion) -> str:
    return f"{model.id} ({model.info.inference_key[:12]}…)"
