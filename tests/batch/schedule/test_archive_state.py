"""Test the facts of a decision, against tables with rows that are counted by hand."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from archive.delta.tables import Tables
from archive.schemas import MEDIA
from archive.views.views import View, Views
from batch.planning.plan import pinned
from batch.schedule.archive_state import gather, published_side, running_run, wanted_version
from batch.schedule.decide import Decision
from batch.schedule.decision_log import keep_decision
from model_store.config import Thresholds
from model_store.errors import BadRequest, ModelNotFound
from model_store.inference_key import NUMERICS_VERSION, inference_key
from model_store.store import ModelStore, ModelVersion
from tests.batch.schedule.test_decision_log import put_event
from tests.fixtures_local import motion_store, put_results, result_rows
from tests.model_store.classifiers import colour_store
from tests.model_store.embedders import look_store

NOW = datetime(2026, 5, 18, 3, 0, tzinfo=UTC)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path / "tables"))


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return motion_store(tmp_path / "models", "1")


@pytest.fixture
def model(store: ModelStore) -> ModelVersion:
    return pinned(store, "blobs")


def put_media(tables: Tables, *shas: str, gone: bool = False) -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC) if gone else None
    rows = [
        {"media_sha256": sha, "source_root": "/a", "path": f"{n}-{sha}", "missing_since": since}
        for n, sha in enumerate(shas)
    ]
    table = pa.Table.from_pylist(rows, schema=MEDIA)
    tables.append("media", table, "test", lambda _, wanted: wanted)


def publish(tables: Tables, model: ModelVersion, key: str = "", **more: Any) -> View:
    views = Views(tables.url)
    now = views.current()
    view = View(
        inference_key=key or model.info.inference_key,
        model_name=model.info.name,
        model_version=model.info.version,
        weights_sha256=model.info.weights_sha256,
        **{"threshold": model.config.thresholds.default, **more},
    )
    return views.publish(view, after=now.serial if now else 0)


def test_images_are_counted_once_and_only_where_they_are(tables: Tables, model: ModelVersion) -> None:
    put_media(tables, "a", "b", "b", "c", "d", "e", "f")
    put_media(tables, "gone", gone=True)
    key, tried = model.info.inference_key, NOW - timedelta(days=3)
    for sha, status, code, at in (
        ("a", "ok", None, NOW),
        ("b", "ok", None, NOW),
        ("c", "failed", "decode", NOW - timedelta(days=9)),
        ("d", "failed", "access", tried),
        ("e", "failed", "model", NOW),
        ("gone", "failed", "access", NOW - timedelta(days=30)),
    ):
        rows = result_rows([sha], key=key, status=status, error_code=code, finished_at=at)
        put_results(tables, rows)
    put_results(tables, result_rows(["f"], key="another"))
    facts = gather(tables, model, NOW)
    assert (facts.images, facts.new_images) == (6, 1)
    assert facts.results == {"ok": 2, "failed": 3}
    assert facts.retryable == 2
    assert facts.retry_since == tried.astimezone().replace(tzinfo=None)
    assert (facts.published, facts.running, facts.taken_back) == (None, None, False)
    assert facts.wanted.inference_key == key


def test_an_archive_of_nothing_has_facts_and_makes_no_table(tables: Tables, model: ModelVersion) -> None:
    facts = gather(tables, model, NOW)
    assert (facts.images, facts.new_images, facts.retry_since) == (0, 0, None)
    assert not Path(tables.url).exists()


def test_the_published_model_is_wanted_unless_another_is_named(
    tables: Tables, store: ModelStore, model: ModelVersion
) -> None:
    view = publish(tables, model)
    assert wanted_version(store, view) == model
    assert wanted_version(store, view, "blobs@1") == wanted_version(store, None, "blobs:production")
    assert wanted_version(store, None) == model, "the only one"
    with pytest.raises(ModelNotFound):
        wanted_version(store, view, "blobs@9")


def test_a_model_to_begin_with_is_named_and_of_several_one_must_be(store: ModelStore, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="to begin with: resight models pull .*ssdlite-coco"):
        wanted_version(ModelStore(str(tmp_path / "none")), None)
    shutil.copytree(tmp_path / "models" / "blobs", tmp_path / "models" / "bees")
    with pytest.raises(BadRequest, match="name a model with --model: bees, blobs"):
        wanted_version(store, None)


def test_models_of_other_kinds_are_no_choice(store: ModelStore, model: ModelVersion, tmp_path: Path) -> None:
    look_store(tmp_path / "models")
    colour_store(tmp_path / "models")
    assert wanted_version(store, None) == model
    shutil.rmtree(tmp_path / "models" / "blobs")
    with pytest.raises(ModelNotFound, match="no detector is in"):
        wanted_version(store, None)


@pytest.mark.parametrize("numerics", [1, NUMERICS_VERSION, NUMERICS_VERSION + 1])
def test_the_same_model_under_other_code_is_recognised(
    tables: Tables, store: ModelStore, model: ModelVersion, numerics: int
) -> None:
    key = inference_key(model.config, model.info.weights_sha256, numerics)
    view = publish(tables, model, key)
    assert gather(tables, model, NOW).published_numerics == numerics
    side = published_side(store, view)
    assert side is not None
    assert (side.numerics, side.inference_key) == (numerics, key)


def test_a_published_version_that_the_store_has_not_is_not_made_up(
    tables: Tables, store: ModelStore, model: ModelVersion
) -> None:
    assert published_side(store, publish(tables, model)) is not None
    assert published_side(store, publish(tables, model, "f" * 64)) is None
    gone = View(inference_key="k", model_name="blobs", model_version="0", weights_sha256="w", serial=1)
    assert published_side(store, gone) is None
    assert gather(tables, model, NOW).published_numerics is None


def test_the_published_side_is_shown_as_it_was_published(
    tables: Tables, store: ModelStore, model: ModelVersion
) -> None:
    view = publish(tables, model, threshold=0.7, label_thresholds={"blob": 0.9}, layers=("low", "top"))
    side = published_side(store, view)
    assert side is not None
    assert side.shown == Thresholds(default=0.7, per_label={"blob": 0.9})
    assert side.layers == ("low", "top")


@pytest.mark.parametrize(
    ("events", "running"),
    [
        ([("r", "running", -299)], "r"),
        ([("r", "running", -301)], None),
        ([("r", "running", -60), ("r", "sealed", -30)], None),
        ([("r", "running", -60), ("r", "failed", -30), ("s", "running", -10)], "s"),
    ],
)
def test_a_run_is_under_way_while_it_writes_and_has_not_ended(
    tables: Tables, events: list[tuple[str, str, int]], running: str | None
) -> None:
    for number, (run, state, seconds) in enumerate(events):
        put_event(tables, run, state, NOW + timedelta(seconds=seconds), event=number)
    put_event(tables, "other", "running", NOW, key="another")
    assert running_run(tables, "k", NOW) == running


def test_a_run_that_was_decided_a_moment_ago_counts_as_well(tables: Tables, model: ModelVersion) -> None:
    facts = gather(tables, model, NOW)
    keep_decision(tables, facts, Decision("full", ("x",)), NOW, acted=True, run_id="r9")
    assert gather(tables, model, NOW + timedelta(minutes=1)).running == "r9"
    put_event(tables, "r9", "sealed", NOW, key=model.info.inference_key)
    assert gather(tables, model, NOW + timedelta(minutes=1)).running is None


def test_a_model_that_was_rolled_back_is_known_until_it_is_published_again(tables: Tables, model: ModelVersion) -> None:
    def taken_back() -> bool:
        return gather(tables, model, NOW).taken_back

    views = Views(tables.url)
    publish(tables, model, "old")
    publish(tables, model)
    assert not taken_back()
    views.rollback(views.history())
    assert taken_back()
    publish(tables, model, "old", layers=("stones",))
    publish(tables, model, "other")
    assert taken_back()
    publish(tables, model)
    assert not taken_back()


def test_a_threshold_that_was_rolled_back_counts_with_its_value(tables: Tables, model: ModelVersion) -> None:
    publish(tables, model, threshold=0.9)
    publish(tables, model, threshold=0.8)
    Views(tables.url).rollback(Views(tables.url).history())
    assert not gather(tables, model, NOW).taken_back
    publish(tables, model)
    Views(tables.url).rollback(Views(tables.url).history())
    assert gather(tables, model, NOW).taken_back
