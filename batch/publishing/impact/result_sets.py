"""Resolve one side of a comparison: the results of one inference key, and the thresholds to show them.

run id | name@version | name of a view --side--> ResultSet. A run takes precedence over a view of the same name;
`published` is never a run.
"""

from __future__ import annotations

from pydantic import Field

from archive.delta.tables import Tables
from archive.views.publications import last_event
from archive.views.run_kinds import in_words
from archive.views.views import NAME, PRODUCTION, View, Views, rollback_target
from model_store.config import ModelConfig
from model_store.errors import BadRequest, ModelError
from model_store.frozen import Frozen
from model_store.names import VersionId, parse_ref
from model_store.store import ModelStore

PUBLISHED = "published"
"""Alias of the view `production`."""
PREVIOUS = "previous"
"""Results that a roll-back of the view `production` would show; a run or a view of this name takes precedence."""


class ResultSet(Frozen):
    """The results of an inference key; `name` is the name in the request. A detection is shown if its score is at
    least the threshold of its label, both as 32-bit floats (`model_store/transform/thresholds.py`).
    """

    name: str
    inference_key: str
    model_name: str = ""
    model_version: str = ""
    threshold: float = 0.0
    label_thresholds: dict[str, float] = Field(default_factory=dict)


NOTHING = ResultSet(name="nothing", inference_key="nothing")
"""The production view before the first publication: no inference key equals this one, so it has no results."""


def side(tables: Tables, models: ModelStore, name: str) -> ResultSet:
    """Resolve a name. Raises BadRequest with the names of views, ModelNotFound, ModelRefused, StorageUnreachable."""
    run = None if name == PUBLISHED else last_event(tables, name)
    if run is not None:
        if run["kind"] != "detect":
            raise BadRequest(f"run {name} is {in_words(run['kind'])}: it has no results that could be compared")
        version = VersionId(run["model_name"], run["model_version"])
        try:
            config = models.describe(version).detector_config
        except ModelError as error:
            raise type(error)(f"cannot read the thresholds of {version} for run {name}: {error}") from error
        return _of_model(name, run["inference_key"], version, config)  # of all results of the key, from any run
    if "@" in name or ":" in name:
        described = models.describe(models.resolve(parse_ref(name)))
        return _of_model(name, described.info.inference_key, described.id, described.detector_config)
    views = Views(tables.url)
    view_name = PRODUCTION if name == PUBLISHED else name
    view = views.current(view_name) if NAME.fullmatch(name) else None
    if view is None and view_name == PRODUCTION:
        return NOTHING
    if view is None and name == PREVIOUS and (history := views.history()):
        return side_of_view(rollback_target(history), name)
    if view is None:
        names = ", ".join(views.names()) or "none"
        raise BadRequest(
            f"'{name}' is not a run, name@version or published view (views: {names}); see 'resight runs list'"
        )
    return side_of_view(view, name)


def side_of_view(view: View, name: str | None = None) -> ResultSet:
    """Return the results of a view's model above the view's thresholds, without its layers."""
    return ResultSet(
        name=name or view.name, **{field: getattr(view, field) for field in ResultSet.model_fields if field != "name"}
    )


def _of_model(name: str, key: str, version: VersionId, config: ModelConfig) -> ResultSet:
    return ResultSet(
        name=name,
        inference_key=key,
        model_name=version.name,
        model_version=version.version,
        threshold=config.thresholds.default,
        label_thresholds=config.thresholds.per_label,
    )
