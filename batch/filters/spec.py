"""Specification of one filter run; everything that determines its result is pinned.

Submitted runs wait as <tables>/filter_runs/<run_id>.json, because lists in them can be long.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from pydantic import Field, ValidationError

from archive.annotations.layers import Layer, layer_id
from archive.views.views import View
from batch.filters.registry import config_of, filter_of
from batch.planning.id_list import keep_ids
from batch.runs.scope import FilterScope
from batch.runs.spec import RUN_ID
from model_store.errors import BadRequest
from model_store.frozen import Frozen
from model_store.storage import Folder
from model_store.store import ModelInfo

MODULE = "batch.filters"
"""Module of the job that executes submitted runs."""


class FilterSpec(Frozen):
    """Specification of one filter run.

    `view` holds the results and the layers over them at the time of the request. `input_layers` are the layers below
    this one. `config` is complete, including defaults.
    """

    run_id: str = Field(pattern=RUN_ID)
    kind: str
    config: dict[str, Any]
    scope: FilterScope
    view: View
    input_layers: tuple[str, ...] = ()
    started_by: str | None = Field(default=None, description="name of who starts the run")

    @property
    def model(self) -> ModelInfo:
        """Return the model of the results for the record of the run; without labels."""
        view = self.view
        return ModelInfo(view.model_name, view.model_version, view.weights_sha256, view.inference_key, ())

    def layer(self) -> Layer:
        """Return the layer that the run writes. Raises BadRequest for an unknown kind or an invalid config."""
        filter_ = filter_of(self.kind)
        config = config_of(self.kind, self.config).model_dump(mode="json")
        digest = layer_id(self.kind, filter_.version, config, self.input_layers)
        return Layer(digest, self.kind, filter_.version, config, self.input_layers, filter_.groups)


def keep_specs(tables_url: str, specs: Sequence[FilterSpec]) -> None:
    """Store specs, with the lists that their scopes name. Raises StorageUnreachable, StorageUnsafe."""
    for spec in specs:
        keep_ids(tables_url, spec.scope.ids)
        with contextlib.suppress(FileExistsError):  # the same spec: ids are unique
            Folder(tables_url).create(_file(spec.run_id), spec.model_dump_json().encode())


def read_spec(tables_url: str, run_id: str) -> FilterSpec:
    """Return a stored spec. Raises BadRequest if the run was not requested, StorageUnreachable."""
    try:
        return FilterSpec.model_validate_json(Folder(tables_url).read(_file(run_id)))
    except (FileNotFoundError, ValidationError) as error:
        raise BadRequest(
            f"{tables_url}/{_file(run_id)} is not a filter run: {error}; start one with resight filters run"
        ) from error


def _file(run_id: str) -> str:
    return f"filter_runs/{run_id}.json"
