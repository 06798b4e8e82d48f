"""What a decision rests on, read from the tables, the views and the model store; nothing is written.

(tables, store, wanted model version) -> Facts, and the published side for batch/changes.py
Counts are one pass over the digests of `media` and the results of one key.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from archive.recent import recent_rows
from archive.run_kinds import kind_of
from archive.scan import scan
from archive.schemas import MEDIA, RESULTS
from archive.scratch import LARGE_MIB, Scratch
from archive.tables import Tables
from archive.views import View, Views, was_rolled_back
from batch.changes import Side, numerics_of
from batch.decide import Facts, Wanted, shown_by
from batch.decisions import started_run
from batch.plan import TRIED_AGAIN, pinned
from model_store.errors import BadRequest, ModelError, ModelNotFound
from model_store.inference_key import NUMERICS_VERSION
from model_store.names import VersionId
from model_store.store import ModelStore, ModelVersion, get_first_model

SILENT = timedelta(minutes=5)
"""A run without an event for so long is interrupted, as the view `runs` has it."""
_COUNTS = """
    with present as (
        select distinct md5_number(media_sha256) as id from media where missing_since is null),
    done as (
        select md5_number(media_sha256) as id, status, finished_at,
            status = 'failed' and error_code in (select unnest($tried_again)) as again
        from results)
    select count(*), count(*) filter (status is null), count(*) filter (status = 'ok'),
        count(*) filter (status = 'failed'), count(*) filter (again), epoch_us(min(finished_at) filter (again))
    from present left join done using (id)
"""


def wanted_version(store: ModelStore, view: View | None, ref: str = "") -> ModelVersion:
    """Return what `ref` means now; without one, what the name of the published model means; where nothing is
    published, that of the only model.

    Raises BadRequest if there are several, ModelNotFound, ModelRefused.
    """
    if not ref and view is None:
        names = [name for name in store.names() if store.versions(name)]
        if not names:
            raise ModelNotFound(f"no model is in {store.url}; to begin with: {get_first_model()}")
        if len(names) > 1:
            raise BadRequest(
                f"nothing is published yet: name a model with --model; there is: {', '.join(names)}; see --help"
            )
        ref = names[0]
    return pinned(store, ref or (view.model_name if view else ""))


def gather(tables: Tables, model: ModelVersion, now: datetime) -> Facts:
    """`now` with its time zone. Raises StorageUnreachable."""
    history, key = Views(tables.url).history(), model.info.inference_key
    view, shown = history[-1] if history else None, model.detector_config.thresholds
    return Facts(
        wanted=_wanted(model),
        published=view,
        published_numerics=_published_numerics(model, view),
        taken_back=was_rolled_back(history, key, shown.default, shown.per_label),
        running=running_run(tables, key, now) or started_run(tables, key, now),
        **_counts(tables, key),
    )


def published_side(store: ModelStore, view: View) -> Side | None:
    """The published model as the store has it; None when it is not there, or is not the one published."""
    try:
        version = store.describe(VersionId(view.model_name, view.model_version))
    except ModelError:
        return None
    config, weights = version.detector_config, version.info.weights_sha256
    numerics = numerics_of(config, weights, view.inference_key)
    if numerics is None:
        return None
    return Side(config, weights, shown_by(view), numerics, view.layers)


def wanted_side(model: ModelVersion, layers: tuple[str, ...] = ()) -> Side:
    config = model.detector_config
    return Side(config, model.info.weights_sha256, config.thresholds, NUMERICS_VERSION, layers)


def running_run(tables: Tables, key: str, now: datetime) -> str | None:
    """A detection run of this inference key with an event in the last minutes, and no end."""
    columns = ("run_id", "event", "state", "kind")
    events = recent_rows(
        tables.existing("runs"), "event_at", now - SILENT, columns, inference_key=key
    )
    events.sort(key=lambda row: row["event"])
    last = {row["run_id"]: row["state"] for row in events if kind_of(row) == "detect"}
    return next((run for run, state in sorted(last.items()) if state == "running"), None)


def _wanted(model: ModelVersion) -> Wanted:
    return Wanted(
        name=model.info.name,
        version=model.info.version,
        inference_key=model.info.inference_key,
        numerics=NUMERICS_VERSION,
        thresholds=model.detector_config.thresholds,
    )


def _published_numerics(model: ModelVersion, view: View | None) -> int | None:
    if view is None:
        return None
    return numerics_of(model.detector_config, model.info.weights_sha256, view.inference_key)


def _counts(tables: Tables, key: str) -> dict[str, Any]:
    scratch = Scratch("facts", LARGE_MIB, in_order=False)
    try:
        scan(scratch.sql, "media", tables.existing("media"), MEDIA)
        scan(scratch.sql, "results", tables.existing("results"), RESULTS, key)
        found = scratch.sql.execute(_COUNTS, {"tried_again": list(TRIED_AGAIN)}).fetchall()
    finally:
        scratch.close()
    images, new, ok, failed, retryable, since = found[0]
    return {
        "images": images,
        "new_images": new,
        "results": {"ok": ok, "failed": failed},
        "retryable": retryable,
        "retry_since": _local(since),
    }


def _local(epoch_us: int | None) -> datetime | None:
    """By the clock of this machine, without a zone."""
    return None if epoch_us is None else datetime.fromtimestamp(epoch_us / 1e6)
