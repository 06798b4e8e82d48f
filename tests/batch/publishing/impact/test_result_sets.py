"""What a side of a comparison may be called."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from archive.delta.tables import Tables
from archive.schemas import RUNS
from archive.views.views import View, Views
from batch.publishing.impact.result_sets import NOTHING, ResultSet, side
from model_store.errors import BadRequest, ModelError
from model_store.store import ModelStore
from tests.fixtures_local import motion_store

RUN = "20260514T031500-9f2c1a"


@pytest.fixture
def models(tmp_path: Path) -> ModelStore:
    return motion_store(tmp_path / "models", "1", "2")


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path / "tables"))


def ran(tables: Tables, run_id: str, version: str, key: str = "then") -> None:
    row = {"run_id": run_id, "inference_key": key, "model_name": "blobs", "model_version": version}
    rows = [row | {"event": event, "state": state} for event, state in enumerate(("running", "sealed"))]
    table = pa.Table.from_pylist(rows, schema=RUNS)
    tables.append("runs", table, "test", lambda _, wanted: wanted)


def published(tables: Tables, name: str = "production") -> View:
    view = View(
        name=name,
        inference_key="published key",
        model_name="blobs",
        model_version="1",
        weights_sha256="w",
        threshold=0.4,
        label_thresholds={"blob": 0.6},
    )
    return Views(tables.url).publish(view, after=0)


def test_a_version_is_its_key_and_its_own_thresholds(tables: Tables, models: ModelStore) -> None:
    found = side(tables, models, "blobs@2")
    described = models.describe(models.versions("blobs")[1])
    assert found == ResultSet(
        name="blobs@2",
        inference_key=described.info.inference_key,
        model_name="blobs",
        model_version="2",
        threshold=described.config.thresholds.default,
    )
    assert side(tables, models, "blobs:production").model_version == "1"


def test_a_run_is_the_key_it_had_then(tables: Tables, models: ModelStore) -> None:
    """Which may be another than the version's now: a numerics version was raised since."""
    ran(tables, RUN, "2")
    found = side(tables, models, RUN)
    assert (found.inference_key, found.model_version, found.threshold) == ("then", "2", 0.25)


def test_a_run_comes_before_a_view_of_its_name_except_published(tables: Tables, models: ModelStore) -> None:
    published(tables)
    ran(tables, "production", "2")
    ran(tables, "published", "2")
    assert side(tables, models, "production").inference_key == "then"
    assert side(tables, models, "published").inference_key == "published key"


@pytest.mark.parametrize("name", ["published", "production"])
def test_a_view_is_its_key_and_its_thresholds(name: str, tables: Tables, models: ModelStore) -> None:
    published(tables)
    found = side(tables, models, name)
    assert (found.inference_key, found.threshold) == ("published key", 0.4)
    assert (found.name, found.label_thresholds) == (name, {"blob": 0.6})


def test_views_have_names(tables: Tables, models: ModelStore) -> None:
    published(tables, "moths")
    assert side(tables, models, "moths").name == "moths"
    with pytest.raises(BadRequest, match=r"views: moths"):
        side(tables, models, "moth")


@pytest.mark.parametrize("name", ["published", "production"])
def test_while_nothing_is_published_that_is_a_side_too(name: str, tables: Tables, models: ModelStore) -> None:
    assert side(tables, models, name) == NOTHING


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("20260101T000000-ffffff", BadRequest, "'20260101T000000-ffffff' is not a run, name@"),
        ("blobs@9", ModelError, "unknown version blobs@9"),
        ("../../x", BadRequest, "is not a run, name@version or published view"),
        ("nobody", BadRequest, "or published view .views: none."),
        ("previous", BadRequest, "or published view .views: none."),
    ],
)
def test_what_is_no_side_says_what_there_is(
    name: str, error: type[Exception], message: str, tables: Tables, models: ModelStore
) -> None:
    with pytest.raises(error, match=message):
        side(tables, models, name)


def test_a_run_whose_model_is_away_says_so(tables: Tables, models: ModelStore) -> None:
    ran(tables, RUN, "9")
    with pytest.raises(ModelError, match=f"cannot read the thresholds of blobs@9 for run {RUN}"):
        side(tables, models, RUN)
