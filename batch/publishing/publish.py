"""Publish the results of a run, or roll back; only this module changes what a view shows.

run id | name@version --view_to_publish--> View --gates--> pointer written -> rows protected from a prune
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from archive.annotations.layers import Layer, read_layers
from archive.delta.snapshot import partition_keys
from archive.delta.tables import Tables
from archive.retention import block_concurrent_prune
from archive.views.publications import last_event, last_sealed
from archive.views.run_kinds import in_words
from archive.views.views import PRODUCTION, View, Views, not_rolled_back, rollback_target
from batch.publishing.impact.result_sets import ResultSet
from batch.publishing.impact.verdict import Translator, failed_gates
from batch.schedule.policy import policy_of
from model_store.errors import BadRequest, Conflict, GateClosed, ModelError, StorageError
from model_store.names import parse_ref, version_id
from model_store.store import ModelStore
from serve.settings import Settings

Check = Callable[[View | None, View], list[str]]
"""(view published now or None, view to publish) -> the words of each gate that fails."""


def no_gates(_old: View | None, _new: View) -> list[str]:
    return []


def publish(
    tables: Tables,
    store: ModelStore,
    what: str,
    name: str = PRODUCTION,
    *,
    reason: str = "",
    override: str | None = None,
    check: Check = no_gates,
    complete: bool = False,
) -> View:
    """Make the results of a run, or of the newest sealed run of name@version, the published view; return it.

    The published layers and the threshold of suggestions stay. `complete`: the caller has checked that every image has
    a result, so that name@version needs no sealed run. Raises BadRequest (unknown run, not sealed, pruned),
    ModelNotFound, and what `publish_view` raises.
    """
    now = Views(tables.url).current(name)
    kept = {"layers": now.layers, "identity_threshold": now.identity_threshold} if now else {}
    fields = {"name": name, "reason": reason} | kept
    view = view_to_publish(tables, store, what, complete).model_copy(update=fields)
    return publish_view(tables, view, after=now, override=override, check=check)


def publish_by_policy(
    settings: Settings,
    tables: Tables,
    store: ModelStore,
    what: str,
    name: str = PRODUCTION,
    reason: str = "",
    override: str | None = None,
) -> View:
    """Publish a run or name@version if the gates of the policy pass. Raises what `publish` raises."""
    check = partial(failed_gates, tables, gates=policy_of(settings).gates)
    return publish(tables, store, what, name, reason=reason, override=override, check=check)


def publish_view(
    tables: Tables, view: View, *, after: View | None, override: str | None = None, check: Check = no_gates
) -> View:
    """Make `view` the successor of `after`, which is published now; return what is published then.

    Nothing is written if `after` shows the same already. `override` is the reason to ignore gates that fail; it
    is added to the view's reason. Raises GateClosed, Conflict, BadRequest, StorageError.
    """
    if override is not None and not override.strip():
        raise BadRequest('--override requires a reason, which is stored with the view: --override "why"')
    if after and after.shows_the_same_as(view):
        return after
    closed = check(after, view)
    if closed and override is None:
        model = f"{view.model_name}@{view.model_version}"
        what, is_part = view.run_id or model, any("min_coverage_frac" in words for words in closed)
        rest = f" Run it on the other images: resight reprocess --model {model}." if is_part else ""
        raise GateClosed(
            f"{what} is not published as {view.name}: {'; '.join(closed)}.{rest} See what would change: resight runs "
            f'diff {view.name} {what}; the gates are in the policy file, and --override "why" publishes it anyway'
        )
    why = f"gates overridden: {override} ({'; '.join(closed)})" if closed else override
    words = "; ".join(word for word in (view.reason, why) if word)
    new = view.model_copy(update={"reason": words})
    written = Views(tables.url).publish(new, after=after.serial if after else 0)
    return _held(tables, written, after)


def publish_first(tables: Tables, store: ModelStore, run_id: str, check: Check = no_gates) -> View | None:
    """Publish a run as the view `production` if nothing is published yet; otherwise return None.

    A run over a sample, or of another kind than `detect`, is not published either. Raises what `publish` raises.
    """
    run = last_event(tables, run_id)
    if Views(tables.url).current() or (run and run["kind"] != "detect"):
        return None
    if run and json.loads(run["spec"] or "{}").get("scope", {}).get("sample") is not None:
        return None
    view = view_to_publish(tables, store, run_id).model_copy(update={"reason": "the first"})
    try:
        return publish_view(tables, view, after=None, check=check)
    except Conflict:
        now = Views(tables.url).current()
        if now and now.inference_key in partition_keys(tables.existing("results")):
            return None  # another run was published first
        raise


def rollback(tables: Tables, name: str = PRODUCTION, reason: str = "", after: int | None = None) -> View:
    """Publish again what was published before.

    Raises BadRequest if there is nothing or it was pruned. Raises Conflict if another publication is concurrent, or
    current in place of the serial `after`.
    """
    views = Views(tables.url)
    past = views.history(name)
    if not past:
        raise BadRequest(f"nothing is published as {name}")
    if after not in (None, past[-1].serial):
        raise Conflict(
            f"view {name} has number {past[-1].serial} now, and number {after} was to be undone: nothing was changed. "
            "Look again at what a roll-back would change"
        )
    target = rollback_target(past)
    _require_rows(tables, target.inference_key, f"number {target.serial} of view {name}")
    return _held(tables, views.rollback(past, reason), past[-1])


def rollback_words(tables: Tables, now: View) -> list[str]:
    """Describe a roll-back that was just published: what it undid, and what the next one would undo."""
    past = [view for view in Views(tables.url).history(now.name) if view.serial <= now.serial]
    undone = _change(read_layers(tables), not_rolled_back(past[:-1])[-2:])
    return [f"undone: {undone}", next_rollback(tables, past)]


def next_rollback(tables: Tables, past: Sequence[View], t: Translator = str.format) -> str:
    """Describe what a roll-back would undo, given the history of a view."""
    left = not_rolled_back(past)
    if len(left) < 2:
        return t("nothing is left to undo")
    return t("the next roll-back would undo: {change}", change=_change(read_layers(tables), left[-2:], t))


def _change(layers: Mapping[str, Layer], views: Sequence[View], t: Translator = str.format) -> str:
    """Describe what a publication changed, given the view before it and its own."""
    old, new = views
    models = [f"{view.model_name}@{view.model_version}" for view in (old, new)]
    words = []
    if old.inference_key != new.inference_key or models[0] != models[1]:
        words.append(t("{new} in place of {old}", new=models[1], old=models[0]))
    thresholds = ("threshold", "label_thresholds", "identity_threshold")
    if any(getattr(old, name) != getattr(new, name) for name in thresholds):
        words.append(t("other thresholds"))
    for state, these, others in ((t("on"), new, old), (t("off"), old, new)):
        changed = [layer for layer in these.layers if layer not in others.layers]
        words += [
            f"{t('layer')} {layers[layer].kind if layer in layers else t('unknown')} {layer[:12]} {state}"
            for layer in changed
        ]
    return f"{t('number {n}', n=new.serial)} ({', '.join(words) or t('the same view again')})"


def view_to_publish(tables: Tables, store: ModelStore, what: str, complete: bool = False) -> View:
    """Return the view, unnumbered, with the thresholds of the model's current config. Raises what `publish` raises."""
    run = last_event(tables, what)
    if run is None:
        run = _newest_of_model(tables, store, what, complete)
    if run["kind"] != "detect":
        raise BadRequest(
            f"run {run['run_id']} is {in_words(run['kind'])} and has no results that a view can show: publish a "
            "run of resight reprocess"
        )
    if run["state"] != "sealed":
        raise BadRequest(
            f"run {run['run_id']} is {run['state']}, and only a sealed run can be published; resume it: "
            f"resight reprocess --model {run['model_name']}@{run['model_version']} --run-id {run['run_id']}"
        )
    _require_rows(tables, run["inference_key"], f"run {run['run_id'] or what}")
    version = version_id(run["model_name"], run["model_version"])
    try:
        thresholds = store.describe(version).detector_config.thresholds
    except ModelError as error:
        raise type(error)(f"run {run['run_id']} needs the thresholds of {version}: {error}") from error
    return View(
        inference_key=run["inference_key"],
        model_name=version.name,
        model_version=version.version,
        weights_sha256=run["weights_sha256"],
        threshold=thresholds.default,
        label_thresholds=dict(thresholds.per_label),
        run_id=run["run_id"],
    )


