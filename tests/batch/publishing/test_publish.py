"""Test publishing: only sealed runs that have results, through the gates, and back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import archive.retention
import batch.publishing.publish
from archive.delta.tables import Tables
from archive.retention import prune
from archive.schemas import RUNS
from archive.views.query import query
from archive.views.views import View, Views, was_rolled_back
from batch.publishing.publish import Check, publish, publish_first, publish_view, rollback, view_to_publish
from batch.runs.spec import RunSpec
from model_store.adding.add import add_version
from model_store.errors import BadRequest, Conflict, GateClosed, ModelNotFound
from model_store.names import version_id
from model_store.store import ModelStore
from tests.fixtures_local import MOTION, put_results, result_rows

OLD = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path / "tables"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """Make blobs@1 and @2 with one key and different thresholds, and blobs@3 with another key."""
    made = ModelStore(str(tmp_path_factory.mktemp("models")))
    for version, side_px, thresholds in (
        ("1", 64, {"default": 0.3}),
        ("2", 64, {"default": 0.3, "per_label": {"blob": 0.6}}),
        ("3", 96, {}),
    ):
        preprocess = {"resize": "stretch", "side_px": side_px}
        config = {**MOTION, "preprocess": preprocess, "thresholds": thresholds}
        add_version(made, version_id("blobs", version), None, config, {})
    made.set_alias("blobs", "production", "3")
    return made


def key(store: ModelStore, version: str) -> str:
    return store.describe(version_id("blobs", version)).info.inference_key


def ran(
    tables: Tables,
    store: ModelStore,
    run_id: str,
    version: str,
    *states: str,
    minute: int = 0,
    scope: dict[str, Any] | None = None,
    images: int = 3,
) -> None:
    """Record a run with these events, and `images` results."""
    info = store.describe(version_id("blobs", version)).info
    spec = RunSpec.model_validate({"run_id": run_id, "model": f"blobs@{version}", "scope": scope or {}})
    rows = [
        {
            "run_id": run_id,
            "event": i,
            "state": state,
            "event_at": OLD + timedelta(minutes=minute, seconds=i),
            "inference_key": info.inference_key,
            "model_name": "blobs",
            "model_version": version,
            "weights_sha256": info.weights_sha256,
            "spec": spec.model_dump_json(),
        }
        for i, state in enumerate(states)
    ]
    tables.append("runs", pa.Table.from_pylist(rows, schema=RUNS), f"run:{run_id}", lambda _, wanted: wanted)
    if images:
        shas = [f"{run_id}-{i}" for i in range(images)]
        put_results(tables, result_rows(shas, key=info.inference_key, run_id=run_id))


def current(tables: Tables) -> View:
    view = Views(tables.url).current()
    assert view
    return view


def both(tables: Tables, store: ModelStore, publish_them: bool = False) -> None:
    """Record run r1 of blobs@1 and run r3 of blobs@3."""
    for version in ("1", "3"):
        ran(tables, store, f"r{version}", version, "running", "sealed")
        if publish_them:
            publish(tables, store, f"r{version}")


def shut(*words: str) -> Check:
    return lambda _old, _new: list(words)


def test_a_sealed_run_is_published_with_its_model_s_thresholds(tables: Tables, store: ModelStore) -> None:
    ran(tables, store, "r", "2", "running", "sealed")
    view = publish(tables, store, "r", reason="better")
    assert view == Views(tables.url).current()
    weights = store.describe(version_id("blobs", "2")).info.weights_sha256
    want = View(
        serial=1,
        inference_key=key(store, "2"),
        model_name="blobs",
        model_version="2",
        weights_sha256=weights,
        threshold=0.3,
        label_thresholds={"blob": 0.6},
        run_id="r",
        published_at=view.published_at,
        reason="better",
    )
    assert view == want
    assert query(tables, "select count(*) as n from results").to_pylist() == [{"n": 3}]


@pytest.mark.parametrize("states", [("running", "failed"), ("sealed", "running")])
def test_a_run_that_is_not_sealed_is_refused_with_the_way_to_resume_it(
    tables: Tables, store: ModelStore, states: tuple[str, ...]
) -> None:
    ran(tables, store, "r", "1", *states)
    with pytest.raises(BadRequest, match=f"run r is {states[-1]}.*--model blobs@1 --run-id r"):
        publish(tables, store, "r")
    assert Views(tables.url).current() is None


def test_a_model_version_stands_for_the_newest_sealed_run_of_its_key(tables: Tables, store: ModelStore) -> None:
    ran(tables, store, "r1", "1", "running", "sealed", minute=1)
    ran(tables, store, "r2", "1", "running", "sealed", minute=2)
    ran(tables, store, "r3", "1", "running", "failed", minute=3)
    ran(tables, store, "r4", "3", "running", "sealed", minute=4)
    view = publish(tables, store, "blobs@2")
    assert (view.run_id, view.model_version, view.label_thresholds) == ("r2", "2", {"blob": 0.6})
    assert publish(tables, store, "blobs:production").run_id == "r4"


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("nothing", BadRequest, "unknown run 'nothing', and not a name@version"),
        ("blobs@1", BadRequest, "no run of blobs@1 is sealed; make one: resight reprocess"),
        ("blobs@9", ModelNotFound, "unknown version blobs@9"),
    ],
)
def test_what_cannot_be_published_is_refused(
    tables: Tables, store: ModelStore, what: str, error: type[Exception], words: str
) -> None:
    ran(tables, store, "r", "1", "running", "failed")
    with pytest.raises(error, match=words):
        publish(tables, store, what)
    assert Views(tables.url).names() == []


def test_a_run_whose_results_were_pruned_is_refused(tables: Tables, store: ModelStore) -> None:
    ran(tables, store, "r", "1", "running", "sealed", images=0)
    with pytest.raises(BadRequest, match="no longer has results"):
        publish(tables, store, "r")


def test_a_run_whose_model_is_gone_is_refused(tables: Tables, store: ModelStore, tmp_path: Path) -> None:
    ran(tables, store, "r", "1", "running", "sealed")
    with pytest.raises(ModelNotFound, match="run r needs the thresholds of blobs@1"):
        publish(tables, ModelStore(str(tmp_path / "empty")), "r")


def test_what_is_shown_already_is_not_published_again(tables: Tables, store: ModelStore) -> None:
    ran(tables, store, "r1", "1", "running", "sealed")
    ran(tables, store, "r2", "1", "running", "sealed")
    first = publish(tables, store, "r1")
    assert publish(tables, store, "r2", check=shut("never asked")) == first
    assert publish(tables, store, "blobs@2").serial == 2


def test_gates_see_what_is_published_and_what_shall_be(tables: Tables, store: ModelStore) -> None:
    seen: list[tuple[View | None, View]] = []

    def look(old: View | None, new: View) -> list[str]:
        seen.append((old, new))
        return []

    both(tables, store)
    first = publish(tables, store, "r1", "trial", check=look)
    publish(tables, store, "r3", "trial", check=look)
    assert [(old, new.run_id, new.name) for old, new in seen] == [(None, "r1", "trial"), (first, "r3", "trial")]
    assert Views(tables.url).current() is None


def test_a_closed_gate_is_named_with_the_way_out_and_nothing_is_published(tables: Tables, store: ModelStore) -> None:
    ran(tables, store, "r", "1", "running", "sealed")
    with pytest.raises(GateClosed) as refused:
        publish(tables, store, "r", check=shut("3 verified lost", "12 % emptied"))
    for words in ("3 verified lost; 12 % emptied", "resight runs diff production r", '--override "why"'):
        assert words in str(refused.value)
    assert Views(tables.url).current() is None


@pytest.mark.parametrize(
    ("reason", "closed", "want"),
    [("new", ["a"], "new; gates overridden: seen by eye (a)"), ("new", [], "new; seen by eye")],
)
def test_an_override_is_kept_with_the_view(
    tables: Tables, store: ModelStore, reason: str, closed: list[str], want: str
) -> None:
    ran(tables, store, "r", "1", "running", "sealed")
    view = publish(tables, store, "r", reason=reason, override="seen by eye", check=shut(*closed))
    assert view.reason == want
    assert Views(tables.url).current() == view


def test_an_override_needs_words(tables: Tables, store: ModelStore) -> None:
    ran(tables, store, "r", "1", "running", "sealed")
    with pytest.raises(BadRequest, match="--override requires a reason"):
        publish(tables, store, "r", override="  ")


def test_layers_and_the_threshold_of_suggestions_stay_as_they_are_published(tables: Tables, store: ModelStore) -> None:
    both(tables, store)
    view = view_to_publish(tables, store, "r1").model_copy(update={"layers": ("stones",), "identity_threshold": 0.7})
    publish_view(tables, view, after=None)
    now = publish(tables, store, "r3")
    assert (now.layers, now.identity_threshold) == (("stones",), 0.7)


def test_of_two_that_publish_at_once_one_is_refused(
    tables: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    both(tables, store)

    def other(_old: View | None, _new: View) -> list[str]:
        publish(tables, store, "r1")
        return []

    with pytest.raises(Conflict, match="published concurrently"):
        publish(tables, store, "r3", check=other)
    assert current(tables).run_id == "r1"


def test_the_first_run_publishes_itself_and_later_ones_do_not(tables: Tables, store: ModelStore) -> None:
    both(tables, store)
    first = publish_first(tables, store, "r1")
    assert first
    assert first.run_id == "r1"
    assert publish_first(tables, store, "r3") is None
    assert Views(tables.url).current() == first


def test_a_sample_never_publishes_itself(tables: Tables, store: ModelStore) -> None:
    ran(tables, store, "r", "1", "running", "sealed", scope={"sample": 10})
    assert publish_first(tables, store, "r") is None
    assert Views(tables.url).current() is None
    assert publish(tables, store, "r").run_id == "r"


def test_of_two_first_runs_one_is_published_and_neither_fails(
    tables: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    both(tables, store)
    real: Callable[..., View] = batch.publishing.publish.publish_view

    def slow(*arguments: Any, **options: Any) -> View:
        monkeypatch.setattr(batch.publishing.publish, "publish_view", real)
        publish(tables, store, "r1")
        return real(*arguments, **options)

    monkeypatch.setattr(batch.publishing.publish, "publish_view", slow)
    assert publish_first(tables, store, "r3") is None
    assert current(tables).run_id == "r1"


def test_a_rollback_shows_the_former_results_again(tables: Tables, store: ModelStore) -> None:
    ran(tables, store, "r1", "1", "running", "sealed")
    ran(tables, store, "r3", "3", "running", "sealed", images=5)
    publish(tables, store, "r1")
    publish(tables, store, "r3")
    back = rollback(tables, reason="stones")
    assert (back.run_id, back.rolled_back_to, back.reason) == ("r1", 1, "stones")
    assert query(tables, "select count(*) as n from results").to_pylist() == [{"n": 3}]


def test_there_must_be_something_to_go_back_to(tables: Tables, store: ModelStore) -> None:
    with pytest.raises(BadRequest, match="nothing is published as production"):
        rollback(tables)
    ran(tables, store, "r1", "1", "running", "sealed")
    publish(tables, store, "r1")
    with pytest.raises(BadRequest, match="nothing was published as production before blobs@1"):
        rollback(tables)


def test_a_publication_that_comes_before_a_rollback_is_not_undone(
    tables: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    both(tables, store, publish_them=True)
    real, left = batch.publishing.publish._require_rows, [True]

    def slow(*arguments: Any) -> None:
        real(*arguments)
        if left:
            left.pop()
            publish(tables, store, "blobs@2")

    monkeypatch.setattr(batch.publishing.publish, "_require_rows", slow)
    with pytest.raises(Conflict, match="published concurrently .number 3."):
        rollback(tables)
    assert (current(tables).serial, current(tables).model_version) == (3, "2")


def test_nobody_goes_back_to_results_that_were_pruned(tables: Tables, store: ModelStore) -> None:
    both(tables, store)
    publish(tables, store, "r1")
    now = publish(tables, store, "r3")
    tables.snapshot("results").delete(f"inference_key = '{key(store, '1')}'")
    with pytest.raises(BadRequest, match="number 1 of view production no longer has results"):
        rollback(tables)
    assert Views(tables.url).current() == now


def test_a_prune_at_the_same_moment_either_keeps_the_results_or_is_told(
    tables: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive.retention, "WRITTEN", timedelta(seconds=-1))
    ran(tables, store, "r1", "1", "running", "sealed")
    delete, left = archive.retention._delete, [True]

    def late(*arguments: Any) -> None:
        if left:
            left.pop()
            publish(tables, store, "r1")
        delete(*arguments)

    monkeypatch.setattr(archive.retention, "_delete", late)
    assert prune(tables, []) == []
    assert query(tables, "select count(*) as n from results").to_pylist() == [{"n": 3}]

    ran(tables, store, "r3", "3", "running", "sealed")
    pruned_first(tables, key(store, "3"), monkeypatch)
    words = "were pruned concurrently, and what was shown before is shown again .number 3."
    with pytest.raises(Conflict, match=words):
        publish(tables, store, "r3")
    shown = current(tables)
    assert (shown.serial, shown.run_id, shown.rolled_back_to) == (3, "r1", 1)
    history = Views(tables.url).history()
    assert not was_rolled_back(history, key(store, "3"), history[1].threshold, history[1].label_thresholds)
    assert query(tables, "select count(*) as n from results").to_pylist() == [{"n": 3}]


def pruned_first(tables: Tables, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    block = batch.publishing.publish.block_concurrent_prune

    def late(tables: Tables) -> None:
        tables.snapshot("results").delete(f"inference_key = '{key}'")
        block(tables)

    monkeypatch.setattr(batch.publishing.publish, "block_concurrent_prune", late)


def test_a_rollback_that_loses_to_a_prune_leaves_what_was_shown(
    tables: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    both(tables, store, publish_them=True)
    pruned_first(tables, key(store, "1"), monkeypatch)
    with pytest.raises(Conflict, match="what was shown before is shown again"):
        rollback(tables)
    past = Views(tables.url).history()
    assert [(view.run_id, view.rolled_back_to) for view in past] == [("r1", None), ("r3", None), ("r1", 1), ("r3", 2)]


def test_a_first_publication_that_loses_to_a_prune_is_no_success(
    tables: Tables, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran(tables, store, "r1", "1", "running", "sealed")
    pruned_first(tables, key(store, "1"), monkeypatch)
    with pytest.raises(Conflict, match="nothing was shown before"):
        publish_first(tables, store, "r1")


def test_a_run_that_publishes_itself_goes_through_the_gates(tables: Tables, store: ModelStore) -> None:
    ran(tables, store, "r1", "1", "running", "sealed")
    with pytest.raises(GateClosed, match="all failed"):
        publish_first(tables, store, "r1", check=shut("all failed"))
    assert Views(tables.url).current() is None


def test_results_that_are_all_there_need_no_sealed_run(tables: Tables, store: ModelStore) -> None:
    """A run was killed after its last commit, and the caller has counted the results."""
    ran(tables, store, "r1", "1", "running")
    with pytest.raises(BadRequest, match="no run of blobs@1 is sealed"):
        publish(tables, store, "blobs@1")
    view = publish(tables, store, "blobs@1", complete=True)
    assert (view.inference_key, view.run_id, view.serial) == (key(store, "1"), None, 1)
