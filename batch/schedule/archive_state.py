"""Read the facts for a decision from the tables, the views and the model store; nothing is written.

(tables, store, wanted model version) -> DecisionFacts, and the published side for batch/schedule/config_impact.py.
Counts take one pass over the digests of `media` and the results of one key.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

from archive.catalogue.images import PRESENT
from archive.delta.scratch_db import LARGE_MIB, Scratch
from archive.delta.snapshot import recent_rows, scan
from archive.delta.tables import Tables
from archive.schemas import MEDIA, RESULTS
from archive.views.run_kinds import kind_of
from archive.views.views import View, Views, was_rolled_back
from batch.planning.plan import TRIED_AGAIN, pinned
from batch.publishing.impact.result_sets import ResultSet
from batch.schedule.config_impact import ConfiguredModel, numerics_of
from batch.schedule.decide import DecisionFacts, WantedVersion, shown_by
from batch.schedule.decision_log import started_run
from model_store.errors import BadRequest, ModelError, ModelNotFound
from model_store.inference_key import NUMERICS_VERSION
from model_store.names import DEFAULT_ALIAS, VersionId, get_first_model, parse_ref
from model_store.store import ModelStore, ModelVersion

SILENT = timedelta(minutes=5)
"""A run without an event for this long counts as interrupted, as in the view `runs`."""
_COUNTS = f"""
    with present as (
        select distinct md5_number(media_sha256) as id from media where {PRESENT}),
    done as (
        select md5_number(media_sha256) as id, status, finished_at,
            status = 'failed' and error_code in (select unnest($tried_again)) as again
        from results)
    select count(*), count(*) filter (status is null), count(*) filter (status = 'ok'),
        count(*) filter (status = 'failed'), count(*) filter (again), epoch_us(min(finished_at) filter (again))
    from present left join done using (id)
"""


def wanted_version(store: ModelStore, view: View | None, ref: str = "") -> ModelVersion:
    """Return the version that `ref` refers to; default: the name of the published model, or of the only detector.

    Raises BadRequest if nothing is published and there are several detectors. Raises ModelNotFound or ModelRefused.
    """
    if not ref and view is None:
        names = [name for name in store.names() if _may_detect(store, name)]
        if not names:
            raise ModelNotFound(f"no detector is in {store.url}; to begin with: {get_first_model()}")
        if len(names) > 1:
            raise BadRequest(f"nothing is published yet: name a model with --model: {', '.join(names)}; see --help")
        ref = names[0]
    return pinned(store, ref or (view.model_name if view else ""))


def schedule_words(store: ModelStore, shown: View | ResultSet) -> str:
    """Return a warning if scheduled runs do not follow what is, or would be, published as production; else ""."""
    version = VersionId(shown.model_name, shown.model_version)
    keep = f"to keep {version}: resight models promote {version}"
    try:
        if version not in store.versions(version.name) or store.describe(version).detector_config.is_external:
            return ""
        wanted = store.describe(store.resolve(parse_ref(version.name)))
    except ModelNotFound:
        return f"{version.name} has no alias {DEFAULT_ALIAS}, so scheduled runs end with an error; {keep}"
    except ModelError:
        return ""
    key, limits = wanted.info.inference_key, wanted.detector_config.thresholds
    if (key, limits.default, limits.per_label) == (shown.inference_key, shown.threshold, shown.label_thresholds):
        return ""
    return f"{DEFAULT_ALIAS} of {version.name} is {wanted.id}: scheduled runs would publish that version; {keep}"


def _may_detect(store: ModelStore, name: str) -> bool:
    """Return True if a model has versions, unless they are of another kind; all versions of a model are of one kind."""
    for version in store.versions(name):
        try:
            return store.describe(version).config.kind == "detector"
        except ModelError:  # damaged: see its other versions
            continue
    return bool(store.versions(name))


def gather(tables: Tables, model: ModelVersion, now: datetime, ended: Collection[str] = ()) -> DecisionFacts:
    """Return the facts. `now` has a time zone; `ended` as in `running_run`. Raises StorageUnreachable."""
    history, info, config = Views(tables.url).history(), model.info, model.detector_config
    view, key, shown = history[-1] if history else None, info.inference_key, config.thresholds
    return DecisionFacts(
        wanted=WantedVersion(
            name=info.name, version=info.version, inference_key=key, numerics=NUMERICS_VERSION, thresholds=shown
        ),
        published=view,
        published_numerics=numerics_of(config, info.weights_sha256, view.inference_key) if view else None,
        taken_back=was_rolled_back(history, key, shown.default, shown.per_label),
        running=running_run(tables, key, now, ended=ended) or started_run(tables, key, now, ended),
        **_counts(tables, key),
    )


def published_side(store: ModelStore, view: View) -> ConfiguredModel | None:
    """Return the published model as it is in the store; None if it is missing or differs from the published one."""
    try:
        version = store.describe(VersionId(view.model_name, view.model_version))
    except ModelError:
        return None
    config, weights = version.detector_config, version.info.weights_sha256
    numerics = numerics_of(config, weights, view.inference_key)
    if numerics is None:
        return None
    return ConfiguredModel(config, weights, shown_by(view), numerics, view.layers)


def running_run(
    tables: Tables, key: str, now: datetime, among: Collection[str] | None = None, ended: Collection[str] = ()
) -> str | None:
    """Return a detection run (`among` these) of this inference key with an event within SILENT and no end, or None.

    `ended`: runs that have ended although their records may still have the state `running`.
    """
    running = [run for run, kind in running_runs(tables, now, inference_key=key) if kind == "detect"]
    return next((run for run in running if run not in ended and (among is None or run in among)), None)


def running_runs(tables: Tables, now: datetime, **same: str) -> list[tuple[str, str]]:
    """Return id and kind of the runs with an event within SILENT and no end, and with these columns."""
    columns = ("run_id", "event", "state", "kind")
    events = recent_rows(tables.existing("runs"), "event_at", now - SILENT, columns, **same)
    events.sort(key=lambda row: row["event"])
    last = {row["run_id"]: row for row in events}
    return sorted((run, kind_of(row)) for run, row in last.items() if row["state"] == "running")


def _counts(tables: Tables, key: str) -> dict[str, Any]:
    with closing(Scratch("facts", LARGE_MIB, in_order=False)) as scratch:
        scan(scratch.sql, "media", tables.existing("media"), MEDIA)
        scan(scratch.sql, "results", tables.existing("results"), RESULTS, key)
        rows = scratch.sql.execute(_COUNTS, {"tried_again": list(TRIED_AGAIN)}).fetchall()
    images, new, ok, failed, retryable, since_us = rows[0]
    return {
        "images": images,
        "new_images": new,
        "results": {"ok": ok, "failed": failed},
        "retryable": retryable,
        "retry_since": None if since_us is None else datetime.fromtimestamp(since_us / 1e6),
    }
