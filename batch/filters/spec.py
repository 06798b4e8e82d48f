"""Specification of one filter run, stored with it; everything that determines its result is pinned."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from archive.annotations.layers import Layer, layer_id
from archive.views.views import View
from batch.filters.registry import config_of, filter_of
from batch.filters.scope import FilterScope
from model_store.frozen import Frozen
from model_store.store import ModelInfo


class FilterSpec(Frozen):
    """Specification of one filter run.

    `view` holds the results and the layers over them at the time of the request. `input_layers` are the layers below
    this one. `config` is complete, including defaults.
    """

    run_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    kind: str
    config: dict[str, Any]
    scope: FilterScope
    view: View
    input_layers: tuple[str, ...] = ()
    actors: int = Field(default=0, ge=0, description="processes that judge parts; 0 = cores")
    started_by: str | None = Field(default=None, description="name of who starts the run")

    @property
    def model(self) -> ModelInfo:
        """Return the model of the results for the record of the run; without labels."""
        view = self.view
        identity = (view.model_name, view.model_version, view.weights_sha256, view.inference_key)
        return ModelInfo(*identity, ())

    def layer(self) -> Layer:
        """Return the layer that the run writes. Raises BadRequest for an unknown kind or an invalid config."""
        filter_ = filter_of(self.kind)
        config = config_of(self.kind, self.config).model_dump(mode="json")
        digest = layer_id(self.kind, filter_.version, config, self.input_layers)
        return Layer(digest, self.kind, filter_.version, config, self.input_layers, filter_.groups)
