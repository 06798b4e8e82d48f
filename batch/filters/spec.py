"""One filter run, as it is stored with it: everything that decides what it will say is pinned."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from archive.layers import Layer, layer_id
from archive.views import View
from batch.filters.registry import config_of, filter_of
from batch.filters.scope import FilterScope
from model_store.store import ModelInfo


class FilterSpec(BaseModel):
    """`view`: whose results, and the layers over them when the run was asked for. `input_layers` are those that its
    detections pass before; `config` is whole, defaults too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    kind: str
    config: dict[str, Any]
    scope: FilterScope
    view: View
    input_layers: tuple[str, ...] = ()
    actors: int = Field(default=0, ge=0, description="processes that judge parts; 0 = cores")

    @property
    def model(self) -> ModelInfo:
        """As far as a record of a run tells of it."""
        view = self.view
        identity = (view.model_name, view.model_version, view.weights_sha256, view.inference_key)
        return ModelInfo(*identity, ())

    def layer(self) -> Layer:
        """Raises BadRequest for a kind or a config that this code does not know."""
        one = filter_of(self.kind)
        config = config_of(self.kind, self.config).model_dump(mode="json")
        digest = layer_id(self.kind, one.version, config, self.input_layers)
        return Layer(digest, self.kind, one.version, config, self.input_layers, one.groups)
