"""Whether a run that is resumed by its id is still the same run.

The last event of the run in `runs` against what is asked now: another model, scope, limit or kind of snips would
mix two runs under one name. Its pace (chunks, actors, threads, commits) may differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from archive.scan import scan
from archive.schemas import RUNS
from archive.tables import Tables
from batch.scratch import Scratch
from batch.spec import RunSpec
from model_store.errors import Conflict
from model_store.store import ModelVersion

_LAST = """
    select model_name, model_version, inference_key, spec from runs where run_id = $run
    order by event desc limit 1
"""
SAME = ("scope", "megapixels", "snips")


def require_same_run(tables: Tables, spec: RunSpec, model: ModelVersion) -> None:
    """Nothing for a new id. Raises Conflict that names each field that differs, old and new."""
    known = tables.existing("runs")
    if known is None:
        return
    scratch = Scratch()
    scan(scratch.sql, "runs", known, RUNS)
    found = scratch.sql.execute(_LAST, {"run": spec.run_id}).fetchall()
    scratch.close()
    if not found:
        return
    name, version, key, text = found[0]
    differs = list(_differences(json.loads(text), spec.model_dump(mode="json")))
    if key != model.info.inference_key:
        differs.insert(0, f"model was {name}@{version} ({key[:12]}…), now {_named(model)}")
    if differs:
        raise Conflict(
            f"run {spec.run_id} cannot be resumed as another run: {'; '.join(differs)}. Ask for the same, "
            "or leave out --run-id for a new run: what is done is not done again"
        )


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for field in SAME:
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