def labels_of(store: ModelStore, view: View | ResultSet) -> Sequence[str]:
    """Return the labels of the model in its order, () if this machine lacks the model."""
    try:
        return store.describe(version_id(view.model_name, view.model_version)).detector_config.labels
    except (ModelError, StorageError):
        return ()


def _newest_of_model(tables: Tables, store: ModelStore, what: str, complete: bool) -> dict[str, Any]:
    if "@" not in what and ":" not in what:
        raise BadRequest(f"unknown run '{what}', and not a name@version either: see resight runs list")
    described = store.describe(store.resolve(parse_ref(what)))
    run_id = last_sealed(tables, described.info.inference_key)
    run = last_event(tables, run_id) if run_id else None
    if run is None and complete:
        info = described.info
        identity = {"inference_key": info.inference_key, "weights_sha256": info.weights_sha256}
        run = {"run_id": None, "state": "sealed", "kind": "detect"} | identity
    if run is None:
        raise BadRequest(f"no run of {described.id} is sealed; make one: resight reprocess --model {described.id}")
    return run | {"model_name": described.id.name, "model_version": described.id.version}


def _require_rows(tables: Tables, inference_key: str, what: str) -> None:
    if inference_key not in partition_keys(tables.existing("results")):
        raise BadRequest(
            f"{what} no longer has results: its inference key {inference_key[:12]}… was pruned; "
            "run it again with resight reprocess"
        )


def _held(tables: Tables, view: View, former: View | None) -> View:
    """Protect the rows of a published view from prunes, and return the view.

    Raises Conflict if a prune removed the rows first; `former`, if any, is then published again.
    """
    block_concurrent_prune(tables)
    if view.inference_key in partition_keys(tables.existing("results")):
        return view
    after = "nothing was shown before"
    if former is not None:
        again = former.model_copy(update={"reason": f"the results of number {view.serial} were pruned"})
        to = former.rolled_back_to or former.serial
        try:
            shown = Views(tables.url).publish(again, after=view.serial, rolled_back_to=to, after_prune=True)
            after = f"what was shown before is shown again (number {shown.serial})"
        except Conflict:
            after = "another publication came in between"
    raise Conflict(
        f"the results of view {view.name} number {view.serial} were pruned concurrently, and {after}: "
        "run it again with resight reprocess"
    )
