"""Load a version from the store: verify its files, run its probe, warm it up and choose its batch size."""

from __future__ import annotations

import time
from dataclasses import replace

import structlog

from model_store.deployment import read_deployment
from model_store.errors import ResightError
from model_store.load import Loaded, load_model, warm_up, with_measured_batch
from model_store.names import VersionId
from model_store.store import ModelStore

log = structlog.get_logger("resight.serve")


class Loader:
    """Loads versions, and caches the measured batch size of each set of weights."""

    def __init__(self, store: ModelStore, threads: int) -> None:
        self._store, self._threads = store, threads
        self._measured: dict[tuple[object, ...], int] = {}

    def load(self, version: VersionId, digest: str = "") -> Loaded:
        """Load a version, from files of this digest if one is given. Raises ModelError."""
        started = time.perf_counter()
        model = self.tuned(self._sized(load_model(self._store, version, self._threads, digest)))
        log.info(
            "model_loaded",
            version=str(version),
            device=model.session.device,
            batch=model.batch.max,
            s=round(time.perf_counter() - started, 3),
        )
        return model

    def tuned(self, model: Loaded) -> Loaded:
        """Return the model with the batch of deployment.json, or else with the measured one.

        If the file is damaged, the model is returned unchanged.
        """
        try:
            batch = read_deployment(self._store, model.info.id).batch
        except ResightError as error:
            log.warning("deployment_ignored", version=str(model.info.id), error=str(error))
            return model
        if batch is None:
            size = self._measured[_measurement_key(model)]
            batch = model.config.batch.model_copy(update={"max": size})
        return replace(model, batch=batch)

    def _sized(self, model: Loaded) -> Loaded:
        """Warm up a model and give it the batch size measured on this machine, once for the same weights."""
        key = _measurement_key(model)
        size = self._measured.get(key)
        if size is None:
            model = with_measured_batch(model)
            self._measured[key] = model.batch.max
            return model
        batch = model.config.batch.model_copy(update={"max": size})
        model = replace(model, batch=batch)
        warm_up(model)
        return model


def _measurement_key(model: Loaded) -> tuple[object, ...]:
    """Return the properties that determine the best batch size on one machine."""
    config = model.config
    return model.info.weights_sha256, config.preprocess.input_px, config.batch.max
