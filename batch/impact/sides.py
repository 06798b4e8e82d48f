"""One side of a comparison: results of one inference key, and the scores from which they are shown.

a run id | name@version | a view's name --side--> Side. What is a run is that run, also where a view has its name;
`published` is never one.
"""

from __future__ import annotations

from pydantic import Field

from archive.publications import last_event
from archive.run_kinds import in_words
from archive.tables import Tables
from archive.views import NAME, PRODUCTION, View, Views
from model_store.config import Frozen, ModelConfig
from model_store.errors import BadRequest, ModelError
from model_store.names import VersionId, parse_ref
from model_store.store import ModelStore

PUBLISHED = "published"
"""Another word for the view `production`."""


class Side(Frozen):
    """`name` is what it was asked for by. A detection is shown when score >= its label's threshold, both
    as 32-bit numbers, as in `model_store/shown.py`.
    """

    name: str
    inference_key: str
    model_name: str = ""
    model_version: str = ""
    threshold: float = 0.0
    label_thresholds: dict[str, float] = Field(default_factory=dict)


NOTHING = Side(name="nothing", inference_key="nothing")
"""What is published before anything is, also where it is asked for: no key is that, so it has no results."""


def side(tables: Tables, models: ModelStore, name: str) -> Side:
    """Raises BadRequest that says what there is, ModelNotFound, ModelRefused, StorageUnreachable."""
    found = None if name == PUBLISHED else _of_run(tables, models, name)
    if found is not None:
        return found
    if "@" in name or ":" in name:
        described = models.describe(models.resolve(parse_ref(name)))
        return _of_model(
            name, described.info.inference_key, described.id, described.detector_config
        )
    views = Views(tables.url)
    view_name = PRODUCTION if name == PUBLISHED else name
    view = views.current(view_name) if NAME.fullmatch(name) else None
    if view is None and view_name == PRODUCTION:
        return NOTHING
    if view is None:
        there = ", ".join(views.names()) or "none"
        raise BadRequest(
            f"'{name}' is no run, no name@version and no published view (views: {there}); "
            "see 'resight runs list'"
        )
    return side_of_view(view, name)


def side_of_view(view: View, name: str | None = None) -> Side:
    """What its model said, from its thresholds up. Layers are the same over both sides, and are not compared."""
    return Side(
        name=name or view.name,
        inference_key=view.inference_key,
        model_name=view.model_name,
        model_version=view.model_version,
        threshold=view.threshold,
        label_thresholds=view.label_thresholds,
    )


def _of_run(tables: Tables, models: ModelStore, run_id: str) -> Side | None:
    """A run stands for all results of its inference key, also those it found done. None: no such run."""
    run = last_event(tables, run_id)
    if run is None:
        return None
    if run["kind"] != "detect":
        raise BadRequest(
            f"run {run_id} is {in_words(run['kind'])}: it has no results that could be compared"
        )
    exact = VersionId(run["model_name"], run["model_version"])
    try:
        config = models.describe(exact).detector_config
    except ModelError as error:
        raise type(error)(f"run {run_id} is shown by the thresholds of {exact}: {error}") from error
    return _of_model(run_id, run["inference_key"], exact, config)


def _of_model(name: str, key: str, version: VersionId, config: ModelConfig) -> Side:
    return Side(
        name=name,
        inference_key=key,
        model_name=version.name,
        model_version=version.version,
        threshold=config.thresholds.default,
        label_thresholds=config.thresholds.per_label,
    )
